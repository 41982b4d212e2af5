"""A cohort of aligned images to train on: random pairs, and the same pairs seen otherwise."""

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

    Parameters
    ----------
    images : Tensor (n, 1, i, j, k)
        Intensities of about 0 to 1, 0 outside the brain; half precision will do. Pairs are made
        on their device.
    grid : Grid
        The grid of all of them.
    """

    images: Tensor
    grid: Grid

    def __len__(self) -> int:
        return len(self.images)

    def coarser(self, spacing: float) -> Cohort:
        """The same images with voxels of `spacing` mm; finer ones are not made."""
        if np.all(spacing / self.grid.spacing < 1.01):
            return self
        small = [self.pair(n, n).coarser(spacing) for n in range(len(self))]
        return Cohort(torch.cat([pair.moving.to(self.images) for pair in small]), small[0].grid)

    def to(self, device: torch.device) -> Cohort:
        """The same images in the memory of a device."""
        return Cohort(self.images.to(device), self.grid)

    def subset(self, which: Sequence[int]) -> Cohort:
        """Some of the images, by number."""
        return Cohort(self.images[list(which)], self.grid)

    def pair(self, fixed: int, moving: int) -> Pair:
        """Two of the images as they are."""
        return make_pair(
            self.images[fixed : fixed + 1], self.images[moving : moving + 1], self.grid
        )

    def all_pairs(self) -> Iterator[Pair]:
        """Each image with the next one, in a circle: the same pairs each time."""
        for n in range(len(self)):
            yield self.pair(n, (n + 1) % len(self))

    def random_pair(self, augmentation: Augmentation, generator: torch.Generator) -> Pair:
        """Two different images, in either order, each changed at random; mirrored half the time.

        Parameters
        ----------
        augmentation : Augmentation
            How each is changed.
        generator : torch.Generator
            On the CPU, wherever the images are: it alone decides what comes out.
        """
        chosen = torch.randperm(len(self), generator=generator)[:2].tolist()
        images = torch.cat([self.images[n : n + 1] for n in chosen]).float()
        if torch.rand((), generator=generator) < 0.5:
            left_right = int(np.abs(self.grid.affine[0, :3]).argmax())
            images = images.flip(2 + left_right)
        fixed, moving = (augmentation(one, self.grid, generator) for one in images.split(1))
        return make_pair(fixed, moving, self.grid)


def make_pair(fixed: Tensor, moving: Tensor, grid: Grid) -> Pair:
    """Pair of two brains (1, 1, i, j, k); voxels within two of either brain count."""
    fixed, moving = fixed.float(), moving.float()
    brain = ((fixed > 0) | (moving > 0)).float()
    return Pair(fixed, moving, dilate(brain, 2), None, grid)


@dataclass(frozen=True)
class Augmentation:
    """Random changes of an image that leave it a brain.

    Parameters
    ----------
    turn : float
        Largest turn about each axis, in radians; also the largest relative change of size.
    shift_mm : float
        Largest shift along each axis.
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
        """Change an image (1, 1, i, j, k), on its device; the generator is on the CPU."""
        moved = warp(image, self._displacement(image, grid, generator))
        brain = (moved > 0.02).to(moved)
        power = float((1 + self.gamma) ** (2 * torch.rand((), generator=generator) - 1))
        bias = _smooth(1, image, grid, generator).mul(self.bias).exp()
        noise = self.noise * _white(moved, generator)
        return ((moved.clamp(min=0) ** power * bias + noise) * brain).clamp(min=0)

    def _displacement(self, like: Tensor, grid: Grid, generator: torch.Generator) -> Tensor:
        """A linear and a smooth one together, in voxels (1, 3, i, j, k)."""
        spacing = torch.as_tensor(grid.spacing).to(like).reshape(1, 3, 1, 1, 1)
        middle = torch.tensor([(n - 1) / 2 for n in grid.shape]).to(like).reshape(spacing.shape)
        places = (identity(grid.shape, like) - middle) * spacing
        linear = self.turn * (2 * torch.rand(3, 3, generator=generator) - 1)
        shift = self.shift_mm * (2 * torch.rand(1, 3, 1, 1, 1, generator=generator) - 1)
        moved = torch.einsum("cd,ndijk->ncijk", linear.to(like), places) + shift.to(like)
        return (moved + self.warp_mm * _smooth(3, like, grid, generator)) / spacing


def _smooth(channels: int, like: Tensor, grid: Grid, generator: torch.Generator) -> Tensor:
    """Smooth noise (1, channels, i, j, k) of unit variance, features about 40 mm apart."""
    knots = [max(2, round(size / 40)) for size in grid.spacing * grid.shape]
    noise = torch.randn(1, channels, *knots, generator=generator).to(like)
    return nnf.interpolate(noise, size=grid.shape, mode="trilinear", align_corners=True)


def _white(like: Tensor, generator: torch.Generator) -> Tensor:
    """White noise of unit variance, shape of `like`, made on its device."""
    seed = int(torch.randint(2**62, (), generator=generator))
    own = torch.Generator(like.device).manual_seed(seed)
    return torch.randn(like.shape, generator=own, device=like.device)
