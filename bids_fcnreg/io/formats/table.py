"""The table of transform formats: detect, read and write any of them."""

from __future__ import annotations

import os
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from types import ModuleType

import h5py
import nibabel as nib

from bids_fcnreg.errors import InputError
from bids_fcnreg.fcn.spatial.transform import Transform
from bids_fcnreg.io.formats import afni, ants
from bids_fcnreg.io.formats.image_grids import ImageGrids
from bids_fcnreg.io.formats.numbers import read_numbers
from bids_fcnreg.io.formats.sampled import linear_matrix
from bids_fcnreg.io.itk_field import FSL, is_field
from bids_fcnreg.io.spatial_image import open_image


@dataclass(frozen=True)
class Format:
    """A format of transforms; module `bids_fcnreg.io.formats.NAME` reads and writes it.

    Attributes
    ----------
    name, title : str
        Name on the command line, and that of the software.
    linear, nonlinear : tuple of str
        Endings of the files that are written; none if the output is a prefix.
    """

    name: str
    title: str
    linear: tuple[str, ...] = ()
    nonlinear: tuple[str, ...] = ()

    @property
    def module(self) -> ModuleType:
        """The module with `read` and `write`, imported on demand."""
        return import_module(f"bids_fcnreg.io.formats.{self.name}")


_IMAGES = (".nii.gz", ".nii")

FORMATS = {
    one.name: one
    for one in (
        Format("itk", "ITK", (".txt", ".mat", ".tfm", ".h5", *_IMAGES), (".h5", *_IMAGES)),
        Format("ants", "ANTs"),
        Format("fsl", "FSL", (".mat", ".txt", *_IMAGES), _IMAGES),
        Format("freesurfer", "FreeSurfer", (".lta", ".m3z", ".m3d"), (".m3z", ".m3d")),
        Format("afni", "AFNI", (".1D", *_IMAGES), _IMAGES),
        Format("x5", "nitransforms", (".x5", ".h5"), (".x5", ".h5")),
    )
}

#: Formats by endings that belong to one only.
_BY_ENDING = {
    ".lta": "freesurfer",
    ".m3z": "freesurfer",
    ".m3d": "freesurfer",
    ".x5": "x5",
    ".1d": "afni",
}


def read(
    path: str | os.PathLike[str], grids: ImageGrids | None = None, name: str | None = None
) -> Transform:
    """Read a transform of any format.

    Parameters
    ----------
    path : path
        Its file, or the prefix of ANTs' files.
    grids : ImageGrids, optional
        Grids of the fixed and the moving image, on which some formats depend.
    name : str, optional
        Name of the format; detected by default.

    Returns
    -------
    Transform
        Maps points of the fixed space to the moving space.

    Raises
    ------
    InputError
        If the file is missing, is damaged, is not a transform, or a grid is missing.
    """
    path, grids = Path(path), grids or ImageGrids()
    if not path.is_file() and not (name in (None, "ants") and ants.files(path)):
        problem = "is not a file" if path.exists() else "does not exist"
        raise InputError(f"{path} {problem}. Check the path.")
    found = FORMATS[name or detect(path)]
    try:
        return found.module.read(path, grids)
    except InputError:
        raise
    except Exception as why:  # nibabel, h5py and parsers raise many types
        raise InputError(
            f"{path} cannot be read as a transform of {found.title}; it may be damaged or of "
            "another format. Check it, or name its format with `fcnreg convert --from`."
        ) from why


def detect(path: Path) -> str:
    """Return the name of the format of a file: ITK's where it is unknown."""
    if not path.is_file():
        return "ants"
    ending = path.suffix.lower()
    if ending in _BY_ENDING:
        return _BY_ENDING[ending]
    try:
        if is_field(path):
            return _detect_field(open_image(path))
        if h5py.is_hdf5(path):
            with h5py.File(path, "r", locking=False) as file:
                return "x5" if file.attrs.get("Format") == "X5" else "itk"
        # A binary file of this ending is ANTs'; other matrices in text may be anything.
        return "fsl" if ending == ".mat" and read_numbers(path) is not None else "itk"
    except Exception:  # the reader reports it
        return "itk"


def _detect_field(image: nib.spatialimages.SpatialImage) -> str:
    """Return the name of the format of a displacement field."""
    if not isinstance(image, nib.Nifti1Pair):
        return "itk"
    if int(image.header["intent_code"]) in FSL:
        return "fsl"
    marked = afni.INTENT_NAME in str(image.header["intent_name"].item())
    extended = any(one.get_code() == afni.EXTENSION for one in image.header.extensions)
    return "afni" if marked or extended else "itk"


def write(
    path: str | os.PathLike[str], transform: Transform, name: str, grids: ImageGrids | None = None
) -> list[Path]:
    """Write a transform in any format, completely or not at all.

    Parameters
    ----------
    path : path
        File, whose ending decides between a linear transform and a displacement field; for ANTs,
        the prefix of the files.
    transform : Transform
        Maps points of the fixed space to the moving space.
    name : str
        Name of the format.
    grids : ImageGrids, optional
        Grids of the fixed and the moving image, on which some formats depend.

    Returns
    -------
    list of Path
        The written files.

    Raises
    ------
    InputError
        If the ending is not one of the format, or a grid is missing.
    """
    path, grids = Path(path), grids or ImageGrids()
    check_ending(path, name)
    found = FORMATS[name]
    suitable = found.linear if linear_matrix(transform) is not None else found.nonlinear
    if suitable and not path.name.endswith(suitable):
        raise InputError(
            f"The transform is nonlinear, and {path} can store a linear one only. Choose an "
            f"output that ends in {' or '.join(suitable)}."
        )
    return found.module.write(path, transform, grids)


def check_ending(path: Path, name: str) -> None:
    """Refuse an output whose ending is not one of the format.

    Raises
    ------
    InputError
        If it is refused.
    """
    endings = dict.fromkeys(FORMATS[name].linear + FORMATS[name].nonlinear)
    if endings and not path.name.endswith(tuple(endings)):
        raise InputError(
            f"The output {path} must end in {', '.join(endings)} for the format {name}."
        )
