"""Kernel that smooths volumes; see `kernels`.

Kernels call only functions of their own file: numba's cache notices changes in that file alone.
"""

from __future__ import annotations

import numpy as np

from bids_fcnreg.fcn.cpu.compiler import compiled


@compiled
def gaussian(
    first: int,
    stop: int,
    data: np.ndarray,
    weights: tuple[np.ndarray, np.ndarray, np.ndarray],
    scales: tuple[np.ndarray, np.ndarray, np.ndarray],
    smooth: np.ndarray,
) -> None:
    """Smooth planes of a volume along i, j and k.

    A plane is smoothed along i into memory that fits the cache, and its rows from there along j
    and k. The inner loops run along k, where neighbours in memory are neighbours in space.

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
    smooth : array (channels, i, j, k)
        Output.
    """
    channels, size_i, size_j, size_k = data.shape
    weights_i, weights_j, weights_k = weights
    scales_i, scales_j, scales_k = scales
    radius = weights_k.size - 1
    plane = np.empty((size_j, size_k), np.float32)
    padded = np.zeros(size_k + 2 * radius, np.float32)  # a row with zeros beyond its ends
    row = padded[radius : radius + size_k]
    for channel in range(channels):
        rows = data[channel].reshape(size_i * size_j, size_k)
        for i in range(first, stop):
            for j in range(size_j):
                _blend(plane[j], rows, i * size_j + j, size_j, i, size_i - 1 - i, weights_i)
            for j in range(size_j):
                _blend(row, plane, j, 1, j, size_j - 1 - j, weights_j)
                target = smooth[channel, i, j]
                weight = weights_k[0]
                for k in range(size_k):
                    target[k] = weight * row[k]
                for step in range(1, radius + 1):
                    weight = weights_k[step]
                    left = padded[radius - step : radius - step + size_k]
                    right = padded[radius + step : radius + step + size_k]
                    for k in range(size_k):
                        target[k] += weight * (left[k] + right[k])
                scale = scales_i[i] * scales_j[j]
                for k in range(size_k):
                    target[k] *= scale * scales_k[k]


@compiled
def _blend(
    target: np.ndarray,
    rows: np.ndarray,
    centre: int,
    stride: int,
    before: int,
    after: int,
    weights: np.ndarray,
) -> None:
    """Sum weighted rows around a centre.

    Parameters
    ----------
    target : array (k,)
        Output.
    rows : array (rows, k)
        Neighbours along the axis are `stride` rows apart.
    centre : int
        The row around which to sum.
    before, after : int
        Number of neighbours on either side.
    weights : array (radius + 1,)
        From the centre outwards.
    """
    radius = weights.size - 1
    weight, middle = weights[0], rows[centre]
    for k in range(target.size):
        target[k] = weight * middle[k]
    paired = min(radius, before, after)
    for step in range(1, paired + 1):
        weight = weights[step]
        left, right = rows[centre - step * stride], rows[centre + step * stride]
        for k in range(target.size):
            target[k] += weight * (left[k] + right[k])
    towards = stride if after > before else -stride
    for step in range(paired + 1, min(radius, max(before, after)) + 1):
        weight, single = weights[step], rows[centre + step * towards]
        for k in range(target.size):
            target[k] += weight * single[k]
