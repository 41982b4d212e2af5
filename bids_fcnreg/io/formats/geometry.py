"""Volume geometry of FreeSurfer: how its transforms describe the grid of an image."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bids_fcnreg.fcn.spatial.grid import Grid


@dataclass(frozen=True)
class VolumeGeometry:
    """Grid of an image by voxel sizes, axes and centre.

    Attributes
    ----------
    shape : tuple of int
        Number of voxels along i, j, k.
    spacing : ndarray (3,)
        Voxel sizes in mm.
    axes : ndarray (3, 3)
        Directions of i, j, k in RAS+ in rows (``xras``, ``yras``, ``zras``).
    centre : ndarray (3,)
        Position (``cras``) of the voxel indices ``shape / 2``, in RAS+ mm.
    """

    shape: tuple[int, int, int]
    spacing: np.ndarray
    axes: np.ndarray
    centre: np.ndarray

    @classmethod
    def of(cls, grid: Grid) -> VolumeGeometry:
        """Return the geometry of a grid."""
        centre = grid.affine[:3, :3] @ (np.array(grid.shape) / 2) + grid.affine[:3, 3]
        return cls(grid.shape, grid.spacing, grid.axes.T, centre)

    @property
    def grid(self) -> Grid:
        """The grid."""
        affine = np.eye(4)
        affine[:3, :3] = self.axes.T * self.spacing
        affine[:3, 3] = self.centre - affine[:3, :3] @ (np.array(self.shape) / 2)
        return Grid(self.shape, affine)
