"""A brain is told from its mirror image by the asymmetry that brains share."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter, zoom

from bids_fcnreg.qc.asymmetry import (
    asymmetry,
    left_right_difference,
    mean_pattern,
    pattern_similarity,
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
