"""The network of 2017: shapes, and supervision at every level."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from bids_fcnreg.fcn.losses.objective import Objective
from bids_fcnreg.fcn.nets.li_fan_2017 import FCN2017


@pytest.mark.parametrize("shape", [(16, 20, 24), (17, 22, 13)])
@pytest.mark.parametrize("widths", [(4, 8), (4, 6, 8)])
def test_a_displacement_at_every_resolution(make_random_pair, shape, widths):
    pair = make_random_pair(shape)
    network = FCN2017(widths, spacing=1.0)
    displacements = network(pair.fixed, pair.moving)
    assert len(displacements) == len(widths)
    assert displacements[0].shape == (1, 3, *shape)
    multiple = 2 ** (len(widths) - 1)
    padded = [-(-size // multiple) * multiple for size in shape]
    for level, displacement in enumerate(displacements[1:], start=1):
        assert displacement.shape == (1, 3, *(size // 2**level for size in padded))
    assert torch.equal(network.deform(pair).to_moving, displacements[0])


def test_untrained_network_is_close_to_the_identity(make_random_pair):
    torch.manual_seed(0)
    pair = make_random_pair((16, 16, 16))
    assert all(d.abs().max() < 0.1 for d in FCN2017()(pair.fixed, pair.moving))


def test_every_resolution_is_supervised(make_random_pair):
    pair = make_random_pair((16, 16, 16))
    network = FCN2017((4, 6, 8), spacing=1.0)
    network.cost(pair, Objective()).backward()
    assert all(layer.weight.grad.abs().max() > 0 for layer in network.regressions)
    assert all(parameter.grad is not None for parameter in network.parameters())


def test_excluded_voxels_do_not_change_the_cost(make_random_pair):
    pair = make_random_pair((16, 16, 16))
    everything = replace(pair, moving_exclude=torch.ones_like(pair.fixed))
    network = FCN2017((4, 8), spacing=1.0)
    cost = network.cost(everything, Objective(strength=0.0))
    assert float(cost.detach()) == 0


def test_network_resamples_images_to_its_spacing(make_random_pair):
    pair = make_random_pair((16, 20, 24))
    deformation = FCN2017((4, 8), spacing=2.0).deform(pair)
    assert deformation.grid.shape == (8, 10, 12)
    assert not deformation.to_fixed.any()
