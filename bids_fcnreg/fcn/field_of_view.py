"""Fields of view that end inside the brain: where they do, nothing is known beyond."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from bids_fcnreg.fcn.spatial.grid import Grid, Image

#: An end of an axis is open if the brain has more voxels there than this fraction of its own
#: number to the power of two thirds.
OPEN = 0.02

#: Voxels at an open end that are ignored: they may be incomplete.
RIM = 0.5

#: For each axis, whether the brain is cut off at its low and at its high end.
OpenSides = tuple[tuple[bool, bool], ...]


def open_sides(inside: Tensor) -> OpenSides:
    """Return at which ends of a field of view an object is cut off.

    Parameters
    ----------
    inside : Tensor (i, j, k), bool
        The object.
    """
    limit = OPEN * float(inside.sum()) ** (2 / 3)
    return tuple(
        (float(inside.select(axis, 0).sum()) > limit, float(inside.select(axis, -1).sum()) > limit)
        for axis in range(3)
    )


def beyond_field_of_view(mask: Image, matrix: np.ndarray, grid: Grid) -> Tensor | None:
    """Find the voxels that lie beyond the open ends of an image.

    Parameters
    ----------
    mask : Image (1, 1, i, j, k)
        The brain in the image, above 0.5.
    matrix : ndarray (4, 4)
        From points of `grid` to those of the image, RAS+ mm.
    grid : Grid
        Where to look.

    Returns
    -------
    Tensor (1, 1, *grid.shape) or None
        1 beyond, else 0; None if the brain is complete.
    """
    sides = open_sides(mask.data[0, 0] > 0.5)
    if not any(map(any, sides)):
        return None
    to_voxels = np.linalg.inv(mask.grid.affine) @ matrix @ grid.affine
    device = mask.data.device
    beyond = torch.zeros(grid.shape, dtype=torch.bool, device=device)
    for (low, high), row, size in zip(sides, to_voxels[:3], mask.grid.shape, strict=True):
        i, j, k = (
            step * torch.arange(n, dtype=torch.float32, device=device)
            for step, n in zip(row[:3].tolist(), grid.shape, strict=True)
        )
        place = i[:, None, None] + j[:, None] + k + float(row[3])
        if low:
            beyond |= place < RIM
        if high:
            beyond |= place > size - 1 - RIM
    return beyond[None, None].float()
