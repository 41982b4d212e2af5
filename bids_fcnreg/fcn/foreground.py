"""Where an image differs from its background, and where a skull-stripped image shows the brain.

Background need not be zero, nor one value: interpolation with splines rings around the brain,
scanners and simulations add noise, lossy compression leaves blocks. The brain is estimated.
"""

from __future__ import annotations

import numpy as np
import torch
from scipy import ndimage

from bids_fcnreg.fcn.spatial.grid import Image

#: A value that so much of an image has is its background.
COMMON = 0.05

#: Differences from the background, as parts of that of a bright brain: what storage leaves, what
#: no tissue shows, what smoothing, ringing and lossy compression leave, and the most of noise.
TRACE, FAINT, BLURRED, NOISY = 1e-3, 0.05, 0.1, 0.2

#: The background is clean if at most so many voxels, for each of the brain, show something faint.
#: Extracted brains have 0 to 0.006, resampled ones 0.03 and more.
CLEAN = 0.02

#: The background is among the brain's intensities if at least so much of the brain is on either
#: side of it. Then so many voxels may be faint.
AMONG, CLEAN_AMONG = 0.1, 0.15

#: Noise reaches to so many standard deviations.
NOISE_REACH = 5.0

#: A part of the brain that is not connected to the rest has at least this share of its voxels.
SMALLEST_PART = 0.05


def background(data: np.ndarray) -> float:
    """Return the intensity of the background.

    Parameters
    ----------
    data : ndarray (i, j, k)
        Intensities.

    Returns
    -------
    float
        The most frequent value; where no value is frequent (noise), the mode of the histogram.

    Examples
    --------
    >>> image = np.pad(np.arange(125.0).reshape(5, 5, 5), 5, constant_values=-1)
    >>> background(image)
    -1.0
    """
    # Every eighth voxel is enough to know the value that fills a good part of an image.
    sample = data[::2, ::2, ::2]
    values, counts = np.unique(sample, return_counts=True)
    if counts.max() > COMMON * sample.size:
        return float(values[counts.argmax()])
    low, high = np.percentile(sample, [0.5, 99.5])
    counts, edges = np.histogram(sample, 256, (low, high))
    return float(edges[counts.argmax() : counts.argmax() + 2].mean())


def shown(data: np.ndarray) -> np.ndarray:
    """Find where an image differs from its background.

    Parameters
    ----------
    data : ndarray (i, j, k)
        Intensities.

    Returns
    -------
    ndarray (i, j, k), bool
        Voxels that differ by more than a thousandth of a bright brain's difference or, where the
        background is not clean, by more than what is smoothed into it, rings, or is noise.
    """
    level = np.float32(background(data))
    difference = np.abs(data - level)
    sample = difference[::2, ::2, ::2]
    bright = _bright(sample)
    low = sample[sample < 0.25 * bright]
    noise = 1.4826 * float(np.median(low)) if low.size else 0.0
    strong = np.count_nonzero(sample > FAINT * bright)
    darker = np.count_nonzero(data[::2, ::2, ::2] < level - FAINT * bright)
    # Of images standardized in the brain the background is in the middle: tissue is faint, too.
    middle = min(darker, strong - darker) > AMONG * strong
    clean = CLEAN_AMONG if middle else CLEAN
    if np.count_nonzero(sample > TRACE * bright) <= (1 + clean) * strong:
        return difference > TRACE * bright
    return difference > min(max(BLURRED * bright, NOISE_REACH * noise), NOISY * bright)


def _bright(difference: np.ndarray) -> float:
    """Difference of a bright brain from the background, in spite of bright voxels and slices."""
    found = []
    for axis in range(3):
        others = tuple(one for one in range(3) if one != axis)
        found.append(np.percentile(np.percentile(difference, 95, axis=others), 75))
    # A brain that fills little of the image shows in few slices.
    return float(min(found)) or float(np.percentile(difference, 99.9)) or float(difference.max())


def foreground(data: np.ndarray) -> np.ndarray:
    """Find where a skull-stripped image shows the brain.

    Parameters
    ----------
    data : ndarray (i, j, k)
        Intensities.

    Returns
    -------
    ndarray (i, j, k), bool
        The largest part that differs from the background, with other large parts, its holes
        filled. Single slices and voxels that stick out of it are cut off.
    """
    differs = shown(data)
    mask = np.zeros(data.shape, bool)
    if not differs.any():
        return mask
    box = ndimage.find_objects(differs.astype(np.uint8))[0]
    seen = differs[box]
    core = ndimage.binary_erosion(seen)
    if core.any():
        seen &= ndimage.binary_dilation(_large_parts(core), iterations=2)
    mask[box] = _fill_holes(_large_parts(seen))
    return mask


def _large_parts(mask: np.ndarray) -> np.ndarray:
    """Return the largest connected part of a mask, and others that are nearly as large."""
    parts, _ = ndimage.label(mask)
    sizes = np.bincount(parts.ravel())
    sizes[0] = 0
    return (sizes >= SMALLEST_PART * sizes.max())[parts] & mask


def _fill_holes(mask: np.ndarray) -> np.ndarray:
    """Fill what is not connected with the edge of the volume."""
    gaps, _ = ndimage.label(np.pad(~mask, 1, constant_values=True))
    return (gaps != gaps[0, 0, 0])[1:-1, 1:-1, 1:-1]


def brain_mask(image: Image) -> Image:
    """Estimate the brain mask (1, 1, i, j, k), 0 and 1, of a skull-stripped image."""
    inside = foreground(image.data[0, 0].numpy())
    return Image(torch.from_numpy(inside)[None, None].float(), image.grid)
