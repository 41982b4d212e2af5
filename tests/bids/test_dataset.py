"""What is found in a BIDS dataset, and what is said when it is not there."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bids_fcnreg.bids.dataset import read_dataset
from bids_fcnreg.bids.filters import read_filter_file
from bids_fcnreg.bids.scan import Scan
from bids_fcnreg.bids.validation import validate
from bids_fcnreg.errors import InputError

FILES = (
    "sub-01/anat/sub-01_T1w.nii.gz",
    "sub-01/anat/sub-01_T2w.nii.gz",
    "sub-01/anat/sub-01_label-lesion_roi.nii.gz",
    "sub-01/func/sub-01_task-rest_bold.nii.gz",
    "sub-02/ses-a/anat/sub-02_ses-a_acq-X_run-1_T1w.nii.gz",
    "sub-02/ses-a/anat/sub-02_ses-a_acq-X_run-2_T1w.nii",
    "sub-02/ses-a/anat/sub-02_ses-a_acq-Y_T1w.nii.gz",
    "sub-02/ses-a/anat/sub-02_ses-a_part-phase_T1w.nii.gz",
    "sub-02/ses-a/anat/sub-02_ses-a_T1w_roi.nii.gz",
    "sub-02/ses-b/anat/sub-02_ses-b_part-mag_T1w.nii.gz",
    "sub-02/ses-b/anat/sub-02_ses-b_label-lesion_mask.nii.gz",
    "sub-02/ses-b/anat/sub-02_ses-b_label-eye_mask.nii.gz",
    "sub-02/ses-b/anat/sub-02_ses-b_label-eye_roi.nii.gz",
    "sub-02/ses-c/func/sub-02_ses-c_task-rest_bold.nii.gz",
    "sub-03/func/sub-03_task-rest_bold.nii.gz",
    "derivatives/other/sub-01/anat/sub-01_desc-preproc_T1w.nii.gz",
    "sourcedata/sub-04/anat/sub-04_T1w.nii.gz",
)


@pytest.fixture
def dataset(tmp_path):
    root = tmp_path / "data"
    for name in FILES:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    (root / "dataset_description.json").write_text('{"Name": "x", "BIDSVersion": "1.8.0"}')
    return root


def seen(scans: list[Scan]) -> dict[str, tuple[list[str], list[str]]]:
    return {s.label: ([p.name for p in s.images], [p.name for p in s.lesions]) for s in scans}


def write(path: Path, content: object) -> Path:
    path.write_text(json.dumps(content))
    return path


def test_finds_runs_sessions_and_lesions(dataset):
    assert seen(read_dataset(dataset).scans) == {
        "sub-01": (["sub-01_T1w.nii.gz"], ["sub-01_label-lesion_roi.nii.gz"]),
        "sub-02_ses-a": (
            [
                "sub-02_ses-a_acq-X_run-1_T1w.nii.gz",
                "sub-02_ses-a_acq-X_run-2_T1w.nii",
            ],
            ["sub-02_ses-a_T1w_roi.nii.gz"],
        ),
        "sub-02_ses-b": (
            ["sub-02_ses-b_part-mag_T1w.nii.gz"],
            ["sub-02_ses-b_label-lesion_mask.nii.gz"],
        ),
        "sub-03": ([], []),
    }


def test_paths_are_absolute_and_lead_to_the_files(dataset, monkeypatch):
    monkeypatch.chdir(dataset.parent)
    scan = read_dataset(Path("data"), ["01"]).scans[0]
    assert scan.images == (dataset / "sub-01" / "anat" / "sub-01_T1w.nii.gz",)


@pytest.mark.parametrize("label", ["02", "sub-02"])
def test_participant_with_and_without_prefix(dataset, label):
    assert list(seen(read_dataset(dataset, [label, "02"]).scans)) == [
        "sub-02_ses-a",
        "sub-02_ses-b",
    ]


def test_session_leaves_out_who_was_not_there_unless_named(dataset):
    assert list(seen(read_dataset(dataset, sessions=["ses-b"]).scans)) == ["sub-02_ses-b"]
    scans = read_dataset(dataset, ["01", "02"], ["b"]).scans
    assert [(s.participant, s.session, len(s.images)) for s in scans] == [
        ("01", "b", 0),
        ("02", "b", 1),
    ]


def test_filter_file_narrows_the_images(dataset, tmp_path):
    path = write(tmp_path / "f.json", {"t1w": {"acquisition": "Y"}, "bold": {"task": "rest"}})
    scans = read_dataset(dataset, ["02"], filters=read_filter_file(path)).scans
    assert seen(scans)["sub-02_ses-a"][0] == ["sub-02_ses-a_acq-Y_T1w.nii.gz"]
    assert "sub-02_ses-b" not in seen(scans)


@pytest.mark.parametrize(
    ("value", "number"), [(None, 1), ("*", 2), ("Query.NONE", 1), (2, 1), ("02", 1)]
)
def test_filter_values_for_absent_and_present(dataset, tmp_path, value, number):
    path = write(tmp_path / "f.json", {"t1w": {"run": value, "session": "a"}})
    scans = read_dataset(dataset, ["02"], filters=read_filter_file(path)).scans
    assert [len(s.images) for s in scans] == [number]


def test_filter_cannot_undo_the_command_line(dataset, tmp_path):
    path = write(tmp_path / "f.json", {"t1w": {"subject": "01", "session": "a"}})
    with pytest.raises(
        InputError, match=r"no T1w image that matches the selection.*the session a"
    ):
        read_dataset(dataset, ["02"], ["b"], read_filter_file(path))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({"t1": {}}, "unknown query t1"),
        ({"t1w": {"aquisition": "Y"}}, "unknown entity aquisition"),
        ({"t1w": 3}, "one object per query"),
        ([], "one object per query"),
    ],
)
def test_invalid_filter_files_are_refused(tmp_path, content, words):
    with pytest.raises(InputError, match=words):
        read_filter_file(write(tmp_path / "f.json", content))


def test_unreadable_filter_file_is_refused(tmp_path):
    with pytest.raises(InputError, match="cannot be read"):
        read_filter_file(tmp_path / "none.json")
    (tmp_path / "f.json").write_text("{")
    with pytest.raises(InputError, match="cannot be read"):
        read_filter_file(tmp_path / "f.json")


def test_broken_link_is_listed_as_an_image(dataset):
    path = dataset / "sub-01" / "anat" / "sub-01_T1w.nii.gz"
    path.unlink()
    path.symlink_to("../../.git/annex/objects/gone")
    assert read_dataset(dataset, ["01"]).scans[0].images == (path,)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"participants": ["01", "77"]}, "Participant 77 is not in .* 01, 02, 03"),
        ({"sessions": ["z"]}, "Session z is not in .* a, b"),
        ({"participants": ["1"]}, "Participant 1 is not in .*. Did you mean 01\\?"),
        ({"participants": ["01,02"]}, "Separate labels by spaces"),
        ({"participants": ["03"]}, "no T1w image that matches the selection"),
    ],
)
def test_missing_items_are_refused(dataset, arguments, words):
    with pytest.raises(InputError, match=words):
        read_dataset(dataset, **arguments)


def test_directory_without_dataset_is_refused(tmp_path, dataset):
    with pytest.raises(InputError, match="is not a directory"):
        read_dataset(tmp_path / "none")
    with pytest.raises(InputError, match=r"no dataset_description\.json"):
        read_dataset(tmp_path)
    description = dataset / "dataset_description.json"
    for content, words in (("{", "not valid JSON"), ('{"Name": "x"}', "lacks BIDSVersion")):
        description.write_text(content)
        with pytest.raises(InputError, match=words):
            read_dataset(dataset)
    empty = tmp_path / "empty"
    empty.mkdir()
    (empty / "dataset_description.json").write_text('{"Name": "x", "BIDSVersion": "1.8.0"}')
    with pytest.raises(InputError, match=r"no sub-\* directories"):
        read_dataset(empty)


def test_validator_reports_and_does_not_stop(real_data):
    problems = validate(real_data / "ds002748")
    assert len(problems) == 1
    assert problems[0].startswith("/participants.tsv line 2: TSV_VALUE_INCORRECT_TYPE (gender)")
    assert len(read_dataset(real_data / "ds002748").scans) == 36


def test_validator_reports_an_invalid_file(dataset):
    (dataset / "sub-01" / "anat" / "strange.nii.gz").touch()
    assert any("/sub-01/anat/strange.nii.gz" in line for line in validate(dataset))


SUBSTITUTES = (
    ("sub-01", ["T1w", "UNIT1", "T2w", "FLAIR"], "T1w"),
    ("sub-02", ["T2w", "UNIT1", "FLAIR"], "UNIT1"),
    ("sub-03", ["PDw", "FLAIR", "T2w"], "T2w"),
    ("sub-04", ["PDw", "FLAIR"], "FLAIR"),
    ("sub-05", ["PDw"], "PDw"),
    ("sub-06", ["T2map"], None),
    ("sub-07", ["acq-x", "T2w"], None),  # its T1w image is misnamed
)


@pytest.fixture
def contrasts(tmp_path):
    (tmp_path / "dataset_description.json").write_text('{"Name": "x", "BIDSVersion": "1.8.0"}')
    for label, suffixes, _ in SUBSTITUTES:
        folder = tmp_path / label / "anat"
        folder.mkdir(parents=True)
        for suffix in suffixes:
            name = f"{label}_T1w_{suffix}" if suffix == "acq-x" else f"{label}_{suffix}"
            (folder / f"{name}.nii.gz").touch()
    return tmp_path


def suffixes(scans: list[Scan]) -> dict[str, list[str]]:
    return {s.label: [p.name.split(".")[0].split("_")[-1] for p in s.images] for s in scans}


def test_sessions_without_t1w_image_use_the_first_of_other_contrasts(contrasts):
    dataset = read_dataset(contrasts)
    expected = {label: [suffix] if suffix else [] for label, _, suffix in SUBSTITUTES}
    assert suffixes(dataset.scans) == expected
    named = {scan.label: scan.suffix for scan in dataset.scans if scan.images}
    assert named["sub-02"] == "T1w"  # of the same contrast
    assert [named[f"sub-0{n}"] for n in (3, 4, 5)] == ["T2w", "FLAIR", "PDw"]
    said = {note.about: note.text for note in dataset.notes}
    assert said["sub-03"] == "the T2w image is registered" and "sub-01" not in said
    assert "T1w" in dataset.scans[-1].problem


def test_the_reference_suffix_is_used_in_all_sessions(contrasts):
    dataset = read_dataset(contrasts, reference_suffix="FLAIR")
    wanted = {label: ["FLAIR"] if "FLAIR" in names else [] for label, names, _ in SUBSTITUTES}
    assert suffixes(dataset.scans) == wanted


@pytest.mark.parametrize(
    ("suffix", "without"), [("T1w", ["ses-1"]), ("T2w", ["ses-2", "ses-3"]), (None, [])]
)
def test_sessions_without_an_image_of_the_reference_suffix_are_named(tmp_path, suffix, without):
    (tmp_path / "dataset_description.json").write_text('{"Name": "x", "BIDSVersion": "1.8.0"}')
    for session, contrast in (("ses-1", "T2w"), ("ses-2", "T1w"), ("ses-3", "T1w")):
        folder = tmp_path / "sub-01" / session / "anat"
        folder.mkdir(parents=True)
        (folder / f"sub-01_{session}_{contrast}.nii.gz").touch()
    notes = read_dataset(tmp_path, reference_suffix=suffix).notes
    named = [
        note.about for note in notes if note.text == f"not registered: it has no {suffix} image"
    ]
    assert named == [f"sub-01_{session}" for session in without]


def test_a_filter_on_the_suffix_excludes_others(contrasts, tmp_path):
    path = write(tmp_path / "f.json", {"t1w": {"suffix": "T1w"}})
    found = suffixes(read_dataset(contrasts, filters=read_filter_file(path)).scans)
    assert [label for label, names in found.items() if names] == ["sub-01"]
