"""Bias field correction and intensity normalization."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import SimpleITK as sitk

from bids_fcnreg.errors import InputError
from bids_fcnreg.fcn.foreground import non_background
from bids_fcnreg.fcn.intensity import CLIP, intensity_range, intensity_scale
from bids_fcnreg.fcn.masks import bounding_box, values_inside

#: Spacing of the samples for the bias field, and N4's iterations per level.
BIAS_SPACING_MM = 6.0
BIAS_ITERATIONS = (50, 50, 50)

#: Normalized value of the bright intensity of a brain (`intensity_range`).
ANCHOR_INTENSITY = 100.0

#: Normalized images are stored as multiples of this, far below the noise of a scan.
INTENSITY_STEP = 2.0**-6


def make_positive(data: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Make intensities positive, for a multiplicative bias field.

    Parameters
    ----------
    data : ndarray (i, j, k)
        Intensities.
    mask : ndarray (i, j, k), bool
        The brain.

    Returns
    -------
    ndarray (i, j, k)
        Unchanged if zero is plausible. Otherwise (an offset, standardized intensities, inverted
        contrast) shifted and, for inverted contrast, inverted by `intensity_scale`; the background
        becomes 0.
    """
    zero, bright = intensity_scale(data, mask)
    if zero == 0 and bright > 0:
        return data
    shifted = np.float32(zero) - data if bright < zero else data - np.float32(zero)
    shifted[~mask & ~non_background(data)] = 0
    return shifted.clip(0)


def bias_field(data: np.ndarray, mask: np.ndarray, spacing: Sequence[float]) -> np.ndarray:
    """Estimate the bias field with N4 (Tustison et al., IEEE TMI 2010).

    Estimated from samples `BIAS_SPACING_MM` apart, sufficient for a smooth field, and evaluated at
    every voxel. On one processor core, because the result of ITK's filter depends on their number.

    Parameters
    ----------
    data : ndarray (i, j, k)
        Intensities; those below a hundredth of a bright brain are ignored, because N4 uses
        logarithms.
    mask : ndarray (i, j, k), bool
        The brain.
    spacing : (3,)
        Voxel size in mm.

    Returns
    -------
    ndarray (i, j, k), float32
        Divide by it to correct. Values outside the brain are in the range of those inside.
    """
    _, bright = intensity_range(values_inside(data, mask))
    usable = mask & (data > 0.01 * bright)
    step = np.array([max(1, round(BIAS_SPACING_MM / size)) for size in spacing])
    box = bounding_box(usable)
    size = np.array([edge.stop - edge.start for edge in box])
    # First and last samples lie on the box's faces, so that N4's splines span exactly the box.
    excess = -(size - 1) % step
    beyond = [(0, int(n > 0)) for n in excess]  # samples
    every = tuple(slice(None, None, n) for n in step)

    def sampled(array: np.ndarray, dtype: type) -> sitk.Image:
        samples: np.ndarray = np.pad(array[box][every].astype(dtype), beyond)
        image = sitk.GetImageFromArray(samples.T)
        image.SetSpacing(np.multiply(spacing, step).tolist())
        return image

    whole = sitk.Image((size + excess).tolist(), sitk.sitkFloat32)
    whole.SetSpacing([float(n) for n in spacing])
    # The global number of threads: parts of the filter ignore its own.
    threads = sitk.ProcessObject.GetGlobalDefaultNumberOfThreads()
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(1)
    try:
        n4 = sitk.N4BiasFieldCorrectionImageFilter()
        n4.SetMaximumNumberOfIterations(BIAS_ITERATIONS)
        # N4's histogram reaches to the brightest voxel.
        clipped = sitk.Minimum(sampled(data, np.float32), float(CLIP * bright))
        n4.Execute(clipped, sampled(usable, np.uint8))
        log_field = sitk.GetArrayFromImage(n4.GetLogBiasFieldAsImage(whole)).T
    finally:
        sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(threads)
    log_field = log_field[tuple(slice(0, n) for n in size)]
    inside = log_field[usable[box]]
    field = np.exp(np.clip(log_field, inside.min(), inside.max())).astype(np.float32)
    around = [(edge.start, n - edge.stop) for edge, n in zip(box, data.shape, strict=True)]
    return np.pad(field, around, mode="edge")


def normalize(data: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Normalize the intensities of a brain.

    Parameters
    ----------
    data : ndarray (i, j, k)
        Intensities.
    mask : ndarray (i, j, k), bool
        The brain.

    Returns
    -------
    ndarray (i, j, k), float32
        Scaled so that the 98th percentile inside the brain (white matter in T1-weighted images)
        becomes 100; 0 stays 0. Brighter values are not clipped.

    Raises
    ------
    InputError
        If the brain has no positive intensities.
    """
    _, anchor = intensity_range(values_inside(data, mask))
    if anchor <= 0:
        raise InputError(
            "The brain has hardly any positive intensities. Check the image and its brain mask."
        )
    return (data * (ANCHOR_INTENSITY / anchor)).astype(np.float32)
