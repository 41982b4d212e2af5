"""Kernel that smooths the divergence of a displacement; see `kernels`.

Kernels call only functions of their own file: numba's cache notices changes in that file alone.
"""

from __future__ import annotations

import numpy as np

from bids_fcnreg.fcn.cpu.compiler import compiled, inlined

#: Plain numbers would turn single into double precision.
TWO, QUARTER = np.float32(2), np.float32(0.25)


@compiled
def damp_divergence(
    first: int,
    stop: int,
    field: np.ndarray,
    rate: np.float32,
    rows: np.ndarray,
    damped: np.ndarray,
) -> None:
    """Add the gradient of the divergence of a displacement, times `rate`.

    Parameters
    ----------
    first, stop : int
        Planes i to compute.
    field : array (3, i, j, k)
        The displacement.
    rate : float
        See `region.Region.damp_divergence`.
    rows : int array (i, j, 2)
        First voxel of each row along k to compute, and one past the last.
    damped : array (3, i, j, k)
        Output; unchanged at the grid's border. Voxels outside `rows` are left as they are.
    """
    _, size_i, size_j, size_k = field.shape
    mixed_rate = QUARTER * rate
    for i in range(first, stop):
        for j in range(size_j):
            low, high = rows[i, j, 0], rows[i, j, 1]
            damped[:, i, j, low:high] = field[:, i, j, low:high]
            low, high = max(low, 1), min(high, size_k - 1)
            if not (0 < i < size_i - 1 and 0 < j < size_j - 1 and low < high):
                continue
            row = slice(low, high)
            # The neighbourhood of the row, (3, 3, k): steps along i and j.
            u = field[0, i - 1 : i + 2, j - 1 : j + 2]
            v = field[1, i - 1 : i + 2, j - 1 : j + 2]
            w = field[2, i - 1 : i + 2, j - 1 : j + 2]
            _add_along_i(damped[0, i, j, row], u, v, w, low, rate, mixed_rate)
            _add_along_j(damped[1, i, j, row], u, v, w, low, rate, mixed_rate)
            _add_along_k(damped[2, i, j, row], u, v, w, low, rate, mixed_rate)


@inlined
def _add_along_i(
    target: np.ndarray,
    u: np.ndarray,
    v: np.ndarray,
    w: np.ndarray,
    low: int,
    rate: np.float32,
    mixed_rate: np.float32,
) -> None:
    for n in range(target.size):
        k = low + n
        second = u[2, 1, k] - TWO * u[1, 1, k] + u[0, 1, k]
        mixed = v[2, 2, k] - v[2, 0, k] - v[0, 2, k] + v[0, 0, k]
        mixed += w[2, 1, k + 1] - w[2, 1, k - 1] - w[0, 1, k + 1] + w[0, 1, k - 1]
        target[n] = u[1, 1, k] + rate * second + mixed_rate * mixed


@inlined
def _add_along_j(
    target: np.ndarray,
    u: np.ndarray,
    v: np.ndarray,
    w: np.ndarray,
    low: int,
    rate: np.float32,
    mixed_rate: np.float32,
) -> None:
    for n in range(target.size):
        k = low + n
        second = v[1, 2, k] - TWO * v[1, 1, k] + v[1, 0, k]
        mixed = u[2, 2, k] - u[2, 0, k] - u[0, 2, k] + u[0, 0, k]
        mixed += w[1, 2, k + 1] - w[1, 2, k - 1] - w[1, 0, k + 1] + w[1, 0, k - 1]
        target[n] = v[1, 1, k] + rate * second + mixed_rate * mixed


@inlined
def _add_along_k(
    target: np.ndarray,
    u: np.ndarray,
    v: np.ndarray,
    w: np.ndarray,
    low: int,
    rate: np.float32,
    mixed_rate: np.float32,
) -> None:
    for n in range(target.size):
        k = low + n
        second = w[1, 1, k + 1] - TWO * w[1, 1, k] + w[1, 1, k - 1]
        mixed = u[2, 1, k + 1] - u[2, 1, k - 1] - u[0, 1, k + 1] + u[0, 1, k - 1]
        mixed += v[1, 2, k + 1] - v[1, 2, k - 1] - v[1, 0, k + 1] + v[1, 0, k - 1]
        target[n] = w[1, 1, k] + rate * second + mixed_rate * mixed
