"""Average the runs of a session, excluding runs that do not match the first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bids_fcnreg.errors import InputError
from bids_fcnreg.fcn.foreground import non_background
from bids_fcnreg.fcn.linear.align import align
from bids_fcnreg.fcn.losses.similarity import FixedWindows
from bids_fcnreg.fcn.reproducible import mean
from bids_fcnreg.fcn.spatial.filters import gaussian
from bids_fcnreg.fcn.spatial.grid import Grid, Image
from bids_fcnreg.fcn.spatial.transform import Affine, Transform
from bids_fcnreg.preprocessing.brain import may_be_brain_only
from bids_fcnreg.preprocessing.mirror import (
    SURELY_RIGHT,
    is_mirrored,
    mirrored,
    mirrored_reason,
    start_of_mirrored,
)

#: Voxel size and smoothing (standard deviation) of the compared runs, in mm.
SPACING_MM = 2.0

#: Standard deviation of the smoothing by a voxel, in voxels.
VOXEL_SIGMA = 0.4

#: A run less similar than this to the first is of another person, or is misaligned. Two scans of
#: one head have 0.87 to 1.0, also with 10 % noise in one of them (0.79 with voxels of 4 mm); scans
#: of two people have 0 to 0.52.
MIN_SIMILARITY = 0.65

#: If the outlines of two runs overlap less (Dice) and one is as small as a brain, only one of them
#: is skull-stripped.
MIN_OVERLAP = 0.8


@dataclass(frozen=True)
class Comparison:
    """Comparison of a run with the first one after rigid alignment.

    Attributes
    ----------
    similarity : float
        Median over the first head of the local correlation (signed square, window of 10 mm).
        Invariant to intensity scaling.
    overlap : float
        Dice of the objects in the two runs.
    reason : str or None
        Why the run is excluded; None if it is averaged.
    """

    similarity: float
    overlap: float
    reason: str | None = None


@dataclass(frozen=True)
class Average:
    """Mean image of the runs of a session.

    Attributes
    ----------
    image : Image (1, 1, i, j, k)
        On the grid of the first run; each voxel is the mean of the runs that cover it.
    comparisons : tuple of Comparison
        One for each run but the first.
    """

    image: Image
    comparisons: tuple[Comparison, ...]


def average_runs(images: Sequence[Image]) -> Average:
    """Average the runs of a session, excluding those that do not match the first.

    Every run is scaled to the intensities of the first and resampled to its grid by a rigid
    transform with one interpolation. A run is excluded if it shows another head than the first, if
    left and right are exchanged in one of them, or if only one of the two is skull-stripped.

    Parameters
    ----------
    images : sequence of Image (1, 1, i, j, k)
        Runs of one session, with head rotations of less than about 30 degrees.

    Raises
    ------
    InputError
        If there are more than two runs and none is similar to the first.
    """
    first = images[0]
    total, count = first.data.clone(), torch.ones_like(first.data)
    comparisons = []
    for image in images[1:]:
        matrix = align(first, image, dof="rigid", thorough=False)
        comparisons.append(_with_mirrored(compare(first, image, matrix), first, image, matrix))
        if comparisons[-1].reason is not None:
            continue
        values, covered = _resampled(image, matrix, first.grid)
        signal = (first.data > mean(first.data)) & (covered > 0)
        total += values * (mean(first.data[signal]) / mean(values[signal]))
        count += covered
    if len(comparisons) > 1 and all(one.similarity < MIN_SIMILARITY for one in comparisons):
        found = ", ".join(f"{one.similarity:.2f}" for one in comparisons)
        raise InputError(
            f"No other run is similar to the first (similarity {found}, at least "
            f"{MIN_SIMILARITY:g} in runs of one person). Remove images that do not belong to this "
            "participant."
        )
    return Average(Image(total / count, first.grid), tuple(comparisons))


def describe_average(found: Average, names: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Return the sidecar fields of an average.

    Parameters
    ----------
    found : Average
        Average of several runs.
    names : sequence of str
        Names of all runs.

    Returns
    -------
    dict
        ``RunSimilarity`` by name of each run but the first; ``RunsLeftOut``, the reason by name of
        each excluded run, if any.
    """
    pairs = list(zip(names[1:], found.comparisons, strict=True))
    fields: dict[str, dict[str, Any]] = {
        "RunSimilarity": {name: round(one.similarity, 3) for name, one in pairs}
    }
    if left_out := {name: one.reason for name, one in pairs if one.reason is not None}:
        fields["RunsLeftOut"] = left_out
    return fields


def compare(first: Image, run: Image, matrix: np.ndarray) -> Comparison:
    """Compare a run with the first one.

    Parameters
    ----------
    first, run : Image (1, 1, i, j, k)
        Two runs.
    matrix : ndarray (4, 4)
        From the first run to the other, RAS+ mm.
    """
    grid = first.grid.with_spacing(SPACING_MM)
    fixed, _ = _resampled(_smoothed(first), np.eye(4), grid)
    moved, covered = _resampled(_smoothed(run), matrix, grid)
    both = covered[0, 0] > 0.99
    first_object, run_object = (
        torch.from_numpy(non_background(one[0, 0].numpy())) & both for one in (fixed, moved)
    )
    if not (first_object.any() and run_object.any()):
        return Comparison(0.0, 0.0, "it shows another part of the head")
    local = FixedWindows(fixed, radius=2).compare(moved).value[0, 0]
    similarity = float(local[first_object].median())
    shared = int((first_object & run_object).sum())
    overlap = 2 * shared / int(first_object.sum() + run_object.sum())
    return Comparison(similarity, overlap, _reason(first, run, similarity, overlap))


def _with_mirrored(found: Comparison, first: Image, run: Image, matrix: np.ndarray) -> Comparison:
    """Exclude a run in which left and right are exchanged; `matrix` aligns it as it is."""
    if found.similarity > SURELY_RIGHT:
        return found
    head = Image((first.data > mean(first.data)).float(), first.grid)
    other = mirrored(run)
    aligned = align(first, other, dof="rigid", initial=start_of_mirrored(matrix, head))
    similarity = compare(first, other, aligned).similarity
    if not is_mirrored(found.similarity, similarity, MIN_SIMILARITY):
        return found
    return replace(found, reason=mirrored_reason(found.similarity, similarity, "the first run"))


def _reason(first: Image, run: Image, similarity: float, overlap: float) -> str | None:
    """Return why a run is not averaged with the first; None if it is."""
    brains = [_is_brain(image) for image in (first, run)]
    if overlap < MIN_OVERLAP and brains[0] != brains[1]:
        which = "the first run is skull-stripped and this one is not"
        if brains[1]:
            which = "it is skull-stripped and the first run is not"
        return f"{which} (overlap {overlap:.2f})"
    if similarity < MIN_SIMILARITY:
        return (
            f"it is not similar to the first run (similarity {similarity:.2f}, at least "
            f"{MIN_SIMILARITY:g} in runs of one person). Check whose image it is"
        )
    return None


def _is_brain(image: Image) -> bool:
    """Return whether an image may be a skull-stripped brain, by size."""
    return may_be_brain_only(non_background(image.data[0, 0].numpy()), image.grid.affine)


def _resampled(image: Image, matrix: np.ndarray, grid: Grid) -> tuple[Tensor, Tensor]:
    """Resample intensities to a grid; also return which voxels are inside the image."""
    pair = Image(torch.cat([image.data, torch.ones_like(image.data)], dim=1), image.grid)
    moved = Transform((Affine(matrix),)).resample(pair, grid).data
    return moved[:, :1], moved[:, 1:]


def _smoothed(image: Image) -> Image:
    """Smooth an image to the resolution at which runs are compared."""
    own = VOXEL_SIGMA * np.asarray(image.grid.spacing)
    sigma = np.sqrt(np.maximum(SPACING_MM**2 - own**2, 0)) / image.grid.spacing
    return Image(gaussian(image.data, sigma), image.grid)
