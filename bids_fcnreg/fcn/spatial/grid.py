"""Grids, images on grids, and the mapping between voxels and millimetres.

World coordinates are RAS+ millimetres as in NIfTI; a grid's affine maps voxel indices
(i, j, k) to them. Every image carries its grid, so that geometry is never implied.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch
    from torch import Tensor

#: Cosine of the angle between two axes above which they are not perpendicular.
PERPENDICULAR = 1e-4

#: Grids are equal up to this fraction of the smallest voxel.
SAME_VOXELS = 0.1


@dataclass(frozen=True, eq=False)
class Grid:
    """A regular lattice of voxels in the world.

    Attributes
    ----------
    shape : tuple of int
        Number of voxels along i, j, k.
    affine : ndarray (4, 4), float64
        Maps homogeneous voxel indices to RAS+ millimetres; voxel centres are at integers.

    Examples
    --------
    >>> grid = Grid((10, 20, 30), np.diag([2.0, 2.0, 2.0, 1.0]))
    >>> grid.centre.tolist()
    [9.0, 19.0, 29.0]
    >>> grid.with_spacing(4.0).shape
    (5, 10, 15)
    >>> grid.crop((1, 0, 0), (3, 20, 30)).points()[0, 0, 0].tolist()
    [2.0, 0.0, 0.0]
    """

    shape: tuple[int, int, int]
    affine: np.ndarray

    def __post_init__(self) -> None:
        object.__setattr__(self, "shape", tuple(int(n) for n in self.shape))
        object.__setattr__(self, "affine", np.asarray(self.affine, dtype=np.float64))

    @property
    def spacing(self) -> np.ndarray:
        """Voxel size along i, j, k in mm, shape (3,)."""
        return np.linalg.norm(self.affine[:3, :3], axis=0)

    @property
    def centre(self) -> np.ndarray:
        """Centre of the field of view in RAS+ mm, shape (3,)."""
        return apply_affine(self.affine, (np.array(self.shape) - 1) / 2)

    @property
    def axes(self) -> np.ndarray:
        """Directions of i, j, k in the world: unit vectors in columns, shape (3, 3)."""
        return self.affine[:3, :3] / self.spacing

    @property
    def is_orthogonal(self) -> bool:
        """Whether the axes are perpendicular (not sheared)."""
        axes = self.axes
        return np.allclose(axes.T @ axes, np.eye(3), rtol=0, atol=PERPENDICULAR)

    def straight_axes(self) -> np.ndarray:
        """Return the perpendicular axes nearest to those of the grid, shape (3, 3)."""
        left, _, right = np.linalg.svd(self.axes)
        return left @ right

    def straightened(self, spacing: float) -> Grid:
        """Return a grid with perpendicular axes and voxels of `spacing` mm that covers this one.

        Examples
        --------
        >>> sheared = np.eye(4)
        >>> sheared[0, 1] = 0.5
        >>> Grid((10, 10, 10), sheared).straightened(1.0).is_orthogonal
        True
        """
        axes = self.straight_axes()
        ends = np.array(list(np.ndindex(2, 2, 2))) * np.array(self.shape) - 0.5
        corners = apply_affine(self.affine, ends) @ axes
        lower, upper = corners.min(axis=0), corners.max(axis=0)
        shape = np.ceil((upper - lower) / spacing - 1e-6).astype(int)
        affine = np.eye(4)
        affine[:3, :3] = axes * spacing
        affine[:3, 3] = axes @ ((lower + upper - (shape - 1) * spacing) / 2)
        return Grid(tuple(shape), affine)

    def matches(self, other: Grid, tolerance: float = 1e-3) -> bool:
        """Return whether both grids have the same voxels, up to `tolerance` in mm."""
        return self.distance(other) <= tolerance

    def distance(self, other: Grid) -> float:
        """Return the largest distance in mm between equal indices; infinite for other shapes.

        Examples
        --------
        >>> grid, turned = Grid((256, 256, 256), np.eye(4)), np.eye(4)
        >>> turned[0, 1] = 5e-4
        >>> round(grid.distance(Grid(grid.shape, turned)), 4)
        0.1275
        """
        if self.shape != other.shape:
            return float("inf")
        corners = np.array(list(np.ndindex(2, 2, 2))) * (np.array(self.shape) - 1)
        apart = apply_affine(self.affine, corners) - apply_affine(other.affine, corners)
        return float(np.linalg.norm(apart, axis=1).max())

    def mismatch(self, other: Grid) -> str | None:
        """Describe for messages how another grid differs; None if equal.

        Headers are rounded: distances up to `SAME_VOXELS` of the smallest voxel are ignored.
        """
        if self.shape != other.shape:
            shapes = ("×".join(map(str, grid.shape)) for grid in (self, other))
            return f"have different shapes ({' and '.join(shapes)})"
        apart = self.distance(other)
        if apart <= SAME_VOXELS * min(self.spacing.min(), other.spacing.min()):
            return None
        return f"lie up to {apart:.3g} mm apart"

    def with_spacing(self, spacing: float | Sequence[float]) -> Grid:
        """Return a grid of the same field of view and orientation with voxels of `spacing` mm.

        The outer edges of the first voxels coincide; along each axis there are as many voxels
        as are needed to cover the field of view.
        """
        wanted = np.broadcast_to(np.asarray(spacing, dtype=float), (3,))
        factor = wanted / self.spacing
        shape = np.maximum(1, np.ceil(np.array(self.shape) / factor - 1e-6)).astype(int)
        scaling = np.diag([*factor, 1.0])
        scaling[:3, 3] = (factor - 1) / 2
        return Grid(tuple(shape), self.affine @ scaling)

    def crop(self, lower: Sequence[int], upper: Sequence[int]) -> Grid:
        """Return the grid of the voxels from `lower` (included) to `upper` (excluded).

        Bounds outside the grid extend it.
        """
        shift = np.eye(4)
        shift[:3, 3] = lower
        return Grid(tuple(np.subtract(upper, lower)), self.affine @ shift)

    def points(self) -> Tensor:
        """Return the world coordinates of every voxel centre.

        Returns
        -------
        Tensor (i, j, k, 3), float64
            RAS+ mm.
        """
        import torch  # takes seconds: only where something is computed

        along_i, along_j, along_k = (torch.arange(n, dtype=torch.float64) for n in self.shape)
        coordinates = [
            # Sums of outer products: cheaper than a matrix product at every voxel.
            (to_i * along_i + shift)[:, None, None] + (to_j * along_j)[:, None] + to_k * along_k
            for to_i, to_j, to_k, shift in self.affine[:3].tolist()
        ]
        return torch.stack(coordinates, dim=-1)


@dataclass(frozen=True, eq=False)
class Image:
    """Voxel values and their grid.

    Attributes
    ----------
    data : Tensor (1, channels, i, j, k)
        Voxel values.
    grid : Grid
        Where the voxels are.
    """

    data: Tensor
    grid: Grid

    def __post_init__(self) -> None:
        if self.data.ndim != 5 or tuple(self.data.shape[2:]) != self.grid.shape:
            raise ValueError(
                f"Data of shape {tuple(self.data.shape)} do not fit a grid of {self.grid.shape}."
            )

    def to(self, device: torch.device) -> Image:
        """Return the image on a device."""
        return Image(self.data.to(device), self.grid)


def apply_affine(matrix: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Map points (..., 3) by a homogeneous (4, 4) matrix."""
    return np.asarray(points) @ matrix[:3, :3].T + matrix[:3, 3]


def voxel_to_voxel(source: Grid, target: Grid) -> np.ndarray:
    """Return the matrix (4, 4) from voxel indices of `source` to voxel indices of `target`.

    Examples
    --------
    >>> fine = Grid((8, 8, 8), np.eye(4))
    >>> apply_affine(voxel_to_voxel(fine, fine.with_spacing(2.0)), [0, 4, 5]).tolist()
    [-0.25, 1.75, 2.25]
    """
    return np.linalg.inv(target.affine) @ source.affine
