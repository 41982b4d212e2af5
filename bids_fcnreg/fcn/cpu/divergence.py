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
            # The neighbourhood of the row in each component, (3, 3, k): steps along i and j.
            u = field[0, i - 1 : i + 2, j - 1 : j + 2]
            v = field[1, i - 1 : i + 2, j - 1 : j + 2]
            w = field[2, i - 1 : i + 2, j - 1 : j + 2]
            row = damped[:, i, j, low:high]
            _damp_across(row[0], u[:, 1], v, w[:, 1], low, rate, mixed_rate)
            _damp_across(row[1], v[1], u, w[1], low, rate, mixed_rate)
            _damp_along(row[2], w[1, 1], u[:, 1], v[1], low, rate, mixed_rate)


@inlined
def _damp_across(
    target: np.ndarray,
    own: np.ndarray,
    other: np.ndarray,
    along: np.ndarray,
    low: int,
    rate: np.float32,
    mixed_rate: np.float32,
) -> None:
    """Damp a component across the row, i or j.

    Parameters
    ----------
    target : array (n,)
        Output, from voxel `low` of the row on.
    own, along : array (3, k)
        This component and that along the row, at three steps along this component's axis.
    other : array (3, 3, k)
        The other component across the row.
    low, rate, mixed_rate
        As in `damp_divergence`; a quarter of the rate.
    """
    for n in range(target.size):
        k = low + n
        second = own[2, k] - TWO * own[1, k] + own[0, k]
        mixed = other[2, 2, k] - other[2, 0, k] - other[0, 2, k] + other[0, 0, k]
        mixed += along[2, k + 1] - along[2, k - 1] - along[0, k + 1] + along[0, k - 1]
        target[n] = own[1, k] + rate * second + mixed_rate * mixed


@inlined
def _damp_along(
    target: np.ndarray,
    own: np.ndarray,
    u: np.ndarray,
    v: np.ndarray,
    low: int,
    rate: np.float32,
    mixed_rate: np.float32,
) -> None:
    """Damp the component along the row: own (k,), and u, v (3, k) at steps along i and j."""
    for n in range(target.size):
        k = low + n
        second = own[k + 1] - TWO * own[k] + own[k - 1]
        mixed = u[2, k + 1] - u[2, k - 1] - u[0, k + 1] + u[0, k - 1]
        mixed += v[2, k + 1] - v[2, k - 1] - v[0, k + 1] + v[0, k - 1]
        target[n] = own[k] + rate * second + mixed_rate * mixed
