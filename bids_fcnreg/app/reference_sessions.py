"""Report the reference session of each participant before the run."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console

from bids_fcnreg.bids.filters import abbreviated_list
from bids_fcnreg.bids.order import (
    REFERENCE_OPTION,
    ReferenceSession,
    choose_reference,
    natural_key,
)
from bids_fcnreg.bids.scan import Scan
from bids_fcnreg.config import UNBIASED_OPTION, Config
from bids_fcnreg.errors import InputError
from bids_fcnreg.workflows.base import group_scans

#: Maximum number of participants in a message.
_MAX_NAMED = 10


def report_reference_sessions(config: Config, scans: Sequence[Scan], console: Console) -> None:
    """Print the reference session of participants with several sessions; warn of doubtful ones.

    Raises
    ------
    InputError
        If the chosen reference session does not exist, or sessions are not registered to each
        other.
    """
    if not config.longitudinal:
        if config.reference_session is not None:
            raise InputError(f"{REFERENCE_OPTION} requires {UNBIASED_OPTION}. Add that option.")
        return
    wanted = config.reference_session
    known = {scan.session for scan in scans if scan.session}
    if wanted is not None and wanted not in known:
        if not known:
            raise InputError(f"{REFERENCE_OPTION}: the data have no sessions. Omit the option.")
        raise InputError(
            f"{REFERENCE_OPTION}: there is no session {wanted!r}. Choose from "
            f"{', '.join(sorted(known, key=natural_key))}."
        )
    found: dict[ReferenceSession, list[str]] = {}
    for theirs in group_scans(config, scans):
        if len(theirs) > 1:
            reference = choose_reference(config.bids_dir, theirs, wanted)
            found.setdefault(reference, []).append(f"sub-{theirs[0].participant}")
    for reference, people in found.items():
        console.print(_message(reference, people), soft_wrap=True, markup=False)


def _message(reference: ReferenceSession, people: Sequence[str]) -> str:
    """Return the message about participants with the same reference session."""
    start = f"{abbreviated_list(people, _MAX_NAMED)}: changes"
    if reference.missing:
        return f"warning: {start} are not computed; {reference.reason}"
    if reference.certain:
        return f"{start} are relative to {reference.description}"
    return (
        f"warning: {start} are relative to {reference.description}. If that is wrong, set "
        f"{REFERENCE_OPTION}, or acq_time in sessions.tsv"
    )
