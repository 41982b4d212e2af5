"""Brains that are cut off by the field of view."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from bids_fcnreg.fcn.field_of_view import beyond_field_of_view, open_sides
from bids_fcnreg.fcn.pair import make_pair
from bids_fcnreg.fcn.refine import Refinement, refine
from bids_fcnreg.fcn.spatial.displacement import exponentiate
from bids_fcnreg.fcn.spatial.filters import gaussian
from bids_fcnreg.fcn.spatial.grid import Grid, Image
from bids_fcnreg.fcn.spatial.transform import Affine, Displacement, Transform

SHAPE = (40, 44, 42)


def _ball(shape=SHAPE, radius: float = 16.0) -> torch.Tensor:
    centre = torch.tensor([(n - 1) / 2 for n in shape])
    grid = torch.stack(torch.meshgrid(*(torch.arange(n) for n in shape), indexing="ij"), dim=-1)
    return (grid - centre).norm(dim=-1) < radius


def test_a_whole_brain_has_no_open_sides():
    assert open_sides(_ball()) == ((False, False),) * 3


@pytest.mark.parametrize("axis", range(3))
@pytest.mark.parametrize("end", range(2))
def test_a_cut_is_an_open_side(axis: int, end: int):
    part = _ball().narrow(axis, 10 if end == 0 else 0, SHAPE[axis] - 10)
    sides = open_sides(part)
    assert sides[axis][end]
    assert sum(map(sum, sides)) == 1


def test_a_brain_that_just_touches_the_end_is_whole():
    assert not any(map(any, open_sides(_ball(radius=19.6))))


@pytest.mark.parametrize("turned", [False, True], ids=["plumb", "turned"])
def test_voxels_beyond_the_end(turned: bool):
    affine = np.diag([-2.0, 2.0, 2.0, 1.0])
    if turned:  # about the second axis
        c, s = np.cos(0.3), np.sin(0.3)
        affine[:3, :3] = [[c, 0, s], [0, 1, 0], [-s, 0, c]] @ affine[:3, :3]
    whole = Grid(SHAPE, affine)
    mask = Image(_ball()[None, None, ..., 14:].float().contiguous(), whole.crop((0, 0, 14), SHAPE))
    shift = np.eye(4)
    shift[:3, 3] = 3, -4, 5
    grid = Grid((30, 32, 28), np.diag([3.0, 3.0, 3.0, 1.0]))
    beyond = beyond_field_of_view(mask, Transform((Affine(shift),)), grid)
    points = grid.points().numpy() + shift[:3, 3]
    matrix = np.linalg.inv(mask.grid.affine)
    expected = points @ matrix[2, :3] + matrix[2, 3] < 0.5
    assert np.array_equal(beyond[0, 0].numpy() > 0, expected)
    assert 0 < expected.mean() < 1


def test_voxels_beyond_the_end_after_a_displacement():
    whole = Grid(SHAPE, np.eye(4))
    mask = Image(_ball()[None, None, 14:].float().contiguous(), whole.crop((14, 0, 0), SHAPE))
    field = torch.zeros(1, 3, *SHAPE)
    field[:, 0] = torch.linspace(-3, 4, SHAPE[1])[:, None]  # along i, increasing with j
    beyond = beyond_field_of_view(mask, Transform((Displacement(whole, field),)), whole)
    expected = torch.arange(SHAPE[0])[:, None, None] + field[0, 0] < 14.5
    assert torch.equal(beyond[0, 0] > 0, expected)


def test_a_complete_brain_has_nothing_beyond():
    mask = Image(_ball()[None, None].float(), Grid(SHAPE, np.eye(4)))
    assert beyond_field_of_view(mask, Transform(()), mask.grid) is None


def test_what_is_beyond_is_excluded_at_coarser_resolutions():
    """It is resampled once, though the pair has it under two names; a lesion adds to one of them."""
    whole = Grid(SHAPE, np.diag([3.0, 3.0, 3.0, 1.0]))
    ball = _ball()[None, None].float()
    textured = ball * torch.rand(ball.shape, generator=torch.Generator().manual_seed(0))
    part = whole.crop((0, 0, 14), SHAPE)
    moving, mask = (Image(one[..., 14:].contiguous(), part) for one in (textured, ball))
    lesion = torch.zeros_like(mask.data)
    lesion[..., 20:23, 20:23, 10:13] = 1
    fixed, inside = Image(textured, whole), Image(ball, whole)
    for exclude in (None, Image(lesion, part)):
        pair = make_pair(fixed, moving, np.eye(4), inside, mask, exclude)
        coarse = pair.coarser(6.0)
        alone = replace(pair, beyond=None).coarser(6.0)
        assert torch.equal(coarse.moving_exclude, alone.moving_exclude)
        assert torch.equal(coarse.beyond, replace(pair, moving_exclude=None).coarser(6.0).beyond)
        assert (coarse.moving_exclude is coarse.beyond) == (exclude is None)


def test_tissue_is_not_dragged_across_the_cut():
    generator = torch.Generator().manual_seed(2)
    noise = gaussian(torch.randn(1, 1, *SHAPE, generator=generator), 1.5)
    brain = _ball()[None, None].float()
    grid = Grid(SHAPE, np.diag([3.0, 3.0, 3.0, 1.0]))
    fixed = Image((0.6 + 0.15 * noise / noise.std()).clamp(0.1, 1.3) * brain, grid)
    velocity = gaussian(torch.randn(1, 3, *SHAPE, generator=generator), 5.0)
    truth = Displacement(grid, exponentiate(1.2 * velocity / velocity.std(), 5))
    moving, mask = (
        Transform((truth,)).inverse().resample(Image(one, grid), grid)
        for one in (fixed.data, brain)
    )
    lower = (0, 0, 14)
    part = grid.crop(lower, SHAPE)
    moving, mask = (
        Image(one.data[..., 14:].contiguous(), part)
        for one in (moving, Image((mask.data > 0.5).float(), grid))
    )
    settings = Refinement(spacings=(3.0,), steps=(40,), update_sigma=(1.7,), field_sigma=(1.0,))
    errors = []
    for known in (True, False):
        pair = make_pair(fixed, moving, np.eye(4), Image(brain, grid), mask)
        if not known:
            pair = replace(pair, moving_exclude=None)
        forward, _ = refine(pair, settings=settings).tapered().compose()
        points = grid.points()[brain[0, 0] > 0]
        ends = Transform((truth,)).map(points)
        near = (ends[:, 2] - 3.0 * lower[2]).abs() < 15
        found = Transform((forward,)).map(points)
        errors.append((found - ends).norm(dim=1)[near].quantile(0.95))
    assert errors[0] < 0.9 * errors[1]
