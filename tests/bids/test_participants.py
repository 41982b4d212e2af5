"""participants.tsv as people write it."""

from __future__ import annotations

import pytest

from bids_fcnreg.bids.participants import read_participants
from bids_fcnreg.errors import InputError


@pytest.fixture
def read(tmp_path):
    """Reads a table beside the folders of sub-01 and sub-02."""
    for label in ("01", "02"):
        (tmp_path / f"sub-{label}").mkdir()

    def make(*lines: str):
        text = "\n".join("\t".join(line.split()) for line in lines) + "\n"
        (tmp_path / "participants.tsv").write_text(text)
        return read_participants(tmp_path)

    return make


def test_a_row_per_participant_goes_to_all_sessions(read):
    people = read("participant_id age", "sub-01 20", "02 30")
    assert people.find("01", "a") == people.find("01") == {"age": "20"}
    assert people.find("02") == {"age": "30"}
    assert people.doubts == ()


def test_a_row_per_session_goes_to_its_session(read):
    people = read(
        "participant_id session_id age", "sub-01 ses-1 20", "sub-01 2 25", "sub-02 n/a 30"
    )
    assert [people.find("01", one) for one in "12"] == [{"age": "20"}, {"age": "25"}]
    assert people.find("01", "3") == people.find("01") == {"age": "n/a"}
    assert people.find("02", "1") == {"age": "30"}
    assert people.doubts == ()


def test_the_only_session_of_a_table_goes_to_a_scan_without_sessions(read):
    people = read("participant_id session_id age", "sub-01 ses-1 20", "sub-02 ses-1 30")
    assert people.find("01") == {"age": "20"}


@pytest.mark.parametrize(
    "lines",
    [
        ("participant_id age", "sub-01 20", "sub-01 25", "sub-02 30"),
        ("participant_id age", "sub-01 20", "01 25", "sub-01 20", "sub-02 30"),
        ("participant_id session_id age", "sub-01 ses-1 20", "sub-01 1 25", "sub-02 ses-1 30"),
    ],
)
def test_rows_that_contradict_each_other_are_reported_and_not_used(read, lines):
    people = read(*lines)
    assert people.find("01", "1") == {"age": "n/a"}
    assert people.find("02", "1") == {"age": "30"}
    assert len(people.doubts) == 1
    assert "conflicting rows for sub-01" in people.doubts[0]


def test_duplicate_equal_rows_are_used(read):
    people = read("participant_id age", "sub-01 20", "sub-01 20", "sub-02 30")
    assert people.find("01") == {"age": "20"}
    assert people.doubts == ()


@pytest.mark.parametrize("written", ["1", "sub-1", "Sub-01", "SUB_01", "sub01", "001"])
def test_labels_that_are_not_those_of_the_folders_are_reported_with_a_hint(read, written):
    people = read("participant_id age", f"{written} 20", "sub-02 30")
    assert people.find("01") == {"age": "n/a"}
    assert "(sub-01?)" in people.doubts[0]
    assert people.doubts[1].endswith("participants.tsv has no row for sub-01")


def test_participants_without_directory_are_reported_without_a_hint(read):
    people = read("participant_id age", "sub-01 20", "sub-02 30", "sub-99 40")
    (doubt,) = people.doubts
    assert "without a directory: 99. " in doubt


def test_missing_table_gives_no_values(tmp_path):
    (tmp_path / "sub-01").mkdir()
    people = read_participants(tmp_path)
    assert people.find("01") == {}
    assert people.doubts == ()


def test_a_table_without_participants_is_refused(read):
    with pytest.raises(InputError, match="no column participant_id"):
        read("id age", "sub-01 20")
