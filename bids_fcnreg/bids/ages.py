"""Ages from participants.tsv and sessions.tsv, with the units in their sidecars."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

from bids_fcnreg.atomic import read_text
from bids_fcnreg.bids.derivatives import read_tsv
from bids_fcnreg.bids.participants import Participants
from bids_fcnreg.bids.scan import Scan
from bids_fcnreg.errors import InputError

#: Days in each unit: a year of 365.25 days and 12 months.
DAYS = {
    "year": Fraction(1461, 4),
    "month": Fraction(1461, 48),
    "week": Fraction(7),
    "day": Fraction(1),
}
_ABBREVIATIONS = {"y": "year", "yr": "year", "mo": "month", "w": "week", "wk": "week", "d": "day"}
_NUMBER = re.compile(r"\d+(\.\d*)?|\.\d+")
#: Age in years from which BIDS allows (in old versions: recommends) ``89+``.
_CAPPED = "89+"
_MISSING = ("", "n/a")
_FROM_CONCEPTION = re.compile(r"(?i:gestation|menstrual|conception)|\bPMA\b|\bPCA\b")


@dataclass(frozen=True)
class Age:
    """Age of a participant at a scan.

    Attributes
    ----------
    days : Fraction
        Days since birth.
    step : Fraction
        Days in the unit of the table if the age is a whole number of it, otherwise 0. An age of 2
        years may be the age of a child of almost 3.
    text : str
        Age with its unit, for messages.
    table : Path
        Table with the age.
    of_session : bool
        Whether the table gives the age at this session.
    """

    days: Fraction
    step: Fraction
    text: str
    table: Path
    of_session: bool


def find_age(bids_dir: Path, scan: Scan, participants: Participants) -> Age:
    """Find the age of a participant at a scan.

    The column ``age`` of ``sub-<label>_sessions.tsv`` precedes that of ``participants.tsv``.

    Parameters
    ----------
    bids_dir : Path
        Root of the dataset.
    scan : Scan
        The scan.
    participants : Participants
        Values of ``participants.tsv``.

    Raises
    ------
    InputError
        If there is no age, or it or its unit cannot be interpreted.
    """
    table = Path(bids_dir) / "participants.tsv"
    sessions = Path(bids_dir, f"sub-{scan.participant}", f"sub-{scan.participant}_sessions.tsv")
    text = _age_at_session(sessions, scan)
    if text not in _MISSING:
        return _parse(text, _unit_of_sessions(sessions, table), sessions, of_session=True)
    text = participants.find(scan.participant, scan.first_session).get("age", "n/a")
    if text in _MISSING:
        raise InputError(_why_missing(scan, participants, table, sessions))
    of_session = (scan.participant, scan.first_session) in participants.rows
    return _parse(text, _unit(table.with_suffix(".json")) or "year", table, of_session)


def _why_missing(scan: Scan, participants: Participants, table: Path, sessions: Path) -> str:
    """Return why there is no age of a participant at a scan."""
    person = scan.participant
    if {(person, scan.first_session), (person, None)} & participants.conflicting:
        return f"{table} has conflicting rows for sub-{person}"
    if sessions.is_file():
        return f"Neither {sessions} nor {table} has an age in a column age"
    if not table.is_file():
        return f"{table} does not exist"
    return f"{table} has no age in a column age"


def parse_unit(text: str) -> str | None:
    """Return ``year``, ``month``, ``week`` or ``day`` for a unit; None for another unit.

    Examples
    --------
    >>> [parse_unit(text) for text in ("Years", "yr", "mo", "gestational weeks")]
    ['year', 'year', 'month', None]
    """
    unit = text.strip().lower()
    unit = unit if unit in _ABBREVIATIONS else unit.removesuffix("s")
    unit = _ABBREVIATIONS.get(unit, unit)
    return unit if unit in DAYS else None


def plural(number: str, unit: str) -> str:
    """Return a number with its unit in singular or plural."""
    return f"{number} {unit}{'' if number == '1' else 's'}"


def _age_at_session(table: Path, scan: Scan) -> str:
    """Return the age in sessions.tsv; n/a if it has none.

    Raises
    ------
    InputError
        If it has different ages for the session.
    """
    if scan.first_session is None or not table.is_file():
        return "n/a"
    found = {
        row.get("age", "n/a")
        for row in read_tsv(table)
        if row.get("session_id", "").removeprefix("ses-") == scan.first_session
    } - set(_MISSING)
    if len(found) > 1:
        raise InputError(f"{table} has different ages for ses-{scan.first_session}")
    return next(iter(found), "n/a")


def _parse(text: str, unit: str, table: Path, of_session: bool) -> Age:
    """Return an age from the cell of a table."""
    number = text.removesuffix("+") if text == _CAPPED and unit == "year" else text
    if not _NUMBER.fullmatch(number):
        raise InputError(f"{table} has the age {text!r}, which is not a number of 0 or more")
    value = Fraction(number)
    return Age(
        days=value * DAYS[unit],
        step=DAYS[unit] if value.denominator == 1 else Fraction(0),
        text=plural(text, unit),
        table=table,
        of_session=of_session,
    )


def _unit_of_sessions(sessions: Path, participants: Path) -> str:
    """Return the unit of ages in sessions.tsv, whose sidecar may be that of all participants.

    Raises
    ------
    InputError
        If the unit is unknown or doubtful.
    """
    common = participants.with_name("sessions.json")
    unit = _unit(sessions.with_suffix(".json")) or _unit(common)
    other = None if unit else _unit(participants.with_suffix(".json"))
    if other not in (None, "year"):
        raise InputError(
            f"Ages in {sessions} would be in years without Units in {common}, but those in "
            f"{participants} are in {other}s"
        )
    return unit or "year"


def _unit(sidecar: Path) -> str | None:
    """Return the unit of ages in the sidecar of a table, which need not exist; None if omitted.

    Raises
    ------
    InputError
        If the unit is unknown or doubtful.
    """
    age = _describe_age(sidecar)
    about = " ".join(str(age.get(key, "")) for key in ("LongName", "Description"))
    given = next((value for key, value in age.items() if key.lower() in ("units", "unit")), None)
    if _FROM_CONCEPTION.search(f"{about} {given}"):
        raise InputError(f"{sidecar} describes ages that are not counted from birth")
    if given is not None:
        unit = parse_unit(given) if isinstance(given, str) else None
        if unit is None:
            raise InputError(
                f"{sidecar} has the unknown unit {given!r} of age (known: {', '.join(DAYS)})"
            )
        return unit
    named = re.search(r"\b(months|weeks|days)\b", about, re.IGNORECASE)
    if named and "year" not in about.lower():
        raise InputError(
            f"Ages would be in years without Units in {sidecar}, but its text says {named[0]}"
        )
    return None


def _describe_age(sidecar: Path) -> Mapping[str, Any]:
    """Return the description of the column ``age`` in a sidecar; empty if there is none."""
    try:
        content = json.loads(read_text(sidecar)) if sidecar.is_file() else {}
    except (OSError, ValueError, RecursionError) as why:
        raise InputError(f"{sidecar}, with the unit of age, cannot be read as JSON") from why
    age = content.get("age") if isinstance(content, dict) else None
    return age if isinstance(age, dict) else {}
