"""Open image files with nibabel, without reading their voxels."""

from __future__ import annotations

import os

import nibabel as nib

from bids_fcnreg.errors import InputError


def open_image(path: str | os.PathLike[str], **options: bool) -> nib.spatialimages.SpatialImage:
    """Open an image of any format that `nibabel.load` reads.

    Parameters
    ----------
    path : path
        NIfTI, Analyze, MGH, …
    **options
        Keyword arguments of `nibabel.load`.

    Returns
    -------
    nibabel image
        Its values are loaded lazily.

    Raises
    ------
    InputError
        If the file does not contain voxels, such as a surface.
    Exception
        Of nibabel, if it cannot be read.
    """
    image = nib.load(path, **options)
    if not isinstance(image, nib.spatialimages.SpatialImage):
        raise InputError(f"{path} is a {type(image).__name__}. Choose a NIfTI image.")
    return image
