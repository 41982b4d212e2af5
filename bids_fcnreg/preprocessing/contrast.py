"""Prepare both images of a registration: whole heads, and other contrasts than T1w."""

from __future__ import annotations

import re
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from scipy import ndimage

from bids_fcnreg.config import CONTRASTS
from bids_fcnreg.errors import InputError
from bids_fcnreg.fcn.foreground import foreground, non_background
from bids_fcnreg.fcn.intensity import intensity_scale
from bids_fcnreg.fcn.masks import bounding_box
from bids_fcnreg.fcn.segment import Anatomy
from bids_fcnreg.fcn.spatial.grid import Image
from bids_fcnreg.preprocessing.any_contrast import Brain, prepare_brain
from bids_fcnreg.preprocessing.brain import may_be_brain_only

Which = Literal["fixed", "moving"]
WHICH: tuple[Which, Which] = ("fixed", "moving")

#: BIDS suffixes of images that are registered as they are.
T1W_SUFFIXES = ("T1w", "UNIT1", "MP2RAGE", "inplaneT1", "R1map")

#: BIDS suffixes of images that are replaced by a T1w-like image.
OTHER_SUFFIXES = (
    "T2w", "FLAIR", "PDw", "PDT2", "inplaneT2", "T2starw", "T2star", "PD", "MESE", "MEGRE", "VFA",
    "T1map", "T2map", "R2map", "T2starmap", "R2starmap", "PDmap", "PDT2map", "T1rho", "MWFmap",
    "MTRmap", "Chimap", "M0map", "S0map", "angio", "swi", "minIP", "bold", "boldref", "sbref",
    "cbv", "epi", "dwi", "dwiref", "m0scan", "asl",
)  # fmt: skip

#: Voxel size in mm, least depth in the brain in mm (CSF at the rim belongs to the brain mask or
#: not), and width in mm of the local averages that `looks_t2w` subtracts.
SPACING_MM, RIM_MM, LOCAL_MM = 2.0, 3.0, 8.0

#: Number of voxels to which a smooth bias field is fitted.
TREND_VOXELS = 20_000

#: T2w brains have a correlation of local intensity and depth below the first, and at least the
#: second fraction of their range of intensities above the median. Measured: correlation of T1w
#: brains 0.04 to 0.20, FLAIR 0.06 to 0.11, T2w −0.11 to −0.09, T1w with inverted contrast −0.21
#: to −0.13; fraction of T2w brains and of those with inverted contrast 0.49 to 0.71.
MAX_CORRELATION, MIN_BRIGHT = -0.03, 0.4

#: Images of a smaller extent along every axis contain no brain.
MIN_EXTENT_MM = 50.0


@dataclass(frozen=True, eq=False)
class RegistrationInput:
    """An image as the registration sees it.

    Attributes
    ----------
    image : Image (1, 1, i, j, k)
        The image, or the T1w-like image that replaces it.
    mask : Image or None
        Its brain mask, if one is given or segmented.
    replaced : bool
        Whether `image` is a T1w-like image.
    extracted : bool
        Whether it is a T1w image of a whole head, whose brain was extracted.
    anatomy : Anatomy or None
        Posteriors of the network, if the image was segmented.
    t1w_like : Image or None
        Of a whole head whose white matter is not brighter than its gray matter: what replaces it
        in the registration with a T1w-like image.
    """

    image: Image
    mask: Image | None
    replaced: bool = False
    extracted: bool = False
    anatomy: Anatomy | None = None
    t1w_like: Image | None = None


def describe_extracted(which: Sequence[str]) -> str:
    """Describe which images of a pair are whole heads, for reports; empty if none is.

    Examples
    --------
    >>> describe_extracted(["fixed", "moving"])
    'Brain extracted by the anatomy network: fixed and moving image.'
    """
    return f"Brain extracted by the anatomy network: {' and '.join(which)} image." if which else ""


def describe_replaced(which: Sequence[str]) -> str:
    """Describe which images of a pair were replaced, for reports; empty if none was.

    Examples
    --------
    >>> describe_replaced(["moving"])
    'Registered as a T1w-like image: moving. The quality metrics refer to it.'
    """
    if not which:
        return ""
    kind, them = ("a T1w-like image", "it") if len(which) == 1 else ("T1w-like images", "them")
    return f"Registered as {kind}: {' and '.join(which)}. The quality metrics refer to {them}."


def contrast_of_name(name: str) -> Literal["T1w", "other"] | None:
    """Return the contrast that the suffix of a file name states.

    Examples
    --------
    >>> contrast_of_name("sub-01_T1w.nii.gz"), contrast_of_name("sub-01_space-T1w_FLAIR.nii")
    ('T1w', 'other')
    >>> contrast_of_name("brain.nii.gz") is None
    True
    """
    stem = re.sub(r"\.[^/\\]*$", "", re.split(r"[/\\]", name)[-1])
    suffix = re.split(r"[^0-9a-z]", stem.lower())[-1]
    if suffix in map(str.lower, OTHER_SUFFIXES):
        return "other"
    return "T1w" if suffix in map(str.lower, T1W_SUFFIXES) else None


def looks_t2w(image: Image, mask: Image | None = None) -> bool:
    """Return whether the intensities of a brain locally decrease with depth.

    Those of T2w brains do (CSF is bright, white matter dark), and those of T1w brains with
    inverted contrast on a dark background. FLAIR images cannot be told from T1w images in this
    way. A smooth bias field and local averages are subtracted first.

    Parameters
    ----------
    image : Image (1, 1, i, j, k)
        Any intensity scale.
    mask : Image, optional
        Its brain; by default that of a skull-stripped image.
    """
    step = [max(1, round(SPACING_MM / size)) for size in image.grid.spacing]
    every = tuple(slice(None, None, n) for n in step)
    data = image.data[0, 0].numpy()[every]
    inside = foreground(data) if mask is None else mask.data[0, 0].numpy()[every] > 0.5
    if not inside.any():
        return False
    zero, one = intensity_scale(data, inside)
    if one <= zero:  # no contrast, or a bright background: `standardize` inverts it
        return False
    box = bounding_box(inside)
    data, inside = data[box], inside[box]
    dark, middle, bright = np.percentile(data[inside], [2, 50, 98])
    if bright - middle < MIN_BRIGHT * (bright - dark):
        return False
    spacing = np.multiply(image.grid.spacing, step)
    depth = ndimage.distance_transform_edt(np.pad(inside, 1), sampling=spacing)[1:-1, 1:-1, 1:-1]
    deep = depth > RIM_MM
    if deep.sum() < 2:
        return False
    local = [
        (values - _local_average(values, deep, LOCAL_MM / spacing))[deep]
        for values in (_without_trend(data.clip(dark, bright), deep), depth)
    ]
    return bool(np.corrcoef(*local)[0, 1] < MAX_CORRELATION)


def _without_trend(values: np.ndarray, inside: np.ndarray) -> np.ndarray:
    """Subtract the quadratic function of position that fits values in a mask best."""
    i, j, k = (np.argwhere(inside) / np.array(inside.shape) - 0.5).astype(np.float32).T
    terms = np.stack([np.ones_like(i), i, j, k, i * i, j * j, k * k, i * j, i * k, j * k], axis=1)
    found = values[inside]
    every = slice(None, None, 1 + len(found) // TREND_VOXELS)
    weights, *_ = np.linalg.lstsq(terms[every], found[every], rcond=None)
    remaining = np.zeros(values.shape, np.float32)
    remaining[inside] = found - terms @ weights
    return remaining


def _local_average(values: np.ndarray, inside: np.ndarray, sigma: np.ndarray) -> np.ndarray:
    """Average values in a mask with Gaussian weights."""
    total, weight = (
        ndimage.gaussian_filter(one.astype(np.float32), sigma)
        for one in (np.where(inside, values, 0), inside)
    )
    return total / np.maximum(weight, 1e-3)


def registration_input(
    which: Which, image: Image, mask: Image | None, contrast: str, file: str = ""
) -> RegistrationInput:
    """Return an image as the registration sees it.

    Parameters
    ----------
    which : {"fixed", "moving"}
        Name of the image in messages.
    image : Image (1, 1, i, j, k)
        Brain, or head.
    mask : Image or None
        Its brain mask.
    contrast : {"auto", "T1w", "other"}
        Images of other contrasts are replaced by a T1w-like image. ``auto``: the suffix of the
        file name decides or, without one, `looks_t2w` and, of whole heads, the segmentation.
    file : str
        Name of its file, if it has one.

    Returns
    -------
    RegistrationInput

    Raises
    ------
    InputError
        If no brain is found in a head or in an image of another contrast, or `contrast` is
        invalid.

    Warns
    -----
    UserWarning
        If an image is replaced because of its intensities.
    """
    if contrast not in CONTRASTS:
        raise InputError(f"There is no contrast {contrast!r}. Choose {' or '.join(CONTRASTS)}.")
    named = f"{which} image {file}" if file else f"{which} image"
    known = contrast if contrast != "auto" else contrast_of_name(file)
    if known == "other":
        brain = _prepare(named, image)
        return _replaced(brain, mask)
    if mask is None and not _is_skull_stripped(image):
        advice = f"or provide its brain mask with --{which}-mask (in Python {which}_mask)"
        brain = _prepare(named, image, advice)
        darker = brain.white_matter_is_darker
        if known is None and (darker or looks_t2w(brain.image, brain.mask)):
            _warn_of_contrast(which, named)
            return _replaced(brain, None)
        like = brain.t1w_like if darker else None
        return RegistrationInput(
            brain.image, brain.mask, extracted=True, anatomy=brain.anatomy, t1w_like=like
        )
    comparable = mask is None or not image.grid.mismatch(mask.grid)  # checked by `standardize`
    if known is None and comparable and looks_t2w(image, mask):
        _warn_of_contrast(which, named)
        return _replaced(_prepare(named, image), mask)
    return RegistrationInput(image, mask)


def comparable_input(given: RegistrationInput) -> RegistrationInput:
    """Prepare a T1w image for the registration with a T1w-like image.

    Parameters
    ----------
    given : RegistrationInput
        T1w image, not replaced.

    Returns
    -------
    RegistrationInput
        The image, or a T1w-like image in its place if its white matter is not brighter than its
        gray matter, as in young infants.
    """
    if given.extracted:
        if given.t1w_like is None:
            return given
        return replace(given, image=given.t1w_like, replaced=True, extracted=False)
    if _extent_mm(given.image) <= MIN_EXTENT_MM:
        return given
    try:
        brain = prepare_brain(given.image)
    except InputError:  # its contrast remains unknown
        return given
    return _replaced(brain, given.mask) if brain.white_matter_is_darker else given


def _extent_mm(image: Image) -> float:
    """Return the largest extent of an image along its axes."""
    return float(np.multiply(image.grid.shape, image.grid.spacing).max())


def _is_skull_stripped(image: Image) -> bool:
    """Return whether an image may show a brain only."""
    return may_be_brain_only(non_background(image.data[0, 0].numpy()), image.grid.affine)


def _warn_of_contrast(which: Which, named: str) -> None:
    """Warn of an image that is replaced because of its intensities."""
    warnings.warn(
        f"The {named} does not look like a T1w image (its white matter is darker than its "
        "cortex). It is replaced by a T1w-like image for the registration. Use "
        f"--{which}-contrast T1w (in Python {which}_contrast='T1w') to register it as it is.",
        stacklevel=4,
    )


def _prepare(named: str, image: Image, advice: str = "") -> Brain:
    """Find the brain of an image; `advice` ends the message if there is none."""
    try:
        if _extent_mm(image) <= MIN_EXTENT_MM:
            raise InputError("its field of view is too small")
        return prepare_brain(image)
    except InputError as error:
        raise InputError(
            f"No brain was found in the {named} ({error}). Check the image, and the voxel size "
            f"and the orientation in its header{', ' if advice else ''}{advice}."
        ) from error


def _replaced(brain: Brain, mask: Image | None) -> RegistrationInput:
    """Return the T1w-like image of a brain, with a given mask or its own."""
    used = brain.mask if mask is None else mask
    return RegistrationInput(brain.t1w_like, used, replaced=True, anatomy=brain.anatomy)
