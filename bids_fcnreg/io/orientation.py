"""Orientation in NIfTI headers: sform and qform codes."""

from __future__ import annotations

import nibabel as nib
import numpy as np

#: Space codes of the NIfTI standard.
UNKNOWN, SCANNER, ALIGNED, TEMPLATE = 0, 1, 2, 4

#: Smaller distances (mm) between sform and qform are rounding errors.
MAX_DISAGREEMENT_MM = 0.5

#: A qform that differs more (mm) from an affine cannot represent it.
QFORM_TOLERANCE_MM = 0.1

#: Common code of sform and qform, or one for each.
Codes = int | tuple[int, int]


def codes_of(image: nib.spatialimages.SpatialImage) -> tuple[int, int]:
    """Return the space codes of the sform and the qform of an image.

    A qform other than the affine in use is ignored: its code is that of the sform. Formats that
    always store the scanner's coordinates have the code of scanner space.
    """
    if not isinstance(image, nib.Nifti1Pair):
        analyze = isinstance(image, nib.AnalyzeImage)
        return (UNKNOWN, UNKNOWN) if analyze else (SCANNER, SCANNER)
    sform, qform = int(image.header["sform_code"]), int(image.header["qform_code"])
    if disagreement_mm(image) > MAX_DISAGREEMENT_MM:
        qform = sform
    return sform, qform


def template_code(reference: nib.spatialimages.SpatialImage) -> int:
    """Return the code of images on a template's grid, `UNKNOWN` if the template has none."""
    return TEMPLATE if any(codes_of(reference)) else UNKNOWN


def set_codes(image: nib.Nifti1Image, codes: Codes) -> nib.Nifti1Image:
    """Write an image's affine, in mm, to its sform and qform, with given codes.

    A sheared affine is written to the sform only, because a qform cannot represent it. Without
    codes, readers derive the affine from shape and voxel size; another affine gets the code
    `ALIGNED`.

    Returns
    -------
    nibabel.Nifti1Image
        The given image.
    """
    affine = image.affine
    sform, qform = (codes, codes) if isinstance(codes, int) else codes
    image.header.set_xyzt_units("mm")
    implied = image.header.get_base_affine()
    if not (sform or qform) and _distance(image.shape, implied, affine) > QFORM_TOLERANCE_MM:
        sform = ALIGNED
    image.set_qform(affine, code=qform, update_affine=False)
    if sform and _distance(image.shape, image.header.get_qform(), affine) > QFORM_TOLERANCE_MM:
        image.header["qform_code"] = UNKNOWN
    image.set_sform(affine, code=sform, update_affine=False)
    return image


def disagreement_mm(image: nib.spatialimages.SpatialImage) -> float:
    """Return the largest distance of a corner by sform and qform, in mm; 0 without both."""
    header = image.header
    if not isinstance(header, nib.Nifti1Header):
        return 0.0
    (sform, sform_code), (qform, qform_code) = (
        header.get_sform(coded=True),
        header.get_qform(coded=True),
    )
    if sform_code <= 0 or qform_code <= 0:
        return 0.0
    return _distance(header.get_data_shape(), sform, qform)


def describe_orientation_problem(image: nib.spatialimages.SpatialImage, name: str) -> str | None:
    """Return a warning about the orientation of an image, or None."""
    if isinstance(image, nib.AnalyzeImage) and not isinstance(image, nib.Nifti1Pair):
        return (
            f"{name} is an Analyze image, a format without orientation: left, right and position "
            "are assumed. Convert the original data to NIfTI."
        )
    if codes_of(image) == (UNKNOWN, UNKNOWN):
        return (
            f"{name} has no orientation (sform and qform codes are 0): left, right and position "
            "are assumed. Convert it again, or set its sform."
        )
    if (far := disagreement_mm(image)) > MAX_DISAGREEMENT_MM:
        return (
            f"sform and qform of {name} disagree by {far:.3g} mm: the sform is used; other "
            "software may use the qform"
        )
    return None


def _distance(shape: tuple[int, ...], one: np.ndarray, other: np.ndarray) -> float:
    """Return the largest distance (mm) of a corner of a volume by two affines."""
    corners = np.array(list(np.ndindex(2, 2, 2))) * (np.array(shape[:3]) - 1)
    here, there = (nib.affines.apply_affine(affine, corners) for affine in (one, other))
    return float(np.nan_to_num(np.linalg.norm(here - there, axis=1).max()))
