"""NIfTI files in and out: read with every check an input deserves, written whole or not at all."""

from __future__ import annotations

import gzip
import os
import zlib
from collections.abc import Iterator
from pathlib import Path

import nibabel as nib
import numpy as np
import torch

from bids_fcnreg.errors import InputError
from bids_fcnreg.fcn.geometry import Grid, Image
from bids_fcnreg.files import write_bytes
from bids_fcnreg.filetype import describe_missing_content, describe_other_type
from bids_fcnreg.machine import available_memory_gb

#: Voxels smaller or larger than this (mm) are none of a brain.
LEAST_SPACING_MM, MOST_SPACING_MM = 0.01, 100.0

#: By how much gzip can shrink anything.
MOST_COMPRESSED = 1040

#: Memory that reading an image takes.
BYTES_PER_VOXEL = 20

#: Space codes of the NIfTI standard.
SCANNER, TEMPLATE = 1, 4


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


def load(path: str | os.PathLike, dtype: str = "float32") -> nib.Nifti1Image:
    """Read a three-dimensional image.

    Parameters
    ----------
    path : path
        A file nibabel can read (NIfTI).
    dtype : str
        What voxel values are converted to, after the scaling that the header asks for.

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
    path = Path(path)
    check_file(path)
    try:
        image = _open(path)
        shape, affine = image.shape, image.affine
        _check_header(image, path)
        data = np.asarray(image.dataobj).reshape(shape[:3])
    except InputError:
        raise
    except Exception as why:  # nibabel raises many kinds
        reason = str(why).splitlines()[0] if str(why) else type(why).__name__
        raise InputError(
            f"{path} cannot be read as a NIfTI image ({reason}): is it complete? Get or convert "
            "it again."
        ) from why
    flat = _says_zero(image, path) or not np.isfinite(affine).all()
    if flat or abs(np.linalg.det(affine[:3, :3])) < 1e-9:
        raise InputError(
            f"{path} has an affine that cannot be inverted (voxel size zero?): repair its header."
        )
    spacing = nib.affines.voxel_sizes(affine)
    if spacing.min() < LEAST_SPACING_MM or spacing.max() > MOST_SPACING_MM:
        size = " × ".join(f"{float(f'{length:.3g}'):g}" for length in spacing)
        raise InputError(
            f"{path} has voxels of {size} mm: its header may be in metres or another unit; "
            "repair it."
        )
    finite = np.isfinite(data)
    data = np.where(finite, data, data.dtype.type(0))
    if not data.any():
        what = "zeros" if finite.all() else "zeros, infinite values and what is no number"
        raise InputError(f"{path} holds nothing but {what}: check how it was made.")
    with np.errstate(over="ignore"):
        converted = data.astype(dtype)
    if not np.isfinite(converted).all():
        raise InputError(
            f"{path} holds values up to {np.abs(data).max():.1e}, more than {dtype} can: scale it."
        )
    checked = nib.Nifti1Image(converted, affine)
    checked.header.set_xyzt_units("mm")
    for name, setter in (("sform_code", checked.set_sform), ("qform_code", checked.set_qform)):
        code = int(image.header[name]) if isinstance(image, nib.Nifti1Image) else 0
        setter(affine, code=code or SCANNER)
    return checked


def _open(path: str | os.PathLike, **options: bool) -> nib.spatialimages.SpatialImage:
    """As `nibabel.load`, which says on the terminal what it repairs of a header; this does not."""
    logger = nib.imageglobals.logger
    before, logger.disabled = logger.disabled, True
    try:
        return nib.load(path, **options)
    finally:
        logger.disabled = before


def is_whole(path: str | os.PathLike) -> bool:
    """Whether a file is there and can be read as an image to its end."""
    try:
        load(path)
    except InputError:
        return False
    return True


def disagreement_mm(path: str | os.PathLike) -> float:
    """How far apart the sform and the qform of a file put one of its corners, at most.

    Returns
    -------
    float
        0 if it does not have both, or cannot be read: then `load` says what is wrong.
    """
    try:
        header = _open(path).header
        forms = [header.get_sform(coded=True), header.get_qform(coded=True)]
    except Exception:  # nibabel raises many kinds
        return 0.0
    if not all(code > 0 for _, code in forms):
        return 0.0
    corners = np.array(list(np.ndindex(2, 2, 2))) * (np.array(header.get_data_shape()[:3]) - 1)
    here, there = (nib.affines.apply_affine(affine, corners) for affine, _ in forms)
    return float(np.nan_to_num(np.linalg.norm(here - there, axis=1).max()))


def _says_zero(image: nib.spatialimages.SpatialImage, path: Path) -> bool:
    """Whether the affine depends on a voxel size of zero, which nibabel takes for 1 mm."""
    if not isinstance(image, nib.Nifti1Pair) or image.header["sform_code"] > 0:
        return False
    with nib.openers.ImageOpener(path) as stream:
        stored = type(image.header).from_fileobj(stream, check=False)
    return not stored["pixdim"][1:4].all()


def _check_header(image: nib.spatialimages.SpatialImage, path: Path) -> None:
    """Refuse what is no single volume, or cannot be read, before memory is taken for it."""
    shape = image.shape
    _check_type(image, path)
    series = max(shape[3:], default=1) > 1
    if series or len(shape) < 3 or min(shape[:3]) < 2:
        advice = "extract or average its volumes first" if series else "give the whole scan"
        raise InputError(
            f"{path} has the shape {shape}: one three-dimensional volume is needed; {advice}."
        )
    _check_size(image, path)
    check_memory(int(np.prod(shape, dtype=float)), path)


def _check_type(image: nib.spatialimages.SpatialImage, path: Path) -> None:
    """Refuse colours, complex numbers and the like."""
    dtype = image.get_data_dtype()
    if dtype.kind not in "iufb":
        kind = "colours" if dtype.names else f"{dtype} values"
        raise InputError(f"{path} stores {kind}: one real number a voxel is needed.")


def _check_size(image: nib.spatialimages.SpatialImage, path: Path) -> None:
    """Refuse a header that claims more than the file can hold."""
    claimed = np.prod(image.shape, dtype=float) * image.get_data_dtype().itemsize
    compression = {".gz": MOST_COMPRESSED, ".nii": 1}.get(path.suffix)
    if compression is not None and claimed > path.stat().st_size * compression:
        size = "×".join(map(str, image.shape))
        raise InputError(
            f"{path} is too small for the {size} voxels that its header claims: it is truncated, "
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
    return Image(torch.from_numpy(data)[None, None], Grid(nifti.shape[:3], nifti.affine))


def read(path: str | os.PathLike) -> Image:
    """Read a file as an engine image; see `load` for checks and errors."""
    return to_image(load(path))


def numbered(labels: nib.spatialimages.SpatialImage) -> tuple[Image, np.ndarray]:
    """Label image whose labels are replaced by their numbers 0, 1, 2, …, and those labels.

    An engine image holds whole numbers exactly up to 2^24 only, and labels may be larger. Number 0
    is the background, 0.
    """
    found, places = np.unique(np.rint(labels.get_fdata()), return_inverse=True)
    number = np.zeros(len(found), np.float32)
    number[found != 0] = np.arange(1, np.count_nonzero(found) + 1)
    data = number[places].reshape(labels.shape)
    return to_image(nib.Nifti1Image(data, labels.affine)), np.append(0, found[found != 0])


def with_labels(image: Image, labels: np.ndarray, space: int = SCANNER) -> nib.Nifti1Image:
    """Label image as NIfTI, int32, from one of their numbers; see `numbered`."""
    numbers = to_nifti(image, "int32", space)
    values = labels[np.asanyarray(numbers.dataobj)].astype(np.int32)
    return nib.Nifti1Image(values, numbers.affine, numbers.header)


def open_series(path: str | os.PathLike) -> nib.Nifti1Image | None:
    """A file of several volumes, read as they are needed; None for any other file.

    Raises
    ------
    InputError
        If its values are no real numbers, or the file cannot hold what its header claims.
    """
    try:
        # Kept open, a compressed file is read through once, not anew for each volume.
        nifti = _open(path, keep_file_open=True)
    except Exception:  # nibabel raises many kinds
        return None  # `load` says what is wrong
    if len(nifti.shape) != 4 or nifti.shape[3] < 2:
        return None
    _check_type(nifti, Path(path))
    _check_size(nifti, Path(path))
    return nifti


def volumes(series: nib.Nifti1Image, at_once: int) -> Iterator[Image]:
    """The volumes of a series (i, j, k, n), a few in memory at a time.

    Parameters
    ----------
    series : nibabel.Nifti1Image
        Of which values are read as they are needed.
    at_once : int
        How many volumes, at most, are the channels of one image.

    Raises
    ------
    InputError
        If one cannot be read.
    """
    grid = Grid(series.shape[:3], series.affine)
    for first in range(0, series.shape[3], at_once):
        try:
            data = np.asarray(series.dataobj[..., first : first + at_once], dtype=np.float32)
        except (OSError, EOFError, ValueError, zlib.error) as why:
            raise InputError(
                f"{series.get_filename()} cannot be read to its end: is the file complete? "
                "Get or convert it again."
            ) from why
        channels = np.ascontiguousarray(np.moveaxis(np.nan_to_num(data), -1, 0))
        yield Image(torch.from_numpy(channels)[None], grid)


def to_nifti(image: Image, dtype: str = "float32", space: int = SCANNER) -> nib.Nifti1Image:
    """Engine image of one channel as NIfTI.

    Parameters
    ----------
    image : Image
        (1, 1, i, j, k).
    dtype : str
        Data type on disk; integers are rounded to.
    space : int
        NIfTI code of sform and qform: `SCANNER` (1) or `TEMPLATE` (4).
    """
    data = image.data[0, 0].detach().cpu().numpy()
    if np.issubdtype(np.dtype(dtype), np.integer):
        data = np.rint(data)
    nifti = nib.Nifti1Image(data.astype(dtype), image.grid.affine)
    nifti.header.set_xyzt_units("mm")
    nifti.set_sform(image.grid.affine, code=space)
    nifti.set_qform(image.grid.affine, code=space)
    return nifti


def like(reference: nib.Nifti1Image, data: np.ndarray, dtype: str = "float32") -> nib.Nifti1Image:
    """Image with other values on the grid of one that is in a template's space."""
    made = nib.Nifti1Image(data.astype(dtype), reference.affine)
    made.header.set_xyzt_units("mm")
    made.set_sform(reference.affine, code=TEMPLATE)
    made.set_qform(reference.affine, code=TEMPLATE)
    return made


def write(
    path: str | os.PathLike,
    image: Image | nib.Nifti1Image,
    dtype: str | None = None,
    space: int = SCANNER,
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
    space : int
        For an engine image, the NIfTI code of its space.

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
