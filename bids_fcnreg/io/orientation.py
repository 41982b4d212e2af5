"""What a NIfTI header claims of an image's orientation: codes of its sform and qform."""

from __future__ import annotations

import nibabel as nib
import numpy as np

#: Space codes of the NIfTI standard.
UNKNOWN, SCANNER, ALIGNED, TEMPLATE = 0, 1, 2, 4

#: Less than this (mm) between sform and qform is a matter of rounding.
DISAGREEING_MM = 0.5

#: A qform that is farther (mm) from an affine than this does not hold it.
HELD_MM = 0.1

#: Code of sform and qform alike, or of each.
Codes = int | tuple[int, int]


def codes_of(image: nib.spatialimages.SpatialImage) -> tuple[int, int]:
    """Return the space codes of the sform and the qform of an image.

    A qform that is not the affine in use does not count: its code is that of the sform. Formats
    that always store where the scanner was have the code of the scanner's space.
    """
    if not isinstance(image, nib.Nifti1Pair):
        analyze = isinstance(image, nib.AnalyzeImage)
        return (UNKNOWN, UNKNOWN) if analyze else (SCANNER, SCANNER)
    sform, qform = int(image.header["sform_code"]), int(image.header["qform_code"])
    if disagreement_mm(image) > DISAGREEING_MM:
        qform = sform
    return sform, qform


def template_code(reference: nib.spatialimages.SpatialImage) -> int:
    """Return the code of what is on a template's grid: none if the template itself has none."""
    return TEMPLATE if any(codes_of(reference)) else UNKNOWN


def set_codes(image: nib.Nifti1Image, codes: Codes) -> nib.Nifti1Image:
    """Write an image's affine, in mm, into its sform and qform, with these codes.

    A sheared affine goes into the sform alone, as a qform cannot hold it. Without codes, readers
    take the affine that follows from shape and voxel size; another affine gets the code of an
    alignment to some other image.

    Returns
    -------
    nibabel.Nifti1Image
        The image that was given.
    """
    affine = image.affine
    sform, qform = (codes, codes) if isinstance(codes, int) else codes
    image.header.set_xyzt_units("mm")
    implied = image.header.get_base_affine()
    if not (sform or qform) and _distance(image.shape, implied, affine) > HELD_MM:
        sform = ALIGNED
    image.set_qform(affine, code=qform, update_affine=False)
    if sform and _distance(image.shape, image.header.get_qform(), affine) > HELD_MM:
        image.header["qform_code"] = UNKNOWN
    image.set_sform(affine, code=sform, update_affine=False)
    return image


def disagreement_mm(image: nib.spatialimages.SpatialImage) -> float:
    """Return how far apart sform and qform put a corner, at most; 0 if there are not both."""
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


def describe_doubt(image: nib.spatialimages.SpatialImage, name: str) -> str | None:
    """Return what a user must know of the orientation of an image, or None."""
    if isinstance(image, nib.AnalyzeImage) and not isinstance(image, nib.Nifti1Pair):
        return (
            f"{name} is an Analyze image, a format that does not say which side is left: left "
            "and right, and its position, are assumed. Convert the original data to NIfTI."
        )
    if codes_of(image) == (UNKNOWN, UNKNOWN):
        return (
            f"{name} does not say how it is oriented (sform and qform codes are 0): left and "
            "right, and its position, are assumed. Convert it again, or set its sform."
        )
    if (far := disagreement_mm(image)) > DISAGREEING_MM:
        return (
            f"sform and qform of {name} disagree by {far:.3g} mm: the sform is used; other "
            "software may take the qform"
        )
    return None


def _distance(shape: tuple[int, ...], one: np.ndarray, other: np.ndarray) -> float:
    """Largest distance (mm) between where two affines put a corner of a volume."""
    corners = np.array(list(np.ndindex(2, 2, 2))) * (np.array(shape[:3]) - 1)
    here, there = (nib.affines.apply_affine(affine, corners) for affine in (one, other))
    return float(np.nan_to_num(np.linalg.norm(here - there, axis=1).max()))
