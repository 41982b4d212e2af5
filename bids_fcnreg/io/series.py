"""Images of several volumes, read as they are needed."""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterator

import nibabel as nib
import numpy as np

from bids_fcnreg.errors import InputError
from bids_fcnreg.io.image import Source, check_series, finite_values, opened

#: Intent codes of NIfTI for values that turn with the head: general and symmetric matrices,
#: displacements, other vectors and quaternions.
VECTORS = (1004, 1005, 1006, 1007, 1010)


def open_series(source: Source, role: str = "image") -> nib.spatialimages.SpatialImage | None:
    """Open an image of several volumes; None for anything else.

    Parameters
    ----------
    source : path or nibabel image
        Whose values are not read yet.
    role : str
        What messages call an image in memory.

    Raises
    ------
    InputError
        If it holds vectors or tensors, has more than four axes, its values are no real numbers,
        its geometry cannot be used, or the file cannot hold what its header claims.
    """
    try:
        # Kept open, a compressed file is read through once, not anew for each volume.
        nifti, name = opened(source, role, keep_file_open=True)
    except InputError:
        return None  # `image.load` says what is wrong
    shape = nifti.shape
    if max(shape[3:], default=1) > 1 and _holds_vectors(nifti):
        raise InputError(
            f"{name} holds vectors or tensors (its NIfTI intent says so), which have to be "
            "reoriented when they are resampled; that is not offered. A displacement field is "
            "given as a transform."
        )
    if max(shape[4:], default=1) > 1:
        raise InputError(f"{name} has the shape {shape}: give a 3D image or a 4D series.")
    if len(shape) < 4 or shape[3] < 2:
        return None
    check_series(nifti, name)
    return nifti


def _holds_vectors(nifti: nib.spatialimages.SpatialImage) -> bool:
    """Whether the values at a voxel are components of a vector or a tensor."""
    return isinstance(nifti, nib.Nifti1Pair) and int(nifti.header["intent_code"]) in VECTORS


def volumes(
    series: nib.spatialimages.SpatialImage, at_once: int, dtype: str
) -> Iterator[np.ndarray]:
    """Read the volumes of a series, a few in memory at a time.

    Parameters
    ----------
    series : nibabel image
        As `open_series` returns it.
    at_once : int
        Largest number of volumes of one array.
    dtype : str
        Data type of the arrays.

    Yields
    ------
    ndarray (i, j, k, n)

    Raises
    ------
    InputError
        If a volume cannot be read, or all are zero.
    """
    name, found = series.get_filename() or "The moving image", False
    for first in range(0, series.shape[3], at_once):
        try:
            data = np.asarray(series.dataobj[:, :, :, first : first + at_once])
        except (OSError, EOFError, ValueError, zlib.error) as why:
            raise InputError(
                f"{os.fspath(name)} cannot be read to its end: is the file complete? "
                "Get or convert it again."
            ) from why
        data = finite_values(data.reshape(*series.shape[:3], -1), dtype, name)
        found = found or bool(data.any())
        yield data
    if not found:
        raise InputError(f"{name} holds nothing but zeros: check how it was made.")
