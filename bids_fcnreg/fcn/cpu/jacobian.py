"""Kernel of the Jacobian determinant; see `kernels`.

Kernels call only functions of their own file: numba's cache notices changes in that file alone.
"""

from __future__ import annotations

import numpy as np

from bids_fcnreg.fcn.cpu.compiler import compiled, inlined

#: Plain numbers would turn single into double precision.
ONE, HALF = np.float32(1), np.float32(0.5)


@compiled
def jacobian_determinant(
    first: int, stop: int, field: np.ndarray, determinant: np.ndarray
) -> None:
    """Compute the Jacobian determinant of ``x -> x + u(x)``.

    Parameters
    ----------
    first, stop : int
        Planes i to compute.
    field : array (3, i, j, k)
        u in voxels; at least two along each axis.
    determinant : array (i, j, k)
        Output.
    """
    _, _, size_j, size_k = field.shape
    rows = np.empty((3, 3, size_k), np.float32)  # component of u, axis of the derivative, k
    for i in range(first, stop):
        for j in range(size_j):
            for channel in range(3):
                _gradient(rows[channel], field[channel], i, j)
            target = determinant[i, j]
            for k in range(size_k):
                a, b, c = rows[0, 0, k] + ONE, rows[0, 1, k], rows[0, 2, k]
                d, e, f = rows[1, 0, k], rows[1, 1, k] + ONE, rows[1, 2, k]
                g, h, l = rows[2, 0, k], rows[2, 1, k], rows[2, 2, k] + ONE  # noqa: E741
                target[k] = a * (e * l - f * h) - b * (d * l - f * g) + c * (d * h - e * g)


@inlined
def _gradient(rows: np.ndarray, volume: np.ndarray, i: int, j: int) -> None:
    """Compute the gradient of a row: (3, k), by central differences, one-sided at borders."""
    size_i, size_j, size_k = volume.shape
    low_i, high_i = max(i - 1, 0), min(i + 1, size_i - 1)
    low_j, high_j = max(j - 1, 0), min(j + 1, size_j - 1)
    _difference(rows[0], volume[low_i, j], volume[high_i, j], ONE / np.float32(high_i - low_i))
    _difference(rows[1], volume[i, low_j], volume[i, high_j], ONE / np.float32(high_j - low_j))
    row, last = volume[i, j], size_k - 1
    _difference(rows[2, 1:last], row[: last - 1], row[2:], HALF)
    rows[2, 0] = row[1] - row[0]
    rows[2, last] = row[last] - row[last - 1]


@inlined
def _difference(target: np.ndarray, low: np.ndarray, high: np.ndarray, factor: np.float32) -> None:
    for k in range(target.size):
        target[k] = factor * (high[k] - low[k])
