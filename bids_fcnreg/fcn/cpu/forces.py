"""Kernel of local NCC and its forces; see `kernels`.

Sums over windows are kept along i for a slab of planes, and computed from there along j and k for
one row at a time: first the windows' moments, then the terms of their derivatives. No volume is
written but the forces. Rows without weight in a slab cost nothing. Indices of inner loops are
unsigned: numba would check signed ones for negative values. Temporary rows that one loop writes
are separate arrays: if they were rows of one array, the compiler would not vectorize the loop, as
they could overlap.

Kernels call only functions of their own file: numba's cache notices changes in that file alone.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from bids_fcnreg.fcn.cpu.compiler import compiled, inlined, inlined_in_order

#: Plain numbers would turn single into double precision.
ZERO, ONE, HALF = np.float32(0), np.float32(1), np.float32(0.5)

#: Unsigned integer of the size of a pointer, and some of its values.
U = np.uint64
U1, U2, U3, U4, U5, U6 = U(1), U(2), U(3), U(4), U(5), U(6)


@compiled
def local_ncc_forces(
    first: int,
    stop: int,
    one: np.ndarray,
    other: np.ndarray,
    weight: np.ndarray,
    radius: int,
    damping_one: np.ndarray,
    damping_other: np.ndarray,
    shares: np.ndarray,
    decay: np.float32,
    on_one: np.ndarray,
    on_other: np.ndarray,
) -> float:
    """Compute the local correlation of two images, and the forces that increase it.

    Parameters
    ----------
    first, stop : int
        Planes i to compute.
    one, other : array (channels, i, j, k)
        The images; at least two voxels along each axis.
    weight : array (i, j, k)
        Weight of the window around each voxel, at least 0.
    radius : int
        The window has ``2 * radius + 1`` voxels along each axis, cut at the border: 2 or 3.
    damping_one, damping_other : array (channels,)
        Added to the variances of windows, above 0.
    shares : array (channels,)
        Factor of the value and of the forces of each channel.
    decay : float32
        Factor of the forces of before.
    on_one, on_other : array (3, i, j, k)
        Forces, multiplied by `decay` where a row has weight, and added to where a voxel has; empty
        if only the value is wanted.

    Returns
    -------
    float
        These planes' part of the weighted sum of the windows' values, times `shares`.
    """
    reach = radius if on_one.size else 0  # of windows that contain the slab's voxels
    begin, end = max(first - reach, 0), min(stop + reach, weight.shape[0])
    rows, spans, near = _ranges(weight, begin, end, radius)
    value = 0.0
    for channel in range(one.shape[0]):
        value += _add_channel(
            first,
            stop,
            one[channel],
            other[channel],
            weight,
            radius,
            damping_one[channel],
            damping_other[channel],
            shares[channel],
            decay if channel == 0 else ONE,
            on_one,
            on_other,
            rows,
            spans,
            near,
        )
    return value


@inlined
def _add_channel(
    first: int,
    stop: int,
    one: np.ndarray,
    other: np.ndarray,
    weight: np.ndarray,
    radius: int,
    damping_one: np.float32,
    damping_other: np.float32,
    share: np.float32,
    decay: np.float32,
    on_one: np.ndarray,
    on_other: np.ndarray,
    rows: np.ndarray,
    spans: np.ndarray,
    near: np.ndarray,
) -> float:
    """Compute the value of one channel (i, j, k), and add its forces.

    `rows`, `spans` and `near` are those of `_ranges`, the other parameters those of the kernel.
    """
    size_i, size_j, size_k = one.shape
    width = 2 * radius + 1
    reach = radius if on_one.size else 0
    begin, end = max(first - reach, 0), min(stop + reach, size_i)
    # Sums over planes of: one, other, their squares, their product; zeros beyond the rows' ends.
    sums = np.zeros((size_j + 2 * radius, 5, size_k), np.float32)
    for i in range(max(begin - radius, 0), min(begin + radius, size_i)):
        for j in range(size_j):
            _add(sums[j + radius], one[i, j], other[i, j], near[j], ONE)
    # Terms of the derivatives of the windows around voxels: of the last planes, of plane i in
    # `i % width` (not read before it is written), and their sums over planes.
    terms = np.empty((width if reach else 0, size_j, 5, size_k), np.float32)
    term_sums = np.zeros(sums.shape if reach else (0, 0, 0), np.float32)
    to_other = np.empty(size_k, np.float32)
    to_a, to_b = np.empty(size_k, np.float32), np.empty(size_k, np.float32)
    rest_a, rest_b = np.empty(size_k, np.float32), np.empty(size_k, np.float32)
    row_terms = (to_other, to_a, to_b, rest_a, rest_b)
    window = np.zeros((5, size_k + 2 * radius), np.float32)
    per_k = np.empty(size_k, np.float32)
    for k in range(size_k):
        per_k[k] = ONE / np.float32(min(k + radius, size_k - 1) - max(k - radius, 0) + 1)
    force_one, force_other = np.empty(size_k, np.float32), np.empty(size_k, np.float32)
    values = np.empty(size_k, np.float32)
    value = 0.0
    for i in range(begin, stop + reach):
        if i < end:
            _move_window(sums, one, other, i, i > begin, radius, near)
        size = min(i + radius + 1, size_i) - max(i - radius, 0)
        leaves = i >= begin + width
        for j in range(size_j):
            if spans[j, 0] >= spans[j, 1]:
                continue
            area = size * (min(j + radius + 1, size_j) - max(j - radius, 0))
            if reach:
                _clear(row_terms, spans[j])
            if i < end and rows[i - begin, j, 0] < rows[i - begin, j, 1]:
                row = rows[i - begin, j]
                _sum_along_j(window, sums, j, row, radius)
                _compute_terms(
                    values,
                    *row_terms,
                    window,
                    weight[i, j],
                    ONE / np.float32(area),
                    per_k,
                    row,
                    radius,
                    damping_one,
                    damping_other,
                    share,
                )
                if first <= i < stop:
                    value += _total(values, row)
            if reach:
                old, total = terms[i % width, j], term_sums[j + radius]
                for q in range(5):
                    _replace(total[q], old[q], row_terms[q], spans[j], leaves)
        i_force = i - reach  # all windows that contain voxels of this plane are in the sums
        if not reach or i_force < first:
            continue
        for j in range(size_j):
            row = rows[i_force - begin, j]
            if row[0] >= row[1]:
                continue
            _sum_along_j(window, term_sums, j, row, radius)
            _compute_forces(
                force_one,
                force_other,
                window,
                one[i_force, j],
                other[i_force, j],
                weight[i_force, j],
                row,
                radius,
            )
            _add_along_gradient(on_one, force_one, one, i_force, j, row, decay)
            _add_along_gradient(on_other, force_other, other, i_force, j, row, decay)
    return value


@inlined
def _ranges(
    weight: np.ndarray, first: int, stop: int, radius: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Find first and one past the last voxel of rows.

    Returns
    -------
    rows : array (planes, j, 2)
        Voxels with weight; the second is not above the first where there are none.
    spans : array (j, 2)
        The same of all planes together.
    near : array (j, 2)
        Voxels of the windows around `spans`.
    """
    _, size_j, size_k = weight.shape
    rows = np.zeros((stop - first, size_j, 2), np.int64)
    spans, near = np.zeros((size_j, 2), np.int64), np.zeros((size_j, 2), np.int64)
    spans[:, 0] = near[:, 0] = size_k
    for i in range(first, stop):
        for j in range(size_j):
            low, high, row = 0, size_k, weight[i, j]
            while low < high and row[low] == ZERO:
                low += 1
            while low < high and row[high - 1] == ZERO:
                high -= 1
            rows[i - first, j, 0], rows[i - first, j, 1] = low, high
            if low < high:
                spans[j, 0], spans[j, 1] = min(spans[j, 0], low), max(spans[j, 1], high)
    for j in range(size_j):
        if spans[j, 0] < spans[j, 1]:
            for other in range(max(j - radius, 0), min(j + radius + 1, size_j)):
                near[other, 0] = min(near[other, 0], max(spans[j, 0] - radius, 0))
                near[other, 1] = max(near[other, 1], min(spans[j, 1] + radius, size_k))
    for j in range(size_j):
        near[j, 1] = max(near[j, 0], near[j, 1])
    return rows, spans, near


@inlined
def _move_window(
    sums: np.ndarray,
    one: np.ndarray,
    other: np.ndarray,
    i: int,
    leaves: bool,
    radius: int,
    near: np.ndarray,
) -> None:
    """Add the plane that enters the windows of plane i to the sums, and subtract the last one."""
    new, old = i + radius, i - radius - 1
    enters, leaves = new < one.shape[0], leaves and old >= 0
    for j in range(near.shape[0]):
        if enters:
            _add(sums[j + radius], one[new, j], other[new, j], near[j], ONE)
        if leaves:
            _add(sums[j + radius], one[old, j], other[old, j], near[j], -ONE)


@inlined
def _add(
    sums: np.ndarray, one: np.ndarray, other: np.ndarray, row: np.ndarray, sign: np.float32
) -> None:
    """Add a row of two images, their squares and their product to sums (5, k), times `sign`."""
    for k in range(U(row[0]), U(row[1])):
        a, b = one[k], other[k]
        sums[0, k] += sign * a
        sums[1, k] += sign * b
        sums[2, k] += sign * (a * a)
        sums[3, k] += sign * (b * b)
        sums[4, k] += sign * (a * b)


@inlined
def _clear(rows: Iterable[np.ndarray], row: np.ndarray) -> None:
    for one in rows:
        for k in range(U(row[0]), U(row[1])):
            one[k] = ZERO


@inlined
def _replace(
    sums: np.ndarray, old: np.ndarray, new: np.ndarray, span: np.ndarray, leaves: bool
) -> None:
    """Add new terms (k) to sums, subtract old ones if they leave, and store the new in `old`."""
    for k in range(U(span[0]), U(span[1])):
        sums[k] += new[k] - old[k] if leaves else new[k]
        old[k] = new[k]


@inlined
def _sum_along_j(
    window: np.ndarray, sums: np.ndarray, j: int, row: np.ndarray, radius: int
) -> None:
    """Sum rows j of the padded sums (j, 5, k) into a padded row (5, k)."""
    low, high = U(max(row[0] - radius, 0)), U(min(row[1] + radius, sums.shape[2]))
    pad = U(radius)
    a, b, c, d, e = sums[j], sums[j + 1], sums[j + 2], sums[j + 3], sums[j + 4]
    if radius == 2:
        for q in range(5):
            for k in range(low, high):
                window[q, k + pad] = (a[q, k] + b[q, k]) + (c[q, k] + d[q, k]) + e[q, k]
    else:
        f, g = sums[j + 5], sums[j + 6]
        for q in range(5):
            for k in range(low, high):
                near = (a[q, k] + b[q, k]) + (c[q, k] + d[q, k])
                window[q, k + pad] = near + (e[q, k] + f[q, k]) + g[q, k]


@inlined_in_order
def _compute_terms(
    values: np.ndarray,
    to_other: np.ndarray,
    to_a: np.ndarray,
    to_b: np.ndarray,
    rest_a: np.ndarray,
    rest_b: np.ndarray,
    window: np.ndarray,
    weight: np.ndarray,
    per_area: np.float32,
    per_k: np.ndarray,
    row: np.ndarray,
    radius: int,
    damping_one: np.float32,
    damping_other: np.float32,
    share: np.float32,
) -> None:
    """Compute the weighted values of a row of windows, and the terms of their derivatives.

    The derivative by a voxel of the image a is ``to_other * b - to_a * a + rest_a``, with the
    terms of all windows that contain it, by one of b ``to_other * a - to_b * b + rest_b``; see
    `losses.similarity.Comparison` for the formula. Exchanging the images exchanges the terms to
    the last bit.
    """
    for k in range(U(row[0]), U(row[1])):
        part = per_area * per_k[k]
        if radius == 2:
            mean_a, mean_b = part * _five(window[0], k), part * _five(window[1], k)
            square_a, square_b = part * _five(window[2], k), part * _five(window[3], k)
            product = part * _five(window[4], k)
        else:
            mean_a, mean_b = part * _seven(window[0], k), part * _seven(window[1], k)
            square_a, square_b = part * _seven(window[2], k), part * _seven(window[3], k)
            product = part * _seven(window[4], k)
        variance_a, variance_b = square_a - mean_a * mean_a, square_b - mean_b * mean_b
        covariance = product - mean_a * mean_b
        per_a = ONE / (max(variance_a, ZERO) + damping_one)
        per_b = ONE / (max(variance_b, ZERO) + damping_other)
        slope = abs(covariance) * (per_a * per_b)
        correlation = slope * covariance
        scale = weight[k] * share
        values[k] = scale * min(max(correlation, -ONE), ONE)
        scale *= part + part
        factor = scale * slope
        factor_a, factor_b = scale * (correlation * per_a), scale * (correlation * per_b)
        to_other[k], to_a[k], to_b[k] = factor, factor_a, factor_b
        rest_a[k] = factor_a * mean_a - factor * mean_b
        rest_b[k] = factor_b * mean_b - factor * mean_a


@inlined_in_order
def _compute_forces(
    force_one: np.ndarray,
    force_other: np.ndarray,
    window: np.ndarray,
    one: np.ndarray,
    other: np.ndarray,
    weight: np.ndarray,
    row: np.ndarray,
    radius: int,
) -> None:
    """Compute the derivative of all windows by the voxels of a row, from sums of their terms."""
    for k in range(U(row[0]), U(row[1])):
        if radius == 2:
            to_other, to_a, to_b = _five(window[0], k), _five(window[1], k), _five(window[2], k)
            rest_a, rest_b = _five(window[3], k), _five(window[4], k)
        else:
            to_other, to_a, to_b = _seven(window[0], k), _seven(window[1], k), _seven(window[2], k)
            rest_a, rest_b = _seven(window[3], k), _seven(window[4], k)
        a, b, counts = one[k], other[k], weight[k] > ZERO
        force_one[k] = (to_other * b - to_a * a) + rest_a if counts else ZERO
        force_other[k] = (to_other * a - to_b * b) + rest_b if counts else ZERO


@inlined
def _total(values: np.ndarray, row: np.ndarray) -> float:
    total = ZERO
    for k in range(U(row[0]), U(row[1])):
        total += values[k]
    return float(total)


@inlined_in_order
def _five(row: np.ndarray, k: Any) -> np.float32:
    return (row[k] + row[k + U1]) + (row[k + U2] + row[k + U3]) + row[k + U4]


@inlined_in_order
def _seven(row: np.ndarray, k: Any) -> np.float32:
    near = (row[k] + row[k + U1]) + (row[k + U2] + row[k + U3])
    return near + (row[k + U4] + row[k + U5]) + row[k + U6]


@inlined
def _add_along_gradient(
    forces: np.ndarray,
    force: np.ndarray,
    image: np.ndarray,
    i: int,
    j: int,
    row: np.ndarray,
    decay: np.float32,
) -> None:
    """Add a force times the gradient of the image, by central differences, to a row of forces."""
    size_i, size_j, size_k = image.shape
    low_i, high_i = max(i - 1, 0), min(i + 1, size_i - 1)
    low_j, high_j = max(j - 1, 0), min(j + 1, size_j - 1)
    per_i, per_j = ONE / np.float32(high_i - low_i), ONE / np.float32(high_j - low_j)
    before_i, after_i = image[low_i, j], image[high_i, j]
    before_j, after_j = image[i, low_j], image[i, high_j]
    on_i, on_j, on_k = forces[0, i, j], forces[1, i, j], forces[2, i, j]
    for k in range(U(row[0]), U(row[1])):
        on_i[k] = decay * on_i[k] + per_i * force[k] * (after_i[k] - before_i[k])
        on_j[k] = decay * on_j[k] + per_j * force[k] * (after_j[k] - before_j[k])
    here, last = image[i, j], size_k - 1
    for k in range(U(max(row[0], 1)), U(max(min(row[1], last), 1))):
        on_k[k] = decay * on_k[k] + HALF * force[k] * (here[k + U1] - here[k - U1])
    if row[0] == 0:
        on_k[0] = decay * on_k[0] + force[0] * (here[1] - here[0])
    if row[1] == size_k:
        on_k[last] = decay * on_k[last] + force[last] * (here[last] - here[last - 1])
