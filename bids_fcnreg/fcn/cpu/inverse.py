"""Kernels that invert a displacement; see `kernels`.

Kernels call only functions of their own file: numba's cache notices changes in that file alone.
"""

from __future__ import annotations

import numpy as np

from bids_fcnreg.fcn.cpu.compiler import compiled, inlined

#: Plain numbers would turn single into double precision.
ZERO, ONE, HALF = np.float32(0), np.float32(1), np.float32(0.5)

#: Part of the last change along a row that the initial guess continues.
CONTINUED = np.float32(0.8)

#: Newton's steps are not taken where the Jacobian determinant is at most this.
SINGULAR = np.float32(0.05)

#: Components along i, j, k.
_Vector = tuple[np.float32, np.float32, np.float32]


@compiled
def invert(
    first: int,
    stop: int,
    field: np.ndarray,
    tolerance: np.float32,
    iterations: int,
    inverse: np.ndarray,
) -> None:
    """Invert a displacement u: find v with ``v(y) = -u(y + v(y))``.

    Initial guesses continue the two voxels before along k.

    Parameters
    ----------
    first, stop : int
        Planes i to compute.
    field : array (3, i, j, k)
        u in voxels; at least two along each axis.
    tolerance : float32
        A voxel has converged when its residual ``|v(y) + u(y + v(y))|`` is at most this, in
        voxels.
    iterations : int
        Maximum number of iterations.
    inverse : array (3, i, j, k)
        Output: v.
    """
    _, size_i, size_j, size_k = field.shape
    values, shape = field.reshape(-1), (size_i, size_j, size_k)
    for i in range(first, stop):
        for j in range(size_j):
            found = -field[0, i, j, 0], -field[1, i, j, 0], -field[2, i, j, 0]
            before = found
            for k in range(size_k):
                voxel = np.float32(i), np.float32(j), np.float32(k)
                guess = (
                    found[0] + CONTINUED * (found[0] - before[0]),
                    found[1] + CONTINUED * (found[1] - before[1]),
                    found[2] + CONTINUED * (found[2] - before[2]),
                )
                if field[0, i, j, k] == field[1, i, j, k] == field[2, i, j, k] == ZERO:
                    guess = ZERO, ZERO, ZERO  # what does not move stays exactly where it is
                if not _dot(guess, guess) >= ZERO:  # NaN, which must not spread along the row
                    guess = -field[0, i, j, k], -field[1, i, j, k], -field[2, i, j, k]
                before = found
                found = _solution(values, shape, voxel, guess, tolerance, iterations)
                inverse[0, i, j, k], inverse[1, i, j, k], inverse[2, i, j, k] = found


@compiled
def update_inverse(
    first: int,
    stop: int,
    field: np.ndarray,
    changed: np.ndarray,
    tolerance: np.float32,
    iterations: int,
    inverse: np.ndarray,
) -> None:
    """Update the inverse of a displacement that has changed at some voxels.

    Parameters
    ----------
    first, stop, field, tolerance, iterations
        See `invert`.
    changed : array (i, j, k), bool
        Voxels in whose cell, of which they have the lowest indices, the displacement has changed.
    inverse : array (3, i, j, k)
        v before the change; updated in place where it leads to such a cell.
    """
    _, size_i, size_j, size_k = field.shape
    values, shape = field.reshape(-1), (size_i, size_j, size_k)
    changed_cells = changed.reshape(-1)
    for i in range(first, stop):
        for j in range(size_j):
            for k in range(size_k):
                voxel = np.float32(i), np.float32(j), np.float32(k)
                guess = inverse[0, i, j, k], inverse[1, i, j, k], inverse[2, i, j, k]
                cell, _ = _locate(shape, voxel, guess)
                if changed_cells[np.uint64(cell)]:
                    found = _solution(values, shape, voxel, guess, tolerance, iterations)
                    inverse[0, i, j, k], inverse[1, i, j, k], inverse[2, i, j, k] = found


@inlined
def _solution(
    values: np.ndarray,
    shape: tuple[int, int, int],
    voxel: _Vector,
    guess: _Vector,
    tolerance: np.float32,
    iterations: int,
) -> _Vector:
    """Find v(y) at one voxel.

    By Newton's method. The first step, and those after one that did not lower the residual, are
    steps of the fixed-point iteration, which needs no slopes; they become shorter if necessary.

    Parameters
    ----------
    values : array (3 * i * j * k,)
        u, flat.
    shape : tuple of int
        Of its grid.
    voxel, guess : _Vector
        y and the initial guess, in voxels.
    tolerance, iterations
        See `invert`.
    """
    residual = _residual(values, shape, voxel, guess)
    error, length, newton = _dot(residual, residual), ONE, False
    for _ in range(iterations):
        if not error > tolerance * tolerance:
            break
        step, share = residual, length
        if newton:
            step, share = _newton_step(values, shape, voxel, guess, residual), ONE
        candidate = (
            guess[0] - share * step[0],
            guess[1] - share * step[1],
            guess[2] - share * step[2],
        )
        candidate_residual = _residual(values, shape, voxel, candidate)
        candidate_error = _dot(candidate_residual, candidate_residual)
        if candidate_error <= error:
            guess, residual, error = candidate, candidate_residual, candidate_error
            newton = True
        elif newton:
            newton = False
        else:
            length *= HALF
    return guess


@inlined
def _residual(
    values: np.ndarray, shape: tuple[int, int, int], voxel: _Vector, guess: _Vector
) -> _Vector:
    """Compute ``v(y) + u(y + v(y))`` at one voxel."""
    count = shape[0] * shape[1] * shape[2]
    cell, parts = _locate(shape, voxel, guess)
    return (
        guess[0] + _interpolate(values, shape, cell, parts)[0],
        guess[1] + _interpolate(values, shape, cell + count, parts)[0],
        guess[2] + _interpolate(values, shape, cell + 2 * count, parts)[0],
    )


@inlined
def _newton_step(
    values: np.ndarray,
    shape: tuple[int, int, int],
    voxel: _Vector,
    guess: _Vector,
    residual: _Vector,
) -> _Vector:
    """Multiply a residual by the inverse of its Jacobian matrix, unless that is near singular."""
    count = shape[0] * shape[1] * shape[2]
    cell, parts = _locate(shape, voxel, guess)
    _, a, b, c = _interpolate(values, shape, cell, parts)
    _, d, e, f = _interpolate(values, shape, cell + count, parts)
    _, g, h, i = _interpolate(values, shape, cell + 2 * count, parts)
    a, e, i = a + ONE, e + ONE, i + ONE
    # Rows of the adjugate matrix.
    first = e * i - f * h, c * h - b * i, b * f - c * e
    second = f * g - d * i, a * i - c * g, c * d - a * f
    third = d * h - e * g, b * g - a * h, a * e - b * d
    determinant = a * first[0] + b * second[0] + c * third[0]
    if not determinant > SINGULAR:
        return residual
    return (
        _dot(first, residual) / determinant,
        _dot(second, residual) / determinant,
        _dot(third, residual) / determinant,
    )


@inlined
def _locate(
    shape: tuple[int, int, int], voxel: _Vector, guess: _Vector
) -> tuple[np.int64, _Vector]:
    """Return the flat index of the voxel below ``y + v(y)``, and fractions of the way above."""
    cell_i, part_i = _split(voxel[0] + guess[0], shape[0])
    cell_j, part_j = _split(voxel[1] + guess[1], shape[1])
    cell_k, part_k = _split(voxel[2] + guess[2], shape[2])
    cell = (np.int64(cell_i) * shape[1] + cell_j) * shape[2] + cell_k
    return cell, (part_i, part_j, part_k)


@inlined
def _split(point: np.float32, size: int) -> tuple[np.int32, np.float32]:
    """Clamp a coordinate; return the voxel below it, and the fraction of the way to the next."""
    # In this order NaN becomes 0: no voxel outside the grid is ever read.
    inside = point if point > ZERO else ZERO
    inside = min(inside, np.float32(size - 1))
    cell = min(np.int32(inside), np.int32(size - 2))
    return cell, inside - np.float32(cell)


@inlined
def _interpolate(
    values: np.ndarray, shape: tuple[int, int, int], cell: np.integer, parts: _Vector
) -> tuple[np.float32, np.float32, np.float32, np.float32]:
    """Interpolate linearly between eight voxels.

    Parameters
    ----------
    values : array
        A volume of this shape begins at each multiple of its size.
    shape, cell, parts
        See `_locate`.

    Returns
    -------
    value, slope_i, slope_j, slope_k : float32
        The value, and its derivatives along the axes.
    """
    part_i, part_j, part_k = parts
    above_k = np.uint64(1)  # unsigned: an index below zero would count from the end
    above_j = np.uint64(shape[2])
    above_i = np.uint64(shape[1] * shape[2])
    a = np.uint64(cell)
    b, c, d = a + above_j, a + above_i, a + above_i + above_j
    slope_a = values[a + above_k] - values[a]
    slope_b = values[b + above_k] - values[b]
    slope_c = values[c + above_k] - values[c]
    slope_d = values[d + above_k] - values[d]
    on_a = values[a] + part_k * slope_a
    on_c = values[c] + part_k * slope_c
    to_b = values[b] + part_k * slope_b - on_a
    to_d = values[d] + part_k * slope_d - on_c
    on_ab = on_a + part_j * to_b
    slope_i = on_c + part_j * to_d - on_ab
    slope_ab = slope_a + part_j * (slope_b - slope_a)
    slope_cd = slope_c + part_j * (slope_d - slope_c)
    return (
        on_ab + part_i * slope_i,
        slope_i,
        to_b + part_i * (to_d - to_b),
        slope_ab + part_i * (slope_cd - slope_ab),
    )


@inlined
def _dot(first: _Vector, second: _Vector) -> np.float32:
    return first[0] * second[0] + first[1] * second[1] + first[2] * second[2]
