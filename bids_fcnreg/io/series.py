"""Read images of several volumes lazily."""

from __future__ import annotations

import math
import os
import zlib
from collections.abc import Iterator

import nibabel as nib
import numpy as np

from bids_fcnreg.config import LABEL_INTERPOLATIONS
from bids_fcnreg.errors import InputError
from bids_fcnreg.fcn.spatial.grid import Grid
from bids_fcnreg.io.header import check_memory, check_series
from bids_fcnreg.io.nifti import ImageSource, finite_values, load, open_source
from bids_fcnreg.io.orientation import Codes, set_codes

#: Volumes that are resampled together, with the same sampling points.
VOLUMES_AT_ONCE = 8

#: NIfTI intent codes of values that rotate with the head: general and symmetric matrices,
#: displacements, other vectors and quaternions.
VECTORS = (1004, 1005, 1006, 1007, 1010)


def open_series(source: ImageSource, role: str = "image") -> nib.spatialimages.SpatialImage | None:
    """Open an image of several volumes; None for anything else.

    Parameters
    ----------
    source : path or nibabel image
        Its values are not read.
    role : str
        Name of an image in memory, in messages.

    Raises
    ------
    InputError
        If it contains vectors or tensors, has more than four axes, non-real values or invalid
        geometry, or the file is too small for its header.
    """
    try:
        # Kept open, a compressed file is decompressed once instead of once per volume.
        nifti, name = open_source(source, role, keep_file_open=True)
    except InputError:
        return None  # `nifti.load` reports the error
    shape = nifti.shape
    if max(shape[3:], default=1) > 1 and _holds_vectors(nifti):
        raise InputError(
            f"{name} contains vectors or tensors (NIfTI intent), whose reorientation is not "
            "supported. Pass a displacement field as a transform."
        )
    if max(shape[4:], default=1) > 1:
        raise InputError(f"{name} has shape {shape}. Choose a 3D image or a 4D series.")
    if len(shape) < 4 or shape[3] < 2:
        return None
    check_series(nifti, name)
    return nifti


def _holds_vectors(nifti: nib.spatialimages.SpatialImage) -> bool:
    """Return whether the values of a voxel are components of a vector or a tensor."""
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
        Maximum number of volumes per array.
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
                f"{os.fspath(name)} cannot be read completely. Download or convert it again."
            ) from why
        data = finite_values(data.reshape(*series.shape[:3], -1), dtype, name)
        found = found or bool(data.any())
        yield data
    if not found:
        raise InputError(f"{name} contains only zeros. Check how it was made.")


def few_volumes(
    source: ImageSource,
    series: nib.spatialimages.SpatialImage | None,
    grid: Grid,
    interpolation: str,
) -> Iterator[np.ndarray]:
    """Yield the values (i, j, k, n) of an image, or of a few volumes of a series at a time.

    Parameters
    ----------
    source : path or nibabel image
        The image.
    series : nibabel image or None
        What `open_series` returned for it.
    grid : Grid
        Grid onto which the volumes are resampled.
    interpolation : str
        Interpolation with which they are resampled.
    """
    dtype = "float64" if interpolation in LABEL_INTERPOLATIONS else "float32"
    if series is None:
        yield np.asarray(load(source, dtype, "moving image").dataobj)[..., None]
        return
    name = series.get_filename() or "The moving image"
    check_memory(series.shape[3] * math.prod(grid.shape), name)
    yield from volumes(series, 1 if interpolation == "label" else VOLUMES_AT_ONCE, dtype)


def series_like(
    series: nib.spatialimages.SpatialImage | None, values: np.ndarray, grid: Grid, codes: Codes
) -> nib.Nifti1Image:
    """Return values (i, j, k, n) as an image, with the time unit and step of a series."""
    data = values[..., 0] if series is None else values
    made = nib.Nifti1Image(data, grid.affine, dtype=data.dtype)
    set_codes(made, codes)
    if isinstance(series, nib.Nifti1Pair):
        made.header.set_xyzt_units("mm", series.header.get_xyzt_units()[1])
        made.header["pixdim"][4] = series.header["pixdim"][4]
    return made
