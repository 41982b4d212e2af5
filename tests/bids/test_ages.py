"""Ages from the tables of a dataset, with the units that their sidecars give."""

from __future__ import annotations

import json
from fractions import Fraction
from pathlib import Path

import pytest

from bids_fcnreg.bids.ages import Age, find_age
from bids_fcnreg.bids.participants import read_participants
from bids_fcnreg.bids.scan import Scan
from bids_fcnreg.errors import InputError

YEAR, MONTH = Fraction(1461, 4), Fraction(1461, 48)


def age_of(
    bids: Path, session: str | None = None, sessions: str = "", sidecars: dict | None = None, **age
) -> Age:
    """Age of sub-01 in a dataset with these tables and sidecars."""
    for name, described in (sidecars or {}).items():
        path = bids / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(described if isinstance(described, str) else json.dumps(described))
    (bids / "sub-01").mkdir(exist_ok=True)
    rows = ["participant_id\tsex\tage", f"sub-01\tf\t{age.get('age', 'n/a')}"]
    (bids / "participants.tsv").write_text("\n".join(rows) + "\n")
    if sessions:
        lines = ["session_id\tage", *(f"ses-{n}\t{a}" for n, a in json.loads(sessions).items())]
        (bids / "sub-01/sub-01_sessions.tsv").write_text("\n".join(lines) + "\n")
    return find_age(bids, Scan("01", session, ()), read_participants(bids))


@pytest.mark.parametrize(
    ("cell", "units", "days"),
    [
        ("2", None, 2 * YEAR),
        ("2", "year", 2 * YEAR),
        ("4.5", "Years", Fraction(9, 2) * YEAR),
        ("5", "yr", 5 * YEAR),
        ("18", "months", 18 * MONTH),
        (".5", "mo", MONTH / 2),
        ("40", "weeks", 280),
        ("38.7", "wk", Fraction("38.7") * 7),
        ("400", "day", 400),
        ("0", "d", 0),
        ("89+", None, 89 * YEAR),
        ("60", "month", 5 * YEAR),
    ],
)
def test_units(tmp_path, cell, units, days):
    sidecars = {"participants.json": {"age": {"Units": units}}} if units else {}
    assert age_of(tmp_path, age=cell, sidecars=sidecars).days == days


@pytest.mark.parametrize(
    ("cell", "described", "message"),
    [
        ("n/a", {}, "participants.tsv has no age"),
        ("", {}, "participants.tsv has no age"),
        ("26,9", {}, "'26,9', which is not a number"),
        ("-1", {}, "'-1', which is not a number"),
        ("nan", {}, "'nan', which is not a number"),
        ("90+", {}, r"'90\+', which is not a number"),
        ("89+", {"Units": "weeks"}, r"'89\+', which is not a number"),
        ("40", {"Units": "gestational weeks"}, "not counted from birth"),
        ("40", {"Units": "week", "Description": "Postmenstrual age"}, "not counted from birth"),
        ("40", {"Units": "fortnight"}, "unknown unit 'fortnight'"),
        ("40", {"Units": ["week"]}, "unknown unit"),
        ("7", {"Description": "Age in months"}, "its text says months"),
    ],
)
def test_refused_ages(tmp_path, cell, described, message):
    with pytest.raises(InputError, match=message):
        age_of(tmp_path, age=cell, sidecars={"participants.json": {"age": described}})


def test_damaged_sidecar_is_refused(tmp_path):
    with pytest.raises(InputError, match="cannot be read as JSON"):
        age_of(tmp_path, age="2", sidecars={"participants.json": '{"age": '})


def test_harmless_descriptions(tmp_path):
    for text in ("Age in years at the day of the scan", "Age at scan"):
        described = {"participants.json": {"age": {"Description": text}}}
        assert age_of(tmp_path, age="2", sidecars=described).days == 2 * YEAR


def test_age_at_session_precedes_age_of_participant(tmp_path):
    tables = '{"1": 2, "2": "n/a", "3": "3.5"}'
    found = [age_of(tmp_path, session, tables, age="7") for session in ("1", "2", "3", "4", None)]
    assert [one.days / YEAR for one in found] == [2, 7, Fraction(7, 2), 7, 7]
    assert [one.of_session for one in found] == [True, False, True, False, True]
    assert [one.table.name[:4] for one in found] == ["sub-", "part", "sub-", "part", "part"]
    assert [one.step for one in found[:3]] == [YEAR, YEAR, 0]
    assert found[0].text == "2 years"


@pytest.mark.parametrize("name", ["sessions.json", "sub-01/sub-01_sessions.json"])
def test_sessions_have_their_own_unit(tmp_path, name):
    sidecars = {name: {"age": {"Units": "months"}}}
    assert age_of(tmp_path, "1", '{"1": 8}', sidecars, age="7").days == 8 * MONTH
    assert age_of(tmp_path, "2", '{"1": 8}', sidecars, age="7").days == 7 * YEAR


def test_sidecar_of_the_participant_precedes_that_of_all(tmp_path):
    sidecars = {
        "sessions.json": {"age": {"Units": "months"}},
        "sub-01/sub-01_sessions.json": {"age": {"Units": "weeks"}},
        "participants.json": {"age": {"Units": "gestational weeks"}},
    }
    assert age_of(tmp_path, "1", '{"1": 8}', sidecars).days == 56


def test_sessions_without_unit_beside_participants_in_months_are_refused(tmp_path):
    sidecars = {"participants.json": {"age": {"Units": "months"}}}
    with pytest.raises(InputError, match=r"without Units in .*sessions.json"):
        age_of(tmp_path, "1", '{"1": 8}', sidecars, age="7")
    assert age_of(tmp_path, "2", '{"1": 8}', sidecars, age="7").days == 7 * MONTH


def test_age_missing_in_both_tables(tmp_path):
    with pytest.raises(InputError, match=r"Neither .*_sessions.tsv nor .*participants.tsv has an"):
        age_of(tmp_path, "2", '{"1": 8}')


def test_contradictory_rows_of_a_session_are_refused(tmp_path):
    age_of(tmp_path, "1", '{"1": 8}')
    table = tmp_path / "sub-01/sub-01_sessions.tsv"
    table.write_text("session_id\tage\nses-1\t8\nses-1\t9\n")
    with pytest.raises(InputError, match="different ages for ses-1"):
        find_age(tmp_path, Scan("01", "1", ()), read_participants(tmp_path))


def test_participants_with_a_row_per_session(tmp_path):
    (tmp_path / "sub-01").mkdir()
    text = "participant_id\tsession_id\tage\nsub-01\tses-1\t1\nsub-01\tses-2\t2\n"
    (tmp_path / "participants.tsv").write_text(text)
    people = read_participants(tmp_path)
    found = [find_age(tmp_path, Scan("01", session, ()), people) for session in "12"]
    assert [(one.days / YEAR, one.of_session) for one in found] == [(1, True), (2, True)]
