"""Nonlinear initial transforms.

As in antsRegistration, the linear stage and the deformation act on a point before the initial
transform: the fixed image is registered to the moving image as seen through it. The result is the
composition of all three, as one displacement and one affine.
"""

from __future__ import annotations

import numpy as np
from torch import Tensor
from torch.nn import functional as nnf

from bids_fcnreg.errors import InputError
from bids_fcnreg.fcn.groupwise import linear_part
from bids_fcnreg.fcn.modes import LINEAR
from bids_fcnreg.fcn.pair import MARGIN_MM
from bids_fcnreg.fcn.spatial.coordinates import map_points
from bids_fcnreg.fcn.spatial.displacement import identity
from bids_fcnreg.fcn.spatial.grid import Grid, apply_affine, voxel_to_voxel
from bids_fcnreg.fcn.spatial.midpoint import (
    border_taper,
    limit_compression,
    make_inverse_consistent,
)
from bids_fcnreg.fcn.spatial.transform import Displacement, Transform

#: The affine is fitted at this number of points along each edge of a grid.
FITTED_POINTS = 16

#: The displacement at the border of a grid falls to zero over this multiple of its length, within
#: at most `LARGEST_MARGIN_MM`.
TAPER, LARGEST_MARGIN_MM = 4.0, 60.0


def check_initial(initial: Transform, transform: str) -> None:
    """Check that a registration can start from an initial transform.

    Parameters
    ----------
    initial : Transform
        The initial transform.
    transform : str
        Kind of transform that is asked for.

    Raises
    ------
    InputError
        If it is nonlinear and the result must be linear, or exchanges left and right.
    """
    if initial.displacements and transform in LINEAR:
        raise InputError(
            f"The initial transform is nonlinear, and would make the {transform} transform "
            "nonlinear. Provide a linear one, such as 0GenericAffine.mat of ANTs or "
            "PREFIXaffine.mat of fcnreg, or choose the transform deformable."
        )
    if np.linalg.det(linear_part(initial)[:3, :3]) <= 0:
        raise InputError(
            "The initial transform exchanges left and right (negative determinant), or is "
            "singular. Check how it was made."
        )


def continued(initial: Transform) -> Transform:
    """Return a transform whose displacements keep their border values within `MARGIN_MM` around.

    Outside its grid a displacement is zero. If it is not zero at the border, the linear stage
    would move points across this discontinuity.
    """
    steps = (
        _padded(step, MARGIN_MM) if isinstance(step, Displacement) and _at_border(step) else step
        for step in initial.steps
    )
    return Transform(tuple(steps))


def compose_with_initial(
    chain: Transform, fixed: Grid
) -> tuple[Displacement, Displacement, np.ndarray]:
    """Collapse a chain that contains an initial transform into a displacement and an affine.

    Parameters
    ----------
    chain : Transform
        Deformation on the grid of a pair, affine, and the initial transform.
    fixed : Grid
        Grid of the fixed image.

    Returns
    -------
    forward, inverse : Displacement
        The displacement and its inverse, on the voxels of the pair in the fixed image and a
        margin, in which they fall to zero. Smoothed where the initial transform folds.
    matrix : ndarray (4, 4)
        The affine, RAS+ mm: that of the chain at the border of the fixed image. It is the product
        of the affines of the chain if displacements vanish there.
    """
    grid = _voxels_within(chain.displacements[0].grid, fixed)
    voxels = identity(grid.shape, chain.displacements[0].field)
    mapped = voxels + chain.displacement(grid).field
    linear = _fit_at_border(mapped)
    rest = Displacement(grid, map_points(mapped, np.linalg.inv(linear)) - voxels)
    spacing = float(grid.spacing.max())
    reach = TAPER * _at_border(rest) * spacing
    padded = _padded(rest, float(np.clip(reach, spacing, LARGEST_MARGIN_MM)))
    width = (padded.grid.shape[0] - grid.shape[0]) // 2
    field = limit_compression(padded.field * border_taper(padded.field, width))
    fields = make_inverse_consistent(field)
    forward, inverse = (Displacement(padded.grid, one) for one in fields)
    matrix = grid.affine @ linear @ np.linalg.inv(grid.affine)
    return forward, inverse, matrix


def _at_border(displacement: Displacement) -> float:
    """Return the largest component of a displacement at the border of its grid, in voxels."""
    field = displacement.field
    ends = (field.select(axis, end) for axis in (2, 3, 4) for end in (0, -1))
    return max(float(end.abs().max()) for end in ends)


def _padded(displacement: Displacement, margin_mm: float) -> Displacement:
    """Extend a displacement by its border values."""
    grid = displacement.grid
    margins = np.ceil(margin_mm / grid.spacing).astype(int).tolist()
    around = [margin for margin in reversed(margins) for _ in range(2)]
    field = nnf.pad(displacement.field, around, mode="replicate")
    upper = [n + margin for n, margin in zip(grid.shape, margins, strict=True)]
    return Displacement(grid.crop([-margin for margin in margins], upper), field)


def _voxels_within(voxels: Grid, fixed: Grid) -> Grid:
    """Return the voxels of a grid, or of its extension, in the field of view of a fixed image."""
    corners = np.array(list(np.ndindex(2, 2, 2))) * (np.array(fixed.shape) - 1)
    corners = apply_affine(voxel_to_voxel(fixed, voxels), corners)
    lower = np.ceil(corners.min(axis=0) - 1e-3).astype(int)
    upper = np.floor(corners.max(axis=0) + 1e-3).astype(int) + 1
    return voxels.crop(lower, upper)


def _fit_at_border(mapped: Tensor) -> np.ndarray:
    """Fit an affine (4, 4) to the images (1, 3, i, j, k) of the voxels at the border of a grid."""
    shape = np.array(mapped.shape[2:])
    axes = [np.unique(np.linspace(0, n - 1, FITTED_POINTS).round().astype(int)) for n in shape]
    index = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, 3)
    i, j, k = index[((index == 0) | (index == shape - 1)).any(axis=1)].T
    ends = mapped[0, :, i, j, k].cpu().double().numpy().T
    starts = np.column_stack([i, j, k, np.ones(len(i))])
    matrix = np.eye(4)
    matrix[:3] = np.linalg.lstsq(starts, ends, rcond=None)[0].T
    return matrix
