"""Masks with a margin around them, on any grid."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as nnf

from bids_fcnreg.fcn.spatial.filters import dilate
from bids_fcnreg.fcn.spatial.grid import Grid, Image, apply_affine
from bids_fcnreg.fcn.spatial.transform import Transform, sample_as_itk

#: Masks are dilated in cells of about this size in mm.
CELL = 2.0


_IDENTITY = Transform(())


def with_margin(mask: Image, margin: float, onto: Grid, by: Transform = _IDENTITY) -> Tensor:
    """Find the voxels of a grid in a mask or near it.

    Parameters
    ----------
    mask : Image (1, 1, i, j, k)
        Nonzero inside.
    margin : float
        In mm. All voxels as near as this are found, and some that are a few `CELL` farther.
    onto : Grid
        The grid.
    by : Transform, optional
        Affine: maps points of the grid's space to the mask's, in whose mm the margin is.

    Returns
    -------
    Tensor (*onto.shape), bool

    Examples
    --------
    >>> data = torch.zeros(1, 1, 60, 60, 60)
    >>> data[..., 30, 30, 30] = 1
    >>> grid = Grid((60, 60, 60), np.eye(4))
    >>> near = with_margin(Image(data, grid), 5.0, grid)
    >>> bool(near[25:36, 25:36, 25:36].all()), bool(near[:10].any())
    (True, False)
    """
    target = onto.with_spacing((onto.spacing * _voxels_of_a_cell(onto)).tolist())
    # Cells are found by their centers, which are up to half of their diagonal farther away.
    corners = apply_affine(target.affine, np.array(list(np.ndindex(2, 2, 2))))
    moved = by.map(torch.from_numpy(corners))
    reach_mm = margin + float((moved - moved.mean(dim=0)).norm(dim=1).max())
    reach = math.ceil(reach_mm / (mask.grid.spacing * _voxels_of_a_cell(mask.grid)).min())
    cells, grid = _cells(mask, reach)
    coordinates = by.coordinates_in(target, grid, "cpu")
    near = sample_as_itk(dilate(cells, reach), coordinates, "nearest")[0, 0] > 0
    for axis, (voxels, size) in enumerate(zip(_voxels_of_a_cell(onto), onto.shape, strict=True)):
        near = near.repeat_interleave(voxels, dim=axis).narrow(axis, 0, size)
    return near


def _voxels_of_a_cell(grid: Grid) -> list[int]:
    return [max(1, int(CELL / spacing)) for spacing in grid.spacing]


def _cells(mask: Image, reach: int) -> tuple[Tensor, Grid]:
    """Return which cells have a voxel in a mask, with `reach` empty cells around all."""
    voxels = _voxels_of_a_cell(mask.grid)
    inside = (mask.data.cpu() != 0).float()
    cells = nnf.max_pool3d(inside, voxels, ceil_mode=True)
    grid = mask.grid.with_spacing((mask.grid.spacing * voxels).tolist())
    return nnf.pad(cells, [reach] * 6), grid.crop([-reach] * 3, [n + reach for n in grid.shape])
