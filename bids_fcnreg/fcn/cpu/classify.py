"""Kernel of the classification of voxels by intensity; see `kernels` and `bids_fcnreg.fcn.tissue`.

Kernels call only functions of their own file: numba's cache notices changes in that file alone.
"""

from __future__ import annotations

import numpy as np

from bids_fcnreg.fcn.cpu.compiler import compiled, inlined

#: Plain numbers would turn single into double precision.
ZERO, ONE, HALF = np.float32(0), np.float32(1), np.float32(0.5)

#: Sums smaller than this are zero.
TINY = np.float32(1e-30)


@compiled
def classify(
    first: int,
    stop: int,
    values: np.ndarray,
    prior: np.ndarray,
    occupied: np.ndarray,
    matrix: np.ndarray,
    gaussians: np.ndarray,
    of_structure: np.ndarray,
    outlier: np.float32,
    least_brain: np.float32,
    weights: np.ndarray,
    structures: np.ndarray,
    sums: np.ndarray,
) -> None:
    """Compute the posterior probabilities of the structures, from intensities and priors.

    Parameters
    ----------
    first, stop : int
        Planes i to compute.
    values : array (i, j, k)
        Intensities.
    prior : array (l, m, n, structures)
        Prior probabilities on a grid of their own, of any sum; the background's come first.
    occupied : array (l, m, n), bool
        Where the share of the background in `prior` is below ``1 - least_brain``.
    matrix : array (3, 4), float64
        From voxels of `values` to those of `prior`.
    gaussians : array (3, classes)
        Mean, inverse variance and negative logarithm of the standard deviation of each class.
    of_structure : array (structures,), int64
        Class of each structure; that of the background is not used.
    outlier : float32
        Distance from every mean, in standard deviations, at which a voxel is background.
    least_brain : float32
        Voxels are background up to this prior probability of all structures.
    weights : array (sums, structures)
        Weights of the structures in `sums`.
    structures : array (i, j, k)
        Output: number of the most probable structure, 0 for the background.
    sums : array (sums, i, j, k)
        Output: weighted sums of the posterior probabilities.
    """
    _, size_j, size_k = values.shape
    channels, classes = prior.shape[3], gaussians.shape[1]
    chances = np.empty(channels, np.float32)
    likelihoods = np.empty(classes, np.float32)
    for i in range(first, stop):
        for j in range(size_j):
            for k in range(size_k):
                structures[i, j, k] = ZERO
                for n in range(len(sums)):
                    sums[n, i, j, k] = ZERO
                x = matrix[0, 0] * i + matrix[0, 1] * j + matrix[0, 2] * k + matrix[0, 3]
                y = matrix[1, 0] * i + matrix[1, 1] * j + matrix[1, 2] * k + matrix[1, 3]
                z = matrix[2, 0] * i + matrix[2, 1] * j + matrix[2, 2] * k + matrix[2, 3]
                if not _interpolate(prior, occupied, x, y, z, chances):
                    continue
                total = ZERO
                for c in range(channels):
                    total += chances[c]
                background = chances[0] / max(total, TINY)
                if ONE - background <= least_brain:
                    continue
                nearest = _likelihoods(values[i, j, k], gaussians, likelihoods)
                brain = ONE - background
                if nearest > outlier * outlier:
                    brain *= np.exp(HALF * (outlier * outlier - nearest))
                total = ZERO
                for c in range(1, channels):
                    chances[c] *= likelihoods[of_structure[c]]
                    total += chances[c]
                scale = brain / max(total, TINY) / (background + brain)
                best, most = 0, background / (background + brain)
                for c in range(1, channels):
                    chances[c] *= scale
                    if chances[c] > most:
                        best, most = c, chances[c]
                structures[i, j, k] = np.float32(best)
                for n in range(len(sums)):
                    total = ZERO
                    for c in range(1, channels):
                        total += weights[n, c] * chances[c]
                    sums[n, i, j, k] = total


@inlined
def _interpolate(
    prior: np.ndarray,
    occupied: np.ndarray,
    x: float,
    y: float,
    z: float,
    chances: np.ndarray,
) -> bool:
    """Interpolate priors at a point, zero outside; False where no voxel around is occupied."""
    a, b, c = int(np.floor(x)), int(np.floor(y)), int(np.floor(z))
    near = False
    for l in range(max(a, 0), min(a + 2, occupied.shape[0])):  # noqa: E741
        for m in range(max(b, 0), min(b + 2, occupied.shape[1])):
            for n in range(max(c, 0), min(c + 2, occupied.shape[2])):
                near |= occupied[l, m, n]
    if not near:
        return False
    for channel in range(len(chances)):
        chances[channel] = ZERO
    for l in range(max(a, 0), min(a + 2, occupied.shape[0])):  # noqa: E741
        for m in range(max(b, 0), min(b + 2, occupied.shape[1])):
            for n in range(max(c, 0), min(c + 2, occupied.shape[2])):
                weight = np.float32((1 - abs(x - l)) * (1 - abs(y - m)) * (1 - abs(z - n)))
                row = prior[l, m, n]
                for channel in range(len(chances)):
                    chances[channel] += weight * row[channel]
    return True


@inlined
def _likelihoods(
    value: np.floating, gaussians: np.ndarray, likelihoods: np.ndarray
) -> np.floating:
    """Compute likelihoods relative to the largest; return the least squared distance."""
    nearest, largest = np.float32(np.inf), np.float32(-np.inf)
    for n in range(len(likelihoods)):
        difference = value - gaussians[0, n]
        distance = difference * difference * gaussians[1, n]
        nearest = min(nearest, distance)
        likelihoods[n] = gaussians[2, n] - HALF * distance
        largest = max(largest, likelihoods[n])
    for n in range(len(likelihoods)):
        likelihoods[n] = np.exp(likelihoods[n] - largest)
    return nearest
