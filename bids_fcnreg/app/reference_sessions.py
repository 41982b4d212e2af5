"""Which session the changes of each participant are relative to, reported before the run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from bids_fcnreg.bids.order import REFERENCE_OPTION
from bids_fcnreg.errors import InputError

if TYPE_CHECKING:
    from rich.console import Console

    from bids_fcnreg.bids.order import ReferenceSession
    from bids_fcnreg.bids.scan import Scan
    from bids_fcnreg.config import Config

#: Labels of participants that a message names at most.
_NAMED = 10


def report_reference_sessions(config: Config, scans: Sequence[Scan], console: Console) -> None:
    """Print the reference session of all participants with several, and warn of doubtful ones.

    Raises
    ------
    InputError
        If a reference session was chosen that no participant has, or that is not used.
    """
    from bids_fcnreg.bids.order import choose_reference, natural_key
    from bids_fcnreg.workflows.base import grouped

    if not config.longitudinal:
        if config.reference_session is not None:
            raise InputError(
                f"{REFERENCE_OPTION} is used with --longitudinal only: add that option."
            )
        return
    wanted = config.reference_session
    known = {scan.session for scan in scans if scan.session}
    if wanted is not None and wanted not in known:
        raise InputError(
            f"{REFERENCE_OPTION}: no session {wanted!r} is processed; choose from "
            f"{', '.join(sorted(known, key=natural_key)) or 'none'}."
        )
    found: dict[ReferenceSession, list[str]] = {}
    for theirs in grouped(config, scans):
        if len(theirs) > 1:
            reference = choose_reference(config.bids_dir, theirs, wanted)
            found.setdefault(reference, []).append(f"sub-{theirs[0].participant}")
    for reference, people in found.items():
        console.print(_sentence(reference, people), soft_wrap=True, markup=False)


def _sentence(reference: ReferenceSession, people: Sequence[str]) -> str:
    """What is said of participants with the same reference session."""
    more = f" and {len(people) - _NAMED} more" if len(people) > _NAMED else ""
    start = f"{', '.join(people[:_NAMED])}{more}: changes"
    if reference.missing:
        return f"warning: {start} are not computed; {reference.reason}"
    if reference.certain:
        return f"{start} are relative to {reference.description}"
    return (
        f"warning: {start} are relative to {reference.description}; if that is wrong, set "
        f"{REFERENCE_OPTION} or acq_time in sessions.tsv"
    )
