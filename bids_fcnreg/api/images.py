"""Images that users pass: a file, the name of a template, or an image of nibabel."""

from __future__ import annotations

import os
import warnings
from pathlib import Path

import nibabel as nib

from bids_fcnreg.bids.builtin_templates import BUILTIN_FILES
from bids_fcnreg.bids.template_names import is_template
from bids_fcnreg.bids.templates import resolve_template
from bids_fcnreg.fcn.spatial.grid import Image
from bids_fcnreg.io import image, nifti
from bids_fcnreg.io.orientation import codes_of, describe_orientation_problem
from bids_fcnreg.io.spatial_image import open_image

#: An image: a file, the name of a template, or an image of nibabel.
ImageLike = nifti.ImageSource


def resolve_image(given: ImageLike) -> ImageLike:
    """Return the file of an image that is given by the name of a template, or the image itself.

    Raises
    ------
    InputError
        If there is no such template.
    """
    if isinstance(given, str | os.PathLike) and is_template(given):
        return resolve_template(os.fspath(given)).t1w
    return given


def resolve_brain(given: ImageLike, mask: ImageLike | None) -> tuple[ImageLike, ImageLike | None]:
    """Return an image and its brain mask, which of a template is its own unless one is given.

    Raises
    ------
    InputError
        If there is no such template.
    """
    if isinstance(given, str | os.PathLike) and is_template(given):
        template = resolve_template(os.fspath(given))
        given, mask = template.t1w, template.mask if mask is None else mask
    return given, None if mask is None else resolve_image(mask)


def builtin_template(given: ImageLike) -> str | None:
    """Return the name of the built-in template, an average of adults, that an image is of."""
    if not isinstance(given, str | os.PathLike):
        return None
    names = (name for name, one in BUILTIN_FILES.items() if Path(given) == one.path("t1"))
    return next(names, None)


def read_image(given: ImageLike, role: str = "image") -> Image:
    """Read and check an image of a registration, from a file or in memory."""
    return image.read(given, role)


def file_name(given: ImageLike) -> str:
    """Return the file of an image, empty for an image in memory."""
    if isinstance(given, nib.spatialimages.SpatialImage):
        return given.get_filename() or ""
    return os.fspath(given)


def space_codes(given: ImageLike) -> tuple[int, int]:
    """Return the NIfTI space codes of a file or an image."""
    if isinstance(given, nib.spatialimages.SpatialImage):
        return codes_of(given)
    return codes_of(open_image(given))


def warn_of_orientation(*given: ImageLike | None) -> None:
    """Warn of images whose orientation is doubtful."""
    for one in given:
        if one is None:
            continue
        if isinstance(one, nib.spatialimages.SpatialImage):
            doubt = describe_orientation_problem(one, one.get_filename() or "The image")
        else:
            doubt = nifti.orientation_warning(Path(one))
        if doubt:
            warnings.warn(doubt, stacklevel=3)
