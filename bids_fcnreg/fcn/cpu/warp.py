"""Kernels for interpolation; see `kernels`.

Coordinates are clamped to the grid, which repeats the border's values outside. For zeros outside,
the result then fades: linear interpolation between the border and a zero one voxel beyond it is
the border's value times one minus the distance, along each axis.

Kernels call only functions of their own file: numba's cache notices changes in that file alone.
"""

from __future__ import annotations

import numpy as np

from bids_fcnreg.fcn.cpu.compiler import compiled, inlined

#: Plain numbers would turn single into double precision.
ZERO, ONE, HALF = np.float32(0), np.float32(1), np.float32(0.5)

#: Points interpolated at a time, if they are not a row of a grid.
CHUNK = 256


@compiled
def sample(
    first: int,
    stop: int,
    image: np.ndarray,
    coordinates: np.ndarray,
    border: bool,
    limited: bool,
    fill: np.float32,
    sampled: np.ndarray,
) -> None:
    """Sample an image at arbitrary points.

    Parameters
    ----------
    first, stop : int
        Points to compute.
    image : array (channels, i, j, k)
        At least two voxels along each axis.
    coordinates : array (3, points)
        In voxels of the image.
    border : bool
        Repeat the border outside, instead of zeros.
    limited : bool
        Use `fill` farther than half a voxel beyond the outermost voxel centres.
    fill : float32
        See `limited`.
    sampled : array (channels, points)
        Output.
    """
    points, cells, parts, fade = _row_buffers(CHUNK)
    for start in range(first, stop, CHUNK):
        end = min(start + CHUNK, stop)
        for axis in range(3):
            for n in range(end - start):
                points[axis, n] = coordinates[axis, start + n]
        _locate(points, image.shape, end - start, cells, parts, fade)
        for channel in range(image.shape[0]):
            target = sampled[channel, start:end]
            _look_up(target, image[channel], cells, parts)
            if not border:
                for n in range(target.size):
                    target[n] *= fade[n]
            if limited:
                for n in range(target.size):
                    if not _is_inside(points[0, n], points[1, n], points[2, n], image.shape[1:]):
                        target[n] = fill


@compiled
def vote(
    first: int,
    stop: int,
    labels: np.ndarray,
    coordinates: np.ndarray,
    limited: bool,
    fill: np.float32,
    winners: np.ndarray,
) -> None:
    """Find the label with the largest sum of trilinear weights of eight neighbours; first of ties.

    Parameters
    ----------
    first, stop : int
        Points to compute.
    labels : array (i, j, k)
        At least two voxels along each axis.
    coordinates : array (3, points)
        In voxels.
    limited, fill
        See `sample`.
    winners : array (points,)
        Output.
    """
    size_i, size_j, size_k = labels.shape
    candidates, weights = np.empty(8, np.float32), np.empty(8, np.float32)
    for n in range(first, stop):
        if limited and not _is_inside(
            coordinates[0, n], coordinates[1, n], coordinates[2, n], labels.shape
        ):
            winners[n] = fill
            continue
        i, part_i, _ = _split(coordinates[0, n], size_i)
        j, part_j, _ = _split(coordinates[1, n], size_j)
        k, part_k, _ = _split(coordinates[2, n], size_k)
        winner = labels[i, j, k]
        unanimous = True
        for corner in range(8):
            a, b, c = corner >> 2, (corner >> 1) & 1, corner & 1
            candidates[corner] = labels[i + a, j + b, k + c]
            weights[corner] = (
                (part_i if a else ONE - part_i)
                * (part_j if b else ONE - part_j)
                * (part_k if c else ONE - part_k)
            )
            unanimous = unanimous and candidates[corner] == winner
        if not unanimous:
            most = ZERO
            for corner in range(8):
                votes = ZERO
                for other in range(8):
                    if candidates[other] == candidates[corner]:
                        votes += weights[other]
                if votes > most:
                    winner, most = candidates[corner], votes
        winners[n] = winner


@compiled
def warp(
    first: int,
    stop: int,
    image: np.ndarray,
    field: np.ndarray,
    rows: np.ndarray,
    warped: np.ndarray,
) -> None:
    """Pull an image back: ``warped(x) = image(x + u(x))``, zero outside.

    Parameters
    ----------
    first, stop : int
        Planes i to compute.
    image : array (channels, i, j, k)
        At least two voxels along each axis.
    field : array (3, i, j, k)
        u in voxels.
    rows : int array (i, j, 2)
        First voxel of each row along k to compute, and one past the last.
    warped : array (channels, i, j, k)
        Output; voxels outside `rows` are left as they are.
    """
    _, _, size_j, size_k = field.shape
    points, cells, parts, fade = _row_buffers(size_k)
    for i in range(first, stop):
        for j in range(size_j):
            low, high = rows[i, j]
            if low >= high:
                continue
            count = high - low
            _displace(points, field, ONE, i, j, low, high)
            _locate(points, image.shape, count, cells, parts, fade)
            for channel in range(image.shape[0]):
                target = warped[channel, i, j, low:high]
                _look_up(target, image[channel], cells, parts)
                for k in range(count):
                    target[k] *= fade[k]


@compiled
def compose(
    first: int,
    stop: int,
    before: np.ndarray,
    scale: np.float32,
    after: np.ndarray,
    rows: np.ndarray,
    both: np.ndarray,
) -> None:
    """Compute the displacement ``u(x) + after(x + u(x))`` of a step u.

    Parameters
    ----------
    first, stop : int
        Planes i to compute.
    before : array (3, i, j, k)
        u / `scale`, in voxels.
    scale : float32
        Factor of the step.
    after : array (3, i, j, k)
        In voxels; at least two along each axis.
    rows : int array (i, j, 2)
        First voxel of each row along k to compute, and one past the last.
    both : array (3, i, j, k)
        Output; voxels outside `rows` are left as they are.
    """
    _, _, size_j, size_k = before.shape
    points, cells, parts, fade = _row_buffers(size_k)
    for i in range(first, stop):
        for j in range(size_j):
            low, high = rows[i, j]
            if low >= high:
                continue
            count = high - low
            _displace(points, before, scale, i, j, low, high)
            _locate(points, after.shape, count, cells, parts, fade)
            for channel in range(3):
                target = both[channel, i, j, low:high]
                _look_up(target, after[channel], cells, parts)
                step = before[channel, i, j, low:high]
                for k in range(count):
                    target[k] += scale * step[k]


@compiled
def round_trip(
    first: int, stop: int, there: np.ndarray, back: np.ndarray, distances: np.ndarray
) -> None:
    """Measure how far a displacement u and one back move points: ``|u(x) + back(x + u(x))|``.

    Parameters
    ----------
    first, stop : int
        Planes i to compute.
    there : array (3, i, j, k)
        u in voxels.
    back : array (3, i, j, k)
        In voxels; at least two along each axis.
    distances : array (i, j, k)
        Output, in voxels.
    """
    _, _, size_j, size_k = there.shape
    points, cells, parts, fade = _row_buffers(size_k)
    returned = np.empty(size_k, np.float32)
    for i in range(first, stop):
        for j in range(size_j):
            _displace(points, there, ONE, i, j, 0, size_k)
            _locate(points, back.shape, size_k, cells, parts, fade)
            squares = distances[i, j]
            squares[:] = ZERO
            for channel in range(3):
                _look_up(returned, back[channel], cells, parts)
                step = there[channel, i, j]
                for k in range(size_k):
                    squares[k] += (step[k] + returned[k]) ** 2
            for k in range(size_k):
                squares[k] = np.sqrt(squares[k])


@inlined
def _is_inside(i: np.float32, j: np.float32, k: np.float32, shape: tuple[int, ...]) -> np.bool:
    """Return whether a point is at most half a voxel beyond the outermost voxel centres."""
    return (
        i >= -HALF
        and j >= -HALF
        and k >= -HALF
        and i <= np.float32(shape[0]) - HALF
        and j <= np.float32(shape[1]) - HALF
        and k <= np.float32(shape[2]) - HALF
    )


@inlined
def _row_buffers(count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Allocate points and the outputs of `_locate`."""
    points, parts = np.zeros((3, count), np.float32), np.empty((3, count), np.float32)
    return points, np.empty(count, np.int64), parts, np.empty(count, np.float32)


@inlined
def _displace(
    points: np.ndarray,
    field: np.ndarray,
    scale: np.float32,
    i: int,
    j: int,
    low: int,
    high: int,
) -> None:
    """Compute the displaced points of voxels `low` to before `high` of a row, (3, n)."""
    rows = field[:, i, j, low:high]
    for n in range(high - low):
        points[0, n] = np.float32(i) + scale * rows[0, n]
        points[1, n] = np.float32(j) + scale * rows[1, n]
        points[2, n] = np.float32(low + n) + scale * rows[2, n]


@inlined
def _locate(
    points: np.ndarray,
    shape: tuple[int, ...],
    count: int,
    cells: np.ndarray,
    parts: np.ndarray,
    fade: np.ndarray,
) -> None:
    """Find the eight voxels around each point.

    Parameters
    ----------
    points : array (3, n)
        In voxels.
    shape : channels, i, j, k
        Of the image.
    count : int
        Number of points to locate.
    cells : array (n,)
        Output: flat index, within a channel, of the voxel below along all axes.
    parts : array (3, n)
        Output: fraction of the way to the voxel above, 0 to 1.
    fade : array (n,)
        Output: factor of the values if zeros surround the grid.
    """
    for n in range(count):
        cells[n] = 0
        fade[n] = ONE
    for axis in range(3):
        size = shape[axis + 1]
        for n in range(count):
            cell, parts[axis, n], outside = _split(points[axis, n], size)
            cells[n] = cells[n] * size + cell
            fade[n] *= max(ONE - outside, ZERO)


@inlined
def _split(point: np.float32, size: int) -> tuple[np.int32, np.float32, np.float32]:
    """Return voxel below a coordinate, fraction of the way to the next, and distance outside."""
    # In this order NaN becomes 0: no voxel outside the grid is ever read.
    inside = point if point > ZERO else ZERO
    inside = min(inside, np.float32(size - 1))
    cell = min(np.int32(inside), np.int32(size - 2))
    return cell, inside - np.float32(cell), abs(point - inside)


@inlined
def _look_up(target: np.ndarray, volume: np.ndarray, cells: np.ndarray, parts: np.ndarray) -> None:
    """Interpolate a volume at the points of `_locate`."""
    values = volume.reshape(-1)
    for n in range(target.size):
        target[n] = _mix(values, volume.shape, cells[n], parts[0, n], parts[1, n], parts[2, n])


@inlined
def _mix(
    values: np.ndarray,
    shape: tuple[int, ...],
    cell: np.integer,
    part_i: np.float32,
    part_j: np.float32,
    part_k: np.float32,
) -> np.float32:
    """Interpolate linearly between eight voxels, the lowest at `cell` of the flat values."""
    above_k = np.uint64(1)  # unsigned: an index below zero would count from the end
    above_j = np.uint64(shape[2])
    above_i = np.uint64(shape[1] * shape[2])
    a = np.uint64(cell)
    b, c, d = a + above_j, a + above_i, a + above_i + above_j
    on_a = values[a] + part_k * (values[a + above_k] - values[a])
    on_b = values[b] + part_k * (values[b + above_k] - values[b])
    on_c = values[c] + part_k * (values[c + above_k] - values[c])
    on_d = values[d] + part_k * (values[d + above_k] - values[d])
    on_ab = on_a + part_j * (on_b - on_a)
    on_cd = on_c + part_j * (on_d - on_c)
    return on_ab + part_i * (on_cd - on_ab)
