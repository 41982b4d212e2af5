"""Deformations on a grid against what they must be."""

from __future__ import annotations

import pytest
import torch

from bids_fcnreg.fcn.spatial.displacement import (
    compose,
    exponentiate,
    identity,
    invert,
    jacobian_determinant,
    logarithm,
    sample,
    warp,
)
from bids_fcnreg.fcn.spatial.filters import gaussian

SHAPE = (44, 48, 40)
INNER = (..., slice(5, -5), slice(5, -5), slice(5, -5))


@pytest.fixture(scope="module")
def velocity() -> torch.Tensor:
    """Smooth, zero towards the border, up to 2.5 voxels."""
    noise = torch.randn(1, 3, *SHAPE, generator=torch.Generator().manual_seed(1))
    window = torch.zeros(1, 1, *SHAPE)
    window[..., 12:-12, 12:-12, 12:-12] = 1
    smooth = gaussian(noise, 8.0) * gaussian(window, 3.0)
    return 2.5 * smooth / smooth.abs().max()


def test_sampling_is_exact_for_a_linear_image():
    slope = torch.tensor([0.3, -1.0, 2.0]).reshape(1, 3, 1, 1, 1)
    image = (identity((9, 8, 7), torch.zeros(1)) * slope).sum(1, keepdim=True)
    coordinates = torch.rand(1, 3, 4, 5, 6) * 6
    torch.testing.assert_close(
        sample(image, coordinates), (coordinates * slope).sum(1, keepdim=True)
    )


def test_a_shift_pulls_back():
    image = torch.rand(1, 1, 10, 10, 10)
    shift = torch.zeros(1, 3, 10, 10, 10)
    shift[:, 1] = 2
    torch.testing.assert_close(warp(image, shift)[..., :8, :], image[..., 2:, :])
    assert not warp(image, shift)[..., 8:, :].any()


def test_compose_acts_in_order():
    first, second = torch.zeros(2, 1, 3, 8, 8, 8)
    first[:, 0] = 1.0
    second[:, 2] = identity((8, 8, 8), first)[:, 0]  # depends on i: the order shows
    both = compose(first, second)
    assert both[0, 0, 3, 3, 3] == 1
    assert both[0, 2, 3, 3, 3] == 4


def test_exponential_solves_the_flow(velocity):
    place = identity(SHAPE, velocity)
    flow = torch.zeros_like(velocity)
    for _ in range(200):
        flow = flow + sample(velocity, place + flow, padding="border") / 200
    assert (exponentiate(velocity) - flow).abs().max() < 0.05
    assert velocity.abs().max() > 2.4


def test_exponential_of_the_opposite_is_the_inverse(velocity):
    there, back = exponentiate(velocity), exponentiate(-velocity)
    assert compose(there, back)[INNER].abs().max() < 0.1
    assert jacobian_determinant(there).min() > 0


@pytest.mark.parametrize("tolerance", [0.1, 0.001])
def test_inverse_within_its_tolerance(velocity, tolerance):
    there = exponentiate(velocity)
    back = invert(there, tolerance)
    assert compose(back, there).norm(dim=1).max() <= tolerance
    assert compose(there, back)[INNER].norm(dim=1).max() < tolerance + 0.1


def test_inverse_of_a_steep_displacement_converges():
    # Compression to a fifth: a plain fixed point would not contract on the way back.
    field = torch.zeros(1, 3, 60, 6, 6)
    i = torch.arange(60.0)
    bump = torch.exp(-(((i - 30) / 8) ** 2))
    field[:, 0] = (-0.93 * 8 * 1.1658 * (i - 30) / 8 * bump)[:, None, None]
    assert jacobian_determinant(field).min() < 0.2
    back = invert(field, 0.01, iterations=200)
    assert compose(back, field).norm(dim=1).max() <= 0.01


def test_jacobian_of_a_linear_map():
    linear = torch.tensor([[0.2, 0.1, 0.0], [-0.1, -0.3, 0.05], [0.0, 0.2, 0.4]])
    place = identity((6, 7, 8), torch.zeros(1))
    field = torch.einsum("cd,ndijk->ncijk", linear, place)
    expected = torch.linalg.det(torch.eye(3) + linear)
    torch.testing.assert_close(
        jacobian_determinant(field), expected.expand(1, 1, 6, 7, 8), atol=1e-4, rtol=0
    )


def test_a_fold_is_seen():
    field = torch.zeros(1, 3, 12, 5, 5)
    field[:, 0, 5] = 3
    assert jacobian_determinant(field).min() < 0


def test_the_logarithm_of_a_flow_is_its_velocity(velocity):
    found = logarithm(exponentiate(velocity), tolerance=1e-3)
    # Up to what linear interpolation loses while flows are composed; the velocity reaches 2.5.
    error = (found - velocity)[INNER]
    assert error.abs().max() < 0.1
    assert error.square().mean().sqrt() < 0.01
