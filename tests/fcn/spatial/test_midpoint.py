"""Symmetric deformations: deformation, their joining, and what keeps them from folding."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from bids_fcnreg.fcn.spatial.displacement import compose, exponentiate, jacobian_determinant
from bids_fcnreg.fcn.spatial.filters import dilate, gaussian
from bids_fcnreg.fcn.spatial.grid import Grid
from bids_fcnreg.fcn.spatial.inverse import invert
from bids_fcnreg.fcn.spatial.midpoint import (
    MAX_INCONSISTENCY,
    MIN_DETERMINANT,
    MidpointDeformation,
    limit_compression,
    make_inverse_consistent,
)
from bids_fcnreg.fcn.spatial.transform import Displacement

SHAPE = (30, 34, 28)
GRID = Grid(SHAPE, np.diag([2.0, 2.0, 2.0, 1.0]))


def smooth(seed: int, largest: float, sigma: float = 4.0) -> torch.Tensor:
    """A smooth velocity that is zero at the border."""
    noise = torch.randn(1, 3, *SHAPE, generator=torch.Generator().manual_seed(seed))
    window = torch.zeros(1, 1, *SHAPE)
    window[..., 8:-8, 8:-8, 8:-8] = 1
    velocity = gaussian(noise * window, sigma)
    return velocity * largest / velocity.abs().max()


def test_composed_deformation_maps_fixed_to_moving():
    """With deformation exp(-v) and exp(v), the whole is exp(2 v) and its inverse exp(-2 v)."""
    velocity = smooth(0, 1.5)
    deformation = MidpointDeformation(GRID, exponentiate(-velocity), exponentiate(velocity))
    forward, inverse = deformation.compose()
    assert (forward.field - exponentiate(2 * velocity)).abs().max() < 0.1
    assert (inverse.field - exponentiate(-2 * velocity)).abs().max() < 0.1
    assert compose(forward.field, inverse.field).abs().max() < 0.1


def test_exchanging_displacements_inverts_the_deformation():
    first, second = exponentiate(smooth(1, 2.0)), exponentiate(smooth(2, 2.0))
    forward, inverse = MidpointDeformation(GRID, first, second).compose()
    backward, back = MidpointDeformation(GRID, second, first).compose()
    assert (forward.field - back.field).abs().max() < 0.1
    assert (inverse.field - backward.field).abs().max() < 0.1


def test_one_sided_deformation_composes_to_itself():
    field = exponentiate(smooth(3, 2.0))
    forward, _ = MidpointDeformation.one_sided(Displacement(GRID, field)).compose()
    assert (forward.field - field).abs().max() < 0.02


def test_resampled_deformation_keeps_its_millimetres():
    deformation = MidpointDeformation(
        GRID, exponentiate(smooth(4, 2.0)), exponentiate(smooth(5, 2.0))
    )
    fine = deformation.on_grid(GRID.with_spacing(1.0))
    again = fine.on_grid(GRID)
    assert fine.to_moving.abs().max() > 1.8 * deformation.to_moving.abs().max()
    assert (again.to_moving - deformation.to_moving).abs().mean() < 0.02


def test_a_step_is_taken_before_each_half():
    deformation = MidpointDeformation(GRID, smooth(6, 1.0), smooth(7, 1.0))
    step = smooth(8, 0.5)
    moved = deformation.updated(step, -step)
    torch.testing.assert_close(moved.to_fixed, compose(step, deformation.to_fixed))
    torch.testing.assert_close(moved.to_moving, compose(-step, deformation.to_moving))


def test_what_either_image_excludes_is_not_known_at_the_midpoint():
    moved = torch.zeros(1, 3, *SHAPE)
    moved[:, 0] = 2  # the midpoint's voxel i is at i + 2 of the moving image
    deformation = MidpointDeformation(GRID, torch.zeros_like(moved), moved)
    fixed_exclude, moving_exclude = torch.zeros(2, 1, 1, *SHAPE)
    fixed_exclude[..., 5:7, :, :] = 1
    moving_exclude[..., 15:18, :, :] = 1
    expected = torch.ones(1, 1, *SHAPE)
    expected[..., 13:16, :, :] = 0
    torch.testing.assert_close(deformation.known(None, moving_exclude), expected)
    expected[..., 5:7, :, :] = 0
    torch.testing.assert_close(deformation.known(fixed_exclude, moving_exclude), expected)
    assert deformation.known(None, None) is None


def test_unfolding_mends_folds_and_leaves_the_rest_alone():
    field = smooth(9, 1.0)
    field[0, 0, 14, 16, 13] += 3.0
    assert (jacobian_determinant(field) <= 0).any()
    mended = limit_compression(field, least=0.05)
    assert jacobian_determinant(mended).min() >= 0.05
    far = torch.ones(SHAPE, dtype=torch.bool)
    far[4:25, 6:27, 3:24] = False
    assert torch.equal(mended[0][:, far], field[0][:, far])


def test_displacement_without_folds_is_unchanged():
    field = smooth(10, 1.0)
    assert torch.equal(limit_compression(field), field)


def test_there_and_back_is_consistent_between_voxels():
    field = limit_compression(exponentiate(smooth(11, 8.0, sigma=2.0)))
    plain = invert(field)
    astray = compose(field, plain).norm(dim=1, keepdim=True) > MAX_INCONSISTENCY
    assert 0 < astray.double().mean() < 0.05
    forward, inverse = make_inverse_consistent(field)
    assert compose(forward, inverse).norm(dim=1).max() <= MAX_INCONSISTENCY
    assert (jacobian_determinant(forward) > 0).all()
    far = (dilate(astray.float(), 10) == 0).expand_as(field)
    assert far.any() and torch.equal(forward[far], field[far])


def test_consistent_displacement_is_unchanged():
    field = exponentiate(smooth(12, 1.0))
    assert torch.equal(make_inverse_consistent(field)[0], field)


@pytest.mark.parametrize("at", [(2, 16, 13), (16, 31, 13), (16, 16, 1)])
def test_smoothing_beside_the_border_leaves_it_at_zero(at):
    field = torch.zeros(1, 3, *SHAPE)
    field[0, :, *at] = 2.5
    mended = limit_compression(field)
    assert jacobian_determinant(mended).min() >= MIN_DETERMINANT
    for displacement in (mended, *make_inverse_consistent(mended)):
        border = displacement.clone()
        border[..., 1:-1, 1:-1, 1:-1] = 0
        assert displacement.any() and not border.any()
