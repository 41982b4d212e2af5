"""Fixtures of the engine's tests."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from bids_fcnreg.fcn.pair import Pair
from bids_fcnreg.fcn.spatial.filters import gaussian
from bids_fcnreg.fcn.spatial.grid import Grid


@pytest.fixture(scope="session")
def make_random_pair() -> Callable[..., Pair]:
    """Makes a pair of 1 mm voxels: a smooth random image, and itself moved along i."""

    def make(shape: tuple[int, int, int], shift: int = 2, seed: int = 0) -> Pair:
        noise = torch.randn(1, 1, *shape, generator=torch.Generator().manual_seed(seed))
        fixed = gaussian(noise, 2.0)
        fixed = (fixed - fixed.min()) / (fixed.max() - fixed.min())
        weight = torch.zeros_like(fixed)
        weight[..., 4:-4, 4:-4, 4:-4] = 1
        return Pair(
            torch.cat([fixed, fixed.roll(shift, dims=2)]), weight, None, Grid(shape, np.eye(4))
        )

    return make
