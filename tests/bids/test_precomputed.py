"""Which existing results of other derivatives are found for a scan, and which are refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from bids_fcnreg.bids.precomputed import find_precomputed, parse_derivatives
from bids_fcnreg.bids.scan import Scan
from bids_fcnreg.errors import InputError

AFFINE = np.diag([2.0, 2.0, 2.0, 1.0])
SHAPE = (30, 32, 34)
PROBABILITIES = [f"label-{tissue}_probseg.nii.gz" for tissue in ("CSF", "GM", "WM")]
TEMPLATE = "MNI152NLin2009cAsym"
IDENTITY = """#Insight Transform File V1.0
Transform: AffineTransform_double_3_3
Parameters: 1 0 0 0 1 0 0 0 1 0 0 0
FixedParameters: 0 0 0
"""


def write(path: Path, values: float = 1, affine: np.ndarray = AFFINE) -> Path:
    """Write an image of one value, or the identity as ITK's transform."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if ".nii" not in path.name:
        path.write_text(IDENTITY)
        return path
    data = np.full(SHAPE, values, "float32")
    nib.Nifti1Image(data, affine).to_filename(path)
    return path


def scan_of(root: Path, name: str = "sub-01_T1w.nii.gz", session: str | None = None) -> Scan:
    return Scan("01", session, (write(root / "bids" / name),))


@pytest.mark.parametrize(
    ("files", "scan", "kinds"),
    [
        (["anat/sub-01_desc-brain_mask.nii.gz"], {}, "brain mask"),
        (["anat/sub-01_desc-brain_mask.nii"], {}, "brain mask"),
        (["sub-01_desc-brain_mask.nii.gz"], {}, "brain mask"),
        (["anat/sub-01_space-T1w_desc-brain_mask.nii.gz"], {}, "brain mask"),
        (["anat/sub-01_space-MNI_desc-brain_mask.nii.gz"], {}, ""),
        (["func/sub-01_desc-brain_mask.nii.gz"], {}, ""),
        (["anat/sub-01_task-rest_desc-brain_mask.nii.gz"], {}, ""),
        (["anat/sub-01_label-lesion_mask.nii.gz"], {}, ""),
        (["anat/sub-01_desc-preproc_T1w.nii.gz"], {}, "image"),
        (["anat/sub-01_desc-preproc_T2w.nii.gz"], {}, ""),
        (["anat/sub-01_dseg.nii.gz"], {}, "tissue segmentation"),
        (["anat/sub-01_desc-aseg_dseg.nii.gz"], {}, ""),
        ([f"anat/sub-01_{one}" for one in PROBABILITIES], {}, "tissue segmentation"),
        ([f"anat/sub-01_{one}" for one in PROBABILITIES[:2]], {}, ""),
        ([f"anat/sub-01_from-T1w_to-{TEMPLATE}_mode-image_xfm.txt"], {}, "affine"),
        (["anat/sub-01_from-T1w_to-Other_mode-image_xfm.txt"], {}, ""),
        ([f"anat/sub-01_from-T1w_to-{TEMPLATE}_mode-image_xfm.h5"], {}, ""),
        (["anat/sub-01_acq-A_desc-brain_mask.nii.gz"], {}, ""),
        (["anat/sub-01_run-1_desc-brain_mask.nii.gz"], {"name": "sub-01_run-01_T1w.nii.gz"}, "brain mask"),
        (["anat/sub-01_run-0_desc-brain_mask.nii.gz"], {}, ""),
        (["anat/sub-01_acq-1_desc-brain_mask.nii.gz"], {"name": "sub-01_acq-01_T1w.nii.gz"}, ""),
        (["ses-a/anat/sub-01_ses-a_desc-brain_mask.nii.gz"], {}, ""),
        (["ses-a/anat/sub-01_ses-a_desc-brain_mask.nii.gz"], {"session": "a"}, "brain mask"),
        (["ses-b/anat/sub-01_ses-b_desc-brain_mask.nii.gz"], {"session": "a"}, ""),
        (["anat/sub-01_desc-brain_mask.nii.gz"], {"session": "a"}, "brain mask"),  # the only one
    ],
)  # fmt: skip
def test_results_of_a_scan(tmp_path, files, scan, kinds):
    for name in files:
        write(tmp_path / "deriv/sub-01" / name)
        write(tmp_path / "deriv/sub-011" / name.replace("sub-01", "sub-011"))
    found, doubts = find_precomputed(
        scan_of(tmp_path, **scan), {"other": tmp_path / "deriv"}, [TEMPLATE]
    )
    assert ", ".join(found.descriptions) == kinds and not doubts
    assert all("(other)" in names for names in found.descriptions.values())


def test_directory_of_the_participant(tmp_path):
    path = write(tmp_path / "deriv/sub-01/anat/sub-01_desc-brain_mask.nii.gz")
    for directory in (path.parents[1], path.parent):
        found, _ = find_precomputed(scan_of(tmp_path), {"x": directory})
        assert found.mask == path


def test_results_without_session_are_not_of_one_of_several(tmp_path):
    write(tmp_path / "deriv/sub-01/anat/sub-01_desc-brain_mask.nii.gz")
    scan = scan_of(tmp_path, session="a")
    found, _ = find_precomputed(scan, {"x": tmp_path / "deriv"}, alone=False)
    assert not found.paths
    combined = replace(scan, session=None, sessions=("a", "b"))
    found, _ = find_precomputed(combined, {"x": tmp_path / "deriv"}, alone=False)
    assert found.mask


MASK, DSEG = "sub-01_desc-brain_mask.nii.gz", "sub-01_dseg.nii.gz"


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({MASK: {}, MASK.removesuffix(".gz"): {}}, "are both candidates for the brain mask"),
        ({MASK: {}, "sub-01_space-T1w_desc-brain_mask.nii.gz": {}}, "are both candidates"),
        ({MASK: {"affine": np.diag([1.0, 1, 1, 1])}}, "is on another grid than"),
        ({DSEG: {"affine": np.diag([1.0, 1, 1, 1])}}, "is on another grid than"),
        ({MASK: {"values": 0}}, "contains only zeros"),
        ({DSEG: {"values": 17}}, "has other labels than 1 GM, 2 WM, 3 CSF"),
    ],
)
def test_unusable_results_are_refused(tmp_path, files, message):
    for name, how in files.items():
        write(tmp_path / "deriv/sub-01/anat" / name, **how)
    with pytest.raises(InputError, match=message):
        find_precomputed(scan_of(tmp_path), {"x": tmp_path / "deriv"})


def test_small_mask_and_mask_that_is_no_image_are_refused(tmp_path):
    path = write(tmp_path / "deriv" / MASK)
    data = np.zeros(SHAPE, "uint8")
    data[5:8, 5:8, 5:8] = 1
    nib.Nifti1Image(data, AFFINE).to_filename(path)
    with pytest.raises(InputError, match=r"has only 0.2 ml"):
        find_precomputed(scan_of(tmp_path), {"x": tmp_path / "deriv"})
    path.write_text("<html>")
    with pytest.raises(InputError, match="cannot be used"):
        find_precomputed(scan_of(tmp_path), {"x": tmp_path / "deriv"})


def test_mask_on_the_grid_of_the_image_with_other_axes(tmp_path):
    path = write(tmp_path / "deriv" / MASK)
    flipped = nib.load(path).as_reoriented([[1, -1], [0, 1], [2, -1]])
    flipped.to_filename(path)
    found, _ = find_precomputed(scan_of(tmp_path), {"x": tmp_path / "deriv"})
    assert found.mask == path


def test_image_on_another_grid_is_reported_and_its_mask_is_used(tmp_path):
    fine = np.diag([1.5, 1.5, 1.5, 1.0])
    for name in (MASK, "sub-01_desc-preproc_T1w.nii.gz"):
        write(tmp_path / "deriv" / name, affine=fine)
    found, (doubt,) = find_precomputed(scan_of(tmp_path), {"x": tmp_path / "deriv"})
    assert found.mask and "is on another grid than the scan; so are the results" in doubt


def test_later_derivatives_precede_and_are_reported(tmp_path):
    affine = f"sub-01_from-T1w_to-{TEMPLATE}_mode-image_xfm.txt"
    for name in ("one", "two"):
        for file in (MASK, affine, affine.replace(TEMPLATE, "Unused")):
            write(tmp_path / name / file)
    write(tmp_path / "one" / DSEG)
    found, doubts = find_precomputed(
        scan_of(tmp_path), {"one": tmp_path / "one", "two": tmp_path / "two"}, [TEMPLATE]
    )
    assert found.mask == tmp_path / "two" / MASK and found.dseg == tmp_path / "one" / DSEG
    assert found.affines == {TEMPLATE: tmp_path / "two" / affine}
    assert doubts == [
        f"the {what} of two is used in place of that of earlier --derivatives"
        for what in ("brain mask", "affine")
    ]


@pytest.mark.parametrize("table", ["dseg.tsv", "sub-01_dseg.tsv"])
def test_lookup_table_gives_the_labels_of_tissues(tmp_path, table):
    write(tmp_path / "deriv" / DSEG)
    rows = "index\tname\n1\tCSF\n2\tGray Matter\n3\tWM\n"
    (tmp_path / "deriv" / table).write_text(rows)
    found, _ = find_precomputed(scan_of(tmp_path), {"x": tmp_path / "deriv"})
    assert found.tissue_labels == (2, 3, 1)


@pytest.mark.parametrize(
    ("specs", "names"),
    [
        (["x=one"], ["x"]),
        (["one"], ["one"]),
        (["x=one", "two"], ["x", "two"]),
        (["a=b"], ["a=b"]),
        (["x=a=b"], ["x"]),
        (["one", "one"], ["one"]),
    ],
)
def test_named_and_unnamed_directories(tmp_path, monkeypatch, specs, names):
    monkeypatch.chdir(tmp_path)
    for name in ("one", "two", "a=b"):
        (tmp_path / name).mkdir()
    assert list(parse_derivatives(specs)) == names


@pytest.mark.parametrize(
    ("specs", "message"),
    [(["x=none"], "none is not a directory"), (["x=one", "x=two"], "have the same name x")],
)
def test_unusable_directories_are_refused(tmp_path, monkeypatch, specs, message):
    monkeypatch.chdir(tmp_path)
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    with pytest.raises(InputError, match=message):
        parse_derivatives(specs)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("txt", IDENTITY.replace("1 0 0 0", "0 0 0 0")),  # singular
        ("mat", "1 0 0 1\n0 1 0 2\n0 0 1 3\n0 0 0 1\n"),  # FSL
    ],
)
def test_affines_that_cannot_be_read_are_refused(tmp_path, name, text):
    file = f"sub-01_from-T1w_to-{TEMPLATE}_mode-image_xfm.{name}"
    write(tmp_path / "deriv" / file).write_text(text)
    with pytest.raises(InputError, match=file):
        find_precomputed(scan_of(tmp_path), {"x": tmp_path / "deriv"}, [TEMPLATE])
    found, _ = find_precomputed(scan_of(tmp_path), {"x": tmp_path / "deriv"}, ["Other"])
    assert not found.paths
