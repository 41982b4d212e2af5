"""Instance optimisation: the deformation of one pair, improved by its own images' gradient.

Both images are warped to the space halfway between them, in three contrasts (see `contrast`). At
each level of resolution, from coarse to fine, the force of local NCC on the points of either image
(its gradient, each window acting on its centre) joins what is left of the forces before (its
momentum), is smoothed (a fluid regularisation), scaled to a largest step, and composed with that
image's half of the deformation, which is then smoothed (an elastic one): slightly where the images
show structure that holds it, more where they are flat. As every step is a small smooth motion, the
halves stay invertible.

References
----------
Avants et al., Symmetric diffeomorphic image registration with cross-correlation, Med. Image Anal.
12(1), 2008; Yushkevich et al., Fast automatic segmentation of hippocampal subfields, Alzheimer's
& Dementia 12(7), 2016 (greedy diffeomorphic registration).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from bids_fcnreg.fcn.losses.similarity import local_ncc_forces
from bids_fcnreg.fcn.losses.tissue_channels import SHARES, with_borders
from bids_fcnreg.fcn.out_of_memory import with_fallback
from bids_fcnreg.fcn.pair import Pair
from bids_fcnreg.fcn.reproducible import mean
from bids_fcnreg.fcn.spatial.displacement import warp
from bids_fcnreg.fcn.spatial.filters import dilate, gaussian
from bids_fcnreg.fcn.spatial.midpoint import Halves


@dataclass(frozen=True)
class Refinement:
    """How a deformation is optimised.

    Parameters
    ----------
    spacings : sequence of float
        Voxel size of each level in mm, coarse to fine.
    steps : sequence of int
        The most steps at each level.
    radius : int
        Half-width of local NCC's window, in voxels of the level.
    update_sigma, field_sigma : sequence of float
        Smoothing of each step and of the halves at each level, in voxels of the level.
    flat_sigma : float
        Further smoothing of the halves where the images are flat, in voxels of the level.
    flatness : float
        Structure (see `_flat`), as a part of its median in the brain, at which half of that
        further smoothing is left.
    momentum : float
        What is left of a force one step later, 0 to 1.
    largest_step : float
        How far a step moves the voxel of either image that it moves the most, in voxels.
    patience : int
        A level ends, at its best step, when so many steps together improved the similarity by
        less than `tolerance`.
    tolerance : float
        See `patience`.
    """

    spacings: Sequence[float] = (4.0, 2.0, 1.0)
    steps: Sequence[int] = (150, 80, 20)
    radius: int = 3
    update_sigma: Sequence[float] = (1.7, 1.7, 1.4)
    field_sigma: Sequence[float] = (1.0, 0.7, 0.55)
    flat_sigma: float = 2.0
    flatness: float = 0.13
    momentum: float = 0.5
    largest_step: float = 0.5
    patience: int = 20
    tolerance: float = 5e-4


def refine(
    pair: Pair,
    start: Halves | None = None,
    settings: Refinement | None = None,
    report: Callable[[str], None] | None = None,
) -> Halves:
    """Optimise the deformation of one pair.

    Parameters
    ----------
    pair : Pair
        The images after the linear stage.
    start : Halves, optional
        Where to start, on any grid of the fixed space; by default no displacement.
    settings : Refinement, optional
        How.
    report : callable, optional
        Is told a line about each level.

    Returns
    -------
    Halves
        On the grid of `pair`; zero at its border.
    """
    settings = settings or Refinement()
    place = pair.fixed.device
    halves, done = start or Halves.identity(pair.grid, pair.fixed), None
    pair = with_borders(pair, halves.on(pair.grid))
    for number, spacing in enumerate(settings.spacings):
        level = pair.coarser(spacing)
        if done is not None and done.matches(level.grid):
            continue  # the images are not finer than the level before
        optimise = partial(_optimise_level, level, halves, number, settings)
        part = f"the refinement at {spacing:g} mm"
        halves, taken, alike = with_fallback(optimise, place, part)
        halves, done = halves.to(place), level.grid
        if report is not None:
            report(f"{spacing:g} mm: {taken} steps, local NCC {alike:.4f}")
    return halves.on(pair.grid)


def _optimise_level(
    level: Pair, halves: Halves, number: int, settings: Refinement, place: torch.device
) -> tuple[Halves, int, float]:
    """Improve halves of any grid at one resolution; also the steps taken and the similarity."""
    level, halves = level.to(place), halves.to(place).on(level.grid)
    excluded = None
    if level.exclude is not None:
        # A voxel counts only if its whole window is free of what is excluded.
        excluded = dilate(level.exclude, settings.radius)
    history: list[float] = []
    best = halves
    drives = [torch.zeros(()), torch.zeros(())]
    flat = None
    for _ in range(settings.steps[number]):
        weight = level.weight
        if excluded is not None:
            weight = weight * (1 - warp(excluded, halves.to_moving))
        fixed, moving = halves.meet(level.fixed, level.moving)
        if flat is None:
            flat = _flat(fixed, moving, weight, settings.flatness)
        forces = local_ncc_forces(fixed, moving, settings.radius, weight, SHARES)
        history.append(float(forces.value))
        if history[-1] >= max(history):
            best = halves
        if _stalled(history, settings):
            halves = best  # the last step may have been one too many
            break
        drives = [
            settings.momentum * drive + force / mean(force.abs()).clamp(min=1e-12)
            for drive, force in zip(drives, (forces.on_first, forces.on_second), strict=True)
        ]
        sigma = settings.update_sigma[number]
        halves = halves.moved(*(_step(drive, sigma, settings.largest_step) for drive in drives))
        halves = halves.smoothed(settings.field_sigma[number])
        halves = halves.blended(halves.smoothed(settings.flat_sigma), flat)
    return halves.faded(), len(history), max(history)


def _flat(first: Tensor, second: Tensor, weight: Tensor, flatness: float) -> Tensor:
    """Where two images show no structure: 1 where there is none, falling to 0.

    Structure is the mean squared gradient of intensities around a voxel, the geometric mean of
    both images'.

    Parameters
    ----------
    first, second : Tensor (1, channels, i, j, k)
        The first channel counts.
    weight : Tensor (1, 1, i, j, k)
        The brain, where it is above 0; structure elsewhere does not count.
    flatness : float
        See `Refinement`.

    Returns
    -------
    Tensor (1, 1, i, j, k)
    """
    structure = torch.ones(())
    for image in (first, second):
        slopes = torch.cat(torch.gradient(image[:, :1], dim=(2, 3, 4)), dim=1)
        slopes = slopes.square().sum(dim=1, keepdim=True) * (weight > 0)
        structure = structure * gaussian(slopes, 1.5)
    structure = structure.sqrt()
    half = flatness * structure[weight > 0].median().nan_to_num().clamp(min=1e-12)
    return half / (half + structure)


def _step(drive: Tensor, sigma: float, largest: float) -> Tensor:
    """Smooth step (1, 3, i, j, k) in voxels along a force, of the largest length allowed."""
    step = gaussian(drive, sigma)
    length = step.square().sum(dim=1).max().sqrt()
    return step.mul_(largest / length.clamp(min=1e-12))


def _stalled(history: list[float], settings: Refinement) -> bool:
    """Whether the last steps together brought next to nothing."""
    if len(history) <= settings.patience:
        return False
    return history[-1] - history[-1 - settings.patience] < settings.tolerance
