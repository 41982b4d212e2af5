"""Separable filters against scipy's."""

from __future__ import annotations

import pytest
import torch
from scipy import ndimage
from torch.nn import functional as nnf

from bids_fcnreg.fcn.cpu import kernels
from bids_fcnreg.fcn.losses.similarity import FixedWindows
from bids_fcnreg.fcn.spatial.filters import (
    box,
    box_transposed,
    dilate,
    double,
    fill,
    gaussian,
)

SHAPE = (70, 33, 141)  # fewer and more voxels than a block of rows


@pytest.fixture
def volume() -> torch.Tensor:
    return torch.rand(1, 2, *SHAPE, generator=torch.Generator().manual_seed(0)).double()


@pytest.mark.parametrize("radius", [1, 3])
def test_box_is_the_mean_of_the_window(volume, radius):
    size = 2 * radius + 1
    counted = ndimage.uniform_filter(torch.ones(SHAPE).double().numpy(), size, mode="constant")
    for channel in range(2):
        summed = ndimage.uniform_filter(volume[0, channel].numpy(), size, mode="constant")
        expected = torch.from_numpy(summed / counted)
        torch.testing.assert_close(box(volume, radius)[0, channel], expected)


def test_box_transposed_is_the_adjoint(volume):
    other = volume.flip(2)
    torch.testing.assert_close(
        (box(volume, 2) * other).sum(), (volume * box_transposed(other, 2)).sum()
    )


def test_gaussian_equals_scipy_inside(volume):
    sigma = (1.5, 0.0, 2.0)
    smooth = gaussian(volume, sigma)[0, 0]
    expected = ndimage.gaussian_filter(volume[0, 0].numpy(), sigma, truncate=3)
    inner = (slice(8, -8), slice(None), slice(8, -8))
    torch.testing.assert_close(smooth[inner], torch.from_numpy(expected)[inner], atol=1e-3, rtol=0)


def test_a_constant_stays_one():
    constant = torch.full((1, 3, 20, 9, 11), 2.5)
    torch.testing.assert_close(gaussian(constant, 2.0), constant)
    torch.testing.assert_close(box(constant, 4), constant)


def test_fill_continues_what_is_known():
    known = torch.ones(1, 1, 20, 21, 22)
    known[..., 12:] = 0
    known[..., 11] = 0.5
    image = torch.full((1, 2, 20, 21, 22), 3.0)
    filled = fill(torch.where(known > 0, image, -50.0), known, 3)
    torch.testing.assert_close(filled[..., :15], image[..., :15])
    ramp = torch.arange(22.0).expand(1, 1, 20, 21, 22)
    filled = fill(ramp, known, 3)
    assert torch.equal(filled[..., :11], ramp[..., :11])
    assert filled[..., 12:15].min() > 9 and filled[..., 12:15].max() < 11


def test_correlation_of_filled_images_is_about_that_of_known_voxels(volume):
    first = gaussian(volume[:, :1], 1.0)
    second = first + 0.3 * gaussian(volume[:, 1:], 1.0)
    known = torch.ones_like(first)
    known[..., 5:] = 0
    images = [torch.where(known > 0, image, 0.7) for image in (first, second)]
    values = []
    for pair in (images, [fill(image, known, 2) for image in images]):
        values.append(FixedWindows(pair[0], 2).compare(pair[1]).value[0, 0, :, :, 4])
    # What is known of the windows around k = 4.
    parts = [image[..., 2:5] for image in (first, second)]
    expected = FixedWindows(parts[0], 2).compare(parts[1]).value[0, 0, :, :, 2]
    apart = [float((value - expected).abs().mean()) for value in values]
    assert apart[1] < 0.02 and apart[1] < 0.2 * apart[0]


@pytest.mark.parametrize("radius", [1, 3])
def test_dilate_is_the_largest_in_the_window(volume, radius):
    expected = ndimage.maximum_filter(volume[0, 1].numpy(), 2 * radius + 1)
    assert torch.equal(dilate(volume, radius)[0, 1], torch.from_numpy(expected))
    thin = volume[..., :1]
    assert torch.equal(dilate(thin, 2)[..., 0], dilate(thin, 2).amax(-1))


@pytest.mark.parametrize("shape", [(8, 9, 12), (7, 4, 13), (15, 3, 2)])
@pytest.mark.parametrize("spare", [0, 2], ids=["as small as can be", "larger"])
def test_double_is_linear_interpolation(monkeypatch, shape, spare):
    sizes = [-(-size // 2) + spare for size in shape]
    coarse = torch.rand(1, 3, *sizes, generator=torch.Generator().manual_seed(0))
    i, j, k = shape
    expected = nnf.interpolate(coarse, scale_factor=2, mode="trilinear")[..., :i, :j, :k]
    for switch in "10":
        monkeypatch.setenv(kernels.SWITCH, switch)
        torch.testing.assert_close(double(coarse, shape), expected)
