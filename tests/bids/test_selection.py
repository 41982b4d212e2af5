"""Which images of a scan are averaged, which are left out, and what is said of it."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from bids_fcnreg.bids.dataset import read_dataset
from bids_fcnreg.bids.filters import read_filter_file
from bids_fcnreg.bids.notes import summarize
from bids_fcnreg.errors import InputError


def read(root: Path, *endings: str, filters: str | None = None):
    """Images that are used, masks that are used, and what is said, of one participant."""
    anat = root / "sub-01" / "anat"
    anat.mkdir(parents=True)
    for ending in endings:
        (anat / f"sub-01_{ending}").touch()
    (root / "dataset_description.json").write_text('{"Name": "x", "BIDSVersion": "1.10.0"}')
    query = None
    if filters is not None:
        (root / "f.json").write_text(filters)
        query = read_filter_file(root / "f.json")
    dataset = read_dataset(root, filters=query)
    (scan,) = dataset.scans
    names = [
        [p.name.removeprefix("sub-01_") for p in group] for group in (scan.images, scan.lesions)
    ]
    return names[0], names[1], "\n".join(summarize(dataset.notes))


@pytest.mark.parametrize(
    ("endings", "used"),
    [
        (["T1w.nii.gz", "run-2_T1w.nii.gz"], [0, 1]),
        (["run-2_T1w.nii.gz", "run-10_T1w.nii.gz", "run-1_T1w.nii.gz"], [2, 0, 1]),
        (["acq-A_run-1_T1w.nii.gz", "acq-A_run-2_T1w.nii.gz", "acq-B_T1w.nii.gz"], [0, 1]),
        (["run-1_echo-1_T1w.nii.gz", "run-2_echo-1_T1w.nii.gz"], [0, 1]),
    ],
)
def test_runs_are_averaged_and_named(tmp_path, endings, used):
    images, _, said = read(tmp_path, *endings)
    assert images == [endings[n] for n in used]
    assert f"sub-01: {len(used)} runs are averaged ({', '.join(images)})" in said


@pytest.mark.parametrize(
    ("endings", "used", "keys"),
    [
        (["ce-gad_T1w.nii.gz", "T1w.nii.gz"], "T1w.nii.gz", "ce-"),
        (
            ["ce-gad_T1w.nii.gz", "acq-A_rec-B_T1w.nii.gz"],
            "acq-A_rec-B_T1w.nii.gz",
            "acq-, ce-, rec-",
        ),
        (["rec-norm_T1w.nii.gz", "rec-orig_T1w.nii.gz"], "rec-norm_T1w.nii.gz", "rec-"),
        (["rec-norm_T1w.nii.gz", "T1w.nii.gz"], "T1w.nii.gz", "rec-"),
        (["acq-B_T1w.nii.gz", "acq-A_T1w.nii.gz"], "acq-A_T1w.nii.gz", "acq-"),
        (["acq-10_T1w.nii.gz", "acq-9_T1w.nii.gz"], "acq-9_T1w.nii.gz", "acq-"),
        (["mod-x_T1w.nii.gz", "T1w.nii.gz"], "T1w.nii.gz", "mod-"),
        (["part-mag_T1w.nii.gz", "T1w.nii.gz"], "T1w.nii.gz", "part-"),
        (["echo-2_T1w.nii.gz", "echo-01_T1w.nii.gz"], "echo-01_T1w.nii.gz", "echo-"),
        (["inv-1_T1w.nii.gz", "inv-2_T1w.nii.gz"], "inv-1_T1w.nii.gz", "inv-"),
        (["chunk-1_T1w.nii.gz", "chunk-2_T1w.nii.gz"], "chunk-1_T1w.nii.gz", "chunk-"),
        (["task-a_T1w.nii.gz", "task-b_T1w.nii.gz"], "task-a_T1w.nii.gz", "task-"),
    ],
)
def test_images_of_different_kinds_are_never_averaged(tmp_path, endings, used, keys):
    images, _, said = read(tmp_path, *endings)
    assert images == [used]
    assert f"{used} is used and " in said and f"differ in {keys}" in said
    assert all(ending in said for ending in endings)


def test_a_filter_overrides_the_choice(tmp_path):
    query = '{"t1w": {"ceagent": "gad"}}'
    images, _, said = read(tmp_path, "ce-gad_T1w.nii.gz", "T1w.nii.gz", filters=query)
    assert images == ["ce-gad_T1w.nii.gz"] and said == ""


def test_phase_images_are_left_out_and_named(tmp_path):
    images, _, said = read(tmp_path, "part-mag_T1w.nii.gz", "part-phase_T1w.nii.gz")
    assert images == ["part-mag_T1w.nii.gz"]
    assert "sub-01_part-phase_T1w.nii.gz: not used, because it is part-phase" in said


def test_equal_notes_are_merged(tmp_path):
    for number in range(50):
        anat = tmp_path / f"sub-{number:02d}" / "anat"
        anat.mkdir(parents=True)
        for run in (1, 2):
            (anat / f"sub-{number:02d}_run-{run}_T1w.nii.gz").touch()
    (tmp_path / "dataset_description.json").write_text('{"Name": "x", "BIDSVersion": "1.10.0"}')
    assert summarize(read_dataset(tmp_path).notes) == [
        "sub-00, sub-01, sub-02 and 47 more: 2 runs are averaged (run-1_T1w.nii.gz, "
        "run-2_T1w.nii.gz)"
    ]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("T1w.nii.gz", "T1w.nii"),
        ("run-1_T1w.nii.gz", "run-01_T1w.nii.gz"),
        ("acq-A_run-1_T1w.nii.gz", "run-1_acq-A_T1w.nii.gz"),
        ("echo-1_T1w.nii.gz", "echo-001_T1w.nii"),
    ],
)
@pytest.mark.parametrize("same", [True, False])
def test_two_files_with_the_same_entities(tmp_path, one, other, same):
    anat = tmp_path / "sub-01" / "anat"
    anat.mkdir(parents=True)
    for name, content in ((one, b"x" * 3_000_000), (other, b"x" * (3_000_000 - (not same)))):
        packed = gzip.compress(content) if name.endswith(".gz") else content
        (anat / f"sub-01_{name}").write_bytes(packed)
    (tmp_path / "dataset_description.json").write_text('{"Name": "x", "BIDSVersion": "1.10.0"}')
    if same:
        dataset = read_dataset(tmp_path)
        assert len(dataset.scans[0].images) == 1
        assert "because it is a copy of" in summarize(dataset.notes)[0]
    else:
        with pytest.raises(
            InputError, match=r"have the same entities but different content. Remove one"
        ):
            read_dataset(tmp_path)


@pytest.mark.parametrize(
    ("endings", "first", "masks"),
    [
        (["acq-A_T1w.nii.gz", "acq-B_T1w.nii.gz", "acq-B_label-lesion_roi.nii.gz"], 0, []),
        (["acq-A_T1w.nii.gz", "acq-B_T1w.nii.gz", "acq-A_label-lesion_roi.nii.gz"], 0, [2]),
        (["acq-A_T1w.nii.gz", "acq-B_T1w.nii.gz", "label-lesion_roi.nii.gz"], 0, [2]),
        (["run-1_T1w.nii.gz", "run-2_T1w.nii.gz", "run-2_label-lesion_roi.nii.gz"], 1, [2]),
        (["run-1_T1w.nii.gz", "run-2_T1w.nii.gz", "run-1_label-lesion_roi.nii.gz"], 0, [2]),
    ],
)
def test_lesion_masks_belong_to_the_image_they_were_drawn_on(tmp_path, endings, first, masks):
    images, lesions, said = read(tmp_path, *endings)
    assert images[0] == endings[first]
    assert lesions == [endings[n] for n in masks]
    assert ("lesion mask" in said and "is not used" in said) == (not masks)
