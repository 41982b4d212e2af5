"""Operations in a part of a grid: what they write, and that kernels and PyTorch agree."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from bids_fcnreg.fcn.cpu import kernels
from bids_fcnreg.fcn.spatial.displacement import compose, gradient_of_divergence, warp
from bids_fcnreg.fcn.spatial.filters import dilate, gaussian, halve
from bids_fcnreg.fcn.spatial.region import Region

SHAPE = (17, 22, 19)


def noise(channels: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(2, channels, *SHAPE, generator=torch.Generator().manual_seed(seed))


def ball(centre: tuple[int, int, int] = (8, 10, 9), radius: float = 5.0) -> torch.Tensor:
    axes = [torch.arange(float(n)) - c for n, c in zip(SHAPE, centre, strict=True)]
    i, j, k = torch.meshgrid(*axes, indexing="ij")
    return (i**2 + j**2 + k**2 < radius**2).float()[None, None]


@pytest.fixture(params=["1", "0"], ids=["kernels", "PyTorch"])
def region(request, monkeypatch) -> Region:
    monkeypatch.setenv(kernels.SWITCH, request.param)
    return Region.around(ball(), 2)


@pytest.mark.parametrize("margin", [0, 1, 4, 40])
@pytest.mark.parametrize("centre", [(8, 10, 9), (0, 0, 0), (16, 21, 18)])
def test_region_contains_the_weight_and_its_margin(centre, margin):
    weight = ball(centre)
    region = Region.around(weight, margin)
    near = dilate(weight, min(margin, 30)) > 0
    assert (region.mask | ~near).all()
    # Only holes in rows are added to it.
    first, last = near.float().argmax(-1), near.float().cumsum(-1).argmax(-1)
    k = torch.arange(SHAPE[2])
    rows = (k >= first[..., None]) & (k <= last[..., None]) & near.any(-1, keepdim=True)
    assert torch.equal(region.mask, rows)


def test_region_of_nothing_is_empty():
    region = Region.around(torch.zeros(1, 1, *SHAPE), 3)
    assert not region.mask.any()
    assert (region.rows[..., 0] == region.rows[..., 1]).all()


def check(region: Region, expected: torch.Tensor, out: torch.Tensor) -> None:
    """Written inside the region only."""
    inside = region.mask.expand_as(out)
    torch.testing.assert_close(out[inside], expected[inside], atol=2e-5, rtol=0)
    assert (out[~inside] == 7).all()


def test_warp(region):
    images, fields, out = noise(2), noise(3, 1), torch.full((2, 2, *SHAPE), 7.0)
    region.warp(images, fields, out)
    check(region, warp(images, fields), out)


def test_smooth(region):
    data, out = noise(3), torch.full((2, 3, *SHAPE), 7.0)
    region.smooth(data, 1.4, out)
    check(region, gaussian(data, 1.4), out)


@pytest.mark.parametrize("wide", [1.0, 2.1])
def test_smooth_adaptively(region, wide):
    data, out = noise(3), torch.full((2, 3, *SHAPE), 7.0)
    share = noise(1, 2)[:1].sigmoid()
    region.smooth_adaptively(data, 0.55, wide, share, out)
    coarse = gaussian(halve(data), ((wide**2 - 1) / 4) ** 0.5)
    fine = torch.nn.functional.interpolate(coarse, scale_factor=2.0, mode="trilinear")
    i, j, k = SHAPE
    check(region, torch.lerp(gaussian(data, 0.55), fine[..., :i, :j, :k], share), out)


def test_the_wider_smoothing_is_that_of_a_gaussian(region):
    smooth = gaussian(noise(3), 1.5)  # as deformations are
    out, share = torch.full((2, 3, *SHAPE), 7.0), torch.ones(1, 1, *SHAPE)
    region.smooth_adaptively(smooth, 0.55, 2.1, share, out)
    expected = gaussian(smooth, 2.1)
    inside = region.mask.expand_as(out)
    assert (out - expected)[inside].std() < 0.03 * smooth[inside].std()


def test_compose_scales_each_step(region):
    fields, out = gaussian(noise(3), 1.0), torch.full((2, 3, *SHAPE), 7.0)
    directions = noise(3, 1) * region.mask * torch.tensor([1e-6, 1e6]).view(2, 1, 1, 1, 1)
    region.compose(directions, 0.5, fields, out)
    longest = directions.norm(dim=1).amax(dim=(1, 2, 3)).view(2, 1, 1, 1, 1)
    check(region, compose(0.5 * directions / longest, fields), out)


@pytest.mark.parametrize("centre", [(8, 10, 9), (0, 21, 18)], ids=["inside", "at the border"])
def test_damp_divergence(monkeypatch, centre):
    fields = noise(3)
    region = Region.around(ball(centre), 2)
    inner = torch.zeros(1, 1, *SHAPE)
    inner[..., 1:-1, 1:-1, 1:-1] = 1
    change = torch.nn.functional.pad(gradient_of_divergence(fields), [1] * 6)
    for switch in "10":
        monkeypatch.setenv(kernels.SWITCH, switch)
        out = torch.full((2, 3, *SHAPE), 7.0)
        region.damp_divergence(fields, 0.2, out)
        check(region, fields + 0.2 * change * inner, out)


@pytest.mark.parametrize(
    ("component", "axis", "kept"),
    [
        # A wave of k radians per voxel that compresses loses 4 sin²(k / 2) times the rate.
        (0, 0, 1 - 0.2 * 4 * np.sin(np.pi / 8) ** 2),
        (2, 2, 1 - 0.2 * 4 * np.sin(np.pi / 8) ** 2),
        (0, 1, 1.0),  # a wave that shears does not change volumes
        (1, 2, 1.0),
    ],
)
def test_damping_resists_changes_of_volume_only(region, component, axis, kept):
    index = torch.arange(float(SHAPE[axis])).reshape([-1 if a == axis else 1 for a in range(3)])
    fields = torch.zeros(2, 3, *SHAPE)
    fields[:, component] = torch.sin(index * np.pi / 4)
    out = torch.full((2, 3, *SHAPE), 7.0)
    region.damp_divergence(fields, 0.2, out)
    check(region, kept * fields, out)
