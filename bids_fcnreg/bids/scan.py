"""A scan: the T1w images and lesion masks of one participant in one session."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from bids_fcnreg.atomic import checksum


def scan_label(participant: str, session: str | None) -> str:
    """``sub-01`` or ``sub-01_ses-x``, from labels without their prefixes."""
    return f"sub-{participant}" + (f"_ses-{session}" if session else "")


@dataclass(frozen=True)
class Scan:
    """T1w images that make one anatomy: the runs of one participant in one session.

    Attributes
    ----------
    participant : str
        Label without ``sub-``.
    session : str or None
        Label without ``ses-``.
    t1w : tuple of Path
        The runs that are averaged, in the order of their names; empty if there is none.
    lesions : tuple of Path
        Lesion masks beside them.
    problem : str
        Why it has no T1w image, if there are images that cannot be used.
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
        """SHA-256 of each of its files that is there, by path."""
        files = (path for path in (*self.t1w, *self.lesions) if path.is_file())
        return {str(path): checksum(path) for path in files}
