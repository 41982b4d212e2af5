"""Levels of the refinement: without enough memory, and for coarse images."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from bids_fcnreg.fcn import refine as module
from bids_fcnreg.fcn.cpu import kernels
from bids_fcnreg.fcn.refine import Refinement, refine
from bids_fcnreg.fcn.spatial.grid import Grid

pytestmark = pytest.mark.slow

SETTINGS = Refinement(spacings=(4.0, 2.0, 1.0), steps=(3, 3, 3))


def test_one_level_falls_back_to_the_cpu(make_random_pair, monkeypatch):
    """Every level is a part of its own, and gives the same wherever it is computed."""
    pair = make_random_pair((40, 40, 40))
    whole = refine(pair, settings=SETTINGS)
    parts = []

    def scarce(compute, place, part):
        parts.append(part)
        return compute(torch.device("cpu"))  # as after a failure on a GPU

    monkeypatch.setattr(module, "with_fallback", scarce)
    piecewise = refine(pair, settings=SETTINGS)
    assert parts == [f"the refinement at {spacing} mm" for spacing in (4, 2, 1)]
    assert torch.equal(piecewise.to_moving, whole.to_moving)
    assert float(whole.to_moving.abs().max()) > 0.1


@pytest.mark.parametrize(("voxel_mm", "level"), [(6.0, 0), (3.0, 1), (2.0, 1), (1.5, 2)])
def test_steps_at_the_finest_level_are_made_at_the_resolution_of_coarse_images(
    voxel_mm, level, make_random_pair
):
    pair = make_random_pair((20, 20, 20))
    pair = replace(pair, grid=Grid(pair.grid.shape, np.diag([voxel_mm] * 3 + [1.0])))
    steps = [0, 0, 0]
    steps[level] = 3
    at_the_level, finest = (
        refine(pair, settings=replace(SETTINGS, steps=each)) for each in (steps, (0, 0, 3))
    )
    assert finest.grid.matches(pair.grid)
    assert float(finest.to_moving.abs().max()) > 0.1
    assert torch.equal(finest.to_moving, at_the_level.to_moving)


def test_what_is_not_known_does_not_shorten_steps(make_random_pair, monkeypatch):
    """With and without kernels; the moving image goes on where the fixed one has no weight."""
    pair = make_random_pair((40, 40, 40))
    exclude = torch.zeros_like(pair.weight)
    exclude[..., 22:] = 1
    pair.weight[..., 26:] = 0
    found = []
    for switch in ("1", "0"):
        monkeypatch.setenv(kernels.SWITCH, switch)
        whole, part = (
            refine(replace(pair, moving_exclude=without), settings=SETTINGS).to_moving
            for without in (None, exclude)
        )
        assert part[..., :18].abs().max() > 0.8 * whole[..., :18].abs().max()
        found.append(part)
    torch.testing.assert_close(*found, atol=0.05, rtol=0)
