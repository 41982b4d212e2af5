"""Tell brains from whole heads and from label images, by their voxels."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy import ndimage

from bids_fcnreg.fcn.foreground import non_background

#: An image is skull-stripped if at most this fraction of its object is farther than `MARGIN_MM`
#: from the brain. Whole heads, also defaced or cropped, have 0.15 to 0.7; extracted brains 0 to
#: 0.04, also with masks a few millimetres too large.
MARGIN_MM = 5.0
MAX_OUTSIDE = 0.1

#: Criteria of a skull-stripped image without a brain mask: smallest background fraction, and
#: largest volume of a human brain (mm³).
MIN_BACKGROUND = 0.3
MAX_BRAIN_MM3 = 2.2e6

#: Label images have at least this fraction of equal neighbours. Intensities have at most 0.11; 138
#: regions have 0.9 with voxels of 1 mm, and 0.6 with voxels of 4 mm.
MIN_EQUAL = 0.3


def fraction_outside(data: np.ndarray, brain: np.ndarray, spacing: Sequence[float]) -> float:
    """Compute the fraction of the object in an image that is outside the brain.

    Parameters
    ----------
    data : ndarray (i, j, k)
        Intensities.
    brain : ndarray (i, j, k), bool
        Mask of the brain.
    spacing : (3,)
        Voxel size in mm.

    Returns
    -------
    float
        Fraction, 0 to 1, of the voxels that differ from the background that are farther than
        `MARGIN_MM` from the brain.
    """
    step = [max(1, round(2 / size)) for size in spacing]
    every = tuple(slice(None, None, n) for n in step)
    distance = ndimage.distance_transform_edt(~brain[every], sampling=np.multiply(spacing, step))
    seen = non_background(data)[every]
    return float((seen & (distance > MARGIN_MM)).sum() / max(1, seen.sum()))


def is_extracted(data: np.ndarray, brain: np.ndarray, spacing: Sequence[float]) -> bool:
    """Return whether an image is skull-stripped; arguments as in `fraction_outside`."""
    return fraction_outside(data, brain, spacing) <= MAX_OUTSIDE


def is_label_image(data: np.ndarray) -> bool:
    """Return whether values are those of a label image with more than one label.

    That is, integers that mostly equal their neighbours, unlike the intensities of a scan.

    Parameters
    ----------
    data : ndarray (i, j, k)
        Values of an image.

    Examples
    --------
    >>> labels = np.repeat([0, 1, 2, 0], 5)[:, None, None] * np.ones((1, 5, 5))
    >>> is_label_image(labels), is_label_image(np.random.default_rng(0).integers(0, 9, (9, 9, 9)))
    (True, False)
    """
    if not equal_neighbours(data) >= 0.5:
        return False
    values = data[data != 0]
    return bool((values == np.round(values)).all() and values.min() != values.max())


def is_mask(data: np.ndarray) -> bool:
    """Return whether an image has one value only, beside 0."""
    values = data[data != 0]
    return values.size > 0 and bool(values.min() == values.max())


def equal_neighbours(data: np.ndarray) -> float:
    """Return the fraction of nonzero neighbours along i with equal values; NaN without any."""
    here, following = data[:-1], data[1:]
    inside = (here != 0) & (following != 0)
    return float((here[inside] == following[inside]).mean()) if inside.any() else float("nan")


def may_be_brain_only(seen: np.ndarray, affine: np.ndarray) -> bool:
    """Return whether an object is small enough to be a brain alone.

    Faster than `is_extracted`, without a brain mask; true also for the head of a small child.

    Parameters
    ----------
    seen : ndarray (i, j, k), bool
        Voxels that differ from the background.
    affine : ndarray (4, 4)
        Voxels to RAS+ mm.
    """
    volume = seen.sum() * abs(np.linalg.det(affine[:3, :3]))
    return bool(seen.mean() <= 1 - MIN_BACKGROUND and volume <= MAX_BRAIN_MM3)
