"""A brain is told from its mirror image by the asymmetry that brains share."""

from __future__ import annotations

import nibabel as nib
import numpy as np
import pytest
from scipy.ndimage import gaussian_filter, zoom

from bids_fcnreg.bids.builtin_templates import BUILTIN_FILES
from bids_fcnreg.config import ASYMMETRIC_TEMPLATE, SYMMETRIC_TEMPLATE
from bids_fcnreg.qc.asymmetry import (
    SHAPE as PATTERN,
)
from bids_fcnreg.qc.asymmetry import (
    asymmetry,
    left_right_difference,
    mean_pattern,
    pattern_similarity,
    to_symmetric,
)

SHAPE = (197, 233, 189)  # of the built-in template
SMALL = (48, 40, 36)


def smooth_noise(seed: int, shape: tuple[int, ...] = SMALL) -> np.ndarray:
    noise = gaussian_filter(np.random.default_rng(seed).normal(size=shape), 5)
    return noise / noise.std()


@pytest.fixture(scope="module")
def brains() -> np.ndarray:
    """Maps of brains that differ, with one thing in common."""
    common = smooth_noise(100)
    return np.array([common + smooth_noise(seed) for seed in range(20)])


def test_mean_pattern_detects_flips(brains):
    mask = np.ones(SMALL)
    known = mean_pattern(np.array([left_right_difference(one, mask) for one in brains[:15]]))
    for one in brains[15:]:
        score = pattern_similarity(left_right_difference(one, mask), known)
        mirrored = pattern_similarity(left_right_difference(one[::-1], mask), known)
        assert score > 0.15
        assert mirrored == pytest.approx(-score, abs=0.02)


def test_symmetric_maps_have_no_asymmetry():
    one = smooth_noise(3)
    assert (
        pattern_similarity(
            left_right_difference(one + one[::-1], np.ones(SMALL)), smooth_noise(4)[0]
        )
        == 0
    )


def test_one_side_without_brain_says_nothing():
    mask = np.ones(SMALL)
    mask[: SMALL[0] // 2] = 0
    assert not left_right_difference(smooth_noise(5), mask).any()


def test_the_pattern_of_the_package_fits_the_built_in_template():
    score = asymmetry(smooth_noise(6, SHAPE), np.ones(SHAPE))
    assert -1 < score < 1 and score != 0


@pytest.mark.parametrize("step", [2, 4])
@pytest.mark.parametrize("seed", range(3))
def test_voxels_of_any_size_have_the_same_asymmetry(step, seed):
    """Every second or fourth voxel of a map, and of its mask."""
    noise = np.random.default_rng(seed).standard_normal((25, 30, 24))
    smooth = gaussian_filter(noise, 1.5)
    growth = zoom(smooth, np.divide((197, 233, 189), smooth.shape), order=1).astype("float32")
    mask = np.zeros(growth.shape, bool)
    mask[30:-30, 30:-30, 30:-30] = True
    every = (slice(None, None, step),) * 3
    whole, part = asymmetry(growth, mask), asymmetry(growth[every], mask[every])
    assert part == pytest.approx(whole, abs=0.02)


@pytest.fixture(scope="module")
def both() -> list[np.ndarray]:
    """Brains of the symmetric and of the asymmetric template."""
    names = SYMMETRIC_TEMPLATE, ASYMMETRIC_TEMPLATE
    return [nib.load(BUILTIN_FILES[name].path("t1")).get_fdata(dtype="float32") for name in names]


def test_the_stored_registration_aligns_the_templates(both):
    symmetric, asymmetric = both
    growth, _ = to_symmetric(0 * asymmetric, asymmetric, ASYMMETRIC_TEMPLATE)
    moved, mask = to_symmetric(asymmetric, asymmetric, ASYMMETRIC_TEMPLATE)
    expected = zoom(symmetric, np.divide(PATTERN, symmetric.shape), order=1)
    plain = zoom(asymmetric, np.divide(PATTERN, asymmetric.shape), order=1)
    similarity = [np.corrcoef(one[mask], expected[mask])[0, 1] for one in (moved - growth, plain)]
    assert similarity[0] > 0.95 > 0.8 > similarity[1]
    assert 2 * (mask & (expected > 0)).sum() / (mask.sum() + (expected > 0).sum()) > 0.97


def test_the_stored_registration_keeps_the_volume_of_the_brain(both):
    """The sum of the Jacobian determinant over one brain is the volume of the other."""
    symmetric, asymmetric = both
    growth, mask = to_symmetric(0 * asymmetric, asymmetric, ASYMMETRIC_TEMPLATE)
    ratio = (asymmetric > 0).sum() / (symmetric > 0).sum()
    assert np.exp(growth[mask]).mean() == pytest.approx(ratio, abs=0.02)


@pytest.mark.parametrize("step", [1, 2])
def test_the_average_brain_is_as_asymmetric_as_most(both, step):
    """The asymmetric template, registered to itself."""
    asymmetric = both[1][(slice(None, None, step),) * 3]
    score = asymmetry(0 * asymmetric, asymmetric, ASYMMETRIC_TEMPLATE)
    assert score > 0.3
