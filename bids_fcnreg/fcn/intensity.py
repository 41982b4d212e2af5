"""Intensity standardization of brain images of any unit, offset and sign.

The same for the app, the commands and the Python functions, and for every stage: linear stage,
network, refinement and quality metrics see an image after `standardize` only.
"""

from __future__ import annotations

import numpy as np
import torch
from scipy import ndimage

from bids_fcnreg.errors import InputError
from bids_fcnreg.fcn.foreground import foreground
from bids_fcnreg.fcn.masks import values_inside
from bids_fcnreg.fcn.reproducible import one_thread
from bids_fcnreg.fcn.spatial.grid import Image

#: Percentiles of the brain's intensities: dark and bright; and a pair robust to outliers.
DARK, BRIGHT = 2.0, 98.0
LOWER, UPPER = 10.0, 90.0

#: Intensities are outliers beyond this multiple of the distance of `LOWER` and `UPPER` to the
#: median.
REACH = 2.5

#: Ratio of dark and bright intensities of T1w brains: the largest (images without offset have 0.1
#: to 0.4), and the one assumed where zero has no meaning.
MAX_DARK, TYPICAL_DARK = 0.5, 0.2

#: Median intensity of the brain after standardization, where 1 is bright: that of T1w scans. And
#: the largest exponent by which it is reached, and inverse of the smallest one.
MIDDLE, MAX_EXPONENT = 0.65, 4.0

#: The brightest intensity, where 1 is bright: vessels and outliers are clipped.
CLIP = 1.5


def intensity_range(values: np.ndarray) -> tuple[float, float]:
    """Return the dark and the bright intensity of a brain.

    Parameters
    ----------
    values : ndarray (n,)
        Intensities in the brain.

    Returns
    -------
    dark, bright : float
        The 2nd and 98th percentile without outliers (a bright slice), which are farther from the
        median than `REACH` times the distance of the 10th and 90th percentile.
    """
    lower, middle, upper = np.percentile(values, [LOWER, 50, UPPER]).astype(float)
    half = (upper - lower) / 2
    if half > 0:
        least = middle - REACH * max(middle - lower, half)
        most = middle + REACH * max(upper - middle, half)
        values = values[(values >= least) & (values <= most)]
    dark, bright = np.percentile(values, [DARK, BRIGHT])
    return float(dark), float(bright)


def intensity_scale(data: np.ndarray, mask: np.ndarray) -> tuple[float, float]:
    """Return the intensities that are mapped to 0 and 1.

    Zero stays zero where that is plausible for a T1w brain, as in scanner data. Otherwise the
    background becomes zero (images with an offset, or standardized over the volume), or a value
    below the dark tissue (images standardized in the brain). If the background is brighter than
    the brain, and the brain's rim brighter than its depth, the contrast is inverted.

    Parameters
    ----------
    data : ndarray (i, j, k)
        Intensities.
    mask : ndarray (i, j, k), bool
        The brain.

    Returns
    -------
    zero, one : float
        Equal if the brain has no contrast; `one` is the lower one if the contrast is inverted.
    """
    dark, bright = intensity_range(values_inside(data, mask))
    if bright <= dark:
        return dark, dark
    around = None if mask.all() else float(np.median(values_inside(data, ~mask)[::8]))
    if around is not None and around >= bright and _is_inverted(data, mask):
        return max(around, bright), dark
    # Scanners write no negative values: with them, zero is a mean.
    for zero in (around, 0.0) if around is not None and around < 0 else (0.0, around):
        if zero is not None and 0 <= dark - zero <= MAX_DARK * (bright - zero):
            return zero, bright
    return dark - TYPICAL_DARK / (1 - TYPICAL_DARK) * (bright - dark), bright


def _is_inverted(data: np.ndarray, mask: np.ndarray) -> bool:
    """Return whether intensity decreases with depth in the brain, unlike in T1w images."""
    every = (slice(None, None, 2),) * 3
    inside = mask[every]
    depth = ndimage.distance_transform_edt(inside)[inside]
    ranks = data[every][inside].argsort().argsort()  # robust to outliers
    return bool(depth.size > 2 and np.corrcoef(depth, ranks)[0, 1] < 0)


def standardize(image: Image, mask: Image | None, which: str) -> tuple[Image, Image]:
    """Scale the intensities of a brain for registration, and equalize its contrast.

    Intensities are scaled (`intensity_scale`), and then raised to a power by which their median
    is `MIDDLE`: sequences and templates differ in the contrast of tissues (the median of scans
    is near 0.65, that of the average brain MNI152NLin2009cAsym 0.81). A correlation of
    intensities follows the strongest edges, so that it depends on this contrast.

    Parameters
    ----------
    image : Image (1, 1, i, j, k)
        Any intensity scale.
    mask : Image or None
        Its brain, above 0.5, on the same grid; by default estimated (`foreground`).
    which : {"fixed", "moving"}
        Name of the image in error messages.

    Returns
    -------
    image, mask : Image (1, 1, i, j, k)
        Intensities from 0 to `CLIP`, bright tissue 1, median `MIDDLE`, outside the brain 0; and
        the brain mask, 0 and 1. Idempotent.

    Raises
    ------
    InputError
        If the mask is on another grid, or the image has no contrast inside it.
    """
    if mask is None:
        inside = torch.from_numpy(foreground(image.data[0, 0].numpy()))
    elif difference := image.grid.mismatch(mask.grid):
        raise InputError(
            f"The {which} image and its mask {difference}. Use a mask on the grid of the image."
        )
    else:
        inside = mask.data[0, 0] > 0.5
    zero = one = 0.0
    if inside.any():
        zero, one = intensity_scale(image.data[0, 0].numpy(), inside.numpy())
    if zero == one:
        raise InputError(
            f"The {which} image has no contrast inside its brain mask. Check the image and the "
            "mask."
        )
    # Double precision, for offsets much larger than the contrast.
    scaled = image.data.double().sub_(zero).div_(one - zero).clamp_(0, CLIP).float()
    middle = float(np.median(values_inside(scaled[0, 0].numpy(), inside.numpy())))
    if 0 < middle < 1:
        exponent = float(np.log(MIDDLE) / np.log(middle))
        exponent = min(max(exponent, 1 / MAX_EXPONENT), MAX_EXPONENT)
        with one_thread():
            scaled.pow_(exponent).clamp_(max=CLIP)
    scaled.masked_fill_(~inside, 0.0)
    return Image(scaled, image.grid), Image(inside[None, None].float(), image.grid)
