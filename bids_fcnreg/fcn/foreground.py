"""Detect the background of an image, and the brain in a skull-stripped image.

The background need not be zero, nor constant: spline interpolation rings around the brain,
scanners and simulations add noise, lossy compression leaves blocks.
"""

from __future__ import annotations

import cc3d
import fill_voids
import numpy as np
from scipy import ndimage

from bids_fcnreg.fcn.masks import bounding_box

#: A value shared by this fraction of an image is its background.
COMMON = 0.05

#: Differences from the background, as fractions of that of a bright brain: rounding in storage;
#: below any tissue; smoothing, ringing and lossy compression; the largest noise.
TRACE, FAINT, BLURRED, NOISY = 1e-3, 0.05, 0.1, 0.2

#: The background is clean if the number of faint voxels, relative to those of the brain, is at
#: most this. Extracted brains have 0 to 0.006, resampled ones 0.03 and more.
CLEAN = 0.02

#: The background is among the brain's intensities if at least this fraction of the brain is on
#: either side of it. The second value then replaces `CLEAN`.
AMONG, CLEAN_AMONG = 0.1, 0.15

#: Noise reaches to this number of standard deviations.
NOISE_REACH = 5.0

#: A brain of a smaller volume is not registered.
MIN_VOLUME_MM3 = 20_000.0

#: Smallest connected component of a brain, as a fraction of the largest.
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


def non_background(data: np.ndarray) -> np.ndarray:
    """Return where an image differs from its background.

    Parameters
    ----------
    data : ndarray (i, j, k)
        Intensities.

    Returns
    -------
    ndarray (i, j, k), bool
        Voxels that differ by more than a thousandth of a bright brain's difference or, where the
        background is not clean, by more than smoothing, ringing and noise.
    """
    level = np.float32(background(data))
    difference = np.abs(data - level)
    sample = difference[::2, ::2, ::2]
    bright = _bright(sample)
    low = sample[sample < 0.25 * bright]
    noise = 1.4826 * float(np.median(low)) if low.size else 0.0
    strong = np.count_nonzero(sample > FAINT * bright)
    darker = np.count_nonzero(data[::2, ::2, ::2] < level - FAINT * bright)
    # In images standardized in the brain, the background is among the tissue's intensities.
    middle = min(darker, strong - darker) > AMONG * strong
    clean = CLEAN_AMONG if middle else CLEAN
    if np.count_nonzero(sample > TRACE * bright) <= (1 + clean) * strong:
        return difference > TRACE * bright
    return difference > min(max(BLURRED * bright, NOISE_REACH * noise), NOISY * bright)


def _bright(difference: np.ndarray) -> float:
    """Estimate the difference of bright brain tissue from the background, robustly."""
    found = []
    for axis in range(3):
        others = tuple(one for one in range(3) if one != axis)
        found.append(np.percentile(np.percentile(difference, 95, axis=others), 75))
    # A brain that fills little of the image appears in few slices.
    return float(min(found)) or float(np.percentile(difference, 99.9)) or float(difference.max())


def foreground(data: np.ndarray) -> np.ndarray:
    """Return where a skull-stripped image contains brain.

    Parameters
    ----------
    data : ndarray (i, j, k)
        Intensities.

    Returns
    -------
    ndarray (i, j, k), bool
        The largest connected components that differ from the background, with holes filled,
        without protruding slices and voxels.
    """
    differs = non_background(data)
    mask = np.zeros(data.shape, bool)
    if not differs.any():
        return mask
    box = bounding_box(differs)
    seen = differs[box]
    core = ndimage.binary_erosion(seen)
    if core.any():
        seen &= ndimage.binary_dilation(_large_parts(core), iterations=2)
    mask[box] = fill_voids.fill(_large_parts(seen))
    return mask


def _large_parts(mask: np.ndarray) -> np.ndarray:
    """Return the largest connected component of a mask, and others of similar size."""
    parts = cc3d.connected_components(mask, connectivity=6)
    sizes = np.bincount(parts.ravel())
    sizes[0] = 0
    return (sizes >= SMALLEST_PART * sizes.max())[parts] & mask
