"""Inverses of deformations, with and without compiled kernels."""

from __future__ import annotations

import pytest
import torch

from bids_fcnreg.fcn.cpu import kernels
from bids_fcnreg.fcn.spatial.displacement import (
    compose,
    exponentiate,
    identity,
    jacobian_determinant,
    warp,
)
from bids_fcnreg.fcn.spatial.filters import dilate, gaussian
from bids_fcnreg.fcn.spatial.inverse import invert, round_trip, update_inverse
from bids_fcnreg.fcn.spatial.midpoint import limit_compression

SHAPE = (44, 48, 40)
INNER = (..., slice(5, -5), slice(5, -5), slice(5, -5))


@pytest.fixture(params=["1", "0"], ids=["compiled", "PyTorch"], autouse=True)
def way(request, monkeypatch) -> None:
    """With the kernels, and without them."""
    monkeypatch.setenv(kernels.SWITCH, request.param)


def deformation(largest: float, sigma: float = 8.0, seed: int = 1) -> torch.Tensor:
    """A diffeomorphism, smooth, the identity towards the border."""
    noise = torch.randn(1, 3, *SHAPE, generator=torch.Generator().manual_seed(seed))
    window = torch.zeros(1, 1, *SHAPE)
    window[..., 12:-12, 12:-12, 12:-12] = 1
    smooth = gaussian(noise, sigma) * gaussian(window, 3.0)
    return exponentiate(largest * smooth / smooth.abs().max())


@pytest.mark.parametrize("tolerance", [0.1, 0.001])
def test_inverse_within_its_tolerance(tolerance):
    there = deformation(2.5)
    back = invert(there, tolerance)
    assert compose(back, there).norm(dim=1).max() < 1.01 * tolerance
    assert compose(there, back)[INNER].norm(dim=1).max() < tolerance + 0.1


@pytest.mark.parametrize("seed", range(3))
def test_every_voxel_of_a_rough_deformation_converges(seed):
    """Where space is compressed to a fifth, a fixed-point iteration gets stuck."""
    there = limit_compression(deformation(5.0, 2.5, seed))
    assert jacobian_determinant(there).min() < 0.25
    assert compose(invert(there), there).norm(dim=1).max() < 0.00101


def test_inverse_of_a_steep_displacement():
    # Compression to a fifth: a plain fixed point would not contract on the way back.
    field = torch.zeros(1, 3, 60, 6, 6)
    i = torch.arange(60.0)
    bump = torch.exp(-(((i - 30) / 8) ** 2))
    field[:, 0] = (-0.93 * 8 * 1.1658 * (i - 30) / 8 * bump)[:, None, None]
    assert jacobian_determinant(field).min() < 0.2
    assert compose(invert(field), field).norm(dim=1).max() < 0.00101


@pytest.mark.parametrize("angle", [0.3, 1.2])
def test_inverse_of_a_rotation(angle):
    turn = torch.linalg.matrix_exp(torch.tensor([[0, angle, 0], [-angle, 0, 0], [0, 0, 0]]))
    places = identity((30, 30, 8), torch.zeros(1)) - 14.5

    def rotation(matrix: torch.Tensor) -> torch.Tensor:
        return torch.einsum("cd,ndijk->ncijk", matrix, places) - places

    inside = places[:, :2].norm(dim=1, keepdim=True).expand_as(places) < 12
    found, expected = invert(rotation(turn), 1e-3), rotation(turn.T)
    torch.testing.assert_close(found[inside], expected[inside], atol=2e-3, rtol=0)


def test_updated_inverse_is_that_of_the_changed_displacement():
    before, bump = deformation(2.5), torch.zeros(1, 1, *SHAPE)
    bump[..., 20:24, 20:24, 20:24] = 1
    after = before + 0.8 * gaussian(bump, 1.0)
    changed = (after != before).any(dim=1, keepdim=True)
    assert 0 < changed.double().mean() < 0.1
    inverse = invert(before, 1e-4)
    left_alone = inverse.clone()
    update_inverse(after, inverse, changed)
    assert compose(inverse, after).norm(dim=1).max() < 0.00101
    assert not torch.equal(inverse, left_alone)
    led_there = warp(changed.float(), left_alone)
    far = (dilate(led_there, 2) == 0).expand_as(inverse)
    assert far.any() and torch.equal(inverse[far], left_alone[far])


def test_round_trip_is_the_length_of_the_composition():
    there, back = deformation(2.5), deformation(2.0, seed=2)
    expected = compose(there, back).norm(dim=1, keepdim=True)
    torch.testing.assert_close(round_trip(there, back), expected, atol=2e-4, rtol=0)
    assert round_trip(there, invert(there))[INNER].max() < 0.2 < expected.max()


def test_nan_stays_where_it_is():
    there = deformation(2.5)
    there[0, :, 20, 20, 0] = torch.nan
    assert invert(there).isnan().any(dim=1).sum() <= 1
