"""Values inside masks and boxes around them, for any order in memory."""

from __future__ import annotations

import numpy as np
import pytest

from bids_fcnreg.fcn.masks import bounding_box, values_inside


@pytest.mark.parametrize("order", ["C", "F"])
def test_values_inside_are_those_of_the_mask(order):
    data = np.random.default_rng(0).normal(size=(5, 6, 7))
    mask = data > 0.5
    found = values_inside(np.asarray(data, order=order), np.asarray(mask, order=order))
    assert sorted(found) == sorted(data[mask])


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("voxels", [[(0, 0, 0)], [(4, 5, 6)], [(1, 5, 2), (3, 0, 6)]])
def test_bounding_box_is_the_smallest(voxels, order):
    mask = np.zeros((5, 6, 7), bool, order=order)
    for voxel in voxels:
        mask[voxel] = True
    places = np.argwhere(mask)
    lowest, highest = places.min(axis=0), places.max(axis=0)
    assert [box.start for box in bounding_box(mask)] == lowest.tolist()
    assert [box.stop for box in bounding_box(mask)] == (highest + 1).tolist()
