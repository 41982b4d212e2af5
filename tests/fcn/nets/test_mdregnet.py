"""The default network: symmetric, without folds, and useful before it is trained."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from bids_fcnreg.fcn.losses.objective import Objective
from bids_fcnreg.fcn.nets.mdregnet import DiffeomorphicFCN
from bids_fcnreg.fcn.pair import Pair
from bids_fcnreg.fcn.spatial.displacement import jacobian_determinant
from bids_fcnreg.fcn.spatial.midpoint import MidpointDeformation

OBJECTIVE = Objective(regularity="diffusion", strength=0.1)


def small(**changes) -> DiffeomorphicFCN:
    arguments = {"spacings": (2.0, 1.0), "passes": (2, 2), "widths": (8, 16)}
    return DiffeomorphicFCN(**arguments | changes)


def randomised() -> DiffeomorphicFCN:
    """A network that moves things whatever it sees, as no training ever looked at it."""
    torch.manual_seed(1)
    network = small()
    for level in network.levels:
        torch.nn.init.normal_(level.regression.weight, std=0.05)
        torch.nn.init.normal_(level.regression.bias, std=0.3)
    return network


@pytest.fixture(scope="module")
def pair(make_random_pair) -> Pair:
    return make_random_pair((25, 30, 27))


@pytest.fixture(scope="module")
def deformed(pair) -> tuple[MidpointDeformation, MidpointDeformation]:
    """What a network gives for a pair, and for the pair with its images exchanged."""
    network = randomised()
    exchanged = replace(pair, images=pair.images.flip(0))
    return network.deform(pair), network.deform(exchanged)


def test_exchanging_images_exchanges_displacements(deformed):
    one, other = deformed
    assert one.to_moving.abs().max() > 0.5
    torch.testing.assert_close(one.to_fixed, other.to_moving, atol=1e-4, rtol=0)
    torch.testing.assert_close(one.to_moving, other.to_fixed, atol=1e-4, rtol=0)


def test_exchanging_the_images_inverts_the_whole(deformed):
    """Away from the border, beyond which displacements are not known; in voxels."""
    (forward, inverse), (other_forward, other_inverse) = (
        deformation.compose() for deformation in deformed
    )
    inside = (..., *[slice(3, -3)] * 3)
    for one, other in ((forward, other_inverse), (inverse, other_forward)):
        apart = (one.field - other.field)[inside].abs()
        assert apart.max() < 0.1
        assert apart.mean() < 0.01


def test_no_folds_whatever_the_weights_and_images(make_random_pair):
    network = randomised()
    for seed in range(3):
        noise = torch.rand(2, 1, 25, 30, 27, generator=torch.Generator().manual_seed(seed))
        pair = replace(make_random_pair((25, 30, 27)), images=noise)
        deformation = network.deform(pair)
        for half in (deformation.to_fixed, deformation.to_moving):
            assert jacobian_determinant(half).min() > 0


@pytest.mark.parametrize("shape", [(17, 22, 13), (16, 16, 16), (33, 19, 21)])
def test_any_size_will_do(make_random_pair, shape):
    pair = make_random_pair(shape)
    deformation = small().deform(pair)
    assert deformation.grid.matches(pair.grid)
    assert deformation.to_fixed.shape == deformation.to_moving.shape == (1, 3, *shape)


def test_the_force_helps_before_any_training(pair):
    torch.manual_seed(0)
    network = small()
    deformation = network.deform(pair)
    none = MidpointDeformation.identity(pair.grid, pair.fixed)
    before, after = (float(OBJECTIVE.midpoint_cost(pair, one)) for one in (none, deformation))
    assert after < before - 0.2


def test_smoothing_the_divergence_resists_changes_of_volume(pair):
    """In noisy images, it changes volumes less; without the noise, they are aligned no worse."""
    torch.manual_seed(0)
    network = small(passes=(4, 4))
    noisy = replace(pair, images=pair.images + 0.1 * torch.randn_like(pair.images))
    nothing = replace(OBJECTIVE, strength=0.0)
    found = {}
    for rate in (0.0, 0.2):
        network.divergence_rate = rate
        deformation = network.deform(noisy)
        forward, _ = deformation.compose()
        volumes = jacobian_determinant(forward.field)[0, 0][pair.weight[0, 0] > 0]
        similarity = -float(nothing.midpoint_cost(pair, deformation))
        found[rate] = float(volumes.log().std()), similarity
    assert found[0.2][0] < 0.9 * found[0.0][0]
    assert found[0.2][1] >= found[0.0][1]


@pytest.mark.parametrize("rate", [-0.1, 0.4, float("nan")])
def test_a_rate_that_is_unstable_is_refused(rate):
    with pytest.raises(ValueError, match="stable"):
        small(divergence_rate=rate)


def test_every_level_is_trained_in_its_own_stage(pair):
    network = small()
    for stage in range(2):
        network.zero_grad(set_to_none=True)
        network.cost(pair, OBJECTIVE, stage).backward()
        for level, part in enumerate(network.levels):
            gradients = [parameter.grad for parameter in part.parameters()]
            assert all((g is not None) == (level == stage) for g in gradients)


def test_excluded_voxels_do_not_change_the_cost(pair):
    everything = replace(pair, moving_exclude=torch.ones_like(pair.fixed))
    network = small(spacings=(1.0,), passes=(2,))
    cost = network.cost(everything, replace(OBJECTIVE, strength=0.0), 0)
    assert float(cost.detach()) == 0


def test_a_refinement_starts_without_levels_that_are_untrained(pair):
    network = randomised()
    whole, coarse = network.deform(pair), network.deform(pair, 1)
    assert torch.equal(network.start(pair).to_moving, whole.to_moving)
    network.initialize_stage(1)  # as before its training
    assert torch.equal(network.start(pair).to_moving, coarse.to_moving)
    assert network.deform(pair).grid.shape != coarse.grid.shape
