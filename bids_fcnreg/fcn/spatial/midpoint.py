"""Symmetric deformations, which warp two images to their midpoint.

The midpoint is a third space between the fixed and the moving image. One displacement maps its
points to the fixed image and another to the moving one, so that neither image is preferred:
exchanging the images exchanges the displacements, and inverts the resulting deformation.

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

from bids_fcnreg.fcn.spatial.displacement import (
    compose,
    damp_divergence,
    jacobian_determinant,
    warp,
)
from bids_fcnreg.fcn.spatial.filters import dilate, gaussian
from bids_fcnreg.fcn.spatial.grid import Grid
from bids_fcnreg.fcn.spatial.inverse import invert, round_trip, update_inverse
from bids_fcnreg.fcn.spatial.transform import Displacement, change_grid

#: Smallest Jacobian determinant of a deformation.
MIN_DETERMINANT = 0.2

#: Largest inverse consistency error of a deformation, in voxels.
MAX_INCONSISTENCY = 0.8


@dataclass(frozen=True, eq=False)
class MidpointDeformation:
    """Displacements from the midpoint space to both images.

    Attributes
    ----------
    grid : Grid
        Grid of the midpoint space and of both displacements: that of the fixed image.
    to_fixed, to_moving : Tensor (1, 3, i, j, k)
        x to x + u(x), in voxels of `grid`, from the midpoint to the fixed and to the moving image.
    """

    grid: Grid
    to_fixed: Tensor
    to_moving: Tensor

    @classmethod
    def identity(cls, grid: Grid, like: Tensor) -> MidpointDeformation:
        """Return the identity on a grid, with the dtype and device of `like`."""
        nothing = torch.zeros(1, 3, *grid.shape, dtype=like.dtype, device=like.device)
        return cls(grid, nothing, nothing)

    @classmethod
    def one_sided(cls, displacement: Displacement) -> MidpointDeformation:
        """Return a deformation of the moving image only: its midpoint is the fixed space."""
        return cls(displacement.grid, torch.zeros_like(displacement.field), displacement.field)

    def to(self, device: torch.device) -> MidpointDeformation:
        """Return the deformation on a device."""
        return MidpointDeformation(self.grid, self.to_fixed.to(device), self.to_moving.to(device))

    def on_grid(self, grid: Grid) -> MidpointDeformation:
        """Return the deformation on another grid of the same space.

        For a coarser grid it is smoothed by one of the grid's voxels.
        """
        if self.grid.matches(grid):
            return self
        factor = grid.spacing / self.grid.spacing
        smooth = self.smoothed(np.where(factor > 1.01, factor, 0))
        return MidpointDeformation(
            grid,
            *(
                change_grid(Displacement(self.grid, displacement), grid).field
                for displacement in (smooth.to_fixed, smooth.to_moving)
            ),
        )

    def smoothed(self, sigma: float | Sequence[float] | np.ndarray) -> MidpointDeformation:
        """Return the deformation smoothed by a Gaussian of `sigma` voxels."""
        return MidpointDeformation(
            self.grid, gaussian(self.to_fixed, sigma), gaussian(self.to_moving, sigma)
        )

    def tapered(self, width: int = 4) -> MidpointDeformation:
        """Return the deformation tapered to zero at the border within `width` voxels."""
        window = border_taper(self.to_fixed, width)
        return MidpointDeformation(self.grid, self.to_fixed * window, self.to_moving * window)

    def updated(self, step_to_fixed: Tensor, step_to_moving: Tensor) -> MidpointDeformation:
        """Compose each displacement with an update step, in voxels, which acts first."""
        return MidpointDeformation(
            self.grid,
            compose(step_to_fixed, self.to_fixed),
            compose(step_to_moving, self.to_moving),
        )

    def damped(self, rate: float) -> MidpointDeformation:
        """Return the deformation with a smoother divergence; see `damp_divergence`."""
        return MidpointDeformation(
            self.grid, damp_divergence(self.to_fixed, rate), damp_divergence(self.to_moving, rate)
        )

    def warp_to_midpoint(self, fixed: Tensor, moving: Tensor) -> tuple[Tensor, Tensor]:
        """Warp both images (1, channels, i, j, k) to the midpoint."""
        return warp(fixed, self.to_fixed), warp(moving, self.to_moving)

    def known(self, fixed_exclude: Tensor | None, moving_exclude: Tensor | None) -> Tensor | None:
        """Return how much of each voxel at the midpoint neither image excludes.

        Parameters
        ----------
        fixed_exclude, moving_exclude : Tensor (1, 1, i, j, k), optional
            1 at excluded voxels of the fixed and of the moving image, else 0.

        Returns
        -------
        Tensor (1, 1, i, j, k), or None if nothing is excluded
        """
        known = None
        for exclude, displacement in (
            (fixed_exclude, self.to_fixed),
            (moving_exclude, self.to_moving),
        ):
            if exclude is not None:
                share = (1 - warp(exclude, displacement)).clamp(min=0)
                known = share if known is None else known * share
        return known

    def compose(self) -> tuple[Displacement, Displacement]:
        """Compute the deformation from the fixed to the moving image, and its inverse.

        Returns
        -------
        forward, inverse : Displacement
            One displacement composed with the inverse of the other, smoothed where the voxels are
            too coarse for it (see `limit_compression` and `make_inverse_consistent`).
        """
        forward = limit_compression(compose(invert(self.to_fixed), self.to_moving))
        forward, inverse = make_inverse_consistent(forward)
        return Displacement(self.grid, forward), Displacement(self.grid, inverse)


def limit_compression(
    displacement: Tensor, least: float = MIN_DETERMINANT, attempts: int = 20
) -> Tensor:
    """Smooth a displacement only where it compresses space too much.

    Parameters
    ----------
    displacement : Tensor (1, 3, i, j, k)
        In voxels.
    least : float
        Required smallest Jacobian determinant.
    attempts : int
        Maximum number of iterations.

    Returns
    -------
    Tensor (1, 3, i, j, k)
    """
    limited = displacement.clone()
    changed = torch.zeros_like(displacement[:, :1], dtype=torch.bool)
    _limit_compression(limited, changed, least, attempts)
    return limited


def _limit_compression(
    displacement: Tensor, changed: Tensor, least: float = MIN_DETERMINANT, attempts: int = 20
) -> None:
    """Compute `limit_compression` in place; see `_smooth_at` for `changed`."""
    for _ in range(attempts):
        compressed = jacobian_determinant(displacement) < least
        if not compressed.any():
            break
        _smooth_at(compressed, displacement, changed)


def make_inverse_consistent(
    displacement: Tensor, most: float = MAX_INCONSISTENCY, attempts: int = 50
) -> tuple[Tensor, Tensor]:
    """Smooth a displacement until it and its inverse are consistent, also between the voxels.

    Where a displacement compresses space, an inverse that is exact at voxel centres is inexact
    between them. The displacement is smoothed only there.

    Parameters
    ----------
    displacement : Tensor (1, 3, i, j, k)
        In voxels.
    most : float
        Largest inverse consistency error, in voxels.
    attempts : int
        Maximum number of iterations.

    Returns
    -------
    forward, inverse : Tensor (1, 3, i, j, k)
    """
    forward, inverse = displacement.clone(), invert(displacement)
    for attempt in range(attempts):
        inconsistent = round_trip(forward, inverse) > most
        if not inconsistent.any():
            break
        changed = torch.zeros_like(inconsistent)
        # Stronger smoothing where repeated weak smoothing did not suffice.
        _smooth_at(inconsistent, forward, changed, 2.0 ** (attempt // 10))
        _limit_compression(forward, changed)
        update_inverse(forward, inverse, changed)
    return forward, inverse


def _smooth_at(voxels: Tensor, displacement: Tensor, changed: Tensor, sigma: float = 1.0) -> None:
    """Smooth a displacement at and near voxels, in place.

    The border of the grid, beyond which there is no displacement, stays as it is.

    Parameters
    ----------
    voxels : Tensor (1, 1, i, j, k), bool
        Where to smooth.
    displacement : Tensor (1, 3, i, j, k)
        In voxels; changed in place.
    changed : Tensor (1, 1, i, j, k), bool
        Becomes true where the displacement changes.
    sigma : float
        Standard deviation of the smoothing, in voxels.
    """
    index = voxels[0, 0].nonzero()
    reach = 5 + int(np.ceil(3 * sigma))  # of the share below, and of the smoothing
    low = (index.amin(dim=0) - reach).clamp(min=0).tolist()
    high = (index.amax(dim=0) + reach + 1).tolist()
    i, j, k = map(slice, low, high)
    share = gaussian(dilate(voxels[..., i, j, k].float(), 2), 1.0)
    share *= border_taper(displacement, 1)[..., i, j, k]
    part = displacement[..., i, j, k]
    part.copy_(torch.lerp(part, gaussian(part, sigma), share))
    changed[..., i, j, k] |= share > 0


def border_taper(like: Tensor, width: int) -> Tensor:
    """Return a weight (1, 1, i, j, k) rising from 0 at the border to 1 within `width` voxels."""
    window = torch.ones(1, 1, *like.shape[2:], dtype=like.dtype, device=like.device)
    for axis, size in enumerate(like.shape[2:]):
        index = torch.arange(size, dtype=like.dtype, device=like.device)
        ramp = (torch.minimum(index, size - 1 - index) / width).clamp(max=1)
        window = window * ramp.reshape([-1 if d == axis + 2 else 1 for d in range(5)])
    return window
