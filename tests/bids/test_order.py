"""Sessions are in the order of time, and what is not certain is not called certain."""

from __future__ import annotations

import random

import pytest

from bids_fcnreg.bids.dataset import read_dataset
from bids_fcnreg.bids.order import choose_reference, natural_key, order_sessions
from bids_fcnreg.bids.scan import Scan


def scans(*sessions: str | None) -> list[Scan]:
    return [Scan("01", session, ()) for session in sessions]


def labels(found: list[Scan]) -> list[str | None]:
    return [scan.session for scan in found]


@pytest.mark.parametrize(
    "ordered",
    [
        "pre post",
        "Pre Post",
        "before after",
        "preop postop",
        "prescan1 postscan1 postscan2",
        "pre1 pre2 post1 post2",
        "baseline 12m",
        "bl m06 m12 m100",
        "sc bl m03 m24",
        "screening baseline followup",
        "screening 1 2 10",
        "intake month3 month12",
        "pre post followup",
        "test retest",
        "Baseline FU3M FU12M",
        "9 10",
        "01 2 003",
        "M0 M6 M12",
        "0 6m 2y",
        "6m 1y 18m 2years",
        "day1 d14 wk4 month2",
        "1h 30h 2d",
        "V2 V10",
        "v1s2 v1s10 v2s1",
        "wave3 wave10",
        "1999 2001 2010",
        "20191231 20200102",
        "201912 202002",
        "20191231T0930 20200102T1015",
    ],
)
def test_labels_that_tell_the_time_are_in_its_order(ordered, tmp_path):
    sessions = ordered.split()
    for seed in range(5):
        mixed = random.Random(seed).sample(sessions, len(sessions))
        assert labels(order_sessions(tmp_path, scans(*mixed))) == sessions
        reference = choose_reference(tmp_path, scans(*mixed))
        assert (reference.session, reference.certain) == (sessions[0], True)
        assert reference.reason == "first by session label"


@pytest.mark.parametrize(
    "sessions",
    [
        "A B",
        "drug placebo",
        "mri1 pet2",
        "12m followup",
        "6 1y",
        "post1 pre2",
        "pre baseline",
        "1a 1b",
        "01 1",
        "03042018 01022019",  # day, month, year
        "030418 010219",
        "100234 100235",  # numbers of an archive
        "7 rescan",
    ],
)
def test_labels_without_temporal_order_are_uncertain(sessions, tmp_path):
    reference = choose_reference(tmp_path, scans(*sessions.split()))
    assert not reference.certain
    assert "neither acq_time nor the labels give the temporal order" in reference.reason


def test_scans_without_and_with_a_session_are_uncertain(tmp_path):
    found = scans("2", None)
    assert labels(order_sessions(tmp_path, found)) == [None, "2"]
    assert not choose_reference(tmp_path, found).certain


def write_sessions(folder, *rows):
    table = folder / "sub-01" / "sub-01_sessions.tsv"
    table.parent.mkdir(exist_ok=True)
    table.write_text("\n".join("\t".join(row) for row in [("session_id", "acq_time"), *rows]))


@pytest.mark.parametrize(
    "times",
    [
        ("1888-05-01", "1889-01-01"),  # shifted, as BIDS asks
        ("2019-05-01T23:30:00", "2019-05-02T00:10:00"),
        ("2019-05-01T10:00:00Z", "2019-05-01T13:00:00+01:00"),
        ("2019-05-01T10:00:00.000000", "2019-05-01T10:00:00.500000"),
    ],
)
def test_dates_of_sessions_tsv_decide(times, tmp_path):
    write_sessions(tmp_path, ("ses-A", times[1]), ("B", times[0]))
    assert labels(order_sessions(tmp_path, scans("A", "B"))) == ["B", "A"]
    reference = choose_reference(tmp_path, scans("A", "B"))
    assert (reference.session, reference.certain) == ("B", True)
    assert reference.reason == "earliest acq_time in sessions.tsv"


@pytest.mark.parametrize(
    "times",
    [
        ("n/a", "n/a"),
        ("2019-05-01", "n/a"),
        ("01/05/2019", "01/04/2018"),
        ("10:30:00", "09:30:00"),
        ("1900-01-01T00:00:00", "1900-01-01T00:00:00"),
    ],
)
def test_dates_that_do_not_tell_sessions_apart_are_not_used(times, tmp_path):
    write_sessions(tmp_path, ("ses-A", times[0]), ("ses-B", times[1]))
    assert not choose_reference(tmp_path, scans("A", "B")).certain
    assert choose_reference(tmp_path, scans("2", "10")).reason == "first by session label"


def test_unreadable_table_is_ignored(tmp_path):
    write_sessions(tmp_path)
    (tmp_path / "sub-01" / "sub-01_sessions.tsv").write_bytes(b"\xff\xfe\x00session")
    assert choose_reference(tmp_path, scans("2", "10")).session == "2"


def test_dates_against_labels_are_uncertain(tmp_path):
    write_sessions(tmp_path, ("ses-pre", "2020-01-01"), ("ses-post", "2019-01-01"))
    reference = choose_reference(tmp_path, scans("pre", "post"))
    assert (reference.session, reference.certain) == ("post", False)
    assert reference.reason.endswith("although the labels suggest ses-pre")
    write_sessions(tmp_path, ("ses-1", "2020-01-01"), ("ses-2", "2019-01-01"), ("ses-3", "n/a"))
    assert not choose_reference(tmp_path, scans("1", "2", "3")).certain


def test_dates_of_scans_tsv_decide_where_sessions_tsv_does_not(tmp_path):
    found = []
    for session, time in (("A", "2020-03-01T09:00:00"), ("B", "2019-03-01T09:00:00")):
        folder = tmp_path / "sub-01" / f"ses-{session}"
        image = folder / "anat" / f"sub-01_ses-{session}_T1w.nii.gz"
        image.parent.mkdir(parents=True)
        table = folder / f"sub-01_ses-{session}_scans.tsv"
        table.write_text(
            f"filename\tacq_time\nanat/{image.name}\t{time}\nfunc/x.nii.gz\t1950-01-01\n"
        )
        found.append(Scan("01", session, (image,)))
    write_sessions(tmp_path, ("ses-A", "n/a"), ("ses-B", "n/a"))
    reference = choose_reference(tmp_path, found)
    assert (reference.session, reference.certain) == ("B", True)
    assert reference.reason == "earliest acq_time in scans.tsv"
    write_sessions(tmp_path, ("ses-A", "2018-01-01"), ("ses-B", "2018-02-01"))
    assert choose_reference(tmp_path, found).session == "A"


def test_requested_reference_is_chosen_or_missing(tmp_path):
    found = scans("pre", "post")
    reference = choose_reference(tmp_path, found, "post")
    assert (reference.session, reference.certain) == ("post", True)
    assert choose_reference(tmp_path, found, "12m").missing


def test_participants_sessions_and_runs_have_their_numbers_in_order(tmp_path):
    (tmp_path / "dataset_description.json").write_text('{"Name": "x", "BIDSVersion": "1.10.0"}')
    for participant in ("10", "9"):
        for session in ("10", "9"):
            for run in ("10", "2"):
                name = f"sub-{participant}_ses-{session}"
                folder = tmp_path / name.replace("_", "/") / "anat"
                folder.mkdir(parents=True, exist_ok=True)
                (folder / f"{name}_run-{run}_T1w.nii.gz").write_bytes(b"")
    found = read_dataset(tmp_path).scans
    ordered = ["sub-9_ses-9", "sub-9_ses-10", "sub-10_ses-9", "sub-10_ses-10"]
    assert [scan.label for scan in found] == ordered
    assert all("run-2_" in scan.images[0].name for scan in found)


def test_natural_keys_compare_whatever_the_names_are():
    names = ["", "1", "a", "a1", "a1b", "1a", "b", "a01", "Ü2", "sub-2/x.nii", "a-1", "²"]
    ordered = sorted(names, key=natural_key)
    assert ordered.index("a1") < ordered.index("a1b") < ordered.index("b")
    assert sorted(set(names), key=natural_key) == ordered
