"""Transforms of AFNI: matrices (``.aff12.1D``) and displacement fields of 3dNwarp programs.

Both map DICOM coordinates (LPS+ mm) of the fixed (base) to those of the moving (source) image, as
in ITK. AFNI ignores obliquity, however: its coordinates are those of a header whose axes are
turned to the nearest anatomical ones, with the position of the first voxel kept. The grids of both
images are therefore needed. Fields are in mm, on a grid whose obliquity is ignored as well.

Definitions: help of 3dAllineate (``-1Dmatrix_save``) and of 3dQwarp; ``thd_niftiread.c`` and
``thd_niftiwrite.c`` of AFNI (``ijk_to_dicom`` in contrast to ``ijk_to_dicom_real``).
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
from bids_fcnreg.io.formats.numbers import read_numbers
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

#: Code of AFNI's header extension in NIfTI, which its own files have, and intent name of ours.
EXTENSION, INTENT_NAME = 4, "AFNI warp"

_FLIP = np.diag([-1.0, -1.0, 1.0, 1.0])
_WHY = "AFNI ignores the obliquity of images"


def cardinal(grid: Grid) -> np.ndarray:
    """Return AFNI's affine (4, 4) of a grid: without obliquity, RAS+ mm."""
    affine = np.eye(4)
    affine[:3, :3] = 0
    for axis, (world, sign) in enumerate(nib.io_orientation(grid.affine)):
        affine[int(world), axis] = sign * grid.spacing[axis]
    affine[:3, 3] = grid.affine[:3, 3]
    return affine


def _from_cardinal(grid: Grid) -> np.ndarray:
    """Return the matrix (4, 4) from AFNI's to real coordinates, RAS+ mm."""
    return grid.affine @ np.linalg.inv(cardinal(grid))


def read(path: Path, grids: ImageGrids) -> Transform:
    """Read a matrix or a displacement field."""
    if is_field(path):
        return _read_field(path, grids)
    numbers = read_numbers(path)
    if numbers is None or numbers.shape not in ((1, 12), (3, 4), (4, 4)):
        found = "other content" if numbers is None else f"{len(numbers)} rows of numbers"
        raise InputError(
            f"{path} is not a matrix of AFNI: it has {found}, not 12 numbers. Extract the row of "
            "one volume."
        )
    matrix = np.eye(4)
    matrix[:3] = numbers.ravel()[:12].reshape(3, 4)
    fixed, moving = (grids.need(role, path, _WHY) for role in ("fixed", "moving"))
    ras = _FLIP @ matrix @ _FLIP
    return affine_transform(
        _from_cardinal(moving) @ ras @ np.linalg.inv(_from_cardinal(fixed)), path
    )


def write(path: Path, transform: Transform, grids: ImageGrids) -> list[Path]:
    """Write a matrix (``.1D``) or a displacement field (``.nii``, ``.nii.gz``)."""
    moving = grids.need("moving", path, _WHY)
    if is_field(path):
        grid = sampling_grid(transform, grids, path)
        target = apply_affine(
            np.linalg.inv(_from_cardinal(moving)), sample_positions(transform, grid)
        )
        values = target - apply_affine(cardinal(grid), voxel_positions(grid))
        lps = (values * [-1, -1, 1]).astype(np.float32)[:, :, :, None]
        image = nib.Nifti1Image(lps, grid.affine)
        image.header["intent_name"] = INTENT_NAME
        image.header.set_xyzt_units("mm")
        return [nifti.write(path, image)]
    fixed = grids.need("fixed", path, _WHY)
    matrix = linear_matrix(transform)
    assert matrix is not None  # checked by the table of formats
    ras = np.linalg.inv(_from_cardinal(moving)) @ matrix @ _from_cardinal(fixed)
    numbers = " ".join(f"{number:.15g}" for number in (_FLIP @ ras @ _FLIP)[:3].ravel())
    header = "# 3dAllineate matrices (DICOM-to-DICOM, row-by-row):\n"
    return [write_bytes(path, f"{header}{numbers}\n".encode())]


def _read_field(path: Path, grids: ImageGrids) -> Transform:
    """Read a displacement field."""
    image = open_image(path)
    if image.shape[3:] not in ((1, 3), (3,)):
        raise InputError(
            f"{path} has shape {image.shape}; a displacement field of AFNI has shape "
            "(i, j, k, 1, 3). Choose the output of 3dQwarp or 3dNwarpCat."
        )
    check_memory(12.0 * np.prod(image.shape, dtype=float), path)
    grid = nifti.grid_of(image)
    fixed = grids.fixed or grid
    moving = grids.need("moving", path, _WHY)
    values = np.asarray(image.dataobj, dtype=float).reshape(*grid.shape, 3) * [-1, -1, 1]
    check_finite(values, path)
    target = apply_affine(cardinal(grid), voxel_positions(grid)) + values
    # Points of the fixed space lie on this grid where AFNI's coordinates lie on that of the field.
    real = Grid(grid.shape, _from_cardinal(fixed) @ cardinal(grid))
    return from_positions(real, apply_affine(_from_cardinal(moving), target), path)
