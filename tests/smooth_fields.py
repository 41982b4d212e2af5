"""A grid, and smooth random fields on it."""

from __future__ import annotations

import numpy as np
import torch

from bids_fcnreg.fcn.spatial.filters import gaussian
from bids_fcnreg.fcn.spatial.grid import Grid
from bids_fcnreg.fcn.spatial.transform import Displacement

FIXED_GRID = Grid((40, 44, 36), np.array(
    [[-1.5, 0, 0, 30.0], [0, 1.5, 0, -33.0], [0, 0, 1.6, -28.0], [0, 0, 0, 1]]
))  # fmt: skip


def smooth_noise(shape: tuple[int, ...], sigma: float, seed: int) -> torch.Tensor:
    """Noise (1, *shape) smoothed by `sigma` voxels, from -1 to 1."""
    noise = torch.randn(1, *shape, generator=torch.Generator().manual_seed(seed))
    smooth = gaussian(noise, sigma)
    return smooth / smooth.abs().max()


def smooth_displacement() -> Displacement:
    """A displacement of up to 4 voxels on `FIXED_GRID`, zero at its border."""
    window = torch.zeros(1, 1, *FIXED_GRID.shape)
    window[..., 10:-10, 10:-10, 10:-10] = 1
    return Displacement(
        FIXED_GRID, 4 * smooth_noise((3, *FIXED_GRID.shape), 5, 0) * gaussian(window, 2.5)
    )
