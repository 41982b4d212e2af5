"""Natural order of labels, temporal order of sessions, and the reference session."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from bids_fcnreg.bids.derivatives import read_tsv
from bids_fcnreg.bids.scan import Scan, session_title
from bids_fcnreg.bids.session_labels import label_time
from bids_fcnreg.errors import InputError

#: Option for the reference session.
REFERENCE_OPTION = "--reference-session"


def natural_key(text: object) -> tuple[object, ...]:
    """Return a key that sorts text with its numbers as numbers, regardless of case.

    Examples
    --------
    >>> sorted(["sub-10", "sub-9", "sub-9_ses-2"], key=natural_key)
    ['sub-9', 'sub-9_ses-2', 'sub-10']
    """
    text = str(text)
    # Text at even indices, numbers at odd ones; the end of a label sorts before its continuation.
    parts = re.split("([0-9]+)", re.sub(r"[_/.]", "\0", text.lower()))
    return tuple(int(part) if n % 2 else part for n, part in enumerate(parts)), text


@dataclass(frozen=True)
class ReferenceSession:
    """The session to which the other sessions of a participant are compared.

    Attributes
    ----------
    session : str or None
        Label without ``ses-``; None for the session without a label, or if it is missing.
    reason : str
        Why it was chosen.
    certain : bool
        Whether it is certainly the first session, or was chosen by the user.
    missing : bool
        Whether the session chosen by the user does not exist.
    """

    session: str | None
    reason: str
    certain: bool = True
    missing: bool = False

    @property
    def description(self) -> str:
        """Label of the session and the reason of the choice."""
        if self.missing:
            return f"none ({self.reason})"
        return f"{session_title(self.session)} ({self.reason})"


def order_sessions(bids_dir: Path, scans: Iterable[Scan]) -> list[Scan]:
    """Sort the scans of one participant by time.

    They are sorted by ``acq_time`` in sessions.tsv, or else in the scans.tsv files, if it is known
    and different for all sessions; otherwise by their labels. A scan without a session comes
    first.
    """
    ordered = sorted(scans, key=_by_label)
    if len(ordered) < 2:
        return ordered
    _, times = _complete(_acquisition_times(bids_dir, ordered), len(ordered))
    return sorted(ordered, key=lambda scan: times[scan.session]) if times else ordered


def choose_reference(
    bids_dir: Path, scans: Sequence[Scan], wanted: str | None = None
) -> ReferenceSession:
    """Choose the reference session.

    Parameters
    ----------
    bids_dir : Path
        Root of the dataset.
    scans : sequence of Scan
        Sessions of one participant.
    wanted : str, optional
        Label of the session chosen by the user.
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
            "first in alphabetical order; neither acq_time nor the labels give the temporal order",
            certain=False,
        )
    for source, times in dates.items():
        if first in times and min(times.values()) < times[first]:
            reason = f"first by session label, although acq_time in {source} suggests another"
            return ReferenceSession(first, reason, certain=False)
    return ReferenceSession(first, "first by session label")


def _by_label(scan: Scan) -> tuple[object, ...]:
    """Return a key that sorts sessions by their labels."""
    if scan.session is None:
        return (False,)
    return True, label_time(scan.session).sort_key, natural_key(scan.session)


def _certainly_first(scans: Sequence[Scan]) -> Scan | None:
    """Return the session that is certainly the first according to its label, if any."""
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
    """Read the times of sessions, by the name of the table."""
    if not scans:
        return {}
    directory = Path(bids_dir) / f"sub-{scans[0].participant}"
    table = directory / f"{directory.name}_sessions.tsv"
    rows = [(row.get("session_id", ""), row.get("acq_time", "")) for row in _rows(table)]
    found: dict[str, dict[str | None, datetime]] = {"sessions.tsv": {}, "scans.tsv": {}}
    for scan in scans:
        of_session = _earliest(time for name, time in rows if _is_of(name, scan.session))
        for source, time in (
            ("sessions.tsv", of_session),
            ("scans.tsv", _scan_time(directory, scan)),
        ):
            if time is not None:
                found[source][scan.session] = time
    return found


def _complete(
    dates: Mapping[str, dict[str | None, datetime]], number: int
) -> tuple[str, dict[str | None, datetime]]:
    """Return the first table with different times for all of a number of sessions."""
    for source, times in dates.items():
        if len(set(times.values())) == number > 0:
            return source, times
    return "", {}


def _is_of(session_id: str, session: str | None) -> bool:
    return session is not None and session_id.removeprefix("ses-") == session


def _scan_time(directory: Path, scan: Scan) -> datetime | None:
    """Return the earliest time of the images of a scan in scans.tsv."""
    own_directory = directory.parent.joinpath(*scan.label.split("_"))
    tables = {directory / f"{directory.name}_scans.tsv", own_directory / f"{scan.label}_scans.tsv"}
    names = {path.name for path in scan.images}
    return _earliest(
        row.get("acq_time", "")
        for table in tables
        for row in _rows(table)
        if Path(row.get("filename", "")).name in names
    )


def _rows(table: Path) -> list[dict[str, str]]:
    """Read the rows of a table; none if it does not exist or cannot be read."""
    try:
        return read_tsv(table) if table.is_file() else []
    except InputError:
        return []


def _earliest(times: Iterable[str]) -> datetime | None:
    """Return the earliest of times in ISO 8601, ignoring invalid ones."""
    return min(filter(None, map(_time, times)), default=None)


def _time(text: str) -> datetime | None:
    """Parse a date, or a date and time, in ISO 8601; local time is treated as UTC."""
    try:
        time = datetime.fromisoformat(text.strip())
        return time.astimezone(UTC) if time.tzinfo else time.replace(tzinfo=UTC)
    except (ValueError, OverflowError):
        return None
