"""Read participants.tsv, with values per participant or per session."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from bids_fcnreg.bids.derivatives import read_tsv
from bids_fcnreg.bids.filters import abbreviated_list
from bids_fcnreg.bids.order import natural_key
from bids_fcnreg.errors import InputError

#: Maximum number of participants in a warning.
_MAX_NAMED = 5

_EMPTY = ("", "n/a")


@dataclass(frozen=True)
class Participants:
    """Values of participants.tsv.

    Attributes
    ----------
    columns : tuple of str
        Names of the columns, without participant_id and session_id.
    rows : dict of (str, str or None) to dict of str to str
        Values by column, by the labels of participant and session (None for any session).
    conflicting : frozenset of (str, str or None)
        Labels of participant and session whose rows conflict; they have no values.
    doubts : tuple of str
        Warnings about the table.
    """

    columns: tuple[str, ...] = ()
    rows: dict[tuple[str, str | None], dict[str, str]] = field(default_factory=dict)
    conflicting: frozenset[tuple[str, str | None]] = frozenset()
    doubts: tuple[str, ...] = ()

    def find(self, participant: str, session: str | None = None) -> dict[str, str]:
        """Return the values of a scan by column; n/a for missing values."""
        keys = [(participant, session), (participant, None)]
        if session is None:  # the only row of a participant whose directory has no sessions
            theirs = [key for key in self.rows if key[0] == participant]
            keys += theirs if len(theirs) == 1 else []
        found = next((self.rows[key] for key in keys if key in self.rows), {})
        return {column: found.get(column, "n/a") for column in self.columns}


def read_participants(bids_dir: Path) -> Participants:
    """Read participants.tsv, with a row per participant or, with session_id, per session.

    Conflicting rows of the same participant (and session) are not used.

    Raises
    ------
    InputError
        If it exists but is not a table with the column participant_id.
    """
    path = Path(bids_dir) / "participants.tsv"
    rows = read_tsv(path) if path.exists() else []
    if not rows:
        return Participants()
    if "participant_id" not in rows[0]:
        raise InputError(f"{path} has no column participant_id. Repair its first line.")
    by_session = "session_id" in rows[0]
    columns = tuple(name for name in rows[0] if name not in ("participant_id", "session_id"))
    found: dict[tuple[str, str | None], dict[str, str]] = {}
    conflicting: dict[tuple[str, str | None], None] = {}
    for row in rows:
        label = row["participant_id"].removeprefix("sub-")
        if label in _EMPTY:
            continue
        session = row.get("session_id", "").removeprefix("ses-")
        key = label, None if session in _EMPTY else session
        values = {column: row[column] or "n/a" for column in columns}
        if found.setdefault(key, values) != values:
            conflicting[key] = None
    for key in conflicting:
        del found[key]
    labels = {label for label, _ in [*found, *conflicting]}
    doubts = [*_report_conflicts(path, conflicting, by_session), *_compare(path, labels)]
    return Participants(columns, found, frozenset(conflicting), tuple(doubts))


def _report_conflicts(
    path: Path, conflicting: Iterable[tuple[str, str | None]], by_session: bool
) -> Iterable[str]:
    """Yield a warning about conflicting rows."""
    names = [f"sub-{one}" + (f" ses-{session}" if session else "") for one, session in conflicting]
    if names:
        advice = "Keep one of them"
        if not by_session:
            advice += ", or add a column session_id"
        yield (
            f"{path} has conflicting rows for {abbreviated_list(names, _MAX_NAMED)}, which are "
            f"not used. {advice}"
        )


def _compare(path: Path, labels: set[str]) -> Iterable[str]:
    """Yield warnings about rows without a directory and directories without a row."""
    directories = {one.name[4:] for one in path.parent.glob("sub-*") if one.is_dir()}
    without_directory = sorted(labels - directories, key=natural_key)
    without = sorted(directories - labels)
    if without_directory:
        hints = [_with_hint(label, without) for label in without_directory]
        yield (
            f"{path} lists participants without a directory: "
            f"{abbreviated_list(hints, _MAX_NAMED)}. Write the labels as in the names of the "
            "directories"
        )
    if without:
        names = [f"sub-{label}" for label in sorted(without, key=natural_key)]
        yield f"{path} has no row for {abbreviated_list(names, _MAX_NAMED)}"


def _with_hint(label: str, directories: Sequence[str]) -> str:
    """Return a label with the directory that it may refer to."""
    meant = [one for one in directories if _plain(one) == _plain(label)]
    return f"{label} (sub-{meant[0]}?)" if len(meant) == 1 else label


def _plain(label: str) -> str:
    """Normalize a label: remove case, prefix, separators and leading zeros."""
    letters = "".join(one for one in label.lower() if one.isalnum())
    return letters.removeprefix("sub").lstrip("0") or "0"
