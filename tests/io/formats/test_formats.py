"""Transforms of other software move points as their own, or independent, implementations do."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
from nibabel.affines import apply_affine
from nitransforms import io as nio
from nitransforms.linear import Affine as TheirAffine
from nitransforms.manip import TransformChain
from nitransforms.nonlinear import DenseFieldTransform

from bids_fcnreg.config import TRANSFORM_FORMATS
from bids_fcnreg.fcn.spatial.grid import Grid
from bids_fcnreg.io.formats import afni, table
from bids_fcnreg.io.formats.image_grids import ImageGrids
from tests.transforms_between_images import (
    IMAGES,
    PAIRS,
    assert_same_points,
    between,
    curved,
    grid,
    image,
    mapped,
    setting,
    their_field,
    truth,
    voxels,
)

LPS = np.array([-1.0, -1.0, 1.0])

# ---------------------------------------------------------------------- other implementations


def by_itk(path: Path, points: np.ndarray) -> np.ndarray:
    if path.name.endswith((".nii", ".nii.gz")):
        field = sitk.ReadImage(str(path), sitk.sitkVectorFloat64)
        transform = sitk.DisplacementFieldTransform(field)
    else:
        transform = sitk.ReadTransform(str(path))
    return np.array([transform.TransformPoint((LPS * p).tolist()) for p in points]) * LPS


def itk(path: Path, points: np.ndarray, fixed: str, moving: str) -> np.ndarray:
    return by_itk(path, points)


def ants(path: Path, points: np.ndarray, fixed: str, moving: str) -> np.ndarray:
    """As antsApplyTransforms -t 1Warp.nii.gz 0GenericAffine.mat."""
    warp = path.with_name(path.name + "1Warp.nii.gz")
    if warp.exists():
        points = by_itk(warp, points)
    return by_itk(path.with_name(path.name + "0GenericAffine.mat"), points)


def fsl_linear(path: Path, points: np.ndarray, fixed: str, moving: str) -> np.ndarray:
    matrix = nio.fsl.FSLLinearTransform.from_filename(path).to_ras(
        reference=image(fixed), moving=image(moving)
    )
    return apply_affine(matrix, points)


def fsl_nonlinear(path: Path, points: np.ndarray, fixed: str, moving: str) -> np.ndarray:
    """FSL's own Python package."""
    fnirt = pytest.importorskip("fsl.transform.fnirt")
    from fsl.data.image import Image

    field = fnirt.readFnirt(str(path), Image(image(moving)), Image(image(fixed)))
    return field.transform(points, "world", "world")


def lta(path: Path, points: np.ndarray, fixed: str, moving: str) -> np.ndarray:
    matrix = nio.lta.FSLinearTransformArray.from_filename(path).to_ras()[0]
    return apply_affine(matrix, points)


def afni_linear(path: Path, points: np.ndarray, fixed: str, moving: str) -> np.ndarray:
    matrix = nio.afni.AFNILinearTransform.from_filename(path).to_ras(
        reference=image(fixed), moving=image(moving)
    )
    return apply_affine(matrix, points)


def afni_nonlinear(path: Path, points: np.ndarray, fixed: str, moving: str) -> np.ndarray:
    """The field on a grid without obliquity, as nitransforms removes it from both images."""
    from nitransforms.io.afni import _cardinal_rotation

    stored = nib.load(path)
    turn = _cardinal_rotation(image(fixed).affine, True)
    plumb = nib.Nifti1Image(stored.dataobj, turn @ stored.affine, stored.header)
    plumb = nio.afni.AFNIDisplacementsField.from_image(plumb)
    there = DenseFieldTransform(plumb).map(apply_affine(turn, points))
    return apply_affine(_cardinal_rotation(image(moving).affine, False), there)


def x5_linear(path: Path, points: np.ndarray, fixed: str, moving: str) -> np.ndarray:
    return TheirAffine.from_filename(path, fmt="X5").map(points)


def x5_nonlinear(path: Path, points: np.ndarray, fixed: str, moving: str) -> np.ndarray:
    return DenseFieldTransform.from_filename(path, fmt="X5").map(points)


#: Format, ending, whether the transform is nonlinear, and who else reads it.
READERS = [
    ("itk", ".h5", False, itk),
    ("itk", ".h5", True, itk),
    ("itk", ".mat", False, itk),
    ("itk", ".txt", False, itk),
    ("itk", ".tfm", False, itk),
    ("itk", ".nii.gz", False, itk),
    ("itk", ".nii.gz", True, itk),
    ("ants", "_", False, ants),
    ("ants", "_", True, ants),
    ("fsl", ".mat", False, fsl_linear),
    ("fsl", ".nii.gz", False, fsl_nonlinear),
    ("fsl", ".nii.gz", True, fsl_nonlinear),
    ("freesurfer", ".lta", False, lta),
    ("afni", ".aff12.1D", False, afni_linear),
    ("afni", ".nii.gz", True, afni_nonlinear),
    ("x5", ".x5", False, x5_linear),
    ("x5", ".x5", True, x5_nonlinear),
]


@pytest.mark.parametrize("pair", PAIRS, ids="-".join)
@pytest.mark.parametrize("name, ending, nonlinear, theirs", READERS)
def test_others_read_what_is_written(tmp_path, name, ending, nonlinear, theirs, pair):
    transform, grids = setting(pair, nonlinear)
    path = tmp_path / f"x{ending}"
    table.write(path, transform, name, grids)
    points = voxels(grids.fixed)
    expected = mapped(transform, points)
    assert np.linalg.norm(expected - points, axis=1).max() > 4
    assert_same_points(theirs(path, points, *pair), expected)


ROUND_TRIPS = [(n, e, k) for n, e, k, _ in READERS] + [
    ("freesurfer", ".m3z", True),
    ("freesurfer", ".m3d", True),
]


@pytest.mark.parametrize("pair", PAIRS[2:], ids="-".join)
@pytest.mark.parametrize("name, ending, nonlinear", ROUND_TRIPS)
def test_what_is_written_is_read(tmp_path, name, ending, nonlinear, pair):
    """The format is detected, and all points within the grid move as before."""
    transform, grids = setting(pair, nonlinear)
    path = tmp_path / f"x{ending}"
    table.write(path, transform, name, grids)
    assert table.detect(path) == name
    points = between(grids.fixed)
    assert_same_points(mapped(table.read(path, grids), points), mapped(transform, points))


# ---------------------------------------------------------------------- files of other software


@pytest.mark.parametrize("pair", PAIRS, ids="-".join)
@pytest.mark.parametrize("fmt", ["fsl", "afni", "fs", "x5"])
def test_linear_transforms_of_nitransforms(tmp_path, fmt, pair):
    """Except for the geometries of FreeSurfer, which it exchanges, as RAS needs none."""
    fixed, moving = map(image, pair)
    ending = {"fsl": ".mat", "afni": ".aff12.1D", "fs": ".lta", "x5": ".x5"}[fmt]
    path = tmp_path / f"x{ending}"
    TheirAffine(truth(), reference=fixed).to_filename(path, fmt=fmt, moving=moving)
    found = table.read(path, ImageGrids(*map(grid, pair)))
    points = voxels(grid(pair[0]))
    assert_same_points(mapped(found, points), apply_affine(truth(), points))


@pytest.mark.parametrize("fmt", ["itk", "afni", "fsl"])
def test_fields_of_nitransforms(tmp_path, fmt):
    """Where images are plumb, radiological and on one grid: it ignores the rest."""
    pair = PAIRS[0]
    DenseFieldTransform(their_field(pair)).to_filename(tmp_path / "x.nii.gz", fmt=fmt)
    found = table.read(tmp_path / "x.nii.gz", ImageGrids(*map(grid, pair)), fmt)
    points = between(grid(pair[0]))
    assert_same_points(mapped(found, points), mapped(curved(grid(pair[0])), points))


@pytest.mark.parametrize("pair", PAIRS[1:3], ids="-".join)
def test_fields_and_chains_in_x5(tmp_path, pair):
    fixed = grid(pair[0])
    field = DenseFieldTransform(their_field(pair))
    nio.x5.to_filename(tmp_path / "field.x5", [field.to_x5()])
    points = voxels(fixed)
    expected = mapped(curved(fixed), points)
    assert_same_points(mapped(table.read(tmp_path / "field.x5"), points), expected)
    chain = TransformChain([field, TheirAffine(truth(), reference=image(pair[0]))])
    chain.to_filename(tmp_path / "chain.x5")
    found = mapped(table.read(tmp_path / "chain.x5"), points)
    assert_same_points(found, apply_affine(truth(), expected))


def test_worked_examples(tmp_path):
    """A shift of 4 mm to the right and 2 mm up, by hand."""
    las = Grid((10, 10, 10), np.diag([-2.0, 2.0, 2.0, 1.0]))
    ras = Grid((10, 10, 10), np.diag([2.0, 2.0, 2.0, 1.0]))
    files = {
        # The first FSL coordinate of LAS increases to the left: 4 mm to the right is -4.
        "las.mat": ("1 0 0 4\n0 1 0 0\n0 0 1 -2\n0 0 0 1\n", ImageGrids(las, las)),
        # That of RAS is reversed, and starts at voxel 9, at x = 18 mm: 18 - x.
        "ras.mat": ("1 0 0 4\n0 1 0 0\n0 0 1 -2\n0 0 0 1\n", ImageGrids(ras, ras)),
        # From RAS (18 - x) to LAS (-x), from the moving to the fixed image.
        "both.mat": ("1 0 0 -14\n0 1 0 0\n0 0 1 -2\n0 0 0 1\n", ImageGrids(las, ras)),
        # DICOM coordinates increase to the left, to the back, and up.
        "x.aff12.1D": ("1 0 0 -4 0 1 0 0 0 0 1 2\n", ImageGrids(las, ras)),
        "rows.1D": ("# a comment\n1 0 0 -4\n0 1 0 0\n0 0 1 2\n", ImageGrids(las, ras)),
    }
    for name, (text, grids) in files.items():
        (tmp_path / name).write_text(text)
        found = mapped(table.read(tmp_path / name, grids), np.array([[-3.0, 5.0, 7.0]]))
        expected = [[1.0, 5.0, 9.0]]
        np.testing.assert_allclose(found, expected, atol=1e-9, err_msg=name)


def test_axes_without_obliquity_are_those_of_nitransforms():
    from nitransforms.io.afni import _dicom_real_to_card

    for name in IMAGES:
        ours, theirs = afni.cardinal(grid(name)), _dicom_real_to_card(image(name).affine)
        np.testing.assert_allclose(ours, theirs, atol=1e-4)


def test_formats_of_the_command_line():
    assert tuple(table.FORMATS) == TRANSFORM_FORMATS
