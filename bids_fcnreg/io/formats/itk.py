"""Transforms of ITK: composites, affines and displacement fields.

See `bids_fcnreg.io.itk`, which reads all of them and writes composites.
"""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import SimpleITK as sitk

from bids_fcnreg.atomic import replacing
from bids_fcnreg.errors import InputError
from bids_fcnreg.fcn.spatial.grid import Grid, apply_affine
from bids_fcnreg.fcn.spatial.transform import Transform
from bids_fcnreg.io import itk, nifti
from bids_fcnreg.io.formats.image_grids import ImageGrids
from bids_fcnreg.io.formats.sampled import (
    linear_matrix,
    sample_positions,
    sampling_grid,
    voxel_positions,
)
from bids_fcnreg.io.itk_field import VECTORS, is_field

_FLIP = np.diag([-1.0, -1.0, 1.0, 1.0])


def read(path: Path, grids: ImageGrids) -> Transform:
    """Read any transform that `bids_fcnreg.io.itk.read_transform` reads; `grids` are ignored."""
    return itk.read_transform(path)


def write(path: Path, transform: Transform, grids: ImageGrids) -> list[Path]:
    """Write a composite (``.h5``), an affine, or a displacement field, by the name of the file."""
    if path.suffix == ".h5":
        return [itk.write_transform(path, transform)]
    if is_field(path):
        return [write_field(path, transform, sampling_grid(transform, grids, path))]
    matrix = linear_matrix(transform)
    assert matrix is not None  # checked by the table of formats
    return [write_affine(path, matrix)]


def write_affine(path: Path, matrix: np.ndarray) -> Path:
    """Write a matrix (4, 4), RAS+ mm, as ANTs writes 0GenericAffine.mat, or as text."""
    lps = _FLIP @ matrix @ _FLIP
    affine = sitk.AffineTransform(3)
    affine.SetMatrix(lps[:3, :3].ravel().tolist())
    affine.SetTranslation(lps[:3, 3].tolist())
    with replacing(path) as temporary:
        sitk.WriteTransform(affine, str(temporary))
    return path


def write_field(path: Path, transform: Transform, grid: Grid) -> Path:
    """Write a transform as ANTs writes 1Warp.nii.gz: displacements in LPS+ mm, intent vector.

    Raises
    ------
    InputError
        If the axes of the grid are not perpendicular.
    """
    if not grid.is_orthogonal:
        raise InputError(
            f"{path}: the axes of the grid are sheared, which ITK does not support. Choose "
            "another --reference, or an output that ends in .h5."
        )
    points = apply_affine(grid.affine, voxel_positions(grid))
    lps = (sample_positions(transform, grid) - points) * [-1, -1, 1]
    image = nib.Nifti1Image(lps.astype(np.float32)[:, :, :, None], grid.affine)
    image.header["intent_code"] = VECTORS
    image.header.set_xyzt_units("mm")
    return nifti.write(path, image)
