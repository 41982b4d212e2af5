"""Quality numbers become a verdict with its reasons in words."""

from __future__ import annotations

import numpy as np
import pytest

from bids_fcnreg.fcn.modes import MODES
from bids_fcnreg.fcn.quality import Quality
from bids_fcnreg.qc.metrics import METRICS
from bids_fcnreg.qc.verdict import Bounds, judge, reference_bounds


def usual(mode: str) -> dict:
    """Quality numbers in the middle of what is usual."""
    middle = {key: (one.low + one.high) / 2 for key, one in reference_bounds(mode).items()}
    return Quality(mode, "cpu").as_dict() | middle


@pytest.mark.parametrize("mode", MODES)
def test_usual_metrics_are_good_and_the_worst_metric_decides(mode):
    numbers = usual(mode)
    assert judge(numbers).level == "good" and not judge(numbers).reasons
    bounds = reference_bounds(mode)["similarity"]
    assert judge(numbers | {"similarity": bounds.doubtful - 1e-3}).level == "doubtful"
    assert judge(numbers | {"similarity": bounds.failed - 1e-3}).level == "failed"
    both = judge(numbers | {"similarity": 0.0, "asymmetry": -0.9})
    assert both.level == "failed"
    assert both.reasons[0].startswith(METRICS["similarity"].concern.format(fixed="the template"))
    assert "similarity 0," in both.reasons[0] and "left and right" in both.reasons[1]


@pytest.mark.parametrize("mode", MODES)
def test_bounds_are_in_order(mode):
    for key, one in reference_bounds(mode).items():
        assert one.low <= one.high, key
        if one.doubtful is not None and one.failed is not None:
            away = one.low - one.doubtful if one.doubtful < one.low else one.doubtful - one.high
            farther = one.low - one.failed if one.doubtful < one.low else one.failed - one.high
            assert 0 < away < farther, key


MISSING = {
    "nothing": None,
    "NaN": float("nan"),
    "infinite": float("inf"),
    "numpy's NaN": np.float32("nan"),
    "a string": "0.72",
    "a list": [0.72],
    "a truth value": True,
}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("value", MISSING.values(), ids=MISSING)
def test_without_a_metric_the_verdict_is_unknown(mode, value):
    for key in (one for one in reference_bounds(mode) if not METRICS[one].optional):
        found = judge(usual(mode) | {key: value})
        assert found.level == "unknown"
        assert found.reasons == (f"metrics are missing: {key}",)
        left_out = {name: one for name, one in usual(mode).items() if name != key}
        assert judge(left_out) == judge(usual(mode) | {key: None})


@pytest.mark.parametrize("mode", [None, "", "Refine", "quick", 3, ["refine"], {"refine": 1}])
def test_without_a_known_mode_the_verdict_is_unknown(mode):
    assert judge(usual("refine") | {"mode": mode}).level == "unknown"


def test_empty_records_are_unknown():
    for record in ({}, {"mode": "refine"}, {"mode": "predict", "seconds": {}}):
        assert judge(record).level == "unknown"
        assert judge(record).as_dict()["verdict_reason"]


def test_a_metric_beyond_its_bounds_counts_more_than_a_missing_one():
    known = {"mode": "refine", "similarity": 0.0}
    assert judge(known).level == "failed"
    assert "metrics are missing" in judge(known).reasons[-1]


def test_asymmetry_is_known_of_the_builtin_template_only():
    numbers = {key: one for key, one in usual("refine").items() if key != "asymmetry"}
    assert judge(numbers).level == judge(numbers | {"asymmetry": None}).level == "good"
    assert judge(numbers | {"asymmetry": float("nan")}).level == "unknown"


def test_missing_metrics_are_printed_as_a_dash():
    assert METRICS["similarity"].read({"similarity": 0.5}) == "0.500"
    assert METRICS["similarity"].read({"similarity": None}) == "–"
    assert METRICS["similarity"].read({}) == "–"


def test_bounds_on_either_side():
    high = Bounds(0.0, 1.0, doubtful=2.0, failed=3.0)
    assert [high.judge(value) for value in (-5, 1.5, 2.5, 3.5)] == [
        "good",
        "good",
        "doubtful",
        "failed",
    ]
    low = Bounds(0.0, 1.0, doubtful=-1.0)
    assert [low.judge(value) for value in (5, -0.5, -9)] == ["good", "good", "doubtful"]
    assert Bounds(0.0, 1.0).judge(99) == "good"


def test_the_contrast_explains_what_is_not_good():
    numbers = usual("refine") | {"white_matter_darker": True}
    assert judge(numbers).level == "good"  # as brains of infants may be
    found = judge(numbers | {"similarity": 0.0, "brain_overlap": 0.0})
    assert found.level == "failed"
    assert found.reasons[0].startswith("white matter is not brighter than gray matter: the image")
    for other in ({"white_matter_darker": False}, {"t1w_like": ["moving"]}):
        assert "contrast" not in str(judge(numbers | {"similarity": 0.0} | other))


def test_metrics_of_t1w_like_images_are_never_good():
    numbers = usual("refine") | {"t1w_like": ["moving"]}
    assert judge(numbers).level == "unknown"
    assert "T1w-like images" in judge(numbers).reasons[0]
    assert judge(numbers | {"similarity": 0.0}).level == "failed"
    assert judge(numbers | {"t1w_like": []}).level == "good"
