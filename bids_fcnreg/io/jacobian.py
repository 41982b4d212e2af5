"""Write maps of the Jacobian determinant as 16-bit integers."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np

from bids_fcnreg.io import nifti

#: Determinants and their logarithms are stored in multiples of this: volumes to 0.1 %.
JACOBIAN_STEP = 2.0**-9


def write_jacobian(path: Path, determinant: nib.Nifti1Image, log: bool) -> Path:
    """Write determinants, or their logarithms, rounded to multiples of `JACOBIAN_STEP`.

    Positive determinants remain positive: only folded voxels are not.

    Parameters
    ----------
    path : Path
        ``.nii`` or ``.nii.gz``.
    determinant : nibabel.Nifti1Image
        What to write; float32 where it is too large for 16-bit integers.
    log : bool
        Whether it is the logarithm.
    """
    values = np.asarray(determinant.dataobj)
    if not log:
        values = np.where(values > 0, np.maximum(values, JACOBIAN_STEP), values)
    rounded = nib.Nifti1Image(values, determinant.affine, determinant.header)
    return nifti.write(path, rounded, JACOBIAN_STEP)
