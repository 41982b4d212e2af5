"""Round displacements before they are stored, so that files are smaller."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from bids_fcnreg.fcn.spatial.grid import Grid, Image
from bids_fcnreg.fcn.spatial.margin import with_margin
from bids_fcnreg.fcn.spatial.transform import Affine, Displacement, Transform

#: Largest error in mm of stored displacements.
ROUNDING_ERROR_MM = 0.008

#: The same farther from the brain than `BRAIN_MARGIN_MM`.
FAR_ROUNDING_ERROR_MM = 0.11

#: Distance in mm from the brain within which `ROUNDING_ERROR_MM` holds.
BRAIN_MARGIN_MM = 2.0

#: Steps of stored displacements in mm; the second where the first is not precise enough.
_STEPS_MM = (2.0**-6, 2.0**-7)

#: The step far from the brain.
_FAR_STEP_MM = 2.0**-3

#: Displacements nearer than this to multiples of the finer step were rounded before.
_ROUNDED_MM = 1e-4


def near_brain(
    brain: Image | None, before: Sequence[Affine | Displacement], grid: Grid
) -> np.ndarray | None:
    """Find where a displacement's grid is near a brain.

    Parameters
    ----------
    brain : Image (1, 1, i, j, k), optional
        Brain mask in the space of the points that a transform maps.
    before : sequence of Affine and Displacement
        Steps of the transform from that space to the grid's.
    grid : Grid
        Grid of the displacement.

    Returns
    -------
    ndarray (*grid.shape), bool, or None
        None if all of it counts as near: without a brain, or after another displacement.
    """
    if brain is None or any(isinstance(step, Displacement) for step in before):
        return None
    back = Transform(tuple(before)).inverse()
    return with_margin(brain, BRAIN_MARGIN_MM, grid, back).numpy()


def round_displacements(field: torch.Tensor, near: torch.Tensor | None = None) -> torch.Tensor:
    """Round displacements; those that were rounded before remain as they are.

    Components are multiples of the coarser step; if the error is too large, that with the largest
    error is one of the finer step; if it still is, all are.

    Parameters
    ----------
    field : Tensor (3, n)
        In mm.
    near : Tensor (n,), bool, optional
        Which of them are near the brain; by default, all.

    Returns
    -------
    Tensor (3, n)
        Off by at most `ROUNDING_ERROR_MM`, or `FAR_ROUNDING_ERROR_MM` if not near.
    """
    coarse, fine = (_multiples(field, step) for step in _STEPS_MM)
    error = (coarse - field).abs_()
    worst = error == error.amax(dim=0)
    rounded = torch.where(worst & _is_inexact(coarse, field), fine, coarse)
    before = (fine - field).abs_().amax(dim=0) < _ROUNDED_MM
    rounded = torch.where(before | _is_inexact(rounded, field), fine, rounded)
    if near is not None:
        rounded = torch.where(near, rounded, _multiples(field, _FAR_STEP_MM))
    return rounded.add_(0.0)  # turns negative zeros into zeros


def _is_inexact(rounded: torch.Tensor, field: torch.Tensor) -> torch.Tensor:
    """Return which vectors (3, n) are rounded too much, (n,)."""
    return (rounded - field).square_().sum(dim=0) > ROUNDING_ERROR_MM**2


def _multiples(values: torch.Tensor, step: float) -> torch.Tensor:
    return (values / step).round_().mul_(step)
