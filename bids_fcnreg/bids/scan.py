"""A scan: the T1w images and lesion masks of one participant in one session."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from bids_fcnreg.atomic import checksum


def scan_label(participant: str, session: str | None) -> str:
    """Return ``sub-01`` or ``sub-01_ses-x``, from labels without prefixes."""
    return f"sub-{participant}" + (f"_ses-{session}" if session else "")


@dataclass(frozen=True)
class Scan:
    """T1w images of one participant in one session, whose runs are averaged.

    Attributes
    ----------
    participant : str
        Label without ``sub-``.
    session : str or None
        Label without ``ses-``.
    t1w : tuple of Path
        Runs to average, sorted; empty if there is no T1w image.
    lesions : tuple of Path
        Lesion masks.
    problem : str
        Why no T1w image is usable, if there are unusable ones.
    """

    participant: str
    session: str | None
    t1w: tuple[Path, ...]
    lesions: tuple[Path, ...] = ()
    problem: str = ""

    @property
    def label(self) -> str:
        """``sub-01`` or ``sub-01_ses-x``."""
        return scan_label(self.participant, self.session)

    @property
    def sources(self) -> dict[str, str]:
        """SHA-256 of each existing file, by path."""
        files = (path for path in (*self.t1w, *self.lesions) if path.is_file())
        return {str(path): checksum(path) for path in files}
