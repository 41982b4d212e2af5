"""Instance optimisation: the deformation of one pair, improved by its own image gradient.

At each level of resolution, from coarse to fine, the force of local NCC on the fixed points (its
gradient, each window acting on its centre) is smoothed (a fluid regularisation), scaled to a
largest step, and composed with the deformation so far, which is then smoothed slightly (an
elastic one). As every step is a small smooth motion, the result stays invertible.

References
----------
Avants et al., Symmetric diffeomorphic image registration with cross-correlation, Med. Image Anal.
12(1), 2008; Yushkevich et al., Fast automatic segmentation of hippocampal subfields, Alzheimer's
& Dementia 12(7), 2016 (greedy diffeomorphic registration).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as nnf

from bids_fcnreg.fcn.filters import gaussian
from bids_fcnreg.fcn.pair import Pair
from bids_fcnreg.fcn.similarity import FixedWindows, shares
from bids_fcnreg.fcn.transform import Displacement, change_grid
from bids_fcnreg.fcn.warp import compose, identity, sample


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
    update_sigma, field_sigma : float
        Smoothing of each step and of the deformation, in voxels of the level.
    largest_step : float
        How far a step moves the voxel that it moves the most, in voxels.
    patience : int
        A level ends when so many steps together improved the similarity by less than
        `tolerance`.
    tolerance : float
        See `patience`.
    """

    spacings: Sequence[float] = (4.0, 2.0, 1.0)
    steps: Sequence[int] = (100, 60, 20)
    radius: int = 2
    update_sigma: float = 1.7
    field_sigma: float = 0.7
    largest_step: float = 1.0
    patience: int = 8
    tolerance: float = 1e-3


def refine(
    pair: Pair,
    start: Displacement | None = None,
    settings: Refinement | None = None,
    report: Callable[[str], None] | None = None,
) -> Displacement:
    """Optimise the deformation of one pair.

    Parameters
    ----------
    pair : Pair
        The images after the linear stage.
    start : Displacement, optional
        Where to start, on any grid of the fixed space; by default no displacement.
    settings : Refinement, optional
        How.
    report : callable, optional
        Is told a line about each level.

    Returns
    -------
    Displacement
        On the grid of `pair`; zero at its border.
    """
    settings = settings or Refinement()
    current, done = start, None
    for spacing, steps in zip(settings.spacings, settings.steps, strict=True):
        level = pair.coarser(spacing)
        if done is not None and done.matches(level.grid):
            continue  # the images are not finer than the level before
        if current is None:
            field = torch.zeros(1, 3, *level.grid.shape, device=level.fixed.device)
        else:
            field = change_grid(current, level.grid).field
        field, taken, alike = _optimise_level(level, field, steps, settings)
        current, done = Displacement(level.grid, field), level.grid
        if report is not None:
            report(f"{spacing:g} mm: {taken} steps, local NCC {alike:.4f}")
    return change_grid(current, pair.grid)


def _optimise_level(
    level: Pair, field: Tensor, steps: int, settings: Refinement
) -> tuple[Tensor, int, float]:
    """Improve a displacement at one resolution; also the number of steps and the similarity."""
    window = fade_out(level.fixed, width=4)
    grid = identity(level.grid.shape, field)
    moving = level.moving
    if level.exclude is not None:
        # A voxel counts only if its whole window is free of what is excluded.
        size = 2 * settings.radius + 1
        excluded = nnf.max_pool3d(level.exclude, size, stride=1, padding=settings.radius)
        moving = torch.cat([moving, excluded], dim=1)
    windows = FixedWindows(level.fixed, settings.radius)
    history: list[float] = []
    for _ in range(steps):
        warped = sample(moving, grid + field)
        weight = level.weight
        if level.exclude is not None:
            warped, excluded = warped.chunk(2, dim=1)
            weight = weight * (1 - excluded)
        comparison = windows.compare(warped)
        share = shares(comparison.value, weight)
        history.append(float((share * comparison.value).sum()))
        if _stalled(history, settings):
            break
        slope = share * comparison.centre_force(windows, warped)
        force = slope * torch.cat(torch.gradient(warped, dim=(2, 3, 4)), dim=1)
        step = gaussian(force, settings.update_sigma) * window
        length = step.square().sum(dim=1).max().sqrt()
        if float(length) == 0:
            break
        field = compose(step * (settings.largest_step / length), field)
        field = gaussian(field, settings.field_sigma) * window
    return field, len(history), history[-1]


def _stalled(history: list[float], settings: Refinement) -> bool:
    """Whether the last steps together brought next to nothing."""
    if len(history) <= settings.patience:
        return False
    return history[-1] - history[-1 - settings.patience] < settings.tolerance


def fade_out(like: Tensor, width: int) -> Tensor:
    """Weight (1, 1, i, j, k) that rises from 0 at the border to 1 within `width` voxels."""
    window = torch.ones(1, 1, *like.shape[2:], dtype=like.dtype, device=like.device)
    for axis, size in enumerate(like.shape[2:]):
        place = torch.arange(size, dtype=like.dtype, device=like.device)
        ramp = (torch.minimum(place, size - 1 - place) / width).clamp(max=1)
        window = window * ramp.reshape([-1 if d == axis + 2 else 1 for d in range(5)])
    return window
