"""The plots of the pairwise benchmark, from its rows."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot as plt
from summary import Row, by_pair, count

MARKERS = "osD^vP*Xh"


def dice_seconds(path: Path, rows: Sequence[Row], labels: dict[str, str], threads: int) -> None:
    """Draw Dice against seconds: a marker at each method's means, whiskers over its pairs.

    Parameters
    ----------
    path : Path
        Image file to write.
    rows, labels
        See `summary.blocks`.
    threads : int
        Named on the axis.
    """
    figure, axes = plt.subplots(figsize=(7, 4.5), layout="constrained")
    for number, name in enumerate(labels):
        own = [row for row in rows if row["method"] == name]
        if not own:
            continue
        seconds, scores = ([float(row[key]) for row in own] for key in ("seconds", "dice"))
        x, y = statistics.fmean(seconds), statistics.fmean(scores)
        axes.errorbar(
            x,
            y,
            xerr=[[x - min(seconds)], [max(seconds) - x]],
            yerr=[[y - min(scores)], [max(scores) - y]],
            marker=MARKERS[number % len(MARKERS)],
            markersize=8,
            capsize=2,
            elinewidth=0.8,
            linestyle="none",
            label=f"{labels[name]} ({count(len(own))})",
        )
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_minor_formatter("{x:g}")
    axes.tick_params(axis="x", which="minor", labelsize="x-small")
    axes.set_xlabel(f"seconds a pair, linear stage included ({threads} CPU threads)")
    axes.set_ylabel("mean Dice of the labels")
    axes.grid(True, which="both", linewidth=0.3)
    axes.legend(fontsize="small", loc="best")
    figure.savefig(path, dpi=150)
    plt.close(figure)


def dice_sdlogj(path: Path, rows: Sequence[Row], labels: dict[str, str]) -> bool:
    """Draw Dice against the spread of the log-Jacobian: a line a method, a point a strength.

    All points are means over the same pairs: those on which every method ran.

    Parameters
    ----------
    path : Path
        Image file to write.
    rows, labels
        See `summary.blocks`; ``KEY@FACTOR`` is a point on the line of ``KEY``.

    Returns
    -------
    bool
        Whether there was a pair to draw.
    """
    found = {name: own for name in labels if (own := by_pair(rows, name))}
    shared = set.intersection(*(set(own) for own in found.values())) if found else set()
    if not shared:
        return False
    lines: dict[str, list[tuple[float, float, str]]] = {}
    for name, own in found.items():
        key, _, factor = name.partition("@")
        x, y = (
            statistics.fmean(float(own[pair][column]) for pair in shared)
            for column in ("sd_log_jacobian", "dice")
        )
        lines.setdefault(key, []).append((x, y, factor))
    figure, axes = plt.subplots(figsize=(7, 4.5), layout="constrained")
    for number, (key, points) in enumerate(lines.items()):
        points.sort(key=lambda point: float(point[2] or 1))
        (line,) = axes.plot(
            [x for x, _, _ in points],
            [y for _, y, _ in points],
            marker=MARKERS[number % len(MARKERS)],
            linewidth=1,
            label=labels.get(key, key),
        )
        for x, y, factor in points:
            if factor:
                note = {"xytext": (4, 4), "textcoords": "offset points", "fontsize": "x-small"}
                axes.annotate(f"× {factor}", (x, y), color=line.get_color(), **note)
    axes.set_xlabel("standard deviation of the log-Jacobian in the brain")
    axes.set_ylabel("mean Dice of the labels")
    axes.set_title(f"Means over {count(len(shared))}; × regularization", fontsize="medium")
    axes.grid(True, linewidth=0.3)
    axes.legend(fontsize="small", loc="best")
    figure.savefig(path, dpi=150)
    plt.close(figure)
    return True
