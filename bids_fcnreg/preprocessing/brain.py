"""Brain masks, bias field correction and intensity normalization."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy import ndimage

from bids_fcnreg.errors import InputError
from bids_fcnreg.fcn.foreground import non_background
from bids_fcnreg.fcn.intensity import CLIP, intensity_range, intensity_scale
from bids_fcnreg.fcn.spatial.grid import Grid, Image, voxel_to_voxel
from bids_fcnreg.fcn.spatial.transform import Transform

#: An image is skull-stripped if at most this fraction of its object is farther than `MARGIN_MM`
#: from the brain. Whole heads, also defaced or cropped, have 0.15 to 0.7; extracted brains 0 to
#: 0.04, also with masks a few millimetres too large.
MARGIN_MM = 5.0
MAX_OUTSIDE = 0.1

#: Criteria of a skull-stripped image without a brain mask: smallest background fraction, and
#: largest volume of a human brain (mm³).
MIN_BACKGROUND = 0.3
MAX_BRAIN_MM3 = 2.2e6

#: Spacing of the samples for the bias field, and N4's iterations per level.
BIAS_SPACING_MM = 6.0
BIAS_ITERATIONS = (50, 50, 50)

#: Normalized value of the bright intensity of a brain (`intensity_range`).
ANCHOR_INTENSITY = 100.0


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
    here, following = data[:-1], data[1:]
    inside = (here != 0) & (following != 0)
    if not inside.any() or (here[inside] == following[inside]).mean() < 0.5:
        return False
    values = data[data != 0]
    return bool((values == np.round(values)).all() and values.min() != values.max())


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
    import SimpleITK as sitk

    _, bright = intensity_range(data[mask])
    usable = mask & (data > 0.01 * bright)
    data = np.minimum(data, CLIP * bright)  # N4's histogram reaches to the brightest voxel
    step = np.array([max(1, round(BIAS_SPACING_MM / size)) for size in spacing])
    box = ndimage.find_objects(usable.astype(np.uint8))[0]
    size = np.array([edge.stop - edge.start for edge in box])
    # First and last samples lie on the box's faces, so that N4's splines span exactly the box.
    excess = [(0, int(n)) for n in -(size - 1) % step]
    every = tuple(slice(None, None, n) for n in step)

    def sampled(array: np.ndarray, dtype: type) -> sitk.Image:
        samples: np.ndarray = np.pad(array[box], excess)[every].astype(dtype)
        image = sitk.GetImageFromArray(samples.T)
        image.SetSpacing(np.multiply(spacing, step).tolist())
        return image

    covered = [int(n + extra) for n, (_, extra) in zip(size, excess, strict=True)]
    whole = sitk.Image(covered, sitk.sitkFloat32)
    whole.SetSpacing([float(n) for n in spacing])
    # The global number of threads: parts of the filter ignore its own.
    threads = sitk.ProcessObject.GetGlobalDefaultNumberOfThreads()
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(1)
    try:
        n4 = sitk.N4BiasFieldCorrectionImageFilter()
        n4.SetMaximumNumberOfIterations(BIAS_ITERATIONS)
        n4.Execute(sampled(data, np.float32), sampled(usable, np.uint8))
        log_field = sitk.GetArrayFromImage(n4.GetLogBiasFieldAsImage(whole)).T
    finally:
        sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(threads)
    log_field = log_field[tuple(slice(0, n) for n in size)]
    inside = log_field[usable[box]]
    log_field = np.clip(log_field, inside.min(), inside.max())
    around = [(edge.start, n - edge.stop) for edge, n in zip(box, data.shape, strict=True)]
    return np.exp(np.pad(log_field, around, mode="edge")).astype(np.float32)


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
    _, anchor = intensity_range(data[mask])
    if anchor <= 0:
        raise InputError(
            "The brain has hardly any positive intensities. Check the image and its brain mask."
        )
    return (data * (ANCHOR_INTENSITY / anchor)).astype(np.float32)


def resample_mask(mask: Image, grid: Grid) -> np.ndarray:
    """Resample a mask to a grid by world coordinates.

    Parameters
    ----------
    mask : Image (1, 1, i, j, k)
        Nonzero in the mask.
    grid : Grid
        Grid of the result.

    Returns
    -------
    ndarray (i, j, k), bool
        Voxels whose nearest mask voxel is set, and voxels nearest to a set mask voxel: nothing is
        lost between grids of different voxel sizes.
    """
    binary = Image((mask.data != 0).float(), mask.grid)
    onto = Transform(()).resample(binary, grid, "nearest").data[0, 0].numpy() > 0
    matrix = voxel_to_voxel(mask.grid, grid)
    voxels = np.argwhere(binary.data[0, 0].numpy()) @ matrix[:3, :3].T + matrix[:3, 3]
    voxels = np.rint(voxels).astype(int)
    voxels = voxels[((voxels >= 0) & (voxels < grid.shape)).all(axis=1)]
    onto[tuple(voxels.T)] = True
    return onto
