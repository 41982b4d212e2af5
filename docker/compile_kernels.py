"""Compile all kernels of the CPU into numba's cache, NUMBA_CACHE_DIR."""

from __future__ import annotations

import sys

import nibabel as nib
import numpy as np
import torch

import bids_fcnreg
from bids_fcnreg.fcn.cpu.kernels import _kernels
from bids_fcnreg.fcn.segment import Anatomy
from bids_fcnreg.fcn.spatial.grid import Grid, Image
from bids_fcnreg.fcn.spatial.inverse import update_inverse
from bids_fcnreg.fcn.spatial.normalization import normalize
from bids_fcnreg.fcn.spatial.region import Region
from bids_fcnreg.fcn.spatial.transform import Transform
from bids_fcnreg.fcn.structures import STRUCTURES
from bids_fcnreg.fcn.tissue import classify

SHAPE = (48, 52, 50)
AFFINE = np.diag([3.0, 3.0, 3.0, 1.0])


def brain(scale: float) -> nib.Nifti1Image:
    """Simulate a brain: three nested shells with texture."""
    offsets = np.stack(np.indices(SHAPE), axis=-1) - np.array(SHAPE) / 2
    texture = np.sin(offsets).sum(axis=-1)
    radius = np.linalg.norm(offsets / (scale, 1, 1), axis=-1) + texture / 3
    data = sum((30 + texture) * (radius < limit) for limit in (22, 18, 12))
    return nib.Nifti1Image(data.astype(np.float32), AFFINE)


def main() -> None:
    """Register two brains, and call what uses the other kernels."""
    fixed, moving = brain(1.0), brain(0.95)
    bids_fcnreg.register(fixed, moving, mode="refine", device="cpu")
    grid = Grid(SHAPE, AFFINE)
    data = torch.from_numpy(fixed.get_fdata(dtype=np.float32))[None, None]
    image = Image(data, grid)
    normalize(image, image, Transform(()), grid, image)
    # Coarse images are not refined at the level that uses it.
    displacements = torch.zeros(1, 3, *SHAPE)
    Region.around(data, 1).damp_divergence(displacements, 0.1, torch.zeros_like(displacements))
    # Not every deformation has to be smoothed.
    update_inverse(displacements, displacements.clone(), data > 0)
    posteriors = torch.full((1, len(STRUCTURES), *SHAPE), 1 / len(STRUCTURES))
    classify(image, Anatomy(posteriors, grid))
    missing = [name for name, kernel in _kernels().items() if not kernel.signatures]
    if missing:
        sys.exit(f"Not compiled: {', '.join(missing)}. Call what uses them in {__file__}.")
    print(f"Compiled all {len(_kernels())} kernels.")


if __name__ == "__main__":
    main()
