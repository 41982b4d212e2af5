"""Whether a brain lies in a symmetric template with its left side on the left.

A template that is equal on both sides takes a brain that was stored mirrored as readily as any
other: similarity tells nothing. Yet brains are not symmetric. The right frontal and the left
occipital lobe reach farther, for instance, and the deformation to the template shows it. The
pattern of many brains is compared with that of one.

References
----------
Toga & Thompson, Mapping brain asymmetry, Nat. Rev. Neurosci. 4, 2003.
"""

from __future__ import annotations

from functools import cache
from importlib.resources import as_file, files

import numpy as np
from scipy.ndimage import gaussian_filter, zoom

#: Voxels in which the pattern is compared, 3 mm wide: of the whole built-in template, whatever
#: the voxel size of a map of it.
SHAPE = (66, 78, 63)
#: Standard deviation of the smoothing, in such voxels: 6 mm.
SMOOTHING = 2.0


def side_difference(log_jacobian: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """What the map has more on one side than on the other.

    Parameters
    ----------
    log_jacobian : ndarray (i, j, k)
        In a template that is its own mirror image along the first axis; voxels of any size over
        its whole field of view.
    mask : ndarray (i, j, k)
        Brain, not zero.

    Returns
    -------
    ndarray (n,)
        Smoothed and coarse, over the half with the lower indices.
    """
    brain = (mask != 0) & (mask != 0)[::-1]
    difference = np.where(brain, log_jacobian - log_jacobian[::-1], 0.0)
    factors = np.divide(SHAPE, difference.shape)
    coarse = gaussian_filter(zoom(difference, factors, order=1), SMOOTHING)
    return coarse[: coarse.shape[0] // 2].ravel()


def pattern(differences: np.ndarray) -> np.ndarray:
    """What the side differences (brains, n) of many brains share, with length 1."""
    lengths = np.linalg.norm(differences, axis=1, keepdims=True)
    mean = (differences / lengths).mean(axis=0)
    return mean / np.linalg.norm(mean)


def likeness(difference: np.ndarray, shared: np.ndarray) -> float:
    """Cosine between the side difference of a brain and a pattern: negative if mirrored."""
    length = np.linalg.norm(difference)
    return float(difference @ shared / length) if length > 0 else 0.0


def asymmetry(log_jacobian: np.ndarray, mask: np.ndarray) -> float:
    """How much the asymmetry of a brain in the built-in template is like that of most brains.

    Parameters
    ----------
    log_jacobian, mask : ndarray (i, j, k)
        On the grid of the built-in template; see `side_difference`.

    Returns
    -------
    float
        Between -1 and 1. Positive for nearly all brains, and as negative if mirrored.
    """
    return likeness(side_difference(log_jacobian, mask), _reference())


@cache
def _reference() -> np.ndarray:
    """The pattern that comes with the package."""
    with as_file(files("bids_fcnreg").joinpath("data", "asymmetry.npz")) as path:
        return np.load(path)["pattern"].astype(np.float32)
