"""Chains of transforms: mapping, resampling, Jacobian."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from bids_fcnreg.errors import InputError
from bids_fcnreg.fcn.spatial.grid import Grid, Image
from bids_fcnreg.fcn.spatial.transform import Affine, Displacement, Transform, change_grid
from tests.smooth_fields import FIXED_GRID, smooth_displacement


@pytest.fixture(scope="module")
def fixed() -> Grid:
    return FIXED_GRID


@pytest.fixture(scope="module")
def displacement() -> Displacement:
    return smooth_displacement()


def test_a_flat_transform_has_no_inverse():
    with pytest.raises(InputError, match="singular linear transform has no inverse"):
        Affine(np.diag([1.0, 1, 0, 1])).inverse()


def test_a_chain_maps_in_order():
    first = Affine(np.diag([2.0, 1, 1, 1]))
    shift = np.eye(4)
    shift[0, 3] = 1
    chain = Transform((first,)).then(Transform((Affine(shift),)))
    assert chain.map(torch.tensor([3.0, 0, 0], dtype=torch.float64))[0] == 7


def test_labels_are_voted_on():
    labels = torch.zeros(1, 1, 4, 3, 3)
    labels[:, :, 2:] = 7
    labels[:, :, 3] = 9
    moved = np.eye(4)
    grid = Grid((4, 3, 3), np.eye(4))
    for shift, expected in ((0.4, [0, 0, 7, 9]), (0.6, [0, 7, 9, 0])):
        moved[0, 3] = shift
        result = Transform((Affine(moved),)).resample(Image(labels, grid), grid, "label")
        assert result.data[0, 0, :, 1, 1].tolist() == expected
    nearest = Transform((Affine(moved),)).resample(Image(labels, grid), grid, "nearest")
    assert set(nearest.data.unique().tolist()) <= {0, 7, 9}


def test_log_jacobian_of_zooms(fixed):
    zoom = Transform((Affine(np.diag([1.2, 1.1, 0.9, 1.0])),))
    expected = np.log(1.2 * 1.1 * 0.9)
    assert (zoom.log_jacobian(fixed) - expected).abs().max() < 1e-4


def test_change_of_grid_keeps_millimetres(fixed, displacement):
    coarse = change_grid(displacement, fixed.with_spacing(2.0))
    points = fixed.points()[6:-6, 6:-6, 6:-6]
    there, then = (Transform((step,)).map(points) for step in (displacement, coarse))
    assert (then - points).norm(dim=-1).max() > 2
    assert (there - then).norm(dim=-1).max() < 0.4
