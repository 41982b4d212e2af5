"""The network of 2017: shapes, supervision at every level, training."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from bids_fcnreg.fcn.filters import gaussian
from bids_fcnreg.fcn.geometry import Grid
from bids_fcnreg.fcn.network import FCN2017
from bids_fcnreg.fcn.objective import Objective
from bids_fcnreg.fcn.pair import Pair
from bids_fcnreg.fcn.training import Training, predict, summed_cost, train


def make_pair(shape: tuple[int, int, int], shift: int = 2) -> Pair:
    """A smooth random image and itself, moved along i."""
    noise = torch.randn(1, 1, *shape, generator=torch.Generator().manual_seed(0))
    fixed = gaussian(noise, 2.0)
    fixed = (fixed - fixed.min()) / (fixed.max() - fixed.min())
    weight = torch.zeros_like(fixed)
    weight[..., 4:-4, 4:-4, 4:-4] = 1
    return Pair(fixed, fixed.roll(shift, dims=2), weight, None, Grid(shape, np.eye(4)))


@pytest.mark.parametrize("shape", [(16, 20, 24), (17, 22, 13)])
@pytest.mark.parametrize("widths", [(4, 8), (4, 6, 8)])
def test_a_displacement_at_every_resolution(shape, widths):
    pair = make_pair(shape)
    displacements = FCN2017(widths)(pair.fixed, pair.moving)
    assert len(displacements) == len(widths)
    assert displacements[0].shape == (1, 3, *shape)
    multiple = 2 ** (len(widths) - 1)
    padded = [-(-size // multiple) * multiple for size in shape]
    for level, displacement in enumerate(displacements[1:], start=1):
        assert displacement.shape == (1, 3, *(size // 2**level for size in padded))


def test_it_starts_close_to_the_identity():
    torch.manual_seed(0)
    pair = make_pair((16, 16, 16))
    assert all(d.abs().max() < 0.1 for d in FCN2017()(pair.fixed, pair.moving))


def test_every_resolution_is_supervised():
    pair = make_pair((16, 16, 16))
    network = FCN2017((4, 6, 8))
    summed_cost(network, pair, Objective()).backward()
    assert all(layer.weight.grad.abs().max() > 0 for layer in network.regressions)
    assert all(parameter.grad is not None for parameter in network.parameters())


def test_what_is_excluded_does_not_count():
    pair = make_pair((16, 16, 16))
    everything = Pair(pair.fixed, pair.moving, pair.weight, torch.ones_like(pair.fixed), pair.grid)
    network = FCN2017((4, 8))
    cost = summed_cost(network, everything, Objective(strength=0.0))
    assert float(cost.detach()) == 0


def test_training_on_one_pair_finds_its_shift():
    torch.manual_seed(0)
    pair = make_pair((24, 24, 24))
    network = FCN2017((8, 16, 16))
    costs = []
    train(network, (pair for _ in range(60)), Training(60), lambda _, cost: costs.append(cost))
    assert len(costs) == 60
    assert costs[-1] < costs[0] - 0.5
    found = predict(network, pair).field[0][:, pair.weight[0, 0] > 0].median(dim=1).values
    torch.testing.assert_close(found, torch.tensor([2.0, 0.0, 0.0]), atol=0.4, rtol=0)


def test_training_is_deterministic():
    pair = make_pair((16, 16, 16))
    results = []
    for _ in range(2):
        torch.manual_seed(3)
        network = FCN2017((4, 8))
        train(network, (pair for _ in range(3)), Training(3))
        results.append(predict(network, pair).field)
    assert torch.equal(*results)
