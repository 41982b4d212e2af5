"""Which images a cohort is made of."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from bids_fcnreg.bids.training_images import Brain, SourceDataset, find_brains
from bids_fcnreg.errors import InputError


def touch(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.Nifti1Image(np.ones((2, 2, 2), "uint8"), np.eye(4)).to_filename(path)
    return path


def describe(folder: Path, **words: object) -> Path:
    folder.mkdir(exist_ok=True)
    content = {"Name": folder.name, "BIDSVersion": "1.10.0", **words}
    (folder / "dataset_description.json").write_text(json.dumps(content))
    return folder


@pytest.fixture
def raw(tmp_path) -> Path:
    folder = describe(tmp_path / "raw", DatasetDOI="10.1/x", License="CC0")
    for name in ("sub-01/anat/sub-01_T1w", "sub-02/ses-a/anat/sub-02_ses-a_run-1_T1w",
                 "sub-02/ses-a/anat/sub-02_ses-a_run-2_T1w", "sub-02/ses-b/anat/sub-02_ses-b_T1w",
                 "sub-02/ses-a/anat/sub-02_ses-a_T2w"):  # fmt: skip
        touch(folder / f"{name}.nii.gz")
    return folder


@pytest.fixture
def derived(tmp_path) -> Path:
    folder = describe(
        tmp_path / "derived",
        DatasetType="derivative",
        SourceDatasets=[{"URL": "file:///secret"}, {"DOI": "doi:10.1/y"}],
    )
    for name in ("sub-01/anat/sub-01_desc-preproc_T1w", "sub-01/anat/sub-01_desc-brain_mask",
                 "sub-01/anat/sub-01_space-X_desc-preproc_T1w",
                 "sub-02/ses-a/anat/sub-02_ses-a_desc-preproc_T1w",
                 "sub-02/ses-a/anat/sub-02_ses-a_desc-brain_mask"):  # fmt: skip
        touch(folder / f"{name}.nii.gz")
    return folder


def test_all_t1w_of_a_dataset(raw):
    brains = find_brains([raw])
    assert [brain.image.name for brain in brains] == [
        "sub-01_T1w.nii.gz",
        "sub-02_ses-a_run-1_T1w.nii.gz",
        "sub-02_ses-a_run-2_T1w.nii.gz",
        "sub-02_ses-b_T1w.nii.gz",
    ]
    assert all(brain.mask is None for brain in brains)
    assert len({brain.person for brain in brains}) == 2
    assert {brain.source for brain in brains} == {SourceDataset("raw", "doi:10.1/x", "CC0")}


def test_native_images_of_derivatives_with_their_masks(derived):
    brains = find_brains([derived])
    assert [(brain.image.name, brain.mask.name) for brain in brains] == [
        ("sub-01_desc-preproc_T1w.nii.gz", "sub-01_desc-brain_mask.nii.gz"),
        ("sub-02_ses-a_desc-preproc_T1w.nii.gz", "sub-02_ses-a_desc-brain_mask.nii.gz"),
    ]
    assert brains[0].source == SourceDataset("derived", "doi:10.1/y", None)


def test_files_and_lists_each_image_once(derived, tmp_path):
    one, two = touch(tmp_path / "one.nii"), touch(tmp_path / "two_T1w.nii.gz")
    mask = touch(tmp_path / "two_desc-brain_mask.nii.gz")
    names = tmp_path / "list.txt"
    names.write_text(f"# brains\n{one}\n\n two_T1w.nii.gz  # mine\n")
    brains = find_brains([one, names, derived])
    assert brains[:2] == [Brain(one), Brain(two, mask)]
    assert len(brains) == 4
    assert brains[0].source == SourceDataset("image files")
    assert brains[0].person != brains[1].person


def test_a_fingerprint_is_of_content_wherever_it_is(tmp_path):
    for name, content in (("a", "1"), ("b", "1"), ("c", "2")):
        (tmp_path / f"{name}.nii").write_text(content)
    (tmp_path / "link.nii").symlink_to(tmp_path / "a.nii")
    (tmp_path / "broken.nii").symlink_to("nowhere")
    found = {name: Brain(tmp_path / f"{name}.nii").fingerprint
             for name in ("a", "b", "c", "link", "broken")}  # fmt: skip
    assert found["a"] == found["b"] == found["link"]
    assert len({found["a"], found["c"], found["broken"]}) == 3


def test_a_fingerprint_is_of_all_that_is_read(tmp_path):
    brain = Brain(touch(tmp_path / "a_T1w.nii"), touch(tmp_path / "a_desc-brain_mask.nii"))
    before = brain.fingerprint
    assert before == brain.fingerprint
    brain.mask.write_bytes(brain.mask.read_bytes() + b"0")
    assert brain.fingerprint != before
    assert Brain(brain.image).fingerprint not in (before, brain.fingerprint)


def test_invalid_data_are_refused(raw, tmp_path):
    describe(tmp_path / "empty", DatasetType="derivative")
    (tmp_path / "nothing.txt").write_text("# nothing\n")
    (tmp_path / "gone.txt").write_text("gone.nii.gz\n")
    (tmp_path / "other.txt").write_text("list.txt\n")
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    (tmp_path / "folder").mkdir()
    for word, sentence in (
        ("missing", "missing does not exist"),
        ("missing.nii.gz", "missing.nii.gz, listed in the data, does not exist"),
        ("empty", "has no T1w image in native space"),
        ("nothing.txt", "lists no image"),
        ("gone.txt", "gone.nii.gz, listed in .*gone.txt, does not exist"),
        ("other.txt", "does not end in .nii"),
        ("binary", "neither an image"),
        ("folder", "has no dataset_description.json"),
    ):
        with pytest.raises(InputError, match=sentence):
            find_brains([raw, tmp_path / word])
