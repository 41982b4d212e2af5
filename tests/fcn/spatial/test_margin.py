"""Masks with a margin, against distances to all of their voxels."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.spatial import cKDTree
from scipy.spatial.transform import Rotation

from bids_fcnreg.fcn.spatial.grid import Grid, Image
from bids_fcnreg.fcn.spatial.margin import CELL, with_margin


def grid(spacing: tuple[float, ...], degrees: float, origin: tuple[float, ...]) -> Grid:
    affine = np.eye(4)
    turn = Rotation.from_euler("xyz", [degrees, -degrees, 2 * degrees], degrees=True).as_matrix()
    affine[:3, :3] = turn * spacing
    affine[:3, 3] = origin
    return Grid((31, 28, 26), affine)


GRIDS = {
    "same": grid((1, 1, 1), 0, (0, 0, 0)),
    "larger voxels": grid((2.5, 3, 1.5), 0, (-20, -25, -5)),
    "turned, smaller voxels": grid((0.8, 0.9, 1.1), 25, (4, 2, -3)),
    "beside the mask": grid((1, 1, 1), 0, (20, -3, 4)),
}


@pytest.mark.parametrize("margin", [0.0, 3.0, 6.0])
@pytest.mark.parametrize("onto", GRIDS)
@pytest.mark.parametrize("of", ["same", "larger voxels", "turned, smaller voxels"])
def test_all_within_the_margin_are_found_and_none_far_away(of, onto, margin):
    mask = torch.zeros(1, 1, *GRIDS[of].shape)
    generator = torch.Generator().manual_seed(3)
    for _ in range(3):  # few voxels, also at the border of the image
        mask[(0, 0, *(int(torch.randint(n, (), generator=generator)) for n in mask.shape[2:]))] = 1
    inside = GRIDS[of].points()[mask[0, 0] > 0].numpy()
    distance = cKDTree(inside).query(GRIDS[onto].points().numpy())[0]
    near = with_margin(Image(mask, GRIDS[of]), margin, GRIDS[onto]).numpy()
    assert near.shape == GRIDS[onto].shape
    assert near[distance <= margin].all()
    largest_cells = max(CELL, *GRIDS[of].spacing, *GRIDS[onto].spacing)
    assert not near[distance > np.sqrt(3) * (margin + 3.5 * largest_cells)].any()
