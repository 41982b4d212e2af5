"""Images of the engine, read from NIfTI and written to it."""

from __future__ import annotations

import os
from pathlib import Path

import nibabel as nib
import numpy as np
import torch

from bids_fcnreg.fcn.spatial.grid import Image
from bids_fcnreg.io import nifti
from bids_fcnreg.io.memory_order import in_c_order
from bids_fcnreg.io.orientation import SCANNER, Codes, set_codes


def to_image(volume: nib.spatialimages.SpatialImage) -> Image:
    """Convert a 3D nibabel image to an `Image` (1, 1, i, j, k), float32."""
    data = in_c_order(volume.get_fdata(dtype=np.float32))
    return Image(torch.from_numpy(data)[None, None], nifti.grid_of(volume))


def read(source: nifti.ImageSource, role: str = "image") -> Image:
    """Read a file or a nibabel image as an `Image`; see `nifti.load` for checks and errors."""
    return to_image(nifti.load(source, role=role))


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
    made = nib.Nifti1Image(data.astype(dtype), image.grid.affine)
    return set_codes(made, space)


def write(
    path: str | os.PathLike[str],
    image: Image,
    dtype: str = "float32",
    space: Codes = SCANNER,
    step: float | None = None,
) -> Path:
    """Write an `Image` as NIfTI; see `to_nifti` and, for `step`, `nifti.write`."""
    return nifti.write(path, to_nifti(image, dtype, space), step)
