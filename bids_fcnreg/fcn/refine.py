"""Instance optimization of the deformation of one pair, by gradient ascent on local NCC.

Both images are warped to the midpoint, in three channels (see `losses.tissue_channels`). At each
resolution, from coarse to fine, the force of local NCC on each image (its gradient) is accumulated
with momentum, smoothed (fluid regularization), scaled to a largest step, and composed with that
image's displacement. The displacement is then smoothed (elastic regularization): slightly where
the images have structure, more where they are flat; its divergence is smoothed more, so that
changes of volume are resisted. As every step is small and smooth, the displacements stay
invertible.

References
----------
Avants et al., Symmetric diffeomorphic image registration with cross-correlation, Med. Image Anal.
12(1), 2008; Yushkevich et al., Fast automatic segmentation of hippocampal subfields, Alzheimer's
& Dementia 12(7), 2016 (greedy diffeomorphic registration).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor

from bids_fcnreg.fcn.losses.similarity import accumulate_forces, window_damping
from bids_fcnreg.fcn.losses.tissue_channels import SHARES, add_border_channels
from bids_fcnreg.fcn.memory import return_freed_memory
from bids_fcnreg.fcn.modes import MODES
from bids_fcnreg.fcn.out_of_memory import with_fallback
from bids_fcnreg.fcn.pair import Pair
from bids_fcnreg.fcn.reproducible import total
from bids_fcnreg.fcn.spatial.filters import dilate, gaussian
from bids_fcnreg.fcn.spatial.midpoint import MidpointDeformation
from bids_fcnreg.fcn.spatial.region import Region

#: Voxels around the brain, in each level's own, in which the deformation is optimized.
MARGIN = 6

#: Forces count in full where at least this fraction of a voxel is known, and in part below.
ENOUGH = 0.125


@dataclass(frozen=True)
class Refinement:
    """Settings of the instance optimization.

    Attributes
    ----------
    spacings : sequence of float
        Voxel size of each level in mm, coarse to fine.
    steps : sequence of int
        Number of steps at each level. If the images are no finer than a level, it is the last one,
        and its number is the largest of its own and the finer levels'.
    radius : int
        Half-width of local NCC's window, in voxels of the level.
    update_sigma, field_sigma : sequence of float
        Standard deviation of the smoothing of each step and of the deformation, in voxels of the
        level.
    flat_sigma : float
        Additional smoothing of the deformation where the images are flat, in voxels of the level.
    flatness : float
        Structure (see `_flatness_map`), as a fraction of its median in the brain, at which half of
        the additional smoothing remains.
    divergence_rate : sequence of float
        Additional smoothing of the deformation's divergence, by level; see
        `Region.damp_divergence`.
    momentum : float
        Fraction of the accumulated force kept at the next step, 0 to 1.
    largest_step : sequence of float
        Largest displacement of a voxel in one step, in voxels of the level.
    last_step : float
        Fraction of `largest_step` that remains at the last step of a level; steps become shorter
        linearly. With constant ones (1), a deformation that has converged keeps moving at random.
    """

    spacings: Sequence[float] = (4.0, 2.0, 1.0)
    steps: Sequence[int] = MODES["refine"].steps
    radius: int = 3
    update_sigma: Sequence[float] = (1.7, 1.7, 1.4)
    field_sigma: Sequence[float] = (1.0, 0.7, 0.4)
    flat_sigma: float = 2.0
    flatness: float = 0.13
    divergence_rate: Sequence[float] = (0.0, 0.0, 0.3)
    momentum: float = 0.5
    largest_step: Sequence[float] = (0.5, 0.7, 1.3)
    last_step: float = 1.0


def refine(
    pair: Pair, start: MidpointDeformation | None = None, settings: Refinement | None = None
) -> MidpointDeformation:
    """Optimize the deformation of one pair.

    Parameters
    ----------
    pair : Pair
        The images after the linear stage.
    start : MidpointDeformation, optional
        Initial deformation, on any grid of the fixed space; by default the identity.
    settings : Refinement, optional

    Returns
    -------
    MidpointDeformation
        On the grid of `pair`; zero at its border.
    """
    settings = settings or Refinement()
    device = pair.fixed.device
    deformation = start or MidpointDeformation.identity(pair.grid, pair.fixed)
    pair = add_border_channels(pair, deformation.on_grid(pair.grid))
    grids = [pair.coarser_grid(spacing) for spacing in settings.spacings]
    for number, spacing in enumerate(settings.spacings):
        if number and grids[number - 1].matches(grids[number]):
            continue  # the images are no finer than the previous level
        same = [other for other, grid in enumerate(grids) if grid.matches(grids[number])]
        steps = max(settings.steps[other] for other in same)
        if steps:
            level = pair.coarser(spacing)
            optimize_level = partial(_optimize_level, level, deformation, number, steps, settings)
            part = f"the refinement at {spacing:g} mm"
            deformation = with_fallback(optimize_level, device, part).to(device)
    return deformation.on_grid(pair.grid)


def _optimize_level(
    level: Pair,
    deformation: MidpointDeformation,
    number: int,
    steps: int,
    settings: Refinement,
    device: torch.device,
) -> MidpointDeformation:
    """Optimize a deformation at one resolution."""
    return_freed_memory()
    level, deformation = level.to(device), deformation.to(device).on_grid(level.grid)
    displacements = torch.cat([deformation.to_fixed, deformation.to_moving])
    del deformation  # what is not needed any more need not be kept in memory
    ascent = _Ascent(level, displacements, number, settings)
    for fraction in np.linspace(1.0, settings.last_step, steps):
        ascent.add_forces()
        ascent.update(float(fraction))
    deformation = ascent.deformation()
    del ascent
    return deformation.tapered()


class _Ascent:
    """Gradient ascent at one resolution; volumes are allocated once and changed in place.

    Parameters
    ----------
    level : Pair
        The images.
    displacements : Tensor (2, 3, i, j, k)
        At the start: of the fixed and of the moving image, in voxels of `level`; changed in place.
    number : int
        Number of the level.
    settings : Refinement
    """

    def __init__(
        self, level: Pair, displacements: Tensor, number: int, settings: Refinement
    ) -> None:
        self.level, self.settings = level, settings
        self.update_sigma = settings.update_sigma[number]
        self.field_sigma = settings.field_sigma[number]
        self.divergence_rate = settings.divergence_rate[number]
        self.largest_step = settings.largest_step[number]
        self.region = Region.around(level.weight, MARGIN)
        # As the fixed and the moving image, what belongs to each is a batch of two.
        self.damping = window_damping(level.images)
        self.weight = level.weight / total(level.weight).clamp(min=1e-6)
        self.displacements = displacements
        self.warped = torch.zeros_like(level.images)
        # Forces come from the warped images, steps from the forces: one memory for both.
        same = self.warped.shape == self.displacements.shape
        self.directions = self.warped if same else torch.zeros_like(self.displacements)
        self.momenta = torch.zeros_like(self.displacements)
        self.composed = self.displacements.clone()
        # Voxels beside excluded ones are partly excluded, too.
        self.excludes = [
            None if exclude is None else dilate(exclude, 1)
            for exclude in (level.fixed_exclude, level.moving_exclude)
        ]
        self.flatness: Tensor | None = None

    def deformation(self) -> MidpointDeformation:
        """Return the present deformation, which the next step changes."""
        return MidpointDeformation(self.level.grid, *self.displacements.split(1))

    def add_forces(self) -> None:
        """Add the forces on both images at the midpoint to the momenta."""
        weight = self.weight
        self.region.warp(self.level.images, self.displacements, self.warped)
        known = self.deformation().known(*self.excludes)
        if known is not None:
            self.region.fill(self.warped, known, self.settings.radius)
            weight = weight * known
            weight = weight / total(weight).clamp(min=1e-6)
        if self.flatness is None:
            self.flatness = _flatness_map(self.warped, weight, self.settings.flatness)
        accumulate_forces(
            self.momenta,
            self.warped,
            self.settings.radius,
            weight,
            SHARES,
            self.settings.momentum,
            self.damping,
        )
        if known is not None:
            self.momenta.mul_((known / ENOUGH).clamp(max=1))

    def update(self, fraction: float = 1.0) -> None:
        """Move both displacements by a smooth step along the momenta, and smooth them.

        `fraction` is what remains of the largest step.
        """
        assert self.flatness is not None  # forces come first
        wide_sigma = float(np.hypot(self.field_sigma, self.settings.flat_sigma))
        self.region.smooth(self.momenta, self.update_sigma, self.directions)
        length = fraction * self.largest_step
        self.region.compose(self.directions, length, self.displacements, self.composed)
        self.region.smooth_adaptively(
            self.composed, self.field_sigma, wide_sigma, self.flatness, self.displacements
        )
        if self.divergence_rate:
            self.region.damp_divergence(self.displacements, self.divergence_rate, self.composed)
            self.displacements, self.composed = self.composed, self.displacements


def _flatness_map(images: Tensor, weight: Tensor, flatness: float) -> Tensor:
    """Map the lack of structure in two images: 1 where there is none, falling to 0.

    Structure is the mean squared gradient of intensities around a voxel, the geometric mean of
    both images'.

    Parameters
    ----------
    images : Tensor (2, channels, i, j, k)
        Only the first channel is used.
    weight : Tensor (1, 1, i, j, k)
        Brain where above 0; structure elsewhere is ignored.
    flatness : float
        See `Refinement`.

    Returns
    -------
    Tensor (1, 1, i, j, k)
    """
    brain = weight > 0
    structure = torch.ones_like(weight)
    for image in images[:, :1].split(1):
        squares = torch.zeros_like(weight)
        for axis in (2, 3, 4):
            (slope,) = torch.gradient(image, dim=axis)
            squares.addcmul_(slope, slope)
        structure *= gaussian(squares.mul_(brain), 1.5)
    structure.sqrt_()
    inside = torch.where(brain, structure, torch.nan)[..., ::2, ::2, ::2]
    half = flatness * inside.nanmedian().nan_to_num().clamp(min=1e-12)
    return half / structure.add_(half)
