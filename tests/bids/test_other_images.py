"""Which images of a session are aligned to the registered one, and whose lesion masks are used."""

from __future__ import annotations

from pathlib import Path

import pytest

from bids_fcnreg.bids.dataset import read_dataset
from bids_fcnreg.bids.notes import summarize
from bids_fcnreg.errors import InputError


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


def test_an_image_with_the_names_of_the_reference_is_reported(tmp_path):
    """Results of UNIT1 images are named as those of T1w images."""
    names = ("T1w", "acq-B_T1w", "UNIT1", "T2w")
    scan, said = read(tmp_path, *names, reference_suffix="UNIT1")
    assert short(other.path for other in scan.others) == ["acq-B_T1w", "T2w"]
    assert "T1w.nii.gz is not aligned, because its results would have the names" in said


@pytest.mark.parametrize(
    ("names", "aligned"),
    [
        (("acq-A_UNIT1", "acq-A_T1w"), []),
        (("acq-A_UNIT1", "T1w"), ["T1w"]),
        (("run-1_UNIT1", "run-1_T1w"), ["run-1_T1w"]),
    ],
)
def test_names_of_results_keep_entities(tmp_path, names, aligned):
    scan, said = read(tmp_path, *names, reference_suffix="UNIT1")
    assert short(other.path for other in scan.others) == aligned
    assert ("its results would have the names" in said) == (not aligned)


@pytest.mark.parametrize(
    ("names", "why"),
    [
        (("T1w", "FLAIR", "FLAIR_label-lesion_roi"), "FLAIR.nii.gz is neither registered nor"),
        (
            ("run-1_T1w", "run-2_T1w", "run-1_label-lesion_roi", "run-2_label-lesion_roi"),
            "of several runs, only masks on run-1_T1w.nii.gz are",
        ),
        (("T1w", "acq-X_label-lesion_roi"), "no image of its session has its entities"),
    ],
)
def test_why_a_lesion_mask_is_not_used(tmp_path, names, why):
    read(tmp_path, *names)
    assert why in "\n".join(summarize(read_dataset(tmp_path).notes))


def test_a_filter_of_lesion_masks_applies_to_those_in_derivatives(tmp_path):
    write_mask(tmp_path, "sub-01_label-stroke_mask.nii.gz")
    options = {"filters": {"roi": {"label": "stroke"}}, "lesion_masks": ["derivatives/*/*/*"]}
    scan, said = read(tmp_path, "T1w", **options)
    assert len(scan.lesions) == 1 and "BIDS filter roi" not in said


def test_filters_also_apply_to_a_chosen_suffix(tmp_path):
    names = ("T1w", "acq-A_T2w", "acq-B_T2w")
    filters = {"t1w": {"suffix": "T2w"}, "t2w": {"acquisition": "B"}}
    scan, _ = read(tmp_path, *names, filters=filters)
    assert short(scan.images) == ["acq-B_T2w"]
    again = read_dataset(
        tmp_path, filters={"t2w": {"acquisition": "B"}}, reference_suffix="T2w"
    )  # fmt: skip
    assert short(again.scans[0].images) == ["acq-B_T2w"]


@pytest.mark.parametrize(
    ("filters", "images", "others"),
    [
        ({}, ["acq-A_T2w"], ["FLAIR"]),
        ({"t2w": {"acquisition": "B"}}, ["acq-B_T2w"], ["FLAIR"]),
        ({"t1w": {"acquisition": "B"}}, ["acq-A_T2w"], ["FLAIR"]),
        ({"flair": {"acquisition": "B"}}, ["acq-A_T2w"], []),
        ({"flair": {"subject": "02"}}, ["acq-A_T2w"], ["FLAIR"]),  # has no effect
        ({"t2w": {"acquisition": "none"}}, ["FLAIR"], []),
    ],
)
def test_filters_of_other_contrasts(tmp_path, filters, images, others):
    scan, said = read(tmp_path, "acq-A_T2w", "acq-B_T2w", "FLAIR", filters=filters)
    assert short(scan.images) == images
    assert short(other.path for other in scan.others) == others
    assert ("BIDS filter t1w has no effect: there is no image" in said) == ("t1w" in filters)
    assert ("did you mean" in said or "no image has" in said) == (
        "none" in str(filters) or filters == {"flair": {"acquisition": "B"}}
    )


def test_filters_choose_which_images_are_aligned(tmp_path):
    filters = {"t2w": {"acquisition": "B"}, "flair": {"run": 2}}
    names = ("T1w", "acq-A_T2w", "acq-B_T2w", "FLAIR", "run-2_FLAIR")
    scan, _ = read(tmp_path, *names, filters=filters)
    assert short(other.path for other in scan.others) == ["acq-B_T2w", "run-2_FLAIR"]


def test_a_suffix_that_no_session_has_is_named(tmp_path):
    with pytest.raises(InputError, match=r"no PDw image .*Omit --reference-suffix"):
        read(tmp_path, "T1w", "T2w", reference_suffix="PDw")


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
    assert ("no image of its session has its entities" in said) == (owner is None)
    assert short(scan.all_lesions) == ([mask] if owner else [])


def test_a_mask_on_the_t1w_belongs_to_unit1_where_there_is_no_t1w(tmp_path):
    scan, _ = read(tmp_path, "UNIT1", "T2w", "T1w_label-lesion_roi")
    assert short(scan.lesions) == ["T1w_label-lesion_roi"]


def test_a_mask_that_fits_two_images_is_reported(tmp_path):
    scan, said = read(
        tmp_path, "T1w", "acq-X_FLAIR", "acq-X_T2w", "acq-X_label-lesion_roi"
    )  # fmt: skip
    assert scan.all_lesions == ()
    assert "acq-X_label-lesion_roi.nii.gz is not used: it could belong to" in said
    assert "acq-X_FLAIR.nii.gz and acq-X_T2w.nii.gz. Add" in said


def write_mask(root: Path, name: str) -> Path:
    path = root / "derivatives" / "lst" / "sub-01" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    return path


@pytest.mark.parametrize(
    ("name", "owner"),
    [
        ("sub-01_space-FLAIR_label-lesion_mask.nii.gz", "FLAIR"),
        ("sub-01_space-FLAIR_desc-lst_probseg.nii", "FLAIR"),
        ("sub-01_desc-manual_label-WMH_mask.nii.gz", "T1w"),
        ("sub-02_space-FLAIR_label-lesion_mask.nii.gz", None),
    ],
)
def test_lesion_masks_in_derivatives(tmp_path, name, owner):
    path = write_mask(tmp_path, name)
    pattern = "derivatives/*/sub-*/*"
    scan, said = read(tmp_path, "T1w", "FLAIR", lesion_masks=[pattern])
    owners = {"T1w": scan.lesions, "FLAIR": scan.others[0].lesions}
    assert owners == {key: (path,) if key == owner else () for key in owners}
    assert ("no image of its session is registered" in said) == (owner is None)


def test_a_mask_in_the_dataset_is_used_once(tmp_path):
    pattern = "sub-*/anat/*_label-lesion_roi.nii.gz"
    scan, _ = read(tmp_path, "T1w", "label-lesion_roi", lesion_masks=[pattern])
    assert len(scan.lesions) == 1


@pytest.mark.parametrize(
    ("name", "pattern", "reason"),
    [
        ("sub-01_mask.nii.gz", "derivatives/*/nothing", "no file matches"),
        ("sub-01_mask.txt", "derivatives/*/sub-*/*", "not a .nii or .nii.gz file"),
        ("mask.nii.gz", "derivatives/*/sub-*/*", "has no sub-"),
    ],
)
def test_unusable_patterns_are_refused(tmp_path, name, pattern, reason):
    write_mask(tmp_path, name)
    with pytest.raises(InputError, match=f"--lesion-masks: .*{reason}"):
        read(tmp_path, "T1w", lesion_masks=[pattern])
