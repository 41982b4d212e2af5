"""Symmetric deformations: two images that meet halfway.

Between the fixed and the moving image lies a third space. One displacement takes its points to
the fixed image and another to the moving one, so that neither image is preferred: exchanging the
images exchanges the halves, and the deformation that results is the other one's inverse.

References
----------
Avants et al., Symmetric diffeomorphic image registration with cross-correlation, Med. Image Anal.
12(1), 2008.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from bids_fcnreg.fcn.spatial.displacement import compose, invert, jacobian_determinant, warp
from bids_fcnreg.fcn.spatial.filters import dilate, gaussian
from bids_fcnreg.fcn.spatial.grid import Grid
from bids_fcnreg.fcn.spatial.transform import Displacement, change_grid

#: A deformation shrinks no volume to less than this part of it.
LEAST_DETERMINANT = 0.2

#: A deformation and its inverse lead back to within so many voxels.
MOST_INCONSISTENT = 0.8

#: The halves are inverted to this many voxels.
INVERSE_TOLERANCE = 0.01


@dataclass(frozen=True, eq=False)
class Halves:
    """Displacements from the space in the middle to both images.

    Parameters
    ----------
    grid : Grid
        Grid of both, that of the fixed image: the space in the middle is placed on it too.
    to_fixed, to_moving : Tensor (1, 3, i, j, k)
        x to x + u(x), in voxels of `grid`, from the middle to the fixed and to the moving image.
    """

    grid: Grid
    to_fixed: Tensor
    to_moving: Tensor

    @classmethod
    def identity(cls, grid: Grid, like: Tensor) -> Halves:
        """No displacement on a grid, with the dtype and device of `like`."""
        nothing = torch.zeros(1, 3, *grid.shape, dtype=like.dtype, device=like.device)
        return cls(grid, nothing, nothing)

    @classmethod
    def one_sided(cls, displacement: Displacement) -> Halves:
        """All of a displacement of the fixed space on the moving image's side."""
        return cls(displacement.grid, torch.zeros_like(displacement.field), displacement.field)

    def to(self, device: torch.device) -> Halves:
        """The same deformation in the memory of a device."""
        return Halves(self.grid, self.to_fixed.to(device), self.to_moving.to(device))

    def on(self, grid: Grid) -> Halves:
        """The same deformation on another grid of the same space.

        On a coarser one without what that cannot hold: it is smoothed by one of its voxels.
        """
        if self.grid.matches(grid):
            return self
        factor = grid.spacing / self.grid.spacing
        smooth = self.smoothed(np.where(factor > 1.01, factor, 0))
        return Halves(
            grid,
            *(
                change_grid(Displacement(self.grid, half), grid).field
                for half in (smooth.to_fixed, smooth.to_moving)
            ),
        )

    def smoothed(self, sigma: float | Sequence[float] | np.ndarray) -> Halves:
        """The same deformation, both halves smoothed by a Gaussian of `sigma` voxels."""
        return Halves(self.grid, gaussian(self.to_fixed, sigma), gaussian(self.to_moving, sigma))

    def faded(self, width: int = 4) -> Halves:
        """The same deformation, falling to none at the border within `width` voxels."""
        window = fade_out(self.to_fixed, width)
        return Halves(self.grid, self.to_fixed * window, self.to_moving * window)

    def moved(self, step_to_fixed: Tensor, step_to_moving: Tensor) -> Halves:
        """Every point of the middle takes a step (in voxels) before each of the halves."""
        return Halves(
            self.grid,
            compose(step_to_fixed, self.to_fixed),
            compose(step_to_moving, self.to_moving),
        )

    def blended(self, other: Halves, weight: Tensor) -> Halves:
        """This deformation, and the other one as far as `weight` (1, 1, i, j, k) is 1."""
        return Halves(
            self.grid,
            torch.lerp(self.to_fixed, other.to_fixed, weight),
            torch.lerp(self.to_moving, other.to_moving, weight),
        )

    def meet(self, fixed: Tensor, moving: Tensor) -> tuple[Tensor, Tensor]:
        """Both images (1, channels, i, j, k) as they look in the middle."""
        return warp(fixed, self.to_fixed), warp(moving, self.to_moving)

    def join(self) -> tuple[Displacement, Displacement]:
        """The whole deformation, and its inverse.

        Returns
        -------
        forward, inverse : Displacement
            From the fixed to the moving image, and back: one half after the other's inverse,
            smoothed where the voxels are too coarse for it (see `unfold` and `consistent`).
        """
        forward = unfold(compose(invert(self.to_fixed, INVERSE_TOLERANCE), self.to_moving))
        # Roughly: it is where the search for the inverse starts.
        inverse = compose(invert(self.to_moving, 0.1), self.to_fixed)
        forward, inverse = consistent(forward, inverse)
        return Displacement(self.grid, forward), Displacement(self.grid, inverse)


def unfold(displacement: Tensor, least: float = LEAST_DETERMINANT, attempts: int = 20) -> Tensor:
    """Smooth a displacement where, and only where, it compresses space too much.

    Parameters
    ----------
    displacement : Tensor (1, 3, i, j, k)
        In voxels.
    least : float
        The Jacobian determinant is to be at least this everywhere.
    attempts : int
        Stop after so many rounds in any case.

    Returns
    -------
    Tensor (1, 3, i, j, k)
    """
    for _ in range(attempts):
        tight = jacobian_determinant(displacement) < least
        if not tight.any():
            break
        displacement = _smooth_at(tight, displacement)
    return displacement


def consistent(
    forward: Tensor, near_inverse: Tensor, most: float = MOST_INCONSISTENT, attempts: int = 50
) -> tuple[Tensor, Tensor]:
    """A displacement and its inverse that lead there and back, also between the voxels.

    An inverse that is exact at its voxels is not so between them where the displacement brings
    far places close together. There, and only there, the displacement is smoothed.

    Parameters
    ----------
    forward : Tensor (1, 3, i, j, k)
        In voxels.
    near_inverse : Tensor (1, 3, i, j, k)
        Where the search for the inverse starts.
    most : float
        How far from its voxel the way there and back may end, in voxels.
    attempts : int
        Stop after so many rounds in any case.

    Returns
    -------
    forward, inverse : Tensor (1, 3, i, j, k)
    """
    inverse = invert(forward, INVERSE_TOLERANCE, start=near_inverse)
    for attempt in range(attempts):
        astray = compose(forward, inverse).square().sum(dim=1, keepdim=True) > most**2
        if not astray.any():
            break
        # Where a little smoothing, again and again, was not enough, more and more of it.
        forward = unfold(_smooth_at(astray, forward, 2.0 ** (attempt // 10)))
        inverse = invert(forward, INVERSE_TOLERANCE, start=inverse)
    return forward, inverse


def _smooth_at(places: Tensor, displacement: Tensor, sigma: float = 1.0) -> Tensor:
    """A displacement smoothed by `sigma` voxels around places (1, 1, i, j, k) that are true."""
    near = gaussian(dilate(places.float(), 2), 1.0)
    return torch.lerp(displacement, gaussian(displacement, sigma), near)


def fade_out(like: Tensor, width: int) -> Tensor:
    """Weight (1, 1, i, j, k) that rises from 0 at the border to 1 within `width` voxels."""
    window = torch.ones(1, 1, *like.shape[2:], dtype=like.dtype, device=like.device)
    for axis, size in enumerate(like.shape[2:]):
        place = torch.arange(size, dtype=like.dtype, device=like.device)
        ramp = (torch.minimum(place, size - 1 - place) / width).clamp(max=1)
        window = window * ramp.reshape([-1 if d == axis + 2 else 1 for d in range(5)])
    return window
