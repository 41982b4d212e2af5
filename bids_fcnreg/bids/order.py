"""Order of participants, sessions and runs: numbers as numbers, sessions by time."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from bids_fcnreg.bids.session_labels import label_time
from bids_fcnreg.errors import InputError

if TYPE_CHECKING:
    from bids_fcnreg.bids.scan import Scan

#: Option that names the reference session.
REFERENCE_OPTION = "--reference-session"


def natural_key(text: object) -> tuple[object, ...]:
    """Key that sorts text with its numbers as numbers, regardless of case.

    Examples
    --------
    >>> sorted(["sub-10", "sub-9", "sub-9_ses-2"], key=natural_key)
    ['sub-9', 'sub-9_ses-2', 'sub-10']
    """
    text = str(text)
    # Words at even places, numbers at odd ones; the end of a label sorts before its continuation.
    parts = re.split("([0-9]+)", re.sub(r"[_/.]", "\0", text.lower()))
    return tuple(int(part) if n % 2 else part for n, part in enumerate(parts)), text


@dataclass(frozen=True)
class ReferenceSession:
    """The session to which the others of a participant are compared.

    Attributes
    ----------
    session : str or None
        Label without ``ses-``; None if it is the one without a label, or there is none.
    reason : str
        Why it is this one.
    certain : bool
        Whether that is sure to be the first, or was asked for.
    missing : bool
        Whether the session that was asked for is not there.
    """

    session: str | None
    reason: str
    certain: bool = True
    missing: bool = False

    @property
    def description(self) -> str:
        """Which it is, and why."""
        if self.missing:
            return f"none ({self.reason})"
        session = f"ses-{self.session}" if self.session else "the session without a label"
        return f"{session} ({self.reason})"


def order_sessions(bids_dir: Path, scans: Iterable[Scan]) -> list[Scan]:
    """Sort the scans of one participant by time.

    By ``acq_time`` of sessions.tsv or else of the scans.tsv files if it tells all sessions apart,
    else by the labels, as far as these tell; a scan without a session comes first.
    """
    ordered = sorted(scans, key=_by_label)
    if len(ordered) < 2:
        return ordered
    _, times = _complete(_acquisition_times(bids_dir, ordered), len(ordered))
    return sorted(ordered, key=lambda scan: times[scan.session]) if times else ordered


def choose_reference(
    bids_dir: Path, scans: Sequence[Scan], wanted: str | None = None
) -> ReferenceSession:
    """Choose the session that others are compared to, and say why.

    Parameters
    ----------
    bids_dir : Path
        The dataset.
    scans : sequence of Scan
        Sessions of one participant.
    wanted : str, optional
        Label of the session to take.
    """
    if wanted is not None:
        if any(scan.session == wanted for scan in scans):
            return ReferenceSession(wanted, f"chosen with {REFERENCE_OPTION}")
        return ReferenceSession(
            None,
            f"ses-{wanted}, chosen with {REFERENCE_OPTION}, is missing",
            certain=False,
            missing=True,
        )
    dates = _acquisition_times(bids_dir, scans)
    source, times = _complete(dates, len(scans))
    by_label = _certainly_first(scans)
    first = order_sessions(bids_dir, scans)[0].session
    if times:
        reason = f"earliest acq_time in {source}"
        if by_label is None or by_label.session == first:
            return ReferenceSession(first, reason)
        reason += f", although the labels suggest ses-{by_label.session}"
        return ReferenceSession(first, reason, certain=False)
    if by_label is None:
        return ReferenceSession(
            first,
            "first in alphabetical order; neither acq_time nor the labels tell which was first",
            certain=False,
        )
    for source, times in dates.items():
        if first in times and min(times.values()) < times[first]:
            reason = f"first by session label, although acq_time in {source} suggests another"
            return ReferenceSession(first, reason, certain=False)
    return ReferenceSession(first, "first by session label")


def _by_label(scan: Scan) -> tuple[object, ...]:
    """Key that sorts sessions by their labels."""
    if scan.session is None:
        return (False,)
    return True, label_time(scan.session).sort_key, natural_key(scan.session)


def _certainly_first(scans: Sequence[Scan]) -> Scan | None:
    """The session that was before all others as far as labels tell, if there is one."""
    labels = [scan.session for scan in scans if scan.session is not None]
    if len(labels) < len(scans):
        return None
    times = [label_time(label) for label in labels]
    for scan, time in zip(scans, times, strict=True):
        if all(other is time or time.precedes(other) for other in times):
            return scan
    return None


def _acquisition_times(
    bids_dir: Path, scans: Sequence[Scan]
) -> dict[str, dict[str | None, datetime]]:
    """Times of the sessions that have one, by the name of the table that says so."""
    if not scans:
        return {}
    folder = Path(bids_dir) / f"sub-{scans[0].participant}"
    table = folder / f"{folder.name}_sessions.tsv"
    rows = [(row.get("session_id", ""), row.get("acq_time", "")) for row in _rows(table)]
    found: dict[str, dict[str | None, datetime]] = {"sessions.tsv": {}, "scans.tsv": {}}
    for scan in scans:
        of_session = _earliest(time for name, time in rows if _is_of(name, scan.session))
        for source, time in (
            ("sessions.tsv", of_session),
            ("scans.tsv", _scan_time(folder, scan)),
        ):
            if time is not None:
                found[source][scan.session] = time
    return found


def _complete(
    dates: Mapping[str, dict[str | None, datetime]], number: int
) -> tuple[str, dict[str | None, datetime]]:
    """The first table that dates all of a number of sessions, each differently."""
    for source, times in dates.items():
        if len(set(times.values())) == number > 0:
            return source, times
    return "", {}


def _is_of(session_id: str, session: str | None) -> bool:
    return session is not None and session_id.removeprefix("ses-") == session


def _scan_time(folder: Path, scan: Scan) -> datetime | None:
    """Time of the first of a scan's images that scans.tsv dates."""
    own_folder = folder.parent.joinpath(*scan.label.split("_"))
    places = {folder / f"{folder.name}_scans.tsv", own_folder / f"{scan.label}_scans.tsv"}
    names = {path.name for path in scan.t1w}
    return _earliest(
        row.get("acq_time", "")
        for table in places
        for row in _rows(table)
        if Path(row.get("filename", "")).name in names
    )


def _rows(table: Path) -> list[dict[str, str]]:
    """Rows of a table; none if it is not there or cannot be read."""
    from bids_fcnreg.bids.derivatives import read_tsv

    try:
        return read_tsv(table) if table.is_file() else []
    except InputError:
        return []


def _earliest(times: Iterable[str]) -> datetime | None:
    """The first of times in ISO 8601, without those that are no date."""
    return min(filter(None, map(_time, times)), default=None)


def _time(text: str) -> datetime | None:
    """A date, or a date and a time, in ISO 8601; local time is taken for UTC."""
    try:
        time = datetime.fromisoformat(text.strip())
        return time.astimezone(UTC) if time.tzinfo else time.replace(tzinfo=UTC)
    except (ValueError, OverflowError):
        return None
