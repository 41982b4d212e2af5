"""Quality numbers tell what is wrong with a registration."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from bids_fcnreg.fcn.geometry import Grid, Image
from bids_fcnreg.fcn.pair import Pair, make_pair
from bids_fcnreg.fcn.quality import Quality, assess, lowest_similarity, similarity
from bids_fcnreg.fcn.transform import Displacement

SHAPE = (80, 90, 80)


@pytest.fixture(scope="module")
def pair() -> Pair:
    """A textured ball, 130 mm wide, and the same again."""
    grid = Grid(SHAPE, np.diag([2.0, 2.0, 2.0, 1.0]))
    centre = torch.tensor([80.0, 90.0, 80.0])
    inside = (grid.points().float() - centre).norm(dim=-1) < 65
    noise = torch.randn(1, 1, *SHAPE, generator=torch.Generator().manual_seed(0))
    texture = torch.nn.functional.avg_pool3d(noise, 3, 1, 1)
    brain = Image(torch.where(inside, 50 + 40 * texture, 0.0).clamp(min=0), grid)
    mask = Image(inside[None, None].float(), grid)
    return make_pair(brain, brain, np.eye(4), mask, mask)


def spoiled(pair: Pair, part: float) -> torch.Tensor:
    """The moving image with something else in the lowest part of its length along j."""
    warped = pair.moving.clone()
    width = int(part * warped.shape[3])
    warped[:, :, :, :width] = warped[:, :, :, :width].flip(2)
    return warped


def test_a_part_that_is_wrong_shows_in_the_lowest_similarity(pair):
    right, wrong = (lowest_similarity(pair, spoiled(pair, part)) for part in (0, 0.4))
    assert right == pytest.approx(1, abs=0.01)
    assert wrong < 0.2
    assert similarity(replace(pair, moving=spoiled(pair, 0.4))) > 0.5  # most of it is right


def test_perfect_and_cut_off_brains(pair):
    still = Displacement(pair.grid, torch.zeros(1, 3, *pair.grid.shape))
    quality = Quality("refine", "cpu")
    assess(quality, pair, still, still)
    assert quality.brain_overlap == pytest.approx(1, abs=1e-3)
    assert quality.similarity == pytest.approx(1, abs=0.01)
    assert (quality.folds_percent, quality.sd_log_jacobian) == (0, 0)
    cut = pair.moving.clone()
    cut[..., : cut.shape[-1] // 2] = 0
    half = Quality("refine", "cpu")
    assess(half, replace(pair, moving=cut), still, still)
    assert half.brain_overlap == pytest.approx(2 / 3, abs=0.05)  # half of one, all of the other
    assert half.similarity_lowest < 0.1


def test_brains_smaller_than_the_cubes_are_judged_too():
    grid = Grid((14, 14, 14), np.diag([2.0, 2.0, 2.0, 1.0]))
    data = torch.rand(1, 1, 14, 14, 14, generator=torch.Generator().manual_seed(1))
    pair = make_pair(Image(data, grid), Image(data, grid), np.eye(4))
    assert 0.5 < lowest_similarity(pair, pair.moving) <= 1.0001
