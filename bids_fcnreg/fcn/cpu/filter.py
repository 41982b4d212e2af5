"""Kernels that smooth volumes; see `kernels`.

A plane is smoothed along i into memory that fits the cache, and its rows from there along j and k.
The inner loops run along k, where neighbours in memory are neighbours in space. Their indices are
unsigned: numba would check signed ones for negative values.

Kernels call only functions of their own file: numba's cache notices changes in that file alone.
"""

from __future__ import annotations

import numpy as np

from bids_fcnreg.fcn.cpu.compiler import compiled, inlined

#: Plain numbers would turn single into double precision.
ZERO, ONE, EIGHTH = np.float32(0), np.float32(1), np.float32(1 / 8)

#: Weights of the nearer and the farther voxel of half the resolution in linear interpolation.
NEAR, FAR = np.float32(0.75), np.float32(0.25)

#: Unsigned integer of the size of a pointer.
U = np.uint64

#: One filter, or its scale factors, along i, j and k.
_Triple = tuple[np.ndarray, np.ndarray, np.ndarray]


@compiled
def gaussian(
    first: int,
    stop: int,
    data: np.ndarray,
    weights: _Triple,
    scales: _Triple,
    rows: np.ndarray,
    smooth: np.ndarray,
) -> None:
    """Smooth planes of a volume along i, j and k.

    Parameters
    ----------
    first, stop : int
        Planes i to compute.
    data : array (channels, i, j, k)
        Input.
    weights : 3 arrays (radius + 1,)
        The filters of the axes from their centres outwards.
    scales : arrays (i,), (j,), (k,)
        Factors that make each voxel's weights sum to one.
    rows : int array (i, j, 2)
        First voxel of each row along k to compute, and one past the last.
    smooth : array (channels, i, j, k)
        Output; voxels outside `rows` are left as they are.
    """
    channels, _, size_j, size_k = data.shape
    near = np.empty((size_j, 2), np.int64)
    plane, padded = _buffers(size_j, size_k, weights)
    for i in range(first, stop):
        _find_neighbours(near, rows[i], weights, size_k)
        for channel in range(channels):
            _smooth_along_i(plane, data[channel], i, near, weights)
            for j in range(size_j):
                low, high = rows[i, j, 0], rows[i, j, 1]
                if low < high:
                    target = smooth[channel, i, j]
                    _smooth_row(target, padded, plane, i, j, low, high, weights, scales)


@compiled
def blend(
    first: int,
    stop: int,
    data: np.ndarray,
    weights: _Triple,
    scales: _Triple,
    coarse: np.ndarray,
    share: np.ndarray,
    rows: np.ndarray,
    smooth: np.ndarray,
) -> None:
    """Smooth planes of a volume, and blend them with a volume of half the resolution.

    Parameters
    ----------
    first, stop : int
        Planes i to compute.
    data : array (channels, i, j, k)
        Input.
    weights, scales
        The filter; see `gaussian`.
    coarse : array (channels, i/2, j/2, k/2), sizes rounded up
        Interpolated linearly.
    share : array (i, j, k)
        Weight of `coarse` at each voxel, 0 to 1.
    rows, smooth
        See `gaussian`.
    """
    channels, _, size_j, size_k = data.shape
    near = np.empty((size_j, 2), np.int64)
    plane, padded = _buffers(size_j, size_k, weights)
    other = np.empty(coarse.shape[3], np.float32)
    for i in range(first, stop):
        _find_neighbours(near, rows[i], weights, size_k)
        for channel in range(channels):
            _smooth_along_i(plane, data[channel], i, near, weights)
            for j in range(size_j):
                low, high = rows[i, j, 0], rows[i, j, 1]
                if low < high:
                    target, part = smooth[channel, i, j], share[i, j]
                    _smooth_row(target, padded, plane, i, j, low, high, weights, scales)
                    _interpolate_row(other, coarse[channel], i, j, low, high)
                    last = other.size - 1
                    for k in range(low, high):
                        near_k = k >> 1
                        far_k = min(max(near_k + 2 * (k & 1) - 1, 0), last)
                        value = NEAR * other[U(near_k)] + FAR * other[U(far_k)]
                        target[U(k)] += part[U(k)] * (value - target[U(k)])


@compiled
def halve(first: int, stop: int, data: np.ndarray, coarse: np.ndarray) -> None:
    """Average blocks of two voxels along each axis; the last voxel of an odd size is repeated.

    Parameters
    ----------
    first, stop : int
        Planes of `coarse` to compute.
    data : array (channels, i, j, k)
        Input.
    coarse : array (channels, i/2, j/2, k/2), sizes rounded up
        Output.
    """
    channels, size_i, size_j, size_k = data.shape
    pairs = size_k // 2
    for channel in range(channels):
        for i in range(first, stop):
            for j in range(coarse.shape[2]):
                target, other_j = coarse[channel, i, j], min(2 * j + 1, size_j - 1)
                a, b = data[channel, 2 * i, 2 * j], data[channel, 2 * i, other_j]
                other_i = min(2 * i + 1, size_i - 1)
                c, d = data[channel, other_i, 2 * j], data[channel, other_i, other_j]
                for k in range(pairs):
                    one, two = U(2 * k), U(2 * k + 1)
                    target[k] = EIGHTH * (
                        (a[one] + b[one])
                        + (c[one] + d[one])
                        + (a[two] + b[two])
                        + (c[two] + d[two])
                    )
                if size_k % 2:
                    k = size_k - 1
                    target[pairs] = 2 * EIGHTH * ((a[k] + b[k]) + (c[k] + d[k]))


@compiled
def double(first: int, stop: int, data: np.ndarray, fine: np.ndarray) -> None:
    """Interpolate a volume linearly at twice its resolution.

    Parameters
    ----------
    first, stop : int
        Planes of `fine` to compute.
    data : array (channels, i/2, j/2, k/2), or larger
        Input.
    fine : array (channels, i, j, k)
        Output.
    """
    channels, _, size_j, size_k = fine.shape
    row = np.empty(data.shape[3], np.float32)
    last = data.shape[3] - 1
    pairs = U(min(size_k // 2, last))
    for channel in range(channels):
        for i in range(first, stop):
            for j in range(size_j):
                target = fine[channel, i, j]
                _interpolate_row(row, data[channel], i, j, 0, size_k)
                target[0] = row[0]
                for k in range(U(0), pairs):
                    target[2 * k + U(1)] = NEAR * row[k] + FAR * row[k + U(1)]
                    if 2 * k + U(2) < size_k:
                        target[2 * k + U(2)] = FAR * row[k] + NEAR * row[k + U(1)]
                if size_k > 2 * last + 1:
                    target[2 * last + 1] = row[last]


@inlined
def _interpolate_row(
    row: np.ndarray, coarse: np.ndarray, i: int, j: int, low: int, high: int
) -> None:
    """Interpolate a volume of half the resolution along i and j, for voxels of a row."""
    near_i, near_j = i >> 1, j >> 1
    far_i = min(max(near_i + 2 * (i & 1) - 1, 0), coarse.shape[0] - 1)
    far_j = min(max(near_j + 2 * (j & 1) - 1, 0), coarse.shape[1] - 1)
    a, b = coarse[near_i, near_j], coarse[near_i, far_j]
    c, d = coarse[far_i, near_j], coarse[far_i, far_j]
    for k in range(U(max((low >> 1) - 1, 0)), U(min((high >> 1) + 2, row.size))):
        row[k] = NEAR * (NEAR * a[k] + FAR * b[k]) + FAR * (NEAR * c[k] + FAR * d[k])


@inlined
def _buffers(size_j: int, size_k: int, weights: _Triple) -> tuple[np.ndarray, np.ndarray]:
    """Allocate a plane and a row, with zeros beyond their ends along j and k."""
    plane = np.zeros((size_j + 2 * (weights[1].size - 1), size_k), np.float32)
    return plane, np.zeros(size_k + 2 * (weights[2].size - 1), np.float32)


@inlined
def _find_neighbours(near: np.ndarray, rows: np.ndarray, weights: _Triple, size_k: int) -> None:
    """Find the voxels of each row of a plane (j, 2) that its smoothed `rows` depend on."""
    size_j, radius_j, radius_k = rows.shape[0], weights[1].size - 1, weights[2].size - 1
    for j in range(size_j):
        low, high = size_k, 0
        for other in range(max(j - radius_j, 0), min(j + radius_j + 1, size_j)):
            if rows[other, 0] < rows[other, 1]:
                low, high = min(low, rows[other, 0]), max(high, rows[other, 1])
        near[j, 0], near[j, 1] = max(low - radius_k, 0), min(high + radius_k, size_k)


@inlined
def _smooth_along_i(
    plane: np.ndarray, volume: np.ndarray, i: int, near: np.ndarray, weights: _Triple
) -> None:
    """Smooth a plane along i, two pairs of neighbours at a time; planes outside count as zero."""
    weights_i, pad = weights[0], weights[1].size - 1
    radius, last = weights_i.size - 1, volume.shape[0] - 1
    for j in range(near.shape[0]):
        low, high = U(near[j, 0]), U(max(near[j, 0], near[j, 1]))
        target, row, weight = plane[pad + j], volume[i, j], weights_i[0]
        for k in range(low, high):
            target[k] = weight * row[k]
        for step in range(1, radius + 1, 2):
            index_a, weight_a = _neighbour(i - step, last, weights_i, step)
            index_b, weight_b = _neighbour(i + step, last, weights_i, step)
            index_c, weight_c = _neighbour(i - step - 1, last, weights_i, step + 1)
            index_d, weight_d = _neighbour(i + step + 1, last, weights_i, step + 1)
            a, b = volume[index_a, j], volume[index_b, j]
            c, d = volume[index_c, j], volume[index_d, j]
            for k in range(low, high):
                target[k] += weight_a * a[k] + weight_b * b[k] + weight_c * c[k] + weight_d * d[k]


@inlined
def _neighbour(index: int, last: int, weights: np.ndarray, step: int) -> tuple[int, np.float32]:
    """Return the index of a neighbour and its weight, which is zero outside."""
    inside = 0 <= index <= last and step < weights.size
    return (index, weights[step]) if inside else (0, ZERO)


@inlined
def _smooth_row(
    target: np.ndarray,
    padded: np.ndarray,
    plane: np.ndarray,
    i: int,
    j: int,
    low: int,
    high: int,
    weights: _Triple,
    scales: _Triple,
) -> None:
    """Smooth voxels `low` to before `high` of a row along j and k, from a plane smooth along i."""
    weights_j, weights_k = weights[1], weights[2]
    radius_j, radius_k = weights_j.size - 1, weights_k.size - 1
    pad, centre = U(radius_k), j + radius_j
    before, after = U(max(low - radius_k, 0)), U(min(high + radius_k, target.size))
    row, weight = plane[centre], weights_j[0]
    for k in range(before, after):
        padded[k + pad] = weight * row[k]
    for step in range(1, radius_j + 1, 2):
        a, b, weight = plane[centre - step], plane[centre + step], weights_j[step]
        further = min(step + 1, radius_j)
        c, d = plane[centre - further], plane[centre + further]
        other = weights_j[further] if further > step else ZERO
        for k in range(before, after):
            padded[k + pad] += weight * (a[k] + b[k]) + other * (c[k] + d[k])
    weight = weights_k[0]
    for k in range(U(low), U(high)):
        target[k] = weight * padded[k + pad]
    for step in range(1, radius_k + 1, 2):
        weight, s = weights_k[step], U(step)
        further = min(step + 1, radius_k)
        other, t = weights_k[further] if further > step else ZERO, U(further)
        for k in range(U(low), U(high)):
            target[k] += weight * (padded[k + pad - s] + padded[k + pad + s]) + other * (
                padded[k + pad - t] + padded[k + pad + t]
            )
    scale, scales_k = scales[0][i] * scales[1][j], scales[2]
    for k in range(U(low), U(high)):
        target[k] *= scale * scales_k[k]
