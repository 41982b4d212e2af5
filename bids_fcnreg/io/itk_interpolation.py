"""Interpolations of higher order, by ITK: cubic B-splines and windowed sinc."""

from __future__ import annotations

import numpy as np
import SimpleITK as sitk
import torch

from bids_fcnreg.fcn.spatial.grid import Grid, apply_affine
from bids_fcnreg.fcn.spatial.transform import POINTS_AT_A_TIME, Transform
from bids_fcnreg.io.formats.sampled import voxel_positions

#: ITK's interpolators, by name. The radius of the Lanczos window is 5 voxels.
INTERPOLATORS = {"cubic": sitk.sitkBSpline, "lanczos": sitk.sitkLanczosWindowedSinc}


def resample_by_itk(
    values: np.ndarray,
    affine: np.ndarray,
    grid: Grid,
    chain: Transform,
    interpolation: str,
    fill: float,
) -> np.ndarray:
    """Resample volumes through transforms, whose chain is evaluated exactly at each voxel.

    Parameters
    ----------
    values : ndarray (i, j, k, n), float32
        Volumes.
    affine : ndarray (4, 4)
        Their voxels to RAS+ mm.
    grid : Grid
        Grid of the result.
    chain : Transform
        Maps points of the grid to points of the values.
    interpolation : str
        Key of `INTERPOLATORS`.
    fill : float
        Value outside.

    Returns
    -------
    ndarray (*grid.shape, n), float32
    """
    # In voxel coordinates on both sides: ITK's geometry must be orthogonal, headers need not be.
    volumes = [sitk.GetImageFromArray(one.T) for one in np.moveaxis(values, -1, 0)]
    planes = max(1, POINTS_AT_A_TIME // (grid.shape[1] * grid.shape[2]))
    slabs = []
    for lower in range(0, grid.shape[0], planes):
        upper = min(lower + planes, grid.shape[0])
        slab = grid.crop((lower, 0, 0), (upper, *grid.shape[1:]))
        resampler = _resampler(slab, affine, chain)
        resampler.SetInterpolator(INTERPOLATORS[interpolation])
        resampler.SetDefaultPixelValue(fill)
        found = [sitk.GetArrayFromImage(resampler.Execute(one)).T for one in volumes]
        slabs.append(np.stack(found, axis=-1))
    return np.concatenate(slabs)


def _resampler(grid: Grid, affine: np.ndarray, chain: Transform) -> sitk.ResampleImageFilter:
    """Return a filter that resamples from the voxels of an image to those of a grid."""
    voxels = voxel_positions(grid)
    moved = voxels + chain.displacement(grid).field[0].movedim(0, -1).numpy()
    displacements = apply_affine(np.linalg.inv(affine) @ grid.affine, moved) - voxels
    field = sitk.GetImageFromArray(np.swapaxes(displacements, 0, 2).copy(), isVector=True)
    resampler = sitk.ResampleImageFilter()
    resampler.SetSize(grid.shape)
    resampler.SetTransform(sitk.DisplacementFieldTransform(field))
    resampler.SetOutputPixelType(sitk.sitkFloat32)
    resampler.SetNumberOfThreads(torch.get_num_threads())
    return resampler
