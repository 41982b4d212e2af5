"""Paired differences between our modes and their peers, with bootstrap intervals."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from summary import Block, Row, by_pair

#: The methods that are compared with all others.
OURS = ("ours-refine", "ours-predict")

RESAMPLES = 10_000
SEED = 0


def differences(rows: Sequence[Row], labels: dict[str, str]) -> list[Block]:
    """Compare our modes with each peer, over the pairs on which both ran.

    Parameters
    ----------
    rows, labels
        See `summary.blocks`.

    Returns
    -------
    list of Block
        A table a mode: for each peer the number of pairs, the mean difference of Dice with its
        95 % interval, the number of pairs with higher Dice, and the mean difference of sd log J.
    """
    header = ["minus", "pairs", "Dice", "95 % from", "to", "higher in", "sd log J"]
    found = []
    for ours in (name for name in OURS if name in labels):
        own = by_pair(rows, ours)
        lines = []
        for name, label in labels.items():
            theirs = by_pair(rows, name)
            shared = sorted(set(own) & set(theirs))
            if name == ours or not shared:
                continue
            dice, spread = (
                np.array([float(own[p][column]) - float(theirs[p][column]) for p in shared])
                for column in ("dice", "sd_log_jacobian")
            )
            low, high = interval(dice)
            lines.append(
                [
                    *(label, str(len(shared)), f"{dice.mean():+.4f}"),
                    *(("–", "–") if len(shared) < 2 else (f"{low:+.4f}", f"{high:+.4f}")),
                    *(f"{(dice > 0).sum()}", f"{spread.mean():+.3f}"),
                ]
            )
        if lines:
            found.append(Block(f"{labels[ours]} minus each other method", header, lines))
    return found


def interval(values: np.ndarray, resamples: int = RESAMPLES) -> tuple[float, float]:
    """Compute the 95 % bootstrap percentile interval of a mean.

    Parameters
    ----------
    values : ndarray (n,)
        Paired differences.
    resamples : int
        Number of resamples, drawn with a fixed seed.

    Returns
    -------
    low, high : float
    """
    chosen = np.random.default_rng(SEED).integers(len(values), size=(resamples, len(values)))
    low, high = np.quantile(values[chosen].mean(axis=1), [0.025, 0.975])
    return float(low), float(high)
