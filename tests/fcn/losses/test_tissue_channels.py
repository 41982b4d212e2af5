"""Classes of intensity and the contrasts made of them."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from bids_fcnreg.fcn.losses.tissue_channels import add_border_channels, two_classes
from bids_fcnreg.fcn.pair import Pair
from bids_fcnreg.fcn.spatial.grid import Grid
from bids_fcnreg.fcn.spatial.midpoint import MidpointDeformation

TISSUES = {"csf": 0.25, "grey": 0.62, "white": 0.93}


@pytest.fixture
def brain() -> torch.Tensor:
    """Three tissues with noise, 0 around them: (1, 1, i, j, k)."""
    image = torch.zeros(1, 1, 20, 30, 20)
    for part, intensity in enumerate(TISSUES.values()):
        image[..., 2:18, 3 + 8 * part : 11 + 8 * part, 2:18] = intensity
    noise = torch.randn(image.shape, generator=torch.Generator().manual_seed(0))
    return torch.where(image > 0, image + 0.03 * noise, image)


def contrasts(fixed: torch.Tensor, moving: torch.Tensor) -> Pair:
    grid = Grid(fixed.shape[2:], np.eye(4))
    pair = Pair(torch.cat([fixed, moving]), torch.ones_like(fixed), None, grid)
    return add_border_channels(pair, MidpointDeformation.identity(grid, fixed))


def test_classes_of_a_known_mixture_are_found():
    generator = torch.Generator().manual_seed(0)
    dark = 0.4 + 0.08 * torch.randn(30_000, generator=generator)
    bright = 0.9 + 0.04 * torch.randn(10_000, generator=generator)
    assert two_classes(torch.cat([bright, dark])) == pytest.approx([0.4, 0.9], abs=0.005)


@pytest.mark.parametrize("values", [[0.5], [0.5, 0.5, 0.5], [0.2, 0.8], [0.1, 0.2, 0.9]])
def test_two_classes_of_few_values_are_finite(values):
    low, high = two_classes(torch.tensor(values))
    assert min(values) - 0.05 <= low <= high <= max(values) + 0.05


def test_no_values_have_classes_too():
    assert two_classes(torch.zeros(0)) == (0.0, 1.0)


def test_tissues_lie_on_their_sides_of_the_borders(brain):
    fixed = contrasts(brain, brain).fixed
    assert torch.equal(fixed[:, :1], brain)
    for part, expected in enumerate([(0, 0), (1, 0), (1, 1)]):
        inside = fixed[0, 1:, 4:16, 5 + 8 * part : 9 + 8 * part, 4:16]
        assert inside.mean(dim=(1, 2, 3)).tolist() == pytest.approx(expected, abs=0.1)
    assert fixed[0, 1:, 0].max() < 0.01  # background is dark


def test_each_image_has_borders_of_its_own(brain):
    """A scanner's scale and offset make no difference."""
    pair = contrasts(brain, torch.where(brain > 0, 0.8 * brain + 0.1, brain))
    inside = brain.expand(1, 2, -1, -1, -1) > 0
    assert (pair.moving - pair.fixed)[:, 1:][inside].abs().mean() < 0.01


def test_borders_part_the_same_tissues_in_both_images(brain):
    """Also where the classes found differ: in one image, grey matter is nearly white."""
    pair = contrasts(brain, torch.where(brain > 0.45, 0.9 + 0.1 * (brain - 0.9), brain))
    for name in ("fixed", "moving"):
        shares = (getattr(pair, name)[:, 1:] > 0.5).double().mean(dim=(0, 2, 3, 4))
        assert shares.tolist() == pytest.approx(
            (pair.fixed[:, 1:] > 0.5).double().mean(dim=(0, 2, 3, 4)).tolist(), abs=0.01
        )


def test_images_that_do_not_overlap_have_borders_too(brain):
    empty = brain.roll(15, dims=2) * (torch.arange(20)[:, None, None] > 18)
    pair = contrasts(brain * (torch.arange(20)[:, None, None] < 10), empty)
    assert torch.isfinite(pair.fixed).all() and torch.isfinite(pair.moving).all()
