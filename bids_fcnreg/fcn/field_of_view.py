"""Fields of view that end inside the brain: where they do, nothing is known beyond."""

from __future__ import annotations

from torch import Tensor

from bids_fcnreg.fcn.spatial.grid import Grid, Image
from bids_fcnreg.fcn.spatial.transform import Transform

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


def beyond_field_of_view(mask: Image, transform: Transform, grid: Grid) -> Tensor | None:
    """Find the voxels that lie beyond the open ends of an image.

    Parameters
    ----------
    mask : Image (1, 1, i, j, k)
        The brain in the image, above 0.5.
    transform : Transform
        From points of `grid` to those of the image.
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
    voxels = transform.coordinates_in(grid, mask.grid, mask.data.device)
    beyond = voxels.new_zeros(1, 1, *grid.shape)
    for axis, ((low, high), size) in enumerate(zip(sides, mask.grid.shape, strict=True)):
        position = voxels[:, axis : axis + 1]
        if low:
            beyond[position < RIM] = 1
        if high:
            beyond[position > size - 1 - RIM] = 1
    return beyond
