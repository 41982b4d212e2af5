"""Average the runs of a session, but only those that show the same head in the same way."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
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
from bids_fcnreg.preprocessing.brain import fits_a_brain

#: Voxel size in mm at which runs are compared, and the smoothing (standard deviation, mm).
SPACING_MM = 2.0

#: Standard deviation of what a voxel smooths, in voxels.
VOXEL_SIGMA = 0.4

#: A run less similar than this to the first shows another head, or is not aligned with it. Two
#: scans of one head have 0.87 to 1.0, with a tenth of noise added to one of them too (0.79 with
#: voxels of 4 mm); those of two people have 0 to 0.52.
LEAST_SIMILARITY = 0.65

#: Runs whose outlines overlap less (Dice) and of which one is as small as a brain are of two
#: kinds: one of them is skull-stripped.
LEAST_OVERLAP = 0.8


@dataclass(frozen=True)
class Comparison:
    """How a run compares with the first one after rigid alignment.

    Attributes
    ----------
    similarity : float
        Median over the first head of the local correlation (signed square, window of 10 mm).
        It does not depend on the scale of the intensities.
    overlap : float
        Dice of what the two runs show.
    reason : str or None
        Why the run is not averaged; None if it is.
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
        On the grid of the first run; a voxel that some runs do not cover is the mean of the
        others.
    comparisons : tuple of Comparison
        One for each run but the first.
    """

    image: Image
    comparisons: tuple[Comparison, ...]


def average(images: Sequence[Image]) -> Average:
    """Average the runs of one head, without those that do not fit to the first.

    Every run is brought to the intensity scale and, by a rigid transform and one interpolation,
    to the grid of the first. A run that shows another head than the first, or of which only one
    is skull-stripped, is left out.

    Parameters
    ----------
    images : sequence of Image (1, 1, i, j, k)
        Runs of one session: the positions of the head in the scanner differ by less than about
        30 degrees.

    Raises
    ------
    InputError
        If there are more than two runs, and none is similar to the first.
    """
    first = images[0]
    total, count = first.data.clone(), torch.ones_like(first.data)
    comparisons = []
    for image in images[1:]:
        matrix = align(first, image, dof="rigid", thorough=False)
        comparisons.append(compare(first, image, matrix))
        if comparisons[-1].reason is not None:
            continue
        values, covered = _brought(image, matrix, first.grid)
        signal = (first.data > mean(first.data)) & (covered > 0)
        total += values * (mean(first.data[signal]) / mean(values[signal]))
        count += covered
    if len(comparisons) > 1 and all(one.similarity < LEAST_SIMILARITY for one in comparisons):
        found = ", ".join(f"{one.similarity:.2f}" for one in comparisons)
        raise InputError(
            f"None of the other runs is similar to the first (similarity {found}, at least "
            f"{LEAST_SIMILARITY:g} in runs of one person). Check whose images they are, and "
            "remove those that do not belong to this participant."
        )
    return Average(Image(total / count, first.grid), tuple(comparisons))


def describe(found: Average, names: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Describe in fields of a sidecar what was averaged.

    Parameters
    ----------
    found : Average
        Of several runs.
    names : sequence of str
        Of the runs, the first one's too.

    Returns
    -------
    dict
        ``RunSimilarity`` by the name of each run but the first; ``RunsLeftOut``, the reason by
        the name of the run, if there are any.
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
        From the first run's world to that of the other.
    """
    grid = first.grid.with_spacing(SPACING_MM)
    fixed, _ = _brought(_smoothed(first), np.eye(4), grid)
    moved, covered = _brought(_smoothed(run), matrix, grid)
    both = covered[0, 0] > 0.99
    seen, seen_too = (
        torch.from_numpy(non_background(one[0, 0].numpy())) & both for one in (fixed, moved)
    )
    if not (seen.any() and seen_too.any()):
        return Comparison(0.0, 0.0, "it does not show the same part of the head")
    local = FixedWindows(fixed, radius=2).compare(moved).value[0, 0]
    similarity = float(local[seen].median())
    overlap = 2 * int((seen & seen_too).sum()) / int(seen.sum() + seen_too.sum())
    return Comparison(similarity, overlap, _reason(first, run, similarity, overlap))


def _reason(first: Image, run: Image, similarity: float, overlap: float) -> str | None:
    """Return why a run is not averaged with the first; None if it is."""
    brains = [_is_brain(image) for image in (first, run)]
    if overlap < LEAST_OVERLAP and brains[0] != brains[1]:
        which = "the first run is skull-stripped and this one is not"
        if brains[1]:
            which = "it is skull-stripped and the first run is not"
        return f"{which} (overlap {overlap:.2f})"
    if similarity < LEAST_SIMILARITY:
        return (
            f"it does not look like the first run (similarity {similarity:.2f}, at least "
            f"{LEAST_SIMILARITY:g} in runs of one person): check whose image it is"
        )
    return None


def _is_brain(image: Image) -> bool:
    """Whether an image shows so little that it can be a skull-stripped brain."""
    return fits_a_brain(non_background(image.data[0, 0].numpy()), image.grid.affine)


def _brought(image: Image, matrix: np.ndarray, grid: Grid) -> tuple[Tensor, Tensor]:
    """Intensities on a grid, and which of them are inside the image, in one resampling."""
    pair = Image(torch.cat([image.data, torch.ones_like(image.data)], dim=1), image.grid)
    moved = Transform((Affine(matrix),)).resample(pair, grid).data
    return moved[:, :1], moved[:, 1:]


def _smoothed(image: Image) -> Image:
    """Bring an image to the resolution at which runs are compared."""
    own = VOXEL_SIGMA * np.asarray(image.grid.spacing)
    sigma = np.sqrt(np.maximum(SPACING_MM**2 - own**2, 0)) / image.grid.spacing
    return Image(gaussian(image.data, sigma), image.grid)
