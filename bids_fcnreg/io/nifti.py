"""Read NIfTI images with thorough checks, and write them atomically."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import nibabel as nib
import numpy as np
from isal import igzip

from bids_fcnreg.atomic import write_bytes
from bids_fcnreg.errors import InputError
from bids_fcnreg.fcn.spatial.grid import Grid
from bids_fcnreg.io.header import (
    check_file,
    check_geometry,
    check_memory,
    check_size,
    check_volume,
)
from bids_fcnreg.io.memory_order import in_fortran_order
from bids_fcnreg.io.orientation import (
    codes_of,
    describe_orientation_problem,
    set_codes,
    template_code,
)
from bids_fcnreg.io.spatial_image import open_image

#: Sources of an image: a file, or an image in memory.
ImageSource = str | os.PathLike[str] | nib.spatialimages.SpatialImage


def load(source: ImageSource, dtype: str = "float32", role: str = "image") -> nib.Nifti1Image:
    """Read a three-dimensional image.

    Parameters
    ----------
    source : path or nibabel image
        A file nibabel can read (NIfTI), or an image in memory: both pass the same checks.
    dtype : str
        Data type of the result, after the scaling of the header.
    role : str
        Name of an image in memory, in messages.

    Returns
    -------
    nibabel.Nifti1Image
        With its data in memory, three axes, and finite values.

    Raises
    ------
    InputError
        If the file is missing, unreadable, truncated, not three-dimensional, has invalid geometry,
        or contains no signal.
    """
    image, name = open_source(source, role)
    with _readable(name):
        check_volume(image, name)
        data = np.asarray(image.dataobj).reshape(image.shape[:3])
    check_geometry(image, name)
    converted = finite_values(data, dtype, name)
    if not converted.any():
        what = "zeros"
        if not np.isfinite(data).all():
            what += ", infinite values and NaN"
        raise InputError(f"{name} contains only {what}. Check how it was made.")
    return set_codes(nib.Nifti1Image(converted, image.affine), codes_of(image))


def read_grid(source: ImageSource, role: str = "image") -> Grid:
    """Read the grid of an image, without its values.

    Parameters
    ----------
    source : path or nibabel image
        Three-dimensional, or a series, whose volumes share a grid.
    role : str
        Name of an image in memory, in messages.

    Raises
    ------
    InputError
        If the file is missing, is not an image, or has fewer than three axes or invalid geometry.
    """
    image, name = open_source(source, role)
    with _readable(name):
        if len(image.shape) < 3 or min(image.shape[:3]) < 2:
            raise InputError(f"{name} has shape {image.shape}. Choose a 3D image.")
        check_size(image, name)
        check_memory(math.prod(image.shape[:3]), name)
    check_geometry(image, name)
    return grid_of(image)


def grid_of(image: nib.spatialimages.SpatialImage) -> Grid:
    """Return the grid of an image, or of a volume of a series."""
    i, j, k = image.shape[:3]
    return Grid((i, j, k), image.affine)


def canonical_grid(grid: Grid) -> Grid:
    """Return the grid of the same voxels with axes closest to RAS+, as nibabel reorients images.

    Examples
    --------
    >>> canonical_grid(Grid((4, 5, 6), np.diag([-1.0, 1.0, 1.0, 1.0]))).affine[0].tolist()
    [1.0, 0.0, 0.0, -3.0]
    """
    orientation = nib.io_orientation(grid.affine)
    affine = grid.affine @ nib.orientations.inv_ornt_aff(orientation, grid.shape)
    i, j, k = (grid.shape[axis] for axis in orientation[:, 0].argsort())
    return Grid((i, j, k), affine)


def open_source(
    source: ImageSource, role: str, **options: bool
) -> tuple[nib.spatialimages.SpatialImage, str]:
    """Open a file, or accept an image in memory.

    Returns
    -------
    nibabel image
        Its values are loaded lazily.
    str
        Its name in messages.
    """
    if isinstance(source, nib.spatialimages.SpatialImage):
        return source, source.get_filename() or f"The {role}"
    if not isinstance(source, str | os.PathLike):
        advice = "Pass a file or a nibabel image"
        if isinstance(source, np.ndarray):
            advice = "An array has no affine; pass nibabel.Nifti1Image(array, affine)"
        raise InputError(f"The {role} is of type {type(source).__name__}. {advice}.")
    check_file(Path(source))
    with _readable(source):
        image = _open(source, **options)
    return image, os.fspath(source)


@contextmanager
def _readable(name: str | os.PathLike[str]) -> Iterator[None]:
    """Convert any exception while reading an image to an InputError."""
    try:
        yield
    except InputError:
        raise
    except Exception as why:  # nibabel raises many kinds
        reason = str(why).splitlines()[0] if str(why) else type(why).__name__
        raise InputError(
            f"{name} cannot be read as a NIfTI image ({reason}); it may be incomplete. Download "
            "or convert it again."
        ) from why


def finite_values(data: np.ndarray, dtype: str, name: str) -> np.ndarray:
    """Convert values to another data type, with 0 in place of non-finite values.

    Raises
    ------
    InputError
        If values exceed the range of the data type.
    """
    with np.errstate(over="ignore"):
        converted = data.astype(dtype)
    if np.isfinite(converted).all():
        return converted
    finite = np.isfinite(data)
    converted[~finite] = 0
    if not np.isfinite(converted).all():
        data = np.where(finite, data, 0)
        raise InputError(
            f"{name} contains values up to {np.abs(data).max():.1e}, beyond the range of {dtype}. "
            "Rescale it."
        )
    return converted


def _open(path: str | os.PathLike[str], **options: bool) -> nib.spatialimages.SpatialImage:
    """Open an image as `open_image`, without nibabel's log messages on repaired headers."""
    logger = nib.imageglobals.logger
    before, logger.disabled = logger.disabled, True
    try:
        return open_image(path, **options)
    finally:
        logger.disabled = before


def is_intact(path: str | os.PathLike[str]) -> bool:
    """Return whether a file exists and can be read completely as an image."""
    try:
        load(path)
    except InputError:
        return False
    return True


def orientation_warning(path: str | os.PathLike[str]) -> str | None:
    """Return a warning about the orientation of an image file, or None.

    None for a file that cannot be read, which `load` reports.
    """
    try:
        return describe_orientation_problem(_open(path), os.fspath(path))
    except Exception:  # nibabel raises many kinds
        return None


def like(reference: nib.Nifti1Image, data: np.ndarray, dtype: str = "float32") -> nib.Nifti1Image:
    """Return an image with other values on the grid of a template."""
    made = nib.Nifti1Image(data.astype(dtype), reference.affine)
    return set_codes(made, template_code(reference))


def write(path: str | os.PathLike[str], image: nib.Nifti1Image, step: float | None = None) -> Path:
    """Write an image atomically; equal images give equal bytes.

    Parameters
    ----------
    path : path
        ``.nii`` or ``.nii.gz``; its directory is created.
    image : nibabel.Nifti1Image
        Image to write.
    step : float, optional
        Store multiples of it as integers of 8 or 16 bits, unless values are too large for them.

    Returns
    -------
    pathlib.Path
    """
    path = Path(path)
    if step is not None:
        image = _in_steps(image, step)
    data = np.asarray(image.dataobj)
    if data.ndim == 3:  # a copy of a series may need too much memory
        ordered = nib.Nifti1Image(in_fortran_order(data), image.affine, image.header)
        ordered.header.set_slope_inter(*image.header.get_slope_inter())  # nibabel forgets it
        image = ordered
    payload = image.to_bytes()
    if path.name.endswith(".gz"):
        payload = igzip.compress(payload, compresslevel=2, mtime=0)
    return write_bytes(path, payload)


def _in_steps(image: nib.Nifti1Image, step: float) -> nib.Nifti1Image:
    """Return an image of small integers with a slope of `step`; one beyond them is unchanged."""
    steps = np.asarray(image.dataobj) / step
    np.rint(steps, out=steps)
    low, high = steps.min(initial=0), steps.max(initial=0)
    if max(high, -low) > np.iinfo(np.int16).max:
        return image
    dtype = np.uint8 if low >= 0 and high <= np.iinfo(np.uint8).max else np.int16
    header = image.header.copy()
    header.set_data_dtype(dtype)
    made = nib.Nifti1Image(steps.astype(dtype), image.affine, header)
    made.header.set_slope_inter(step, 0)
    return made
