"""Cohort of aligned images for training: random pairs and their augmentation."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as nnf

from bids_fcnreg.fcn.pair import Pair
from bids_fcnreg.fcn.spatial.displacement import identity, warp
from bids_fcnreg.fcn.spatial.filters import dilate
from bids_fcnreg.fcn.spatial.grid import Grid


@dataclass(frozen=True, eq=False)
class Cohort:
    """Brain images on one grid, after the linear stage.

    Attributes
    ----------
    images : Tensor (n, 1, i, j, k)
        Intensities of about 0 to 1, 0 outside the brain; half precision suffices. Pairs are made
        on their device.
    grid : Grid
        Their common grid.
    """

    images: Tensor
    grid: Grid

    def __len__(self) -> int:
        return len(self.images)

    def coarser(self, spacing: float) -> Cohort:
        """Return the images downsampled to voxels of `spacing` mm."""
        if np.all(spacing / self.grid.spacing < 1.01):
            return self
        small = [self.pair(n, n).coarser(spacing) for n in range(len(self))]
        return Cohort(torch.cat([pair.moving.to(self.images) for pair in small]), small[0].grid)

    def to(self, device: torch.device) -> Cohort:
        """Return the images on a device."""
        return Cohort(self.images.to(device), self.grid)

    def subset(self, which: Sequence[int]) -> Cohort:
        """Return some of the images, by index."""
        return Cohort(self.images[list(which)], self.grid)

    def pair(self, fixed: int, moving: int) -> Pair:
        """Return a pair of images without augmentation."""
        return _pair_of_aligned(
            self.images[fixed : fixed + 1], self.images[moving : moving + 1], self.grid
        )

    def all_pairs(self) -> Iterator[Pair]:
        """Yield each image with the next one, and the last with the first."""
        for n in range(len(self)):
            yield self.pair(n, (n + 1) % len(self))

    def random_pair(self, augmentation: Augmentation, generator: torch.Generator) -> Pair:
        """Return a random pair of different images, augmented; mirrored half the time.

        Parameters
        ----------
        augmentation : Augmentation
            Applied to each image.
        generator : torch.Generator
            On the CPU, so that the result does not depend on the device of the images.
        """
        chosen = torch.randperm(len(self), generator=generator)[:2].tolist()
        images = torch.cat([self.images[n : n + 1] for n in chosen]).float()
        if torch.rand((), generator=generator) < 0.5:
            left_right = int(np.abs(self.grid.affine[0, :3]).argmax())
            images = images.flip(2 + left_right)
        fixed, moving = (augmentation(one, self.grid, generator) for one in images.split(1))
        return _pair_of_aligned(fixed, moving, self.grid)


def _pair_of_aligned(fixed: Tensor, moving: Tensor, grid: Grid) -> Pair:
    """Return a pair of brains (1, 1, i, j, k), weighted within two voxels of either brain."""
    fixed, moving = fixed.float(), moving.float()
    brain = ((fixed > 0) | (moving > 0)).float()
    return Pair(torch.cat([fixed, moving]), dilate(brain, 2), None, grid)


@dataclass(frozen=True)
class Augmentation:
    """Random augmentation of a brain image.

    Attributes
    ----------
    turn : float
        Largest rotation about each axis, in radians; also the largest relative scaling.
    shift_mm : float
        Largest translation along each axis.
    warp_mm : float
        Standard deviation of a smooth displacement.
    gamma : float
        Largest change of contrast: intensities are raised to a power from ``1 / (1 + gamma)`` to
        ``1 + gamma``.
    bias : float
        Standard deviation of the logarithm of a smooth bias field.
    noise : float
        Standard deviation of white noise in the brain.
    """

    turn: float = 0.06
    shift_mm: float = 2.0
    warp_mm: float = 1.5
    gamma: float = 0.4
    bias: float = 0.15
    noise: float = 0.02

    def __call__(self, image: Tensor, grid: Grid, generator: torch.Generator) -> Tensor:
        """Augment an image (1, 1, i, j, k), on its device; the generator is on the CPU."""
        moved = warp(image, self._displacement(image, grid, generator))
        brain = (moved > 0.02).to(moved)
        power = float((1 + self.gamma) ** (2 * torch.rand((), generator=generator) - 1))
        bias = _smooth(1, image, grid, generator).mul(self.bias).exp()
        noise = self.noise * _white(moved, generator)
        return ((moved.clamp(min=0) ** power * bias + noise) * brain).clamp(min=0)

    def _displacement(self, like: Tensor, grid: Grid, generator: torch.Generator) -> Tensor:
        """Draw a linear plus a smooth displacement, in voxels (1, 3, i, j, k)."""
        spacing = torch.as_tensor(grid.spacing).to(like).reshape(1, 3, 1, 1, 1)
        middle = torch.tensor([(n - 1) / 2 for n in grid.shape]).to(like).reshape(spacing.shape)
        coordinates = (identity(grid.shape, like) - middle) * spacing
        linear = self.turn * (2 * torch.rand(3, 3, generator=generator) - 1)
        shift = self.shift_mm * (2 * torch.rand(1, 3, 1, 1, 1, generator=generator) - 1)
        moved = torch.einsum("cd,ndijk->ncijk", linear.to(like), coordinates) + shift.to(like)
        return (moved + self.warp_mm * _smooth(3, like, grid, generator)) / spacing


def _smooth(channels: int, like: Tensor, grid: Grid, generator: torch.Generator) -> Tensor:
    """Draw smooth noise (1, channels, i, j, k) of unit variance, features about 40 mm apart."""
    knots = [max(2, round(size / 40)) for size in grid.spacing * grid.shape]
    noise = torch.randn(1, channels, *knots, generator=generator).to(like)
    return nnf.interpolate(noise, size=grid.shape, mode="trilinear", align_corners=True)


def _white(like: Tensor, generator: torch.Generator) -> Tensor:
    """Draw white noise of unit variance, shape and device of `like`."""
    seed = int(torch.randint(2**62, (), generator=generator))
    own = torch.Generator(like.device).manual_seed(seed)
    return torch.randn(like.shape, generator=own, device=like.device)
