"""A brain is shown in all greys, whatever else its image holds."""

from __future__ import annotations

import numpy as np
import pytest

from bids_fcnreg.figures.intensity_window import intensity_window

BRAIN = np.random.default_rng(0).normal(100, 20, (30, 30, 30))
INSIDE = np.zeros(BRAIN.shape, bool)
INSIDE[8:22, 8:22, 8:22] = True
PLAIN = intensity_window(np.where(INSIDE, BRAIN, 0), INSIDE)


def test_nearly_all_of_the_brain_is_between_black_and_white():
    shown = (BRAIN[INSIDE] > PLAIN[0]) & (BRAIN[INSIDE] < PLAIN[1])
    assert shown.mean() > 0.98 and PLAIN[1] - PLAIN[0] < 8 * 20


@pytest.mark.parametrize("outside", [0, 5000, -5000, np.nan, np.inf])
def test_voxels_outside_the_mask_are_ignored(outside):
    assert intensity_window(np.where(INSIDE, BRAIN, outside), INSIDE) == PLAIN


@pytest.mark.parametrize("value", [1e9, -1e9, np.nan, np.inf, -np.inf])
def test_a_few_voxels_inside_hardly_count(value):
    data = np.where(INSIDE, BRAIN, 0)
    data[10, 10, 8:18] = value
    tolerance = 0.05 * (PLAIN[1] - PLAIN[0])
    assert intensity_window(data, INSIDE) == pytest.approx(PLAIN, abs=tolerance)


@pytest.mark.parametrize(("factor", "offset"), [(1e-9, 0), (1e6, 0), (0.05, -5), (1, 30000)])
def test_scale_and_offset_of_intensities_do_not_matter(factor, offset):
    found = intensity_window(BRAIN * factor + offset, INSIDE)
    expected = np.array(PLAIN) * factor + offset
    assert found == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("value", [0, 7, -7, np.nan])
@pytest.mark.parametrize("inside", [INSIDE, np.zeros_like(INSIDE), None])
def test_black_is_below_white_in_constant_images_too(value, inside):
    darkest, brightest = intensity_window(np.full(BRAIN.shape, value, float), inside)
    assert np.isfinite([darkest, brightest]).all() and darkest < brightest


def test_without_a_mask_the_bright_half_is_the_brain():
    found = intensity_window(np.where(INSIDE, BRAIN, 0))
    assert found[0] > 0 and found[1] > np.percentile(BRAIN[INSIDE], 95)
