"""What is computed before registration: brain masks, bias field, intensity scale."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy import ndimage

from bids_fcnreg.errors import InputError
from bids_fcnreg.fcn.foreground import non_background
from bids_fcnreg.fcn.intensity import CLIP, intensity_range, intensity_scale
from bids_fcnreg.fcn.spatial.grid import Grid, Image, voxel_to_voxel
from bids_fcnreg.fcn.spatial.transform import Transform

#: An image is brain-extracted if at most `OUTSIDE_SHARE` of what it shows is farther than
#: `MARGIN_MM` from the brain. Whole heads, defaced or cropped ones too, have 0.15 to 0.7 there,
#: extracted brains 0 to 0.04, so that masks a few millimetres too generous still count as brains.
MARGIN_MM = 5.0
OUTSIDE_SHARE = 0.1

#: Without looking for the brain: an extracted one leaves so much of the volume as background, and
#: no human brain is larger (mm³).
LEAST_BACKGROUND = 0.3
LARGEST_BRAIN = 2.2e6

#: Distance of the samples from which the bias field is estimated, and N4's iterations per level.
BIAS_SPACING_MM = 6.0
BIAS_ITERATIONS = (50, 50, 50)

#: What the bright intensity of a brain (`intensity_range`) becomes.
ANCHOR_INTENSITY = 100.0


def share_outside(data: np.ndarray, brain: np.ndarray, spacing: Sequence[float]) -> float:
    """How much of what an image shows lies away from the brain.

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
        Share, 0..1, of the voxels that differ from the background which is farther than
        `MARGIN_MM` from the brain.
    """
    step = [max(1, round(2 / size)) for size in spacing]
    every = tuple(slice(None, None, n) for n in step)
    distance = ndimage.distance_transform_edt(~brain[every], sampling=np.multiply(spacing, step))
    seen = non_background(data)[every]
    return float((seen & (distance > MARGIN_MM)).sum() / max(1, seen.sum()))


def is_extracted(data: np.ndarray, brain: np.ndarray, spacing: Sequence[float]) -> bool:
    """Whether an image shows little but the brain; arguments as in `share_outside`."""
    return share_outside(data, brain, spacing) <= OUTSIDE_SHARE


def holds_labels(data: np.ndarray) -> bool:
    """Whether values look like those of a label image with more than one label.

    That is: whole numbers, and most voxels of each row are like the next. Intensities of a scan
    are not, and those of an atlas or a segmentation are.

    Parameters
    ----------
    data : ndarray (i, j, k)
        Values of an image.

    Examples
    --------
    >>> labels = np.repeat([0, 1, 2, 0], 5)[:, None, None] * np.ones((1, 5, 5))
    >>> holds_labels(labels), holds_labels(np.random.default_rng(0).integers(0, 9, (9, 9, 9)))
    (True, False)
    """
    here, following = data[:-1], data[1:]
    inside = (here != 0) & (following != 0)
    if not inside.any() or (here[inside] == following[inside]).mean() < 0.5:
        return False
    values = data[data != 0]
    return bool((values == np.round(values)).all() and values.min() != values.max())


def fits_a_brain(seen: np.ndarray, affine: np.ndarray) -> bool:
    """Whether what an image shows is little enough to be a brain alone.

    Quicker than `is_extracted`, as nobody looks for the brain; the head of a small child passes.

    Parameters
    ----------
    seen : ndarray (i, j, k), bool
        What differs from the background.
    affine : ndarray (4, 4)
        Of the image, to mm.
    """
    volume = seen.sum() * abs(np.linalg.det(affine[:3, :3]))
    return bool(seen.mean() <= 1 - LEAST_BACKGROUND and volume <= LARGEST_BRAIN)


def positive(data: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Bring intensities to where a multiplicative bias can act on them.

    Parameters
    ----------
    data : ndarray (i, j, k)
        Intensities.
    mask : ndarray (i, j, k), bool
        The brain.

    Returns
    -------
    ndarray (i, j, k)
        The same intensities if zero makes sense of them. Otherwise (an offset, a standardized
        image, a negative) they are shifted and, of a negative, reversed as `intensity_scale`
        says; the background becomes 0.
    """
    zero, bright = intensity_scale(data, mask)
    if zero == 0 and bright > 0:
        return data
    shifted = np.float32(zero) - data if bright < zero else data - np.float32(zero)
    shifted[~mask & ~non_background(data)] = 0
    return shifted.clip(0)


def bias_field(data: np.ndarray, mask: np.ndarray, spacing: Sequence[float]) -> np.ndarray:
    """Smooth multiplicative intensity inhomogeneity, by N4 (Tustison et al., IEEE TMI 2010).

    It is estimated from samples `BIAS_SPACING_MM` apart, which loses nothing of so smooth a
    field, and evaluated at every voxel. On one processor core: the result of ITK's filter depends
    on how many there are.

    Parameters
    ----------
    data : ndarray (i, j, k)
        Intensities; below a hundredth of those of a bright brain they are not looked at, as N4
        works on their logarithm.
    mask : ndarray (i, j, k), bool
        The brain.
    spacing : (3,)
        Voxel size in mm.

    Returns
    -------
    ndarray (i, j, k), float32
        Divide by it to correct. Outside the brain it keeps to the range of values inside.
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
    # Not that of the filter: it has parts that go by the number of all.
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


def normalise(data: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Bring intensities to a common scale.

    Parameters
    ----------
    data : ndarray (i, j, k)
        Intensities.
    mask : ndarray (i, j, k), bool
        The brain.

    Returns
    -------
    ndarray (i, j, k), float32
        The intensities times one factor: the 98th percentile inside the brain, which lies in
        the white matter of a T1-weighted image, becomes 100, and 0 stays 0. Nothing is clipped:
        what is brighter is above 100.

    Raises
    ------
    InputError
        If the brain has no positive intensities.
    """
    _, anchor = intensity_range(data[mask])
    if anchor <= 0:
        raise InputError(
            "The brain has hardly any intensities above zero: check the image and its brain mask."
        )
    return (data * (ANCHOR_INTENSITY / anchor)).astype(np.float32)


def mask_onto(mask: Image, grid: Grid) -> np.ndarray:
    """Bring a mask onto a grid through its position in the world.

    Parameters
    ----------
    mask : Image (1, 1, i, j, k)
        Masked where not 0.
    grid : Grid
        Where it is wanted.

    Returns
    -------
    ndarray (i, j, k), bool
        Voxels whose nearest voxel of the mask is set, and those that are nearest to a voxel that
        is set: nothing is lost between grids, whichever has the larger voxels.
    """
    binary = Image((mask.data != 0).float(), mask.grid)
    onto = Transform(()).resample(binary, grid, "nearest").data[0, 0].numpy() > 0
    matrix = voxel_to_voxel(mask.grid, grid)
    places = np.argwhere(binary.data[0, 0].numpy()) @ matrix[:3, :3].T + matrix[:3, 3]
    places = np.rint(places).astype(int)
    places = places[((places >= 0) & (places < grid.shape)).all(axis=1)]
    onto[tuple(places.T)] = True
    return onto
