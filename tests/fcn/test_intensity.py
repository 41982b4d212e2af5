"""Brains of any intensities become the same image, outliers or not."""

from __future__ import annotations

import nibabel as nib
import numpy as np
import pytest
import torch

from bids_fcnreg.bids.builtin_templates import nilearn_map
from bids_fcnreg.errors import InputError
from bids_fcnreg.fcn.intensity import (
    CLIP,
    MIDDLE,
    intensity_range,
    intensity_scale,
    standardize,
)
from bids_fcnreg.fcn.spatial.grid import Grid, Image


@pytest.fixture(scope="module")
def brain() -> np.ndarray:
    """A T1w brain with voxels of 2 mm, from 0 to about 1000; CSF as dark as in scans."""
    data = np.asarray(nib.load(nilearn_map("t1")).dataobj, np.float32)[::2, ::2, ::2]
    return np.where(data > 0, 5 * data - 275, 0).clip(0)


def standard(data: np.ndarray, mask: np.ndarray | None = None) -> np.ndarray:
    grid = Grid(data.shape, np.diag([2.0, 2.0, 2.0, 1.0]))
    given = None if mask is None else Image(torch.from_numpy(mask)[None, None].float(), grid)
    tensor = torch.from_numpy(np.ascontiguousarray(data, np.float32))[None, None]
    return standardize(Image(tensor, grid), given, "moving")[0].data[0, 0].numpy()


def inside(change):
    """Apply a change inside the brain only."""
    return lambda b: np.where(b > 0, change(b), 0)


LINEAR = {
    "tiny": lambda b: 1e-20 * b,
    "huge": lambda b: 1e25 * b,
    "offset of 1000": lambda b: b + 1000,
    "negative": lambda b: -b,
    "negative, shifted to be positive": lambda b: 1200 - b,
    "from -1 to 1": lambda b: 2 * b / b.max() - 1,
    "standardized over the volume": lambda b: (b - b.mean()) / b.std(),
    "int16": lambda b: np.rint(b).astype(np.int16),
}


@pytest.mark.parametrize("kind", LINEAR)
def test_offset_scale_and_sign_make_no_difference(brain, kind):
    assert np.abs(standard(LINEAR[kind](brain)) - standard(brain)).max() < 0.01


RESCALED = {
    "offset of 1000 in the brain": inside(lambda b: b + 1000),
    "standardized in the brain": inside(lambda b: (b - b[b > 0].mean()) / b[b > 0].std()),
    "background far below": lambda b: np.where(b > 0, b, -5000),
    "white background": lambda b: np.where(b > 0, b, 1200),
    "uint8": lambda b: (b / 4.5).astype(np.uint8),
}


@pytest.mark.parametrize("kind", RESCALED)
def test_images_without_a_zero_of_their_own_have_the_contrast_of_others(brain, kind):
    expected, found = standard(brain), standard(RESCALED[kind](brain))
    both = (expected > 0) & (found > 0)
    assert np.corrcoef(expected[both], found[both])[0, 1] > 0.995
    dark, middle, bright = np.percentile(found[found > 0], [5, 50, 98])
    assert 0.1 < dark < 0.5 < middle < 0.9 < bright < 1.1


def spoiled(brain: np.ndarray, count: int, value: float, where: str) -> np.ndarray:
    places = np.argwhere(brain == 0 if where == "outside" else brain > 0)
    chosen = np.random.default_rng(count).choice(places, count, replace=False)
    data = brain.copy()
    data[tuple(chosen.T)] = value
    return data


@pytest.mark.parametrize("where", ["inside", "outside"])
@pytest.mark.parametrize("value", [-1e6, 1e4, 1e6, 1e20])
@pytest.mark.parametrize("count", [1, 18, 200])
def test_outliers_change_nothing_but_themselves(brain, count, value, where):
    spoilt = standard(spoiled(brain, count, value, where))
    different = np.abs(spoilt - standard(brain)) > 0.01
    assert different.sum() <= count
    assert spoilt.max() <= CLIP and spoilt.min() >= 0


@pytest.mark.parametrize("value", [-5000, 0, 5000])
@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_spoilt_slice_changes_nothing_but_itself(brain, value, axis):
    data = brain.copy()
    np.moveaxis(data, axis, 0)[brain.shape[axis] // 2] = value
    different = np.abs(standard(data) - standard(brain)) > 0.05
    others = np.delete(different, brain.shape[axis] // 2, axis=axis)
    assert others.mean() < 1e-3


def test_images_of_scanners_keep_their_zero(brain):
    assert intensity_scale(brain, brain > 0) == (0.0, intensity_range(brain[brain > 0])[1])


def test_the_same_again_changes_nothing(brain):
    once = standard(brain - 300)
    assert np.abs(standard(once) - once).max() < 1e-5


@pytest.mark.parametrize("exponent", [0.5, 0.8, 1.5, 2.5])
def test_contrast_of_tissues_is_that_of_scans(brain, exponent):
    mask = brain > 0
    once = standard(brain, mask)
    assert np.median(once[mask]) == pytest.approx(MIDDLE, abs=0.01)
    found = standard(brain.max() * (brain / brain.max()) ** exponent, mask)
    assert np.abs(found - once).max() < 0.01
    assert np.abs(standard(found, mask) - found).max() < 0.01


def test_a_mask_counts_whatever_lies_outside(brain):
    mask = brain > 0
    head = np.where(mask, brain, 3000 * np.random.default_rng(0).random(brain.shape))
    assert np.abs(standard(head, mask) - standard(brain, mask)).max() < 0.01


def test_brains_without_contrast_are_refused(brain):
    for data in (np.zeros_like(brain), np.where(brain > 0, 7, 0)):
        with pytest.raises(InputError, match="moving image has no contrast"):
            standard(data)
    with pytest.raises(InputError, match="no contrast inside its brain mask"):
        standard(brain, np.zeros_like(brain))
