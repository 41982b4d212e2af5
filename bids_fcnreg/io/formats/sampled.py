"""Transforms as positions sampled on a grid, as all formats of nonlinear transforms store them."""

from __future__ import annotations

import os

import numpy as np
import torch

from bids_fcnreg.errors import InputError
from bids_fcnreg.fcn.spatial.grid import Grid, apply_affine
from bids_fcnreg.fcn.spatial.transform import Affine, Displacement, Transform
from bids_fcnreg.io.formats.image_grids import ImageGrids
from bids_fcnreg.io.itk import MAX_DISPLACEMENT_MM, MIN_DETERMINANT

#: Voxels along each axis to which the linear part of a field is fitted.
FITTED_VOXELS = 24


def linear_matrix(transform: Transform) -> np.ndarray | None:
    """Return the matrix (4, 4) of a linear transform, RAS+ mm; None if it is not linear."""
    matrix = np.eye(4)
    for step in transform.steps:
        if not isinstance(step, Affine):
            return None
        matrix = step.matrix @ matrix
    return matrix


def affine_transform(matrix: np.ndarray, path: str | os.PathLike[str]) -> Transform:
    """Return a linear transform from its matrix (4, 4), RAS+ mm.

    Raises
    ------
    InputError
        If it is singular or not finite.
    """
    check_finite(matrix, path)
    if abs(np.linalg.det(matrix[:3, :3])) < MIN_DETERMINANT:
        raise InputError(f"{path} contains a singular affine (determinant 0). Compute it again.")
    return Transform((Affine(matrix),))


def check_finite(values: np.ndarray, path: str | os.PathLike[str]) -> None:
    """Reject values that are NaN, infinite, or as large as in a damaged file.

    Raises
    ------
    InputError
        If there are such values.
    """
    if not np.isfinite(values).all():
        raise InputError(f"{path} contains infinite values or NaN. Compute it again.")
    if np.abs(values).max(initial=0) > MAX_DISPLACEMENT_MM:
        raise InputError(f"{path} moves points by more than a kilometre. Compute it again.")


def natural_grid(transform: Transform) -> Grid | None:
    """Return the grid on which a transform is sampled without loss; None if there is none.

    With one displacement field, it is that of the field in the fixed space: linear interpolation
    between its voxels is exact if all other steps are linear.
    """
    before, grid = np.eye(4), None
    for step in transform.steps:
        if isinstance(step, Displacement):
            if grid is not None:
                return None
            grid = Grid(step.grid.shape, np.linalg.inv(before) @ step.grid.affine)
        elif grid is None:
            before = step.matrix @ before
    return grid


def sampling_grid(transform: Transform, grids: ImageGrids, path: str | os.PathLike[str]) -> Grid:
    """Return the grid on which to write a transform: that of the fixed image, or its own.

    Raises
    ------
    InputError
        If the fixed image is not given and the transform has no grid of its own.
    """
    own = natural_grid(transform)
    if grids.fixed is None and own is not None:
        return own
    return grids.need("fixed", path, "a displacement field is sampled on the grid of an image")


def sample_positions(transform: Transform, grid: Grid) -> np.ndarray:
    """Map the voxel centres of a grid.

    Returns
    -------
    ndarray (i, j, k, 3), float64
        Points of the moving space, RAS+ mm.
    """
    field = transform.displacement(grid).field[0].movedim(0, -1).numpy()
    return apply_affine(grid.affine, voxel_positions(grid) + field)


def voxel_positions(grid: Grid) -> np.ndarray:
    """Return the voxel indices (i, j, k, 3) of a grid, float64."""
    return np.stack(np.meshgrid(*map(np.arange, grid.shape), indexing="ij"), -1).astype(float)


def from_positions(
    grid: Grid,
    positions: np.ndarray,
    path: str | os.PathLike[str],
    valid: np.ndarray | None = None,
) -> Transform:
    """Return the transform that maps voxel centres to given points.

    Its linear part, fitted to the positions, is a step of its own, which also maps points outside
    the grid.

    Parameters
    ----------
    grid : Grid
        In the fixed space.
    positions : ndarray (i, j, k, 3)
        Points of the moving space, RAS+ mm.
    path : path
        File of the transform, for messages.
    valid : ndarray (i, j, k) of bool, optional
        Voxels whose positions are known; the others follow the linear part.

    Raises
    ------
    InputError
        If positions are not finite.
    """
    valid = np.ones(grid.shape, bool) if valid is None else valid
    check_finite(positions[valid], path)
    matrix = _fit_linear(grid, positions, valid)
    to_voxels = np.linalg.inv(matrix @ grid.affine)
    field = apply_affine(to_voxels, positions) - voxel_positions(grid)
    field[~valid] = 0
    moved = torch.from_numpy(np.ascontiguousarray(np.moveaxis(field, -1, 0), dtype=np.float32))
    return Transform((Displacement(grid, moved[None]), Affine(matrix)))


def _fit_linear(grid: Grid, positions: np.ndarray, valid: np.ndarray) -> np.ndarray:
    """Fit a matrix (4, 4) from voxel centres to positions; the identity where none fits."""
    every = tuple(slice(None, None, max(1, n // FITTED_VOXELS)) for n in grid.shape)
    chosen = valid[every]
    points = apply_affine(grid.affine, voxel_positions(grid)[every][chosen])
    design = np.column_stack([points, np.ones(len(points))])
    matrix = np.eye(4)
    matrix[:3] = np.linalg.lstsq(design, positions[every][chosen], rcond=None)[0].T
    near_singular = np.linalg.det(matrix[:3, :3]) < MIN_DETERMINANT
    return np.eye(4) if near_singular else matrix
