"""Check image files and their headers, before values are read."""

from __future__ import annotations

import os
from pathlib import Path

import nibabel as nib
import numpy as np

from bids_fcnreg.errors import InputError
from bids_fcnreg.io.filetype import describe_missing_content, describe_other_type
from bids_fcnreg.resources import available_memory_gb

#: Voxel sizes outside this range (mm) are rejected.
MIN_SPACING_MM, MAX_SPACING_MM = 0.01, 100.0

#: Largest compression ratio of gzip.
MAX_COMPRESSION = 1040

#: Memory needed to read an image.
BYTES_PER_VOXEL = 20


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


def check_volume(image: nib.spatialimages.SpatialImage, name: str) -> None:
    """Reject an image that is not one readable volume, before allocating memory."""
    shape = image.shape
    _check_type(image, name)
    series = max(shape[3:], default=1) > 1
    if series or len(shape) < 3 or min(shape[:3]) < 2:
        advice = "Extract or average its volumes" if series else "Choose a complete scan"
        raise InputError(f"{name} has shape {shape}, not that of a 3D volume. {advice}.")
    check_size(image, name)
    check_memory(int(np.prod(shape, dtype=float)), name)


def check_series(image: nib.spatialimages.SpatialImage, name: str) -> None:
    """Reject a series with invalid values or geometry; see `load`."""
    _check_type(image, name)
    check_size(image, name)
    check_geometry(image, name)


def check_geometry(image: nib.spatialimages.SpatialImage, name: str) -> None:
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


def _check_type(image: nib.spatialimages.SpatialImage, name: str) -> None:
    """Reject colours, complex numbers and other types."""
    dtype = image.get_data_dtype()
    if not nib.is_proxy(image.dataobj):
        dtype = np.asanyarray(image.dataobj).dtype  # the header may say something else
    if dtype.kind not in "iufb":
        kind = "colours" if dtype.names else f"{dtype} values"
        raise InputError(f"{name} stores {kind}. Convert it to one real number per voxel.")


def check_size(image: nib.spatialimages.SpatialImage, name: str) -> None:
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
