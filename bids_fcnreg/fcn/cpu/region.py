"""Kernel that measures a displacement in a part of its grid; see `kernels`.

Kernels call only functions of their own file: numba's cache notices changes in that file alone.
"""

from __future__ import annotations

import numpy as np

from bids_fcnreg.fcn.cpu.compiler import compiled

ZERO = np.float32(0)


@compiled
def largest_square(first: int, stop: int, field: np.ndarray, rows: np.ndarray) -> np.float32:
    """Find the largest squared length of a displacement.

    Parameters
    ----------
    first, stop : int
        Planes i to look at.
    field : array (3, i, j, k)
        The displacement.
    rows : int array (i, j, 2)
        First voxel of each row along k to look at, and one past the last.
    """
    largest = ZERO
    for i in range(first, stop):
        for j in range(field.shape[2]):
            row = field[:, i, j, rows[i, j, 0] : rows[i, j, 1]]
            for k in range(row.shape[1]):
                square = row[0, k] ** 2 + row[1, k] ** 2 + row[2, k] ** 2
                largest = max(largest, square)
    return largest
