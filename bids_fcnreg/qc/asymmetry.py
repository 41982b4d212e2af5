"""Detect left–right flips from brain asymmetry.

A mirrored brain is as similar to a symmetric template as the original. Yet brains are asymmetric:
the right frontal and the left occipital lobe protrude, for instance, which shows in the
deformation to the template. Its asymmetry is compared with the mean pattern of many brains.

References
----------
Toga & Thompson, Mapping brain asymmetry, Nat. Rev. Neurosci. 4, 2003.
"""

from __future__ import annotations

from functools import cache
from importlib.resources import as_file, files

import numpy as np
from scipy.ndimage import gaussian_filter, zoom

#: Grid of the pattern: 3 mm voxels over the whole built-in template, at any resolution of the map.
SHAPE = (66, 78, 63)
#: Standard deviation of the smoothing, in such voxels: 6 mm.
SMOOTHING = 2.0


def left_right_difference(log_jacobian: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Compute the left–right difference of a log-Jacobian map.

    Parameters
    ----------
    log_jacobian : ndarray (i, j, k)
        In a template that is symmetric along its first axis; any voxel size, whole field of view.
    mask : ndarray (i, j, k)
        Brain where nonzero.

    Returns
    -------
    ndarray (n,)
        Smoothed and downsampled, over the half with the lower indices.
    """
    brain = (mask != 0) & (mask != 0)[::-1]
    difference = np.where(brain, log_jacobian - log_jacobian[::-1], 0.0)
    factors = np.divide(SHAPE, difference.shape)
    coarse = gaussian_filter(zoom(difference, factors, order=1), SMOOTHING)
    return coarse[: coarse.shape[0] // 2].ravel()


def mean_pattern(differences: np.ndarray) -> np.ndarray:
    """Compute the mean of the normalized differences (brains, n) of many brains, of length 1."""
    lengths = np.linalg.norm(differences, axis=1, keepdims=True)
    mean = (differences / lengths).mean(axis=0)
    return mean / np.linalg.norm(mean)


def pattern_similarity(difference: np.ndarray, shared: np.ndarray) -> float:
    """Compute the cosine of a left–right difference and a pattern: negative if mirrored."""
    length = np.linalg.norm(difference)
    return float(difference @ shared / length) if length > 0 else 0.0


def asymmetry(log_jacobian: np.ndarray, mask: np.ndarray) -> float:
    """Compare the asymmetry of a brain in the built-in template with that of most brains.

    Parameters
    ----------
    log_jacobian, mask : ndarray (i, j, k)
        On the grid of the built-in template; see `left_right_difference`.

    Returns
    -------
    float
        Between -1 and 1: positive for nearly all brains, negative if mirrored.
    """
    return pattern_similarity(left_right_difference(log_jacobian, mask), _reference())


@cache
def _reference() -> np.ndarray:
    """Load the pattern that comes with the package."""
    with as_file(files("bids_fcnreg").joinpath("data", "asymmetry.npz")) as path:
        return np.load(path)["pattern"].astype(np.float32)
