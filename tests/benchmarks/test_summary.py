"""Tables and plots of the pairwise benchmark."""

from __future__ import annotations

from pathlib import Path

import comparison
import numpy as np
import plots
import pytest
import summary


def test_means_are_over_pairs_that_all_methods_share() -> None:
    rows = [
        {"fixed": fixed, "moving": "b", "method": method, "dice": dice, "seconds": "1"}
        for fixed, method, dice in [("a", "x", "0.2"), ("c", "x", "0.8"), ("c", "y", "0.6")]
    ]
    (block,) = summary.blocks(rows, {"x": "X", "y": "Y"}, [])
    assert block.title == "Means over 1 pair (of 2: those on which every method ran)"
    assert [line[:2] for line in block.lines] == [["X", "0.8000"], ["Y", "0.6000"]]


def rows_of(values: dict[str, list[float]]) -> list[summary.Row]:
    return [
        {
            "fixed": f"sub-{number}",
            "moving": "sub-x",
            "method": method,
            "dice": str(dice),
            "sd_log_jacobian": str(dice / 2),
        }
        for method, scores in values.items()
        for number, dice in enumerate(scores)
    ]


def test_differences_are_paired_and_over_shared_pairs() -> None:
    rows = rows_of({"ours-refine": [0.6, 0.7, 0.8], "syn": [0.5, 0.6, 0.9, 0.1], "greedy": []})
    labels = {"ours-refine": "refine", "syn": "SyN", "greedy": "greedy", "ours-predict": "predict"}
    (block,) = comparison.differences(rows, labels)
    assert block.title == "refine minus each other method"
    ((name, pairs, dice, low, high, ahead, spread),) = block.lines
    assert (name, pairs, dice, ahead, spread) == ("SyN", "3", "+0.0333", "2", "+0.017")
    assert (low, high) == ("-0.1000", "+0.1000")
    assert "| SyN | 3 | +0.0333 | -0.1000 | +0.1000 | 2 | +0.017 |" in block.markdown()
    assert block.rich().row_count == 1
    (single,) = comparison.differences(rows_of({"ours-refine": [0.6], "syn": [0.5]}), labels)
    assert single.lines[0][3:5] == ["–", "–"]


def test_interval_is_that_of_the_mean_and_reproducible() -> None:
    values = np.random.default_rng(3).normal(0.01, 0.02, size=100)
    low, high = comparison.interval(values)
    half = 1.96 * values.std() / 10
    assert low == pytest.approx(values.mean() - half, abs=0.1 * half)
    assert high == pytest.approx(values.mean() + half, abs=0.1 * half)
    assert comparison.interval(values) == (low, high)
    assert comparison.interval(np.full(4, 0.02)) == pytest.approx((0.02, 0.02))


def test_curve_needs_a_pair_that_all_methods_share(tmp_path: Path) -> None:
    rows = rows_of({"greedy": [0.6, 0.7], "greedy@2": [0.5], "syn": [0.5, 0.6]})
    labels = {"greedy": "greedy", "greedy@2": "greedy × 2", "syn": "SyN", "affine": "Affine"}
    assert plots.dice_sdlogj(tmp_path / "curve.png", rows, labels)
    assert (tmp_path / "curve.png").stat().st_size > 5000
    lone = [row for row in rows if row["method"] != "syn" or row["fixed"] != "sub-0"]
    assert not plots.dice_sdlogj(tmp_path / "none.png", lone, labels)
    assert not (tmp_path / "none.png").exists()
