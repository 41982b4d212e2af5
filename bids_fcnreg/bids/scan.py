"""A scan: the reference images and lesion masks of one participant in one session."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from bids_fcnreg.atomic import checksum
from bids_fcnreg.config import OTHER_CONTRASTS


def scan_label(participant: str, session: str | None) -> str:
    """Return ``sub-01`` or ``sub-01_ses-x``, from labels without prefixes."""
    return f"sub-{participant}" + (f"_ses-{session}" if session else "")


@dataclass(frozen=True)
class Scan:
    """Reference images of one participant in one session, whose runs are averaged.

    Attributes
    ----------
    participant : str
        Label without ``sub-``.
    session : str or None
        Label without ``ses-``.
    images : tuple of Path
        Runs to average, sorted; empty if there is no usable image.
    lesions : tuple of Path
        Lesion masks.
    problem : str
        Why no image is usable, if there are unusable ones.
    """

    participant: str
    session: str | None
    images: tuple[Path, ...]
    lesions: tuple[Path, ...] = ()
    problem: str = ""

    @property
    def label(self) -> str:
        """``sub-01`` or ``sub-01_ses-x``."""
        return scan_label(self.participant, self.session)

    @property
    def suffix(self) -> str:
        """BIDS suffix in the names of its results: ``T1w`` also for images of its contrast."""
        name = self.images[0].name if self.images else ""
        suffix = name.partition(".")[0].rpartition("_")[2]
        return suffix if suffix in OTHER_CONTRASTS else "T1w"

    @property
    def is_t1w(self) -> bool:
        """Whether the images have the contrast of T1w images."""
        return self.suffix == "T1w"

    @property
    def sources(self) -> dict[str, str]:
        """SHA-256 of each existing file, by path."""
        files = (path for path in (*self.images, *self.lesions) if path.is_file())
        return {str(path): checksum(path) for path in files}
