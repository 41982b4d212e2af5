"""Detect left–right flips from brain asymmetry.

A mirrored brain is as similar to a symmetric template as the original. Yet brains are asymmetric:
the right frontal and the left occipital lobe protrude, for instance, which shows in the
deformation to the template. Its asymmetry is compared with the mean pattern of many brains.

In an asymmetric template, opposite voxels do not correspond, and the asymmetry of most brains is
part of the template. The deformation is therefore continued to the symmetric template, through a
registration of both templates that comes with the package.

References
----------
Toga & Thompson, Mapping brain asymmetry, Nat. Rev. Neurosci. 4, 2003.
"""

from __future__ import annotations

from functools import cache
from importlib.resources import as_file, files

import numpy as np
from scipy.ndimage import gaussian_filter, map_coordinates, zoom

from bids_fcnreg.config import SYMMETRIC_TEMPLATE

#: Grid of the pattern: 3 mm voxels over the whole symmetric template.
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
    # Not products of BLAS, whose last digits depend on the number of threads.
    length = np.sqrt(np.sum(difference**2))
    return float(np.sum(difference * shared) / length) if length > 0 else 0.0


def asymmetry(
    log_jacobian: np.ndarray, mask: np.ndarray, template: str = SYMMETRIC_TEMPLATE
) -> float:
    """Compare the asymmetry of a brain in a built-in template with that of most brains.

    Parameters
    ----------
    log_jacobian, mask : ndarray (i, j, k)
        Of the deformation to the template, and brain where nonzero; any voxel size, whole field
        of view.
    template : str
        Name of the template.

    Returns
    -------
    float
        Between -1 and 1: positive for nearly all brains, negative if mirrored.
    """
    if template != SYMMETRIC_TEMPLATE:
        log_jacobian, mask = to_symmetric(log_jacobian, mask, template)
    return pattern_similarity(left_right_difference(log_jacobian, mask), _reference())


def to_symmetric(
    log_jacobian: np.ndarray, mask: np.ndarray, template: str
) -> tuple[np.ndarray, np.ndarray]:
    """Continue the deformation to an asymmetric template to the symmetric one.

    Parameters
    ----------
    log_jacobian, mask, template
        See `asymmetry`.

    Returns
    -------
    log_jacobian, mask : ndarray `SHAPE`
        On the grid of the pattern.
    """
    shift, growth = _registration(template)
    last = np.reshape(mask.shape, (3, 1, 1, 1)) - 1
    voxels = (np.stack(pattern_fractions()) + shift) * last
    # By the chain rule, Jacobian determinants multiply.
    continued = map_coordinates(log_jacobian, voxels, order=1) + growth
    return continued, map_coordinates((mask != 0).astype(np.float32), voxels, order=1) > 0.5


def pattern_fractions() -> list[np.ndarray]:
    """Return where voxels of the pattern are, along each axis: 0 first, 1 last voxel of a map."""
    return list(np.meshgrid(*(np.linspace(0, 1, size) for size in SHAPE), indexing="ij"))


#: Steps in which the registration of the templates is stored: 0.1 mm, and 1 % of a volume.
STEP_SHIFT, STEP_GROWTH = 1 / 2000, 0.01


@cache
def _registration(template: str) -> tuple[np.ndarray, np.ndarray]:
    """Load the registration of the symmetric template to another one.

    Returns
    -------
    shift : ndarray (3, *SHAPE)
        Where voxels of the pattern are in the other template minus `pattern_fractions`.
    growth : ndarray `SHAPE`
        Log-Jacobian determinant, positive where the other template is larger.
    """
    with as_file(files("bids_fcnreg").joinpath("data", f"asymmetry_{template}.npz")) as path:
        stored = np.load(path)
        return stored["shift"] * STEP_SHIFT, stored["growth"] * STEP_GROWTH


@cache
def _reference() -> np.ndarray:
    """Load the pattern that comes with the package."""
    with as_file(files("bids_fcnreg").joinpath("data", "asymmetry.npz")) as path:
        return np.load(path)["pattern"].astype(np.float32)
