"""Moments of a stream of images and robust distances, against NumPy on all of it."""

from __future__ import annotations

import numpy as np
import pytest

from bids_fcnreg.study.statistics import RunningMoments, correlation, overlap, robust_distances


def test_running_moments_are_those_of_all_arrays_together():
    arrays = 1e4 + np.random.default_rng(0).standard_normal((20, 4, 5)).astype(np.float32)
    moments = RunningMoments()
    for one in arrays:
        moments.add(one)
    np.testing.assert_allclose(moments.mean, arrays.astype(float).mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(moments.sd, arrays.astype(float).std(axis=0, ddof=1), rtol=1e-6)


def test_a_single_array_has_no_spread():
    moments = RunningMoments()
    moments.add(np.array([3.0, 4.0]))
    assert moments.sd.tolist() == [0, 0]


def test_robust_distances_are_z_scores_of_normal_values():
    values = np.random.default_rng(0).normal(5, 2, 20_001)
    expected = (values - 5) / 2
    assert np.abs(robust_distances(values, 0.01) - expected).max() < 0.15


def test_one_far_value_does_not_hide_another():
    values = [1.0, 1.1, 0.9, 1.0, 1.05, 0.95, 5.0, 1000.0]
    distances = robust_distances(values, 0.01)
    assert (np.abs(distances[:6]) < 3.5).all()
    assert (distances[6:] > 3.5).all()


def test_equal_values_are_no_outliers():
    assert np.abs(robust_distances([0.0] * 9 + [1e-6], 1e-3)).max() < 0.01


def test_missing_values_stay_missing():
    distances = robust_distances([1.0, np.nan, 2.0], 0.1)
    assert np.isnan(distances[1])
    assert np.isfinite(distances[[0, 2]]).all()


def test_correlation_and_overlap():
    values = np.random.default_rng(0).standard_normal((2, 1000))
    assert correlation(*values) == pytest.approx(np.corrcoef(*values)[0, 1])
    assert correlation(values[0], np.ones(1000)) == 0
    assert overlap(np.array([1, 1, 0], bool), np.array([0, 1, 1], bool)) == 0.5
    assert overlap(np.zeros(2, bool), np.zeros(2, bool)) == 1
