"""Inverses of displacements, and how far they are from being inverse."""

from __future__ import annotations

import torch
from torch import Tensor

from bids_fcnreg.fcn.cpu import kernels
from bids_fcnreg.fcn.spatial.displacement import compose, identity, sample

#: Tolerance of inverses, in voxels, and the largest number of iterations.
TOLERANCE, ITERATIONS = 0.001, 50

#: Without compiled kernels, iterations between looks at which voxels have converged.
INTERVAL = 5

#: Without compiled kernels, fixed-point iterations before Newton's steps take turns with them.
FIXED_POINT = 10

#: Newton's steps are not taken where the Jacobian determinant is at most this.
SINGULAR = 0.05


def invert(
    displacement: Tensor, tolerance: float = TOLERANCE, iterations: int = ITERATIONS
) -> Tensor:
    """Invert a displacement: find v with ``v(y) = -u(y + v(y))``.

    At each voxel, by fixed-point and Newton's iterations. Steps are only taken where they lower
    the residual, so that it also converges where the displacement changes by more than one voxel
    between neighbours.

    Parameters
    ----------
    displacement : Tensor (1, 3, i, j, k)
        In voxels; a diffeomorphism.
    tolerance : float
        A voxel has converged when its residual ``|v(y) + u(y + v(y))|`` is below this, in voxels.
    iterations : int
        Maximum number of iterations.

    Returns
    -------
    Tensor (1, 3, i, j, k)
        In voxels.

    References
    ----------
    Chen et al., A simple fixed-point approach to invert a deformation field, Med. Phys. 35(1),
    2008 (the fixed-point iteration).

    Examples
    --------
    >>> shift = torch.full((1, 3, 5, 5, 5), 0.25)
    >>> invert(shift).unique().tolist()
    [-0.25]
    """
    if kernels.usable(displacement):
        return kernels.invert(displacement, tolerance, iterations)
    return _solution(displacement, -displacement, tolerance, iterations)


def update_inverse(
    displacement: Tensor,
    inverse: Tensor,
    changed: Tensor,
    tolerance: float = TOLERANCE,
    iterations: int = ITERATIONS,
) -> None:
    """Update the inverse of a displacement that has changed at some voxels.

    Without compiled kernels, all voxels that have not converged are updated.

    Parameters
    ----------
    displacement : Tensor (1, 3, i, j, k)
        In voxels.
    inverse : Tensor (1, 3, i, j, k)
        That of the displacement before the change; changed in place.
    changed : Tensor (1, 1, i, j, k), bool
        Where the displacement has changed.
    tolerance, iterations
        See `invert`.
    """
    if kernels.usable(displacement, inverse):
        kernels.update_inverse(displacement, inverse, changed, tolerance, iterations)
    else:
        inverse.copy_(_solution(displacement, inverse, tolerance, iterations))


def round_trip(there: Tensor, back: Tensor) -> Tensor:
    """Measure how far two displacements after each other move points: 0 if they are inverse.

    Parameters
    ----------
    there, back : Tensor (1, 3, i, j, k)
        In voxels.

    Returns
    -------
    Tensor (1, 1, i, j, k)
        In voxels: ``|u(x) + v(x + u(x))|``.
    """
    if kernels.usable(there, back):
        return kernels.round_trip(there, back)
    return compose(there, back).norm(dim=1, keepdim=True)


def _solution(displacement: Tensor, start: Tensor, tolerance: float, iterations: int) -> Tensor:
    """Compute `invert` from an initial guess. Voxels that have converged are left out."""

    def residual_of(guess: Tensor) -> tuple[Tensor, Tensor]:
        residual = guess + sample(displacement, voxels + guess, padding="border")
        return residual, residual.square().sum(dim=1, keepdim=True)

    # Voxels in a row, as a volume (1, channels, n, 1, 1).
    guess, voxels = (
        volume.flatten(2)[..., None, None]
        for volume in (start, identity(displacement.shape[2:], displacement))
    )
    solution = guess.clone()
    index = torch.arange(voxels.shape[2], device=start.device)
    residual, error = residual_of(guess)
    length = torch.ones_like(error)
    for number in range(iterations):
        if number % INTERVAL == 0:  # rarely: a GPU must be waited for
            solution[:, :, index] = guess
            rest = (error > tolerance**2).flatten().nonzero()[:, 0]
            if not rest.numel():
                return solution.reshape(start.shape)
            index, voxels, guess = index[rest], voxels[:, :, rest], guess[:, :, rest]
            residual, error, length = (one[:, :, rest] for one in (residual, error, length))
        newton = number >= FIXED_POINT and number % 2 == 0
        step = (
            _newton_step(displacement, voxels + guess, residual) if newton else length * residual
        )
        candidate = guess - step
        candidate_residual, candidate_error = residual_of(candidate)
        better = (candidate_error <= error) & (error > tolerance**2)
        guess = torch.where(better, candidate, guess)
        residual = torch.where(better, candidate_residual, residual)
        error = torch.where(better, candidate_error, error)
        if not newton:
            length = torch.where(better, length, 0.5 * length)
    solution[:, :, index] = guess
    return solution.reshape(start.shape)


def _newton_step(displacement: Tensor, points: Tensor, residual: Tensor) -> Tensor:
    """Multiply residuals by the inverse of their Jacobian matrix, unless that is near singular.

    Parameters
    ----------
    displacement : Tensor (1, 3, i, j, k)
        In voxels.
    points, residual : Tensor (1, 3, n, 1, 1)
        Where they are, in voxels, and what they are.

    Returns
    -------
    Tensor (1, 3, n, 1, 1)
    """
    units = torch.eye(3, dtype=points.dtype, device=points.device)[:, None, :, None, None, None]
    a, b, c = (  # columns of the matrix
        sample(displacement, points + unit / 2, padding="border")
        - sample(displacement, points - unit / 2, padding="border")
        + unit
        for unit in units
    )
    rows = [torch.linalg.cross(*two, dim=1) for two in ((b, c), (c, a), (a, b))]
    determinant = (a * rows[0]).sum(dim=1, keepdim=True)
    step = torch.cat([(row * residual).sum(dim=1, keepdim=True) for row in rows], dim=1)
    return torch.where(determinant > SINGULAR, step / determinant, residual)
