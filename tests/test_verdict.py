"""Quality numbers become a verdict with its reasons in words."""

from __future__ import annotations

import pytest

from bids_fcnreg.fcn.quality import Quality
from bids_fcnreg.fcn.register import MODES
from bids_fcnreg.verdict import LEVELS, MEANINGS, Bounds, judge, reference


def usual(mode: str) -> dict:
    """Quality numbers in the middle of what is usual."""
    middle = {key: (one.low + one.high) / 2 for key, one in reference(mode).items()}
    return Quality(mode, "cpu").as_dict() | middle


@pytest.mark.parametrize("mode", MODES)
def test_usual_numbers_are_good_and_the_worst_number_decides(mode):
    numbers = usual(mode)
    assert judge(numbers).level == "good" and not judge(numbers).reasons
    bounds = reference(mode)["similarity"]
    assert judge(numbers | {"similarity": bounds.doubtful - 1e-3}).level == "doubtful"
    assert judge(numbers | {"similarity": bounds.failed - 1e-3}).level == "failed"
    both = judge(numbers | {"similarity": 0.0, "asymmetry": -0.9})
    assert both.level == "failed"
    assert both.reasons[0].startswith(MEANINGS["similarity"].format(fixed="the template"))
    assert "similarity 0," in both.reasons[0] and "left and right" in both.reasons[1]


@pytest.mark.parametrize("mode", MODES)
def test_bounds_are_in_order(mode):
    for key, one in reference(mode).items():
        assert one.low <= one.high, key
        if one.doubtful is not None and one.failed is not None:
            away = one.low - one.doubtful if one.doubtful < one.low else one.doubtful - one.high
            farther = one.low - one.failed if one.doubtful < one.low else one.failed - one.high
            assert 0 < away < farther, key


def test_a_number_that_could_not_be_computed_is_a_failure():
    numbers = usual("refine") | {"similarity": float("nan")}
    assert judge(numbers).level == "failed"
    assert judge({"mode": "refine"}).level == "good"


def test_bounds_on_either_side():
    high = Bounds(0.0, 1.0, doubtful=2.0, failed=3.0)
    assert [high.judge(value) for value in (-5, 1.5, 2.5, 3.5)] == ["good", *LEVELS]
    low = Bounds(0.0, 1.0, doubtful=-1.0)
    assert [low.judge(value) for value in (5, -0.5, -9)] == ["good", "good", "doubtful"]
    assert Bounds(0.0, 1.0).judge(99) == "good"
