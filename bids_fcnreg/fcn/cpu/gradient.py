"""Kernels with gradients of volumes, and the force of local NCC; see `kernels`.

Kernels call only functions of their own file: numba's cache notices changes in that file alone.
"""

from __future__ import annotations

import numpy as np

from bids_fcnreg.fcn.cpu.compiler import compiled

#: Plain numbers would turn single into double precision.
ZERO, ONE, TWO, HALF = np.float32(0), np.float32(1), np.float32(2), np.float32(0.5)


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


@compiled
def local_ncc_forces(
    first: int,
    stop: int,
    one: np.ndarray,
    other: np.ndarray,
    weight: np.ndarray,
    radius: int,
    flat_one: np.float32,
    flat_other: np.float32,
    scale: np.float32,
    on_one: np.ndarray,
    on_other: np.ndarray,
) -> float:
    """Compute the local correlation of two images, and the force of each window on its centre.

    Forces are added to the output, to accumulate those of several channels.

    Sums over windows are taken along i into rows, of which the last ones are kept for the sums
    along j and these for those along k: all of it stays in the cache, and no volume is written but
    the forces. Sums are short and always recomputed, so that rounding errors do not accumulate.

    Parameters
    ----------
    first, stop : int
        Planes i to compute.
    one, other : array (i, j, k)
        The images; at least two voxels along each axis.
    weight : array (i, j, k)
        Weight of the window around each voxel, at least 0.
    radius : int
        The window has ``2 * radius + 1`` voxels along each axis, cut at the border.
    flat_one, flat_other : float32
        Variance above which a window counts.
    scale : float32
        Factor of the value and of the forces.
    on_one, on_other : array (3, i, j, k)
        Forces, are added to; empty if only the value is wanted.

    Returns
    -------
    float
        These planes' part of the weighted sum of the windows' values, times `scale`.
    """
    size_i, size_j, size_k = one.shape
    width = 2 * radius + 1
    # Rows of five sums: of one, of other, of their squares, of their product.
    along_i = np.empty((width, 5, size_k), np.float32)  # row j is kept at j modulo width
    kept = np.empty(width, np.int64)  # which row that is
    along_ij = np.zeros((5, size_k + 2 * radius), np.float32)  # with zeros beyond its ends
    sums = np.empty((5, size_k), np.float32)
    per_k = np.empty(size_k, np.float32)
    for k in range(size_k):
        per_k[k] = ONE / np.float32(min(k + radius, size_k - 1) - max(k - radius, 0) + 1)
    forces = np.empty((2, size_k), np.float32)
    gradient = np.empty((3, size_k), np.float32)
    value = 0.0
    for i in range(first, stop):
        for n in range(width):
            kept[n] = -1
        low_i, high_i = max(i - radius, 0), min(i + radius + 1, size_i)
        for j in range(size_j):
            if not _any(weight[i, j]):
                continue
            low_j, high_j = max(j - radius, 0), min(j + radius + 1, size_j)
            for quantity in range(5):
                _clear(along_ij[quantity])
            for near in range(low_j, high_j):
                row = along_i[near % width]
                if kept[near % width] != near:
                    _sums_along_i(row, one, other, low_i, high_i, near)
                    kept[near % width] = near
                for quantity in range(5):
                    _add(along_ij[quantity, radius : radius + size_k], row[quantity])
            for quantity in range(5):
                _clear(sums[quantity])
                for offset in range(width):
                    _add(sums[quantity], along_ij[quantity, offset : offset + size_k])

            per_ij = ONE / np.float32((high_i - low_i) * (high_j - low_j))
            for k in range(size_k):
                part = per_ij * per_k[k]
                mean_a, mean_b = sums[0, k] * part, sums[1, k] * part
                variance_a = sums[2, k] * part - mean_a * mean_a
                variance_b = sums[3, k] * part - mean_b * mean_b
                covariance = sums[4, k] * part - mean_a * mean_b
                counts = (variance_a > flat_one) & (variance_b > flat_other)
                slope = abs(covariance) / (variance_a * variance_b) if counts else ZERO
                per_a = slope * covariance / variance_a if counts else ZERO
                per_b = slope * covariance / variance_b if counts else ZERO
                a, b = one[i, j, k] - mean_a, other[i, j, k] - mean_b
                share = weight[i, j, k] * scale
                value += share * min(max(slope * covariance, -ONE), ONE)
                forces[0, k] = TWO * share * (slope * b - per_a * a)
                forces[1, k] = TWO * share * (slope * a - per_b * b)

            if on_one.size == 0:
                continue
            _gradient(gradient, one, i, j)
            for axis in range(3):
                _add_product(on_one[axis, i, j], forces[0], gradient[axis])
            _gradient(gradient, other, i, j)
            for axis in range(3):
                _add_product(on_other[axis, i, j], forces[1], gradient[axis])
    return value


@compiled
def _any(weights: np.ndarray) -> np.bool_:
    """Return whether any weight of a row is nonzero."""
    largest = ZERO
    for k in range(weights.size):
        largest = max(largest, abs(weights[k]))
    return largest > ZERO


@compiled
def _sums_along_i(
    sums: np.ndarray, one: np.ndarray, other: np.ndarray, low: int, high: int, j: int
) -> None:
    """Sum a row of two images over the planes from `low` to before `high`: (5, k)."""
    for quantity in range(5):
        _clear(sums[quantity])
    for i in range(low, high):
        a, b = one[i, j], other[i, j]
        _add(sums[0], a)
        _add(sums[1], b)
        _add_product(sums[2], a, a)
        _add_product(sums[3], b, b)
        _add_product(sums[4], a, b)


@compiled
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


@compiled
def _difference(target: np.ndarray, low: np.ndarray, high: np.ndarray, factor: np.float32) -> None:
    for k in range(target.size):
        target[k] = factor * (high[k] - low[k])


@compiled
def _clear(target: np.ndarray) -> None:
    for k in range(target.size):
        target[k] = ZERO


@compiled
def _add(target: np.ndarray, row: np.ndarray) -> None:
    for k in range(target.size):
        target[k] += row[k]


@compiled
def _add_product(target: np.ndarray, row: np.ndarray, other: np.ndarray) -> None:
    for k in range(target.size):
        target[k] += row[k] * other[k]
