"""Read displacement fields stored as images by ANTs and ITK: vectors in LPS+ mm.

Fields of other software look similar but follow other conventions; recognized ones are rejected.
"""

from __future__ import annotations

import re
from pathlib import Path

import nibabel as nib
import numpy as np
import SimpleITK as sitk

from bids_fcnreg.errors import InputError
from bids_fcnreg.io.spatial_image import open_image
from bids_fcnreg.resources import available_memory_gb

#: File name extensions of images.
ENDINGS = (".nii", ".nii.gz", ".img", ".hdr", ".nrrd", ".nhdr", ".mha", ".mhd")

#: NIfTI intent codes: displacements, which ITK converts from RAS+ to LPS+, and vectors, in LPS+.
DISPLACEMENTS, VECTORS = 1006, 1007

#: NIfTI intent codes of FSL's warps and coefficients.
FSL = range(2006, 2019)

#: Intent names of vector images that follow another convention.
OTHER_CONVENTIONS = {"NREG_TRANS": "a transform of NiftyReg", "Mapping": "a deformation of SPM"}

#: Frobenius distance to the identity below which the gradient of a field is that of positions.
POSITION_TOLERANCE = 0.8

_CONVERT = "Convert it to an ITK displacement field"


def is_field(path: Path) -> bool:
    """Return whether the name of a file is that of an image."""
    return path.name.lower().endswith(ENDINGS)


def read_field(path: Path) -> sitk.Image:
    """Read a displacement field.

    Parameters
    ----------
    path : Path
        NIfTI, NRRD or MetaImage.

    Returns
    -------
    SimpleITK.Image
        3D, vectors of three components in LPS+ mm, float32.

    Raises
    ------
    InputError
        If it is not a displacement field, follows another convention, or does not fit into memory.
    Exception
        Of nibabel and SimpleITK, if it cannot be read.
    """
    nifti = None
    if path.name.lower().endswith((".nii", ".nii.gz", ".img", ".hdr")):
        nifti = _checked_nifti(open_image(path), path)
    elif path.name.lower().endswith((".nrrd", ".nhdr")):
        _check_nrrd(path)
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(path))
    reader.ReadImageInformation()
    _check_information(reader, path)
    if nifti is None:
        reader.SetOutputPixelType(sitk.sitkVectorFloat32)
        field = reader.Execute()
    else:
        field = _vectors(nifti, reader)
    if _holds_positions(field):
        raise InputError(f"{path} contains positions, not displacements. {_CONVERT}.")
    return field


def _vectors(nifti: nib.Nifti1Pair, reader: sitk.ImageFileReader) -> sitk.Image:
    """Read the vectors of a NIfTI file on ITK's grid.

    ITK itself reads NaN, and missing parts of a truncated file, as zero.
    """
    values = np.asarray(nifti.dataobj, dtype=np.float32)[:, :, :, 0]
    if int(nifti.header["intent_code"]) == DISPLACEMENTS:
        values = values * np.array([-1, -1, 1], np.float32)
    field = sitk.GetImageFromArray(np.ascontiguousarray(values.transpose(2, 1, 0, 3)), True)
    field.SetOrigin(reader.GetOrigin())
    field.SetSpacing(reader.GetSpacing())
    field.SetDirection(reader.GetDirection())
    return field


def _check_nrrd(path: Path) -> None:
    """Reject other spaces than LPS+, and a field that maps points of the image."""
    with open(path, "rb") as stream:
        header = stream.read(2**16).replace(b"\r", b"").partition(b"\n\n")[0].decode("latin1")
    fields = dict(re.findall(r"^([\w ]+):=? *(.*?) *$", header, re.MULTILINE))
    space = fields.get("space", "LPS")
    if space.lower() not in ("left-posterior-superior", "lps"):
        raise InputError(f"{path} is in the space {space}, not LPS. {_CONVERT}.")
    if fields.get("displacement field type") == "modeling":
        raise InputError(f"{path} maps from the image to the reference. Choose its inverse.")


def _checked_nifti(image: nib.spatialimages.SpatialImage, path: Path) -> nib.Nifti1Pair:
    """Return the image if its header is that of an ITK displacement field."""
    shape, code, name = image.shape, 0, ""
    if isinstance(image, nib.Nifti1Pair):
        code = int(image.header["intent_code"])
        if code in (DISPLACEMENTS, VECTORS):
            name = str(image.header.get_intent()[2]).strip()
    if code in FSL:
        raise InputError(
            f"{path} is an FSL warp (intent code {code}), which follows another convention. "
            f"{_CONVERT} with `fcnreg convert`."
        )
    if name in OTHER_CONVENTIONS:
        raise InputError(
            f"{path} is {OTHER_CONVENTIONS[name]}, not an ITK displacement field. {_CONVERT}."
        )
    fits = len(shape) == 5 and shape[3:] == (1, 3) and code in (DISPLACEMENTS, VECTORS)
    if not isinstance(image, nib.Nifti1Pair) or not fits:
        raise InputError(
            f"{path} has shape {shape} and intent code {code}; a displacement field of ITK or "
            f"ANTs has shape (i, j, k, 1, 3) and intent code {VECTORS} (vector). Choose a "
            "transform, or convert the field with `fcnreg convert --from FORMAT`."
        )
    return image


def _check_information(reader: sitk.ImageFileReader, path: Path) -> None:
    """Reject another number of axes or components, or too many voxels."""
    dimension, components = reader.GetDimension(), reader.GetNumberOfComponents()
    if dimension != 3 or components != 3:
        raise InputError(
            f"{path} has {dimension} axes and {components} values per voxel; a displacement field "
            "has 3 and 3. Choose a displacement field."
        )
    # The field as it is stored, in single precision, and in voxels.
    check_memory(3 * 16.0 * np.prod(reader.GetSize(), dtype=float), path)


def check_memory(needed_bytes: float, path: Path) -> None:
    """Reject a file that does not fit into memory.

    Raises
    ------
    InputError
        If it needs more memory than is available.
    """
    needed = needed_bytes / 1024**3
    if needed > (available := available_memory_gb()):
        raise InputError(
            f"{path} needs {needed:.0f} GB of memory; {available:.1f} GB are available. It may be "
            "damaged, or on too fine a grid. Compute it again."
        )


def _holds_positions(field: sitk.Image) -> bool:
    """Return whether values are target positions (RAS+ or LPS+) rather than displacements.

    Positions increase by about 1 mm per mm; displacements hardly do.
    """
    steps = [max(1, n // 16) for n in field.GetSize()]
    values = sitk.GetArrayViewFromImage(field)[:: steps[2], :: steps[1], :: steps[0]]
    values = values.reshape(-1, 3)
    finite = np.isfinite(values).all(axis=1)
    if finite.sum() < 16:
        return False
    k, j, i = np.meshgrid(
        *(
            np.arange(0, n, step)
            for n, step in zip(field.GetSize()[::-1], steps[::-1], strict=True)
        ),
        indexing="ij",
    )
    voxels = np.stack([i, j, k], axis=-1).reshape(-1, 3)
    direction = np.reshape(field.GetDirection(), (3, 3)) * np.array(field.GetSpacing())
    points = voxels @ direction.T + np.array(field.GetOrigin())
    design = np.column_stack([points, np.ones(len(points))])[finite]
    slope = np.linalg.lstsq(design, values[finite].astype(float), rcond=None)[0][:3].T
    signs = (np.eye(3), np.diag([-1.0, -1.0, 1.0]))
    return any(np.linalg.norm(slope - sign) < POSITION_TOLERANCE for sign in signs)
