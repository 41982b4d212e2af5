"""Which images of a session are aligned to the registered one, and whose lesion masks are used."""

from __future__ import annotations

from pathlib import Path

import pytest

from bids_fcnreg.bids.dataset import read_dataset
from bids_fcnreg.bids.notes import summarize


def read(root: Path, *endings: str, **options):
    """The only scan of a dataset with files of these endings, and the notes."""
    anat = root / "sub-01" / "anat"
    anat.mkdir(parents=True)
    for ending in endings:
        (anat / f"sub-01_{ending}.nii.gz").touch()
    (root / "dataset_description.json").write_text('{"Name": "x", "BIDSVersion": "1.10.0"}')
    dataset = read_dataset(root, others=True, **options)
    (scan,) = dataset.scans
    return scan, "\n".join(summarize(dataset.notes))


def short(paths) -> list[str]:
    return [path.name.removeprefix("sub-01_").removesuffix(".nii.gz") for path in paths]


@pytest.mark.parametrize(
    ("endings", "aligned"),
    [
        (["T1w"], []),
        (["T1w", "T2w", "FLAIR", "PDw", "T2starw"], ["FLAIR", "PDw", "T2starw", "T2w"]),
        (["T1w", "ce-gd_T1w", "ce-gd_FLAIR"], ["ce-gd_FLAIR", "ce-gd_T1w"]),
        (["T1w", "UNIT1", "inv-1_MP2RAGE"], ["UNIT1"]),
        (["run-1_T1w", "run-2_T1w", "run-2_T2w", "run-10_T2w"], ["run-2_T2w", "run-10_T2w"]),
        (["acq-A_T1w", "acq-B_T1w", "acq-A_T2w", "acq-B_T2w"], ["acq-A_T2w", "acq-B_T2w"]),
        (["T1w", "part-mag_T2w", "part-phase_T2w"], ["part-mag_T2w"]),
        (["T2w", "FLAIR"], ["FLAIR"]),
        (["T1w", "desc-x_T2w", "acq_T2w", "T2w_old", "bold"], []),
        (["T1w", "T1map", "defacemask", "angio"], []),
    ],
)
def test_images_that_are_aligned(tmp_path, endings, aligned):
    scan, said = read(tmp_path, *endings)
    assert short(other.path for other in scan.others) == aligned
    assert "warning" not in said and not any(name in said for name in aligned)


def test_the_t1w_image_is_aligned_to_another_reference(tmp_path):
    scan, _ = read(tmp_path, "T1w", "T2w", reference_suffix="T2w")
    assert short(scan.images) == ["T2w"]
    assert short(other.path for other in scan.others) == ["T1w"]


def test_other_images_are_not_searched_by_default(tmp_path):
    read(tmp_path, "T1w", "T2w")
    assert read_dataset(tmp_path).scans[0].others == ()


def test_images_whose_results_would_have_one_name_are_reported(tmp_path):
    scan, said = read(tmp_path, "T1w", "inv-1_T2w", "inv-2_T2w")
    assert short(other.path for other in scan.others) == ["inv-1_T2w"]
    assert "inv-2_T2w.nii.gz is not aligned" in said


@pytest.mark.parametrize(
    ("mask", "owner"),
    [
        ("label-lesion_roi", "T1w"),
        ("T1w_label-lesion_roi", "T1w"),
        ("FLAIR_label-lesion_roi", "FLAIR"),
        ("mod-FLAIR_label-lesion_mask", "FLAIR"),
        ("space-T2w_label-lesion_mask", "acq-X_T2w"),
        ("acq-X_label-lesion_roi", "acq-X_T2w"),
        ("ce-gd_label-lesion_roi", "ce-gd_T1w"),
        ("acq-Y_label-lesion_roi", None),
        ("mod-PDw_label-lesion_roi", None),
    ],
)
def test_lesion_masks_of_other_images(tmp_path, mask, owner):
    scan, said = read(tmp_path, "T1w", "FLAIR", "acq-X_T2w", "ce-gd_T1w", mask)
    owners = {"T1w": scan.lesions}
    owners |= {short([other.path])[0]: other.lesions for other in scan.others}
    assert [name for name, masks in owners.items() if masks] == ([owner] if owner else [])
    assert ("it belongs to another image than T1w.nii.gz" in said) == (owner is None)
    assert short(scan.all_lesions) == ([mask] if owner else [])


def test_a_mask_that_fits_two_images_is_reported(tmp_path):
    scan, said = read(
        tmp_path, "T1w", "acq-X_FLAIR", "acq-X_T2w", "acq-X_label-lesion_roi"
    )  # fmt: skip
    assert scan.all_lesions == () and "acq-X_label-lesion_roi.nii.gz is not used" in said
