"""Makes the modules of `benchmarks/` importable, and a pair of images to register."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

import nilearn.datasets
import numpy as np
import pytest
import torch

from bids_fcnreg.fcn.spatial.filters import gaussian
from bids_fcnreg.fcn.spatial.grid import Grid, Image
from bids_fcnreg.fcn.spatial.transform import Affine, Displacement, Transform
from bids_fcnreg.io import image

sys.path.append(str(Path(__file__).resolve().parents[2] / "benchmarks"))

import peer

SPACING = 5.0


@dataclass(frozen=True)
class Known:
    """A pair whose transform is known."""

    task: peer.Task
    fixed: Image
    moving: Image
    truth: Transform

    @property
    def spacing(self) -> float:
        """Voxel size, mm."""
        return SPACING

    def error(self, forward: Transform) -> float:
        """Mean distance to the truth in the fixed brain, mm."""
        points = self.fixed.grid.points()[self.fixed.data[0, 0] > 0]
        return float((forward.map(points) - self.truth.map(points)).norm(dim=-1).mean())


@pytest.fixture(scope="module")
def known(tmp_path_factory: pytest.TempPathFactory) -> Known:
    """A brain on an oblique grid, and the same seen through an affine and a smooth deformation."""
    path = Path(nilearn.datasets.__file__).parent / "data"
    brain = image.read(path / "mni_icbm152_t1_tal_nlin_sym_09a_converted.nii.gz")
    brain = Image(gaussian(brain.data, 2.0), brain.grid)
    moving_grid = brain.grid.with_spacing(SPACING)
    # Other axes, obliquely: LAS, turned by 10 degrees about the first axis.
    c, s = np.cos(np.radians(10)), np.sin(np.radians(10))
    axes = np.array([[-1.0, 0, 0], [0, c, -s], [0, s, c]]) * SPACING
    shape = (42, 50, 45)
    affine = np.eye(4)
    affine[:3, :3] = axes
    affine[:3, 3] = moving_grid.centre + np.array([7, -5, 9]) - axes @ ((np.array(shape) - 1) / 2)
    fixed_grid = Grid(shape, affine)
    linear = np.eye(4)
    linear[:3, :3] = [[1.06, 0.09, 0.0], [-0.08, 0.95, 0.03], [0.02, -0.05, 1.03]]
    linear[:3, 3] = (-6.0, 4.0, 5.0)
    noise = torch.randn(1, 3, *shape, generator=torch.Generator().manual_seed(0))
    smooth = gaussian(noise, 4.0)
    truth = Transform((Displacement(fixed_grid, smooth * (0.5 / smooth.std())), Affine(linear)))
    moving = Transform(()).resample(brain, moving_grid)
    fixed = truth.resample(brain, fixed_grid)
    folder = tmp_path_factory.mktemp("known")
    pair = []
    for name, volume in (("fixed", fixed), ("moving", moving)):
        volume = Image(
            torch.where(volume.data > 0.05 * brain.data.max(), volume.data, 0.0), volume.grid
        )
        image.write(folder / f"{name}.nii", volume)
        pair.append(volume)
    task = peer.Task(folder / "fixed.nii", folder / "moving.nii", folder)
    return Known(task, *pair, truth)
