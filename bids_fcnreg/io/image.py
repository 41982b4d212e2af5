"""Read NIfTI images with thorough checks, and write them atomically."""

from __future__ import annotations

import gzip
import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import nibabel as nib
import numpy as np
import torch

from bids_fcnreg.atomic import write_bytes
from bids_fcnreg.errors import InputError
from bids_fcnreg.fcn.spatial.grid import Grid, Image
from bids_fcnreg.io.filetype import describe_missing_content, describe_other_type
from bids_fcnreg.io.orientation import (
    SCANNER,
    TEMPLATE,
    Codes,
    codes_of,
    describe_orientation_problem,
    set_codes,
    template_code,
)
from bids_fcnreg.io.spatial_image import open_image
from bids_fcnreg.resources import available_memory_gb

__all__ = ["SCANNER", "TEMPLATE"]

#: Voxel sizes outside this range (mm) are rejected.
MIN_SPACING_MM, MAX_SPACING_MM = 0.01, 100.0

#: Largest compression ratio of gzip.
MAX_COMPRESSION = 1040

#: Memory needed to read an image.
BYTES_PER_VOXEL = 20

#: Sources of an image: a file, or an image in memory.
ImageSource = str | os.PathLike[str] | nib.spatialimages.SpatialImage

#: Relative and absolute tolerance of label values (scaling in single precision may be fitted to
#: 65535 instead of 65536 steps).
LABEL_TOLERANCE, MAX_LABEL_ERROR = 2e-5, 0.2


def check_file(path: Path) -> None:
    """Reject a path that cannot be opened or is evidently not a NIfTI image.

    Raises
    ------
    InputError
        With advice for the user.
    """
    if not path.exists() and not path.is_symlink():
        raise InputError(f"{path} does not exist. Check the path.")
    if path.is_dir():
        raise InputError(f"{path} is a directory. Choose a NIfTI file.")
    if path.exists() and not path.is_file():
        raise InputError(f"{path} is not a file. Choose a NIfTI file.")
    if path.exists() and not os.access(path, os.R_OK):
        raise InputError(f"{path} cannot be read. Change its permissions.")
    if what := describe_missing_content(path) or describe_other_type(path):
        raise InputError(f"{path} cannot be used: {what}.")


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
        _check_header(image, name)
        data = np.asarray(image.dataobj).reshape(image.shape[:3])
    _check_geometry(image, name)
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
        _check_size(image, name)
        check_memory(math.prod(image.shape[:3]), name)
    _check_geometry(image, name)
    return grid_of(image)


def grid_of(image: nib.spatialimages.SpatialImage) -> Grid:
    """Return the grid of an image, or of a volume of a series."""
    i, j, k = image.shape[:3]
    return Grid((i, j, k), image.affine)


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
    data = np.where(np.isfinite(data), data, data.dtype.type(0))
    with np.errstate(over="ignore"):
        converted = data.astype(dtype)
    if not np.isfinite(converted).all():
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


def check_series(image: nib.spatialimages.SpatialImage, name: str) -> None:
    """Reject a series with invalid values or geometry; see `load`."""
    _check_type(image, name)
    _check_size(image, name)
    _check_geometry(image, name)


def _check_geometry(image: nib.spatialimages.SpatialImage, name: str) -> None:
    """Reject an affine that is missing, singular, or has implausible voxel sizes."""
    affine = image.affine
    if affine is None:
        raise InputError(f"{name} has no affine. Pass nibabel.Nifti1Image(array, affine).")
    singular = _has_zero_voxel_size(image) or not np.isfinite(affine).all()
    if singular or abs(np.linalg.det(affine[:3, :3])) < 1e-9:
        raise InputError(f"{name} has a singular affine (voxel size zero?). Repair its header.")
    spacing = nib.affines.voxel_sizes(affine)
    if spacing.min() < MIN_SPACING_MM or spacing.max() > MAX_SPACING_MM:
        size = " × ".join(f"{float(f'{length:.3g}'):g}" for length in spacing)
        raise InputError(
            f"{name} has voxels of {size} mm. Its header may be in metres or another unit; "
            "repair it."
        )


def _has_zero_voxel_size(image: nib.spatialimages.SpatialImage) -> bool:
    """Return whether the affine depends on a zero voxel size, which nibabel reads as 1 mm."""
    file = _lazy_file(image)
    if file is None or not isinstance(image, nib.Nifti1Pair) or image.header["sform_code"] > 0:
        return False
    with nib.openers.ImageOpener(os.fspath(file)) as stream:
        stored = type(image.header).from_fileobj(stream, check=False)
    return not stored["pixdim"][1:4].all()


def _lazy_file(image: nib.spatialimages.SpatialImage) -> Path | None:
    """Return the file that the values of an image are loaded from, if they are lazy."""
    name = image.get_filename()
    if name is None or not nib.is_proxy(image.dataobj) or not Path(name).is_file():
        return None
    return Path(name)


def _check_header(image: nib.spatialimages.SpatialImage, name: str) -> None:
    """Reject an image that is not one readable volume, before allocating memory."""
    shape = image.shape
    _check_type(image, name)
    series = max(shape[3:], default=1) > 1
    if series or len(shape) < 3 or min(shape[:3]) < 2:
        advice = "Extract or average its volumes" if series else "Choose a complete scan"
        raise InputError(f"{name} has shape {shape}, not that of a 3D volume. {advice}.")
    _check_size(image, name)
    check_memory(int(np.prod(shape, dtype=float)), name)


def _check_type(image: nib.spatialimages.SpatialImage, name: str) -> None:
    """Reject colours, complex numbers and other types."""
    dtype = image.get_data_dtype()
    if not nib.is_proxy(image.dataobj):
        dtype = np.asanyarray(image.dataobj).dtype  # the header may say something else
    if dtype.kind not in "iufb":
        kind = "colours" if dtype.names else f"{dtype} values"
        raise InputError(f"{name} stores {kind}. Convert it to one real number per voxel.")


def _check_size(image: nib.spatialimages.SpatialImage, name: str) -> None:
    """Reject a file that is too small for the size in its header."""
    file = _lazy_file(image)
    if file is None or file.suffix not in (".gz", ".nii"):
        return
    compression = MAX_COMPRESSION if file.suffix == ".gz" else 1
    claimed = np.prod(image.shape, dtype=float) * image.get_data_dtype().itemsize
    if claimed > file.stat().st_size * compression:
        size = "×".join(map(str, image.shape))
        raise InputError(
            f"{name} is too small for the {size} voxels of its header: file or header are "
            "damaged. Download or convert it again."
        )


def check_memory(voxels: int, path: str | os.PathLike[str]) -> None:
    """Reject images that do not fit into memory, before allocating any.

    Parameters
    ----------
    voxels : int
        Of all volumes in memory at the same time.
    path : path
        For the message.

    Raises
    ------
    InputError
        If reading and converting them takes more memory than available.
    """
    needed, available = voxels * BYTES_PER_VOXEL / 1024**3, available_memory_gb()
    if needed > available:
        raise InputError(
            f"{path} has {voxels / 1e6:.0f} million voxels, which need {needed:.0f} GB of memory; "
            f"{available:.1f} GB are available. Check its header, or downsample it."
        )


def to_image(nifti: nib.spatialimages.SpatialImage) -> Image:
    """Convert a 3D nibabel image to an `Image` (1, 1, i, j, k), float32."""
    data = np.ascontiguousarray(nifti.get_fdata(dtype=np.float32))
    return Image(torch.from_numpy(data)[None, None], grid_of(nifti))


def read(source: ImageSource, role: str = "image") -> Image:
    """Read a file or a nibabel image as an `Image`; see `load` for checks and errors."""
    return to_image(load(source, role=role))


def are_integers(values: np.ndarray) -> bool:
    """Return whether values are integers, up to rounding of a scaling in single precision."""
    allowed = np.clip(2e-5 * np.abs(values), 1e-3, 0.2)
    return bool((np.abs(values - np.rint(values)) <= allowed).all())


def index_labels(labels: nib.spatialimages.SpatialImage) -> tuple[Image, np.ndarray]:
    """Apply `index_label_values` to a label image; return an `Image`."""
    data, found = index_label_values(labels.get_fdata())
    return to_image(nib.Nifti1Image(data, labels.affine)), found


def index_label_values(labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Replace labels by consecutive indices, and return the labels by index.

    An `Image` represents integers exactly up to 2^24 only, and labels may be larger. Index 0 is
    the background, 0.

    Returns
    -------
    ndarray, float32
        Of the shape of `labels`.
    ndarray
        Labels, rounded to integers, in the order of their indices.
    """
    values, indices = np.unique(np.rint(labels), return_inverse=True)
    number = np.zeros(len(values), np.float32)
    number[values != 0] = np.arange(1, np.count_nonzero(values) + 1)
    return number[indices].reshape(labels.shape), np.append(0, values[values != 0])


def restore_labels(image: Image, labels: np.ndarray, space: Codes = SCANNER) -> nib.Nifti1Image:
    """Convert an image of label indices to a NIfTI label image, int32; see `index_labels`."""
    indices = to_nifti(image, "int32", space)
    values = labels[np.asanyarray(indices.dataobj)].astype(np.int32)
    return nib.Nifti1Image(values, indices.affine, indices.header)


def read_label_values(path: str | os.PathLike[str]) -> np.ndarray | None:
    """Return the sorted values of a label image, corrected for rounding of its scaling.

    Returns
    -------
    ndarray or None
        None if values differ from integers by more than the rounding of the file's scaling.

    Raises
    ------
    InputError
        See `load`.
    """
    values = np.unique(load(path, dtype="float64").get_fdata())
    stored = _open(path)
    slope = getattr(stored.dataobj, "slope", 1)
    scaled = stored.get_data_dtype().kind in "iu" and slope != 1
    step = abs(float(slope)) if scaled else 0.0
    nearest = np.rint(values)
    allowed = np.maximum(step / 2, LABEL_TOLERANCE * np.maximum(1, np.abs(values)))
    if (np.abs(values - nearest) > np.minimum(allowed, MAX_LABEL_ERROR)).any():
        return None
    return np.unique(nearest)


def to_nifti(image: Image, dtype: str = "float32", space: Codes = SCANNER) -> nib.Nifti1Image:
    """Convert an `Image` of one channel to NIfTI.

    Parameters
    ----------
    image : Image
        (1, 1, i, j, k).
    dtype : str
        Data type on disk; values are rounded for integers.
    space : int or (int, int)
        NIfTI codes of sform and qform: `SCANNER` (1), `TEMPLATE` (4), or those of `codes_of`.
    """
    data = image.data[0, 0].detach().cpu().numpy()
    if np.issubdtype(np.dtype(dtype), np.integer):
        data = np.rint(data)
    nifti = nib.Nifti1Image(data.astype(dtype), image.grid.affine)
    return set_codes(nifti, space)


def like(reference: nib.Nifti1Image, data: np.ndarray, dtype: str = "float32") -> nib.Nifti1Image:
    """Return an image with other values on the grid of a template."""
    made = nib.Nifti1Image(data.astype(dtype), reference.affine)
    return set_codes(made, template_code(reference))


def write(
    path: str | os.PathLike[str],
    image: Image | nib.Nifti1Image,
    dtype: str | None = None,
    space: Codes = SCANNER,
) -> Path:
    """Write an image atomically; equal images give equal bytes.

    Parameters
    ----------
    path : path
        ``.nii`` or ``.nii.gz``; its folder is created.
    image : Image or nibabel.Nifti1Image
        Image to write.
    dtype : str, optional
        Data type on disk; by default float32 for an `Image`, unchanged for a NIfTI.
    space : int or (int, int)
        For an `Image`, the NIfTI codes of its sform and qform.

    Returns
    -------
    pathlib.Path
    """
    path = Path(path)
    if isinstance(image, Image):
        image = to_nifti(image, dtype or "float32", space)
    elif dtype is not None:
        data = np.asanyarray(image.dataobj).astype(dtype)
        image = nib.Nifti1Image(data, image.affine, image.header, dtype=dtype)
    payload = image.to_bytes()
    if path.name.endswith(".gz"):
        payload = gzip.compress(payload, compresslevel=4, mtime=0)
    return write_bytes(path, payload)
