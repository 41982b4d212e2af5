"""NIfTI files in and out: read with every check an input deserves, written whole or not at all."""

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
    describe_doubt,
    set_codes,
    template_code,
)
from bids_fcnreg.io.spatial_image import open_image
from bids_fcnreg.resources import available_memory_gb

__all__ = ["SCANNER", "TEMPLATE"]

#: Voxels smaller or larger than this (mm) are none of a brain.
LEAST_SPACING_MM, MOST_SPACING_MM = 0.01, 100.0

#: By how much gzip can shrink anything.
MOST_COMPRESSED = 1040

#: Memory that reading an image takes.
BYTES_PER_VOXEL = 20

#: What can be read as an image: a file, or an image in memory.
Source = str | os.PathLike | nib.spatialimages.SpatialImage

#: Values of a label image may be this share of themselves off (a scaling in single precision may
#: have been fitted to 65535 in place of 65536 steps), and at most so much.
LABEL_TOLERANCE, MOST_OFF = 2e-5, 0.2


def check_file(path: Path) -> None:
    """Refuse what is no file that can be opened, and what is evidently no NIfTI image.

    Raises
    ------
    InputError
        That says what to do.
    """
    if not path.exists() and not path.is_symlink():
        raise InputError(f"{path} does not exist: check the path.")
    if path.is_dir():
        raise InputError(f"{path} is a folder: give a NIfTI file.")
    if path.exists() and not path.is_file():
        raise InputError(f"{path} is not a file: give a NIfTI file.")
    if path.exists() and not os.access(path, os.R_OK):
        raise InputError(f"{path} cannot be read: change its permissions.")
    if what := describe_missing_content(path) or describe_other_type(path):
        raise InputError(f"{path} cannot be used: {what}.")


def load(source: Source, dtype: str = "float32", role: str = "image") -> nib.Nifti1Image:
    """Read a three-dimensional image.

    Parameters
    ----------
    source : path or nibabel image
        A file nibabel can read (NIfTI), or an image in memory: both pass the same checks.
    dtype : str
        What voxel values are converted to, after the scaling that the header asks for.
    role : str
        What messages call an image in memory.

    Returns
    -------
    nibabel.Nifti1Image
        With its data in memory, three axes, and finite values.

    Raises
    ------
    InputError
        If the file is missing, unreadable, truncated, not three-dimensional, has no usable
        geometry, or holds no signal.
    """
    image, name = opened(source, role)
    with _readable(name):
        _check_header(image, name)
        data = np.asarray(image.dataobj).reshape(image.shape[:3])
    _check_geometry(image, name)
    converted = finite_values(data, dtype, name)
    if not converted.any():
        what = "zeros"
        if not np.isfinite(data).all():
            what += ", infinite values and what is no number"
        raise InputError(f"{name} holds nothing but {what}: check how it was made.")
    return set_codes(nib.Nifti1Image(converted, image.affine), codes_of(image))


def read_grid(source: Source, role: str = "image") -> Grid:
    """Read where the voxels of an image are; what they hold does not matter.

    Parameters
    ----------
    source : path or nibabel image
        Three-dimensional, or a series, whose volumes have one grid.
    role : str
        What messages call an image in memory.

    Raises
    ------
    InputError
        If the file is missing, is no image, has fewer than three axes or no usable geometry.
    """
    image, name = opened(source, role)
    with _readable(name):
        if len(image.shape) < 3 or min(image.shape[:3]) < 2:
            raise InputError(f"{name} has the shape {image.shape}: give a 3D image.")
        _check_size(image, name)
        check_memory(math.prod(image.shape[:3]), name)
    _check_geometry(image, name)
    return grid_of(image)


def grid_of(image: nib.spatialimages.SpatialImage) -> Grid:
    """Grid of an image, or of a volume of a series."""
    i, j, k = image.shape[:3]
    return Grid((i, j, k), image.affine)


def opened(
    source: Source, role: str, **options: bool
) -> tuple[nib.spatialimages.SpatialImage, str]:
    """Open a file, or take an image in memory.

    Returns
    -------
    nibabel image
        Its values are read when they are needed.
    str
        What messages call it.
    """
    if isinstance(source, nib.spatialimages.SpatialImage):
        return source, source.get_filename() or f"The {role}"
    if not isinstance(source, str | os.PathLike):
        advice = "give a file or a nibabel image"
        if isinstance(source, np.ndarray):
            advice = "an array has no position in space; give nibabel.Nifti1Image(array, affine)"
        raise InputError(f"The {role} is of the type {type(source).__name__}: {advice}.")
    check_file(Path(source))
    with _readable(source):
        image = _open(source, **options)
    return image, os.fspath(source)


@contextmanager
def _readable(name: str | os.PathLike) -> Iterator[None]:
    """Turn whatever reading an image raises into one message."""
    try:
        yield
    except InputError:
        raise
    except Exception as why:  # nibabel raises many kinds
        reason = str(why).splitlines()[0] if str(why) else type(why).__name__
        raise InputError(
            f"{name} cannot be read as a NIfTI image ({reason}): is it complete? Get or convert "
            "it again."
        ) from why


def finite_values(data: np.ndarray, dtype: str, name: str) -> np.ndarray:
    """Values in another data type, 0 in place of what is not finite.

    Raises
    ------
    InputError
        If there are values beyond what the data type holds.
    """
    data = np.where(np.isfinite(data), data, data.dtype.type(0))
    with np.errstate(over="ignore"):
        converted = data.astype(dtype)
    if not np.isfinite(converted).all():
        raise InputError(
            f"{name} holds values up to {np.abs(data).max():.1e}, more than {dtype} can: scale it."
        )
    return converted


def _open(path: str | os.PathLike, **options: bool) -> nib.spatialimages.SpatialImage:
    """As `open_image`, which says on the terminal what it repairs of a header; this does not."""
    logger = nib.imageglobals.logger
    before, logger.disabled = logger.disabled, True
    try:
        return open_image(path, **options)
    finally:
        logger.disabled = before


def is_whole(path: str | os.PathLike) -> bool:
    """Whether a file is there and can be read as an image to its end."""
    try:
        load(path)
    except InputError:
        return False
    return True


def doubt_about_place(path: str | os.PathLike) -> str | None:
    """Return what a user must know of the orientation of an image file, or None.

    A file that cannot be read has nothing said of it: `load` refuses it.
    """
    try:
        return describe_doubt(_open(path), os.fspath(path))
    except Exception:  # nibabel raises many kinds
        return None


def check_series(image: nib.spatialimages.SpatialImage, name: str) -> None:
    """Refuse a series whose values or geometry cannot be used; see `load`."""
    _check_type(image, name)
    _check_size(image, name)
    _check_geometry(image, name)


def _check_geometry(image: nib.spatialimages.SpatialImage, name: str) -> None:
    """Refuse an affine that is missing, is singular, or has voxels of an impossible size."""
    affine = image.affine
    if affine is None:
        raise InputError(f"{name} has no affine: give nibabel.Nifti1Image(array, affine).")
    flat = _says_zero(image) or not np.isfinite(affine).all()
    if flat or abs(np.linalg.det(affine[:3, :3])) < 1e-9:
        raise InputError(
            f"{name} has an affine that cannot be inverted (voxel size zero?): repair its header."
        )
    spacing = nib.affines.voxel_sizes(affine)
    if spacing.min() < LEAST_SPACING_MM or spacing.max() > MOST_SPACING_MM:
        size = " × ".join(f"{float(f'{length:.3g}'):g}" for length in spacing)
        raise InputError(
            f"{name} has voxels of {size} mm: its header may be in metres or another unit; "
            "repair it."
        )


def _says_zero(image: nib.spatialimages.SpatialImage) -> bool:
    """Whether the affine depends on a voxel size of zero, which nibabel takes for 1 mm."""
    file = _file_of(image)
    if file is None or not isinstance(image, nib.Nifti1Pair) or image.header["sform_code"] > 0:
        return False
    with nib.openers.ImageOpener(os.fspath(file)) as stream:
        stored = type(image.header).from_fileobj(stream, check=False)
    return not stored["pixdim"][1:4].all()


def _file_of(image: nib.spatialimages.SpatialImage) -> Path | None:
    """The file that an image reads its values from when they are needed."""
    name = image.get_filename()
    if name is None or not nib.is_proxy(image.dataobj) or not Path(name).is_file():
        return None
    return Path(name)


def _check_header(image: nib.spatialimages.SpatialImage, name: str) -> None:
    """Refuse what is no single volume, or cannot be read, before memory is taken for it."""
    shape = image.shape
    _check_type(image, name)
    series = max(shape[3:], default=1) > 1
    if series or len(shape) < 3 or min(shape[:3]) < 2:
        advice = "extract or average its volumes first" if series else "give the whole scan"
        raise InputError(
            f"{name} has the shape {shape}: one three-dimensional volume is needed; {advice}."
        )
    _check_size(image, name)
    check_memory(int(np.prod(shape, dtype=float)), name)


def _check_type(image: nib.spatialimages.SpatialImage, name: str) -> None:
    """Refuse colours, complex numbers and the like."""
    dtype = image.get_data_dtype()
    if not nib.is_proxy(image.dataobj):
        dtype = np.asanyarray(image.dataobj).dtype  # the header may say something else
    if dtype.kind not in "iufb":
        kind = "colours" if dtype.names else f"{dtype} values"
        raise InputError(f"{name} stores {kind}: one real number a voxel is needed.")


def _check_size(image: nib.spatialimages.SpatialImage, name: str) -> None:
    """Refuse a header that claims more than the file can hold."""
    file = _file_of(image)
    if file is None or file.suffix not in (".gz", ".nii"):
        return
    compression = MOST_COMPRESSED if file.suffix == ".gz" else 1
    claimed = np.prod(image.shape, dtype=float) * image.get_data_dtype().itemsize
    if claimed > file.stat().st_size * compression:
        size = "×".join(map(str, image.shape))
        raise InputError(
            f"{name} is too small for the {size} voxels that its header claims: it is truncated, "
            "or its header is damaged; get or convert it again."
        )


def check_memory(voxels: int, path: str | os.PathLike) -> None:
    """Refuse images that do not fit into memory, before any is taken for them.

    Parameters
    ----------
    voxels : int
        In all volumes that are in memory at once.
    path : path
        Whose they are.

    Raises
    ------
    InputError
        If reading and converting them takes more than there is.
    """
    needed, there = voxels * BYTES_PER_VOXEL / 1024**3, available_memory_gb()
    if needed > there:
        raise InputError(
            f"{path} has {voxels / 1e6:.0f} million voxels, which take {needed:.0f} GB of memory, "
            f"more than the {there:.1f} GB there are: check its header, or give it larger voxels."
        )


def to_image(nifti: nib.spatialimages.SpatialImage) -> Image:
    """Three-dimensional nibabel image as an engine image (1, 1, i, j, k), float32."""
    data = np.ascontiguousarray(nifti.get_fdata(dtype=np.float32))
    return Image(torch.from_numpy(data)[None, None], grid_of(nifti))


def read(source: Source, role: str = "image") -> Image:
    """Read a file or a nibabel image as an engine image; see `load` for checks and errors."""
    return to_image(load(source, role=role))


def are_whole_numbers(values: np.ndarray) -> bool:
    """Whether values are whole numbers, but for what a scaling in single precision leaves."""
    allowed = np.clip(2e-5 * np.abs(values), 1e-3, 0.2)
    return bool((np.abs(values - np.rint(values)) <= allowed).all())


def numbered(labels: nib.spatialimages.SpatialImage) -> tuple[Image, np.ndarray]:
    """`number_labels` of a label image, as an engine image."""
    data, found = number_labels(labels.get_fdata())
    return to_image(nib.Nifti1Image(data, labels.affine)), found


def number_labels(labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Numbers 0, 1, 2, … in place of labels, and the labels that they stand for.

    An engine image holds whole numbers exactly up to 2^24 only, and labels may be larger. Number 0
    is the background, 0.

    Returns
    -------
    ndarray, float32
        Of the shape of `labels`.
    ndarray
        Labels, rounded to whole numbers, in the order of their numbers.
    """
    found, places = np.unique(np.rint(labels), return_inverse=True)
    number = np.zeros(len(found), np.float32)
    number[found != 0] = np.arange(1, np.count_nonzero(found) + 1)
    return number[places].reshape(labels.shape), np.append(0, found[found != 0])


def with_labels(image: Image, labels: np.ndarray, space: Codes = SCANNER) -> nib.Nifti1Image:
    """Label image as NIfTI, int32, from one of their numbers; see `numbered`."""
    numbers = to_nifti(image, "int32", space)
    values = labels[np.asanyarray(numbers.dataobj)].astype(np.int32)
    return nib.Nifti1Image(values, numbers.affine, numbers.header)


def whole_numbers(path: str | os.PathLike) -> np.ndarray | None:
    """Return the sorted values of a label image, without what its scaling has left on them.

    Returns
    -------
    ndarray or None
        None if there are values that lie farther from whole numbers than rounding to the steps
        in which the file stores its values can have moved them.

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
    if (np.abs(values - nearest) > np.minimum(allowed, MOST_OFF)).any():
        return None
    return np.unique(nearest)


def to_nifti(image: Image, dtype: str = "float32", space: Codes = SCANNER) -> nib.Nifti1Image:
    """Engine image of one channel as NIfTI.

    Parameters
    ----------
    image : Image
        (1, 1, i, j, k).
    dtype : str
        Data type on disk; integers are rounded to.
    space : int or (int, int)
        NIfTI codes of sform and qform: `SCANNER` (1), `TEMPLATE` (4), or those of `codes_of`.
    """
    data = image.data[0, 0].detach().cpu().numpy()
    if np.issubdtype(np.dtype(dtype), np.integer):
        data = np.rint(data)
    nifti = nib.Nifti1Image(data.astype(dtype), image.grid.affine)
    return set_codes(nifti, space)


def like(reference: nib.Nifti1Image, data: np.ndarray, dtype: str = "float32") -> nib.Nifti1Image:
    """Image with other values on the grid of one that is in a template's space."""
    made = nib.Nifti1Image(data.astype(dtype), reference.affine)
    return set_codes(made, template_code(reference))


def write(
    path: str | os.PathLike,
    image: Image | nib.Nifti1Image,
    dtype: str | None = None,
    space: Codes = SCANNER,
) -> Path:
    """Write an image so that it appears whole or not at all.

    The same image gives the same bytes.

    Parameters
    ----------
    path : path
        ``.nii`` or ``.nii.gz``; its folder is made.
    image : Image or nibabel.Nifti1Image
        What to write.
    dtype : str, optional
        Data type on disk; by default float32 for an engine image, unchanged for a NIfTI.
    space : int or (int, int)
        For an engine image, the NIfTI codes of its sform and qform.

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
