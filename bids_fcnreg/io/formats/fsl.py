"""Transforms of FSL: FLIRT matrices, FNIRT warp fields and FNIRT spline coefficients.

They map FSL coordinates: voxel indices times voxel sizes (mm), where the first index is reversed
if the affine of the image has a positive determinant ("neurological"). A FLIRT matrix maps the
moving to the fixed image; a warp maps the fixed to the moving image, is stored on the grid of the
fixed image, and contains the initial linear transform. Coefficients are of uniform cubic
B-splines with knots every few voxels of the fixed image; the sform is the initial FLIRT matrix.

Definitions: FSL's wiki (FLIRT/FAQ, FNIRT/UserGuide), ``warpfns.cc`` (`is_abs_convention`) and
``fnirt_file_writer.cpp`` of FSL; Andersson et al., FMRIB technical report TR07JA2.
"""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np

from bids_fcnreg.atomic import write_bytes
from bids_fcnreg.errors import InputError
from bids_fcnreg.fcn.spatial.grid import Grid, apply_affine
from bids_fcnreg.fcn.spatial.transform import Transform
from bids_fcnreg.io import nifti
from bids_fcnreg.io.formats.image_grids import ImageGrids
from bids_fcnreg.io.formats.numbers import format_rows, read_numbers
from bids_fcnreg.io.formats.sampled import (
    affine_transform,
    check_finite,
    from_positions,
    linear_matrix,
    sample_positions,
    sampling_grid,
    voxel_positions,
)
from bids_fcnreg.io.itk_field import check_memory, is_field
from bids_fcnreg.io.spatial_image import open_image

#: NIfTI intent codes of warp fields, and of cubic and other coefficients.
WARP, CUBIC, OTHER_COEFFICIENTS = 2006, 2007, (2008, 2009)

_WHY = "FSL stores voxel coordinates"


def fsl_coordinates(grid: Grid) -> np.ndarray:
    """Return the matrix (4, 4) from voxel indices to FSL coordinates."""
    matrix = np.diag([*grid.spacing, 1.0])
    if np.linalg.det(grid.affine) > 0:
        matrix[0, 0] = -grid.spacing[0]
        matrix[0, 3] = (grid.shape[0] - 1) * grid.spacing[0]
    return matrix


def _to_world(grid: Grid) -> np.ndarray:
    """Return the matrix (4, 4) from FSL coordinates to RAS+ mm."""
    return grid.affine @ np.linalg.inv(fsl_coordinates(grid))


def read(path: Path, grids: ImageGrids) -> Transform:
    """Read a FLIRT matrix, a FNIRT warp field, or FNIRT coefficients."""
    if is_field(path):
        return _read_warp(path, grids)
    numbers = read_numbers(path)
    if numbers is None or numbers.shape != (4, 4) or not np.allclose(numbers[3], [0, 0, 0, 1]):
        raise InputError(
            f"{path} is not a FLIRT matrix: 4 rows of 4 numbers, the last one 0 0 0 1. Choose a "
            "matrix of one volume."
        )
    check_finite(numbers, path)
    fixed, moving = (grids.need(role, path, _WHY) for role in ("fixed", "moving"))
    to_fixed = affine_transform(
        _to_world(fixed) @ numbers @ np.linalg.inv(_to_world(moving)), path
    )
    return to_fixed.inverse()


def write(path: Path, transform: Transform, grids: ImageGrids) -> list[Path]:
    """Write a FLIRT matrix (``.mat``) or a FNIRT warp field (``.nii``, ``.nii.gz``; relative)."""
    moving = grids.need("moving", path, _WHY)
    if is_field(path):
        grid = sampling_grid(transform, grids, path)
        target = apply_affine(np.linalg.inv(_to_world(moving)), sample_positions(transform, grid))
        values = target - apply_affine(fsl_coordinates(grid), voxel_positions(grid))
        image = nib.Nifti1Image(values.astype(np.float32), grid.affine)
        image.header.set_intent(WARP)
        image.header.set_xyzt_units("mm")
        return [nifti.write(path, image)]
    fixed = grids.need("fixed", path, _WHY)
    matrix = linear_matrix(transform)
    assert matrix is not None  # checked by the table of formats
    flirt = np.linalg.inv(np.linalg.inv(_to_world(moving)) @ matrix @ _to_world(fixed))
    return [write_bytes(path, format_rows(flirt).encode())]


def _read_warp(path: Path, grids: ImageGrids) -> Transform:
    """Read a warp field, relative or absolute, or coefficients."""
    image = open_image(path)
    if len(image.shape) != 4 or image.shape[3] != 3:
        raise InputError(
            f"{path} has shape {image.shape}; a warp of FSL has shape (i, j, k, 3). Choose the "
            "output of fnirt or convertwarp."
        )
    check_memory(12.0 * np.prod(image.shape, dtype=float), path)
    moving = grids.need("moving", path, _WHY)
    if not isinstance(image, nib.Nifti1Pair):
        raise InputError(f"{path} is not a NIfTI image. Choose the output of fnirt.")
    code = int(image.header["intent_code"])
    if code in OTHER_COEFFICIENTS:
        raise InputError(
            f"{path} contains coefficients of another basis than cubic splines. Convert it to a "
            "warp field with fnirtfileutils."
        )
    values = np.asarray(image.dataobj, dtype=float)
    check_finite(values, path)
    if code == CUBIC:
        grid = grids.need("fixed", path, "coefficients of FNIRT do not contain the grid")
        target = _evaluate_splines(image.header, values, grid, path)
    else:
        grid = nifti.grid_of(image)
        target = values
        here = apply_affine(fsl_coordinates(grid), voxel_positions(grid))
        if _spread(values) <= _spread(values - here):  # relative
            target = values + here
    return from_positions(grid, apply_affine(_to_world(moving), target), path)


def _spread(values: np.ndarray) -> float:
    """Return the sum of the standard deviations of the components, by which FSL decides."""
    return float(values.reshape(-1, 3).std(axis=0).sum())


def _evaluate_splines(
    header: nib.Nifti1Header, coefficients: np.ndarray, grid: Grid, path: Path
) -> np.ndarray:
    """Compute FSL coordinates of the moving image at each voxel of the fixed image."""
    shape = tuple(int(header[f"qoffset_{axis}"]) for axis in "xyz")
    spacing = [float(header[f"intent_p{n}"]) for n in (1, 2, 3)]
    if shape != grid.shape or not np.allclose(spacing, grid.spacing, atol=1e-3):
        raise InputError(
            f"{path} belongs to a fixed image of {'×'.join(map(str, shape))} voxels; that given "
            f"has {'×'.join(map(str, grid.shape))}, or another voxel size. Provide the reference "
            "of FNIRT."
        )
    weights = [
        _spline_weights(n, knots, float(step))
        for n, knots, step in zip(
            grid.shape, coefficients.shape, header.get_zooms()[:3], strict=False
        )
    ]
    moved = np.einsum("ia,jb,kc,abcd->ijkd", *weights, coefficients, optimize=True)
    voxels = voxel_positions(grid)
    if np.linalg.det(grid.affine) > 0:  # FSL stores them along its own first axis
        moved = moved[::-1]
    # As fnirtfileutils and applywarp do, not convertwarp: the displacement comes after the affine.
    from_fixed = np.linalg.inv(header.get_sform()) @ fsl_coordinates(grid)
    return apply_affine(from_fixed, voxels) + moved


def _spline_weights(voxels: int, knots: int, spacing: float) -> np.ndarray:
    """Return the values (voxels, knots) of cubic B-splines; knot 1 is at the first voxel."""
    distance = np.abs(np.arange(voxels)[:, None] / spacing + 1 - np.arange(knots))
    near = 2 / 3 - distance**2 * (1 - distance / 2)
    far = (2 - distance) ** 3 / 6
    return np.where(distance < 1, near, np.where(distance < 2, far, 0.0))
