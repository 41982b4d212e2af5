"""Warps of FSL, made and read by its own Python package."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from bids_fcnreg.fcn.spatial.grid import Grid
from bids_fcnreg.io.formats import table
from bids_fcnreg.io.formats.image_grids import ImageGrids
from tests.transforms_between_images import (
    PAIRS,
    assert_same_points,
    between,
    curved,
    grid,
    image,
    mapped,
    their_field,
    voxels,
)


@pytest.mark.parametrize(
    "pair, absolute",
    # FSL takes absolute warps between images of other orientations for relative ones.
    [(pair, False) for pair in PAIRS] + [(pair, True) for pair in PAIRS[:2]],
)
def test_warps_of_fsl(tmp_path, pair, absolute):
    """Made by FSL's own Python package from a field in world coordinates."""
    nonlinear = pytest.importorskip("fsl.transform.nonlinear")
    from fsl.data.image import Image
    from fsl.transform.fnirt import toFnirt

    fixed, moving = (Image(image(name)) for name in pair)
    field = nonlinear.DeformationField(
        their_field(pair).get_fdata(), src=moving, ref=fixed, defType="relative",
        srcSpace="world", refSpace="world", xform=image(pair[0]).affine,
    )  # fmt: skip
    warp = toFnirt(field)
    values = nonlinear.convertDeformationType(warp, "absolute") if absolute else warp.data
    made = nib.Nifti1Image(values.astype("f4"), image(pair[0]).affine)
    made.header["intent_code"] = 2006
    made.to_filename(tmp_path / "warp.nii.gz")
    found = table.read(tmp_path / "warp.nii.gz", ImageGrids(moving=grid(pair[1])))
    points = between(grid(pair[0]))
    assert_same_points(mapped(found, points), mapped(curved(grid(pair[0])), points))


def save_coefficients(path: Path, fixed: nib.Nifti1Image) -> Path:
    """As fnirt --cout does: reference voxel sizes, its shape and the initial affine in the header."""
    knots = np.array([8, 7, 6])
    shape = np.ceil((np.array(fixed.shape) + 1) / knots).astype(int) + 2
    values = np.random.default_rng(0).normal(0, 3, (*shape, 3)).astype("f4")
    made = nib.Nifti1Image(values, None)
    made.header["intent_code"] = 2007
    for n, size in enumerate(nib.affines.voxel_sizes(fixed.affine), start=1):
        made.header[f"intent_p{n}"] = size
    qform = np.diag([*knots, 1.0])
    qform[:3, 3] = fixed.shape
    initial = np.eye(4)
    initial[:3, :3], initial[:3, 3] = nib.eulerangles.euler2mat(0.05, -0.1, 0.08), (3, -2, 4)
    made.header.set_zooms([*knots, 1])
    made.set_sform(initial, 1)
    made.set_qform(qform, 1)
    made.to_filename(path)
    return path


RADIOLOGICAL = [pair for pair in PAIRS if np.linalg.det(image(pair[0]).affine) < 0]


@pytest.mark.parametrize("pair", RADIOLOGICAL, ids="-".join)
def test_spline_coefficients_of_fsl(tmp_path, pair):
    fnirt = pytest.importorskip("fsl.transform.fnirt")
    from fsl.data.image import Image

    path = save_coefficients(tmp_path / "coefficients.nii.gz", image(pair[0]))
    theirs = fnirt.readFnirt(str(path), Image(image(pair[1])), Image(image(pair[0])))
    points = voxels(grid(pair[0]))
    expected = theirs.transform(points, "world", "world")
    assert np.isfinite(expected).all()
    found = table.read(path, ImageGrids(*map(grid, pair)))
    assert_same_points(mapped(found, points), expected)


@pytest.mark.parametrize("pair", RADIOLOGICAL, ids="-".join)
def test_spline_coefficients_do_not_depend_on_storage(tmp_path, pair):
    """FSL reverses the first axis of a neurological image before it evaluates the splines."""
    fixed = image(pair[0])
    path = save_coefficients(tmp_path / "coefficients.nii.gz", fixed)
    reversed_ = fixed.as_reoriented(np.array([[0, -1], [1, 1], [2, 1]]))
    assert np.linalg.det(reversed_.affine) > 0
    points = between(grid(pair[0]))
    one = table.read(path, ImageGrids(grid(pair[0]), grid(pair[1])))
    other = table.read(path, ImageGrids(Grid(fixed.shape, reversed_.affine), grid(pair[1])))
    assert_same_points(mapped(one, points), mapped(other, points))
