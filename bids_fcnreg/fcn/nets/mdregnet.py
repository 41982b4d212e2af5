"""The default network: multi-resolution, incremental, diffeomorphic, symmetric.

At each resolution, from coarse to fine, the images warped by the previous levels enter a fully
convolutional network, which returns a velocity field. A Gaussian layer smooths it, scaling and
squaring integrates it, and the resulting step is composed with the deformation so far. Both images
are warped to the midpoint, so that exchanging them exchanges the two displacements exactly.

References
----------
Li & Fan, MDReg-Net: Multi-resolution diffeomorphic image registration using fully convolutional
networks with deep self-supervision, Human Brain Mapping 43(7), 2022, doi 10.1002/hbm.25782.
"""

from __future__ import annotations

import operator
from collections.abc import Iterator, Sequence
from functools import reduce
from itertools import islice
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as nnf

from bids_fcnreg.fcn.losses.objective import Objective
from bids_fcnreg.fcn.losses.similarity import local_ncc_forces
from bids_fcnreg.fcn.nets.li_fan_2017 import convolution_dtype, pad_to_multiple
from bids_fcnreg.fcn.pair import Pair
from bids_fcnreg.fcn.reproducible import total
from bids_fcnreg.fcn.spatial.displacement import exponentiate
from bids_fcnreg.fcn.spatial.filters import double, fill, gaussian
from bids_fcnreg.fcn.spatial.midpoint import MidpointDeformation

#: Smoothing of a velocity, in its own voxels, which are twice those of the images.
VELOCITY_SIGMA = 0.7

#: Half-width of the windows of the force, in voxels of the images.
FORCE_RADIUS = 2

#: Ratio of velocity and force in an untrained network, in voxels of the velocity.
INITIAL_GAIN = 0.25

#: A level is trained on its first passes; the others continue in the same way.
TRAINED_PASSES = 3

#: Number of squarings in the integration of a velocity.
SQUARINGS = 5


class VelocityFCN(nn.Module):
    """Fully convolutional network from two images to the velocity that aligns them.

    It works at half the resolution of the images and below: the velocity is smooth, and a strided
    convolution preserves the detail of the images in its features. A further input is the force of
    local NCC, the direction in which the similarity increases.

    Parameters
    ----------
    widths : sequence of int
        Number of features at a half, a quarter, … of the resolution.
    """

    def __init__(self, widths: Sequence[int] = (16, 32, 64)) -> None:
        super().__init__()
        self.widths = tuple(widths)
        pairs = list(zip(self.widths[:-1], self.widths[1:], strict=True))
        self.stem = nn.Conv3d(5, self.widths[0], 4, stride=2, padding=1)
        self.down = nn.ModuleList(nn.Conv3d(fine, coarse, 2, stride=2) for fine, coarse in pairs)
        self.encode = nn.ModuleList(map(_convolution, self.widths))
        self.up = nn.ModuleList(
            nn.ConvTranspose3d(coarse, fine, 2, stride=2) for fine, coarse in pairs
        )
        self.decode = nn.ModuleList(map(_convolution, self.widths))
        self.regression = nn.Conv3d(self.widths[0], 3, 3, padding=1)
        nn.init.normal_(self.regression.weight, std=1e-3)
        assert self.regression.bias is not None  # by default it has one
        nn.init.zeros_(self.regression.bias)
        self.gain = nn.Parameter(torch.tensor(INITIAL_GAIN))

    @property
    def multiple(self) -> int:
        """Factor by which the image sizes must be divisible."""
        return 2 ** len(self.widths)

    def forward(self, fixed: Tensor, moving: Tensor, force: Tensor) -> Tensor:
        """Compute the velocity that moves the moving image's points towards the fixed image.

        It changes its sign when the images are exchanged.

        Parameters
        ----------
        fixed, moving : Tensor (1, 1, i, j, k)
            Intensities of about 0 to 1.
        force : Tensor (1, 3, i, j, k)
            Direction in which the similarity of the images increases.

        Returns
        -------
        Tensor (1, 3, i/2, j/2, k/2)
            In its own voxels per unit time; for sizes rounded up to divide by `multiple`.
        """
        images = self._both_ways(fixed, moving, force)
        with torch.autocast(images.device.type, images.dtype, images.dtype != torch.float32):
            velocities = self.regression(self._features(images)).float()
        velocity = (velocities[:1] - velocities[1:]).contiguous() / 2
        return velocity + self.gain * nnf.avg_pool3d(pad_to_multiple(force, self.multiple), 2)

    def _both_ways(self, fixed: Tensor, moving: Tensor, force: Tensor) -> Tensor:
        """Return the input (2, 5, i, j, k) of the convolutions, for either image as the fixed."""
        i, j, k = fixed.shape[2:]
        sizes = [size + -size % self.multiple for size in (i, j, k)]
        images = torch.empty(
            (2, 5, *sizes),
            dtype=convolution_dtype(fixed.device, sizes, self.multiple),
            device=fixed.device,
            memory_format=torch.channels_last_3d,
        ).zero_()
        for way, channels in zip(
            images, ((fixed, moving, force), (moving, fixed, -force)), strict=True
        ):
            for target, source in zip(way.split([1, 1, 3]), channels, strict=True):
                target[:, :i, :j, :k] = source[0]
        return images

    def _features(self, images: Tensor) -> Tensor:
        """Compute features (batch, width, i/2, j/2, k/2) of the input."""
        features = nnf.leaky_relu(self.stem(images), 0.1)
        passed = []
        for level, encode in enumerate(self.encode):
            if level > 0:
                passed.append(features)
                features = nnf.leaky_relu(self.down[level - 1](features), 0.1)
            features = features + encode(features)
        features = features + self.decode[-1](features)
        for level in reversed(range(len(passed))):
            features = nnf.leaky_relu(self.up[level](features) + passed[level], 0.1)
            features = features + self.decode[level](features)
        return features


class DiffeomorphicFCN(nn.Module):
    """A velocity network for each level of resolution, coarse to fine.

    Parameters
    ----------
    spacings : sequence of float
        Voxel size of the images at each level in mm, coarse to fine.
    passes : sequence of int
        Number of successive passes through each level's network.
    widths : sequence of int
        See `VelocityFCN`.
    divergence_rate : float
        After each pass, the divergence of the deformation is smoothed by this rate; see
        `displacement.damp_divergence`.

    Raises
    ------
    ValueError
        If the rate is outside 0 to below 0.4.
    """

    def __init__(
        self,
        spacings: Sequence[float] = (4.0, 2.0, 1.0),
        passes: Sequence[int] = (6, 6, 3),
        widths: Sequence[int] = (16, 32, 64),
        divergence_rate: float = 0.2,
    ) -> None:
        super().__init__()
        self.spacings = tuple(spacings)
        self.passes = tuple(passes)
        self.widths = tuple(widths)
        if not 0 <= divergence_rate < 0.4:
            raise ValueError("The smoothing of the divergence is stable from 0 to below 0.4.")
        self.divergence_rate = divergence_rate
        self.levels = nn.ModuleList(VelocityFCN(widths) for _ in self.spacings)

    @property
    def arguments(self) -> dict[str, object]:
        """Arguments that recreate this architecture."""
        return {
            "spacings": self.spacings,
            "passes": self.passes,
            "widths": self.widths,
            "divergence_rate": self.divergence_rate,
        }

    def initialize_stage(self, stage: int) -> None:
        """Initialize a level with the weights of the next coarser one.

        In voxel units, the mapping learned at one resolution is a good start at the next.
        """
        if stage > 0:
            self.levels[stage].load_state_dict(self.levels[stage - 1].state_dict())

    def is_untrained(self, stage: int) -> bool:
        """Return whether a level still has the weights of the next coarser one."""
        if stage == 0:
            return False
        own, coarser = (self.levels[n].state_dict() for n in (stage, stage - 1))
        return all(torch.equal(value, coarser[name]) for name, value in own.items())

    def cost(self, pair: Pair, objective: Objective, stage: int) -> Tensor:
        """Compute the cost of a pair's deformation, summed over the first passes of one level.

        Parameters
        ----------
        pair : Pair
            At the level's voxel size or finer.
        objective : Objective
            Evaluated at the level's resolution.
        stage : int
            The level to train; coarser ones are evaluated without gradients.

        Returns
        -------
        Tensor ()
        """
        level = pair.coarser(self.spacings[stage])
        start = self.deform(pair, stage) if stage > 0 else None
        costs = (
            objective.midpoint_cost(level, deformation)
            for deformation in islice(self.descend(stage, level, start), TRAINED_PASSES)
        )
        return reduce(operator.add, costs)

    def deform(self, pair: Pair, levels: int | None = None) -> MidpointDeformation:
        """Predict the deformation of a pair, without gradients.

        Parameters
        ----------
        pair : Pair
            The images after the linear stage, of any size.
        levels : int, optional
            Number of levels to use, from the coarsest; by default all.

        Returns
        -------
        MidpointDeformation
            On the grid of the finest level used.
        """
        deformation: MidpointDeformation | None = None
        with torch.no_grad():
            for level in range(len(self.levels) if levels is None else levels):
                *_, deformation = self.descend(level, pair, deformation)
        assert deformation is not None  # there is a level, and a pass through it
        return deformation

    def start(self, pair: Pair) -> MidpointDeformation:
        """Predict a deformation to be refined: as `deform`, without levels that are untrained.

        With the weights of coarser levels they improve little what a refinement improves more.
        """
        trained = [level for level in range(len(self.levels)) if not self.is_untrained(level)]
        return self.deform(pair, trained[-1] + 1)

    def descend(
        self, level: int, pair: Pair, start: MidpointDeformation | None
    ) -> Iterator[MidpointDeformation]:
        """Yield the deformation after each pass through one level's network.

        Gradients flow through the last pass only: every pass is supervised separately.

        Parameters
        ----------
        level : int
            Level number, 0 is the coarsest.
        pair : Pair
            At the level's voxel size or finer.
        start : MidpointDeformation or None
            Deformation of the coarser levels.
        """
        pair = pair.coarser(self.spacings[level])
        deformation = (
            start.on_grid(pair.grid)
            if start
            else MidpointDeformation.identity(pair.grid, pair.fixed)
        )
        for _ in range(self.passes[level]):
            deformation = MidpointDeformation(
                deformation.grid, deformation.to_fixed.detach(), deformation.to_moving.detach()
            )
            network = cast(VelocityFCN, self.levels[level])  # to type checkers, any module
            velocity = self._velocity(network, pair, deformation)
            deformation = deformation.updated(
                *(self._step(part, pair) for part in (-velocity, velocity))
            )
            if self.divergence_rate:
                deformation = deformation.damped(self.divergence_rate)
            yield deformation

    def _step(self, velocity: Tensor, pair: Pair) -> Tensor:
        """Integrate a velocity of half a pair's resolution to a displacement (1, 3, i, j, k)."""
        return double(2 * exponentiate(velocity, SQUARINGS), pair.grid.shape)

    def _velocity(
        self, network: VelocityFCN, pair: Pair, deformation: MidpointDeformation
    ) -> Tensor:
        """Compute half the antisymmetric velocity (1, 3, i/2, j/2, k/2) between the images."""
        with torch.no_grad():
            fixed, moving = deformation.warp_to_midpoint(pair.fixed, pair.moving)
            known = deformation.known(pair.fixed_exclude, pair.moving_exclude)
            weight = pair.weight
            if known is not None:
                weight = weight * known
                fixed, moving = (fill(image, known, FORCE_RADIUS) for image in (fixed, moving))
            force = _force_direction(fixed, moving, weight)
            if known is not None:
                force = force * known
        return gaussian(network(fixed, moving, force), VELOCITY_SIGMA)


def _force_direction(fixed: Tensor, moving: Tensor, weight: Tensor) -> Tensor:
    """Compute the force of local NCC (1, 3, i, j, k), antisymmetric and of bounded length."""
    forces = local_ncc_forces(fixed, moving, FORCE_RADIUS, weight)
    force = gaussian(forces.on_second - forces.on_first, 1.0)
    length = force.square().sum(dim=1, keepdim=True).sqrt()
    typical = total(length * weight) / total(weight).clamp(min=1)
    return force / (length + typical).clamp(min=1e-12)


def _convolution(width: int) -> nn.Sequential:
    """Make a 3 x 3 x 3 convolution."""
    return nn.Sequential(nn.Conv3d(width, width, 3, padding=1), nn.LeakyReLU(0.1, inplace=True))
