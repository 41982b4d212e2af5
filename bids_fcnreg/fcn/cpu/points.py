"""Kernels for the coordinates of points; see `kernels`.

Kernels call only functions of their own file: numba's cache notices changes in that file alone.
"""

from __future__ import annotations

import numpy as np

from bids_fcnreg.fcn.cpu.compiler import compiled


@compiled
def map_voxels(first: int, stop: int, matrix: np.ndarray, mapped: np.ndarray) -> None:
    """Map the voxel indices of a grid by a linear transform.

    Parameters
    ----------
    first, stop : int
        Planes i to compute.
    matrix : float64 array (3, 4)
        The transform; its last column is the translation.
    mapped : array (3, i, j, k)
        Output.
    """
    _, _, size_j, size_k = mapped.shape
    for axis in range(3):
        along_k = matrix[axis, 2]
        for i in range(first, stop):
            for j in range(size_j):
                start = matrix[axis, 0] * i + matrix[axis, 3] + matrix[axis, 1] * j
                row = mapped[axis, i, j]
                for k in range(size_k):
                    row[k] = np.float32(start + along_k * k)


@compiled
def map_points(
    first: int, stop: int, matrix: np.ndarray, points: np.ndarray, mapped: np.ndarray
) -> None:
    """Map points by a linear transform.

    Parameters
    ----------
    first, stop : int
        Points to map.
    matrix : array (3, 4)
        The transform; its last column is the translation.
    points : array (3, points)
        Coordinates along three axes.
    mapped : array (3, points)
        Output.
    """
    i, j, k = points[0], points[1], points[2]
    for axis in range(3):
        a, b, c, shift = matrix[axis, 0], matrix[axis, 1], matrix[axis, 2], matrix[axis, 3]
        target = mapped[axis]
        for n in range(first, stop):
            target[n] = a * i[n] + b * j[n] + c * k[n] + shift
