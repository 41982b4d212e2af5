"""Intensities of brains on one scale: what images of any unit, offset and sign become.

The same for the app, the commands and the Python functions, and for every stage: linear stage,
network, refinement and quality metrics see an image after `standardize` only.
"""

from __future__ import annotations

import numpy as np
import torch
from scipy import ndimage

from bids_fcnreg.errors import InputError
from bids_fcnreg.fcn.foreground import brain_mask
from bids_fcnreg.fcn.spatial.grid import Image

#: Percentiles of the brain's intensities: dark and bright, and those that outliers cannot move.
DARK, BRIGHT = 2.0, 98.0
LOWER, UPPER = 10.0, 90.0

#: How many times as far from the median as `LOWER` and `UPPER` is no outlier.
REACH = 2.5

#: Dark over bright intensities of T1w brains: the most (images without their offset have 0.1 to
#: 0.4), and what they become where zero means nothing.
MOST_DARK, USUAL_DARK = 0.5, 0.2

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
        The 2nd and 98th percentile, outliers (a bright slice) left out: what is farther from the
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
    """Return the intensities that become 0 and 1.

    Zero stays zero where that makes sense of a T1w brain, as it does of what scanners write.
    Else the background becomes zero (images with an offset, or standardized over the volume), or
    a value below the dark tissue (images standardized in the brain). If the background is
    brighter than the brain, whose rim is brighter than its depth, the image is a negative.

    Parameters
    ----------
    data : ndarray (i, j, k)
        Intensities.
    mask : ndarray (i, j, k), bool
        The brain.

    Returns
    -------
    zero, one : float
        Equal if the brain has no contrast; `one` is the lower one of a negative.
    """
    dark, bright = intensity_range(data[mask])
    if bright <= dark:
        return dark, dark
    around = None if mask.all() else float(np.median(data[~mask][::8]))
    if around is not None and around >= bright and _is_negative(data, mask):
        return max(around, bright), dark
    # Scanners write nothing below zero: there, zero is somebody's mean.
    for zero in (around, 0.0) if around is not None and around < 0 else (0.0, around):
        if zero is not None and 0 <= dark - zero <= MOST_DARK * (bright - zero):
            return zero, bright
    return dark - USUAL_DARK / (1 - USUAL_DARK) * (bright - dark), bright


def _is_negative(data: np.ndarray, mask: np.ndarray) -> bool:
    """Whether a brain is the darker the deeper: the reverse of T1w brains."""
    every = (slice(None, None, 2),) * 3
    inside = mask[every]
    depth = ndimage.distance_transform_edt(inside)[inside]
    ranks = data[every][inside].argsort().argsort()  # outliers do not count
    return bool(depth.size > 2 and np.corrcoef(depth, ranks)[0, 1] < 0)


def standardize(image: Image, mask: Image | None, which: str) -> tuple[Image, Image]:
    """Bring a brain to the scale of intensities that registration works with.

    Parameters
    ----------
    image : Image (1, 1, i, j, k)
        In any intensities.
    mask : Image or None
        Its brain, above 0.5, on the same grid; by default estimated (`foreground`).
    which : {"fixed", "moving"}
        What error messages call the image.

    Returns
    -------
    image, mask : Image (1, 1, i, j, k)
        Intensities from 0 to `CLIP`, bright tissue 1, outside the brain 0; and the brain, 0
        and 1. The same again changes nothing.

    Raises
    ------
    InputError
        If the mask is on another grid, or the image has no contrast inside of it.
    """
    if mask is None:
        mask = brain_mask(image)
    elif difference := image.grid.mismatch(mask.grid):
        raise InputError(
            f"The {which} image and its mask {difference}: give a mask made for this image."
        )
    inside = mask.data[0, 0] > 0.5
    zero = one = 0.0
    if inside.any():
        zero, one = intensity_scale(image.data[0, 0].numpy(), inside.numpy())
    if zero == one:
        raise InputError(
            f"The {which} image has no contrast inside its brain mask: check the image and the "
            "mask."
        )
    # In double precision: of an offset much larger than the contrast little is left otherwise.
    scaled = ((image.data.double() - zero) / (one - zero)).clamp(0, CLIP).float()
    scaled = torch.where(inside, scaled, 0.0)
    return Image(scaled, image.grid), Image(inside[None, None].float(), image.grid)
