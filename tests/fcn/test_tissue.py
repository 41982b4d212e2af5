"""Classification of tissue: intensities sharpen blurred posteriors, whatever the contrast."""

import numpy as np
import pytest
import torch

from bids_fcnreg.fcn.segment import Anatomy
from bids_fcnreg.fcn.spatial.filters import gaussian
from bids_fcnreg.fcn.spatial.grid import Grid, Image
from bids_fcnreg.fcn.structures import STRUCTURES, TISSUES
from bids_fcnreg.fcn.tissue import classify, most_probable

#: Intensities of background, CSF, left cortex, left white matter in four contrasts.
CONTRASTS = {
    "T1w": (0.0, 20.0, 60.0, 100.0),
    "T2w": (0.0, 100.0, 55.0, 40.0),
    "FLAIR": (0.0, 15.0, 90.0, 70.0),
    "offset": (-1000.0, -900.0, -860.0, -830.0),
}
LABELS = (0, 24, 3, 2)


@pytest.fixture(scope="module")
def head():
    """True labels of nested wavy shells at 1 mm, and posteriors blurred to 4 mm on a 2 mm grid."""
    grid = Grid((64, 66, 62), np.eye(4))
    radius = (grid.points() - torch.tensor(grid.centre)).norm(dim=-1)
    points = grid.points()
    radius = radius + 2 * torch.sin(points[..., 0] / 4) * torch.sin(points[..., 1] / 5)
    truth = torch.zeros(grid.shape)
    for label, limit in zip(LABELS[1:], (28, 25, 19), strict=True):
        truth[radius < limit] = label
    channels = torch.stack([(truth == label).float() for label in STRUCTURES])[None]
    coarse = gaussian(channels, 3)[..., ::2, ::2, ::2]
    return truth, Anatomy(coarse, Grid(coarse.shape[2:], np.diag([2.0, 2, 2, 1]))), grid


@pytest.fixture(scope="module", params=list(CONTRASTS))
def classified(request, head):
    truth, anatomy, grid = head
    values = CONTRASTS[request.param]
    data = torch.zeros(grid.shape)
    for label, value in zip(LABELS, values, strict=True):
        data[truth == label] = value
    spread = 0.03 * (max(values) - min(values))
    data += spread * torch.randn(grid.shape, generator=torch.Generator().manual_seed(0))
    return classify(Image(data[None, None], grid), anatomy)


def dice(found, truth, label):
    one, other = found == label, truth == label
    return float(2 * (one & other).sum() / (one.sum() + other.sum()))


def test_borders_of_tissues_are_those_of_the_intensities(head, classified):
    truth, anatomy, grid = head
    values = torch.tensor([float(label) for label in STRUCTURES])
    blurred = torch.nn.functional.interpolate(anatomy.posteriors, grid.shape, mode="trilinear")
    before = values[blurred[0].argmax(dim=0)]
    found = classified.labels.data[0, 0]
    for label in (2, 3):
        assert dice(found, truth, label) > max(0.95, dice(before, truth, label) + 0.02)


def test_tissues_are_sums_of_structures(head, classified):
    truth, _, _ = head
    tissues = classified.tissues.data[0]
    assert list(TISSUES) == ["GM", "WM", "CSF"]
    assert tissues.sum(dim=0).max() < 1 + 1e-4
    for tissue, label, least in zip(tissues, (3, 2, 24), (0.85, 0.95, 0.6), strict=True):
        assert tissue[truth == label].mean() > least
        assert tissue[truth == 0].mean() < 0.15


def test_intensities_like_those_of_a_t1w_image(head, classified):
    truth, _, _ = head
    like = classified.t1w_like.data[0, 0]
    means = [like[truth == label].mean().item() for label in LABELS]
    assert means == pytest.approx([0.0, 0.32, 0.62, 1.0], abs=0.12)


def test_a_scan_without_brain_is_background(head):
    _, anatomy, grid = head
    posteriors = torch.zeros_like(anatomy.posteriors)
    posteriors[:, 0] = 1
    found = classify(Image(torch.rand(1, 1, *grid.shape), grid), Anatomy(posteriors, anatomy.grid))
    assert not found.labels.data.any() and not found.tissues.data.any()


def test_most_probable_is_the_first_of_the_largest():
    generator = torch.Generator().manual_seed(0)
    maps = torch.randint(0, 4, (1, 3, 8, 9, 10), generator=generator).float()  # many are equal
    assert torch.equal(most_probable(maps).long(), maps.argmax(dim=1, keepdim=True))
