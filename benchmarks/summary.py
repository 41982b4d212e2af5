"""The closing tables and the plot of the pairwise benchmark, from its rows."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.table import Table

Row = dict[str, str]

#: Column of pairs.tsv, title, digits.
COLUMNS = (
    ("dice", "Dice", 4),
    ("folds_percent", "folds %", 4),
    ("sd_log_jacobian", "sd log J", 3),
    ("inverse_mean_mm", "inverse mm, mean", 3),
    ("inverse_max_mm", "inverse mm, max", 2),
    ("seconds", "seconds", 1),
    ("memory_gb", "memory GB", 2),
    ("gpu_memory_gb", "GPU GB", 2),
)


@dataclass(frozen=True)
class Block:
    """Means over the pairs on which every method of the block ran.

    Attributes
    ----------
    title : str
        Says which pairs.
    header : list of str
        Column titles.
    lines : list of list of str
        A line a method.
    """

    title: str
    header: list[str]
    lines: list[list[str]]

    def rich(self) -> Table:
        """Format as a table for the terminal."""
        table = Table(title=self.title, title_justify="left")
        for number, column in enumerate(self.header):
            table.add_column(column, justify="right" if number else "left")
        for line in self.lines:
            table.add_row(*line)
        return table

    def markdown(self) -> str:
        """Format as a Markdown table with title."""
        rule = ["---"] + ["---:"] * (len(self.header) - 1)
        rows = [f"| {' | '.join(cells)} |" for cells in (self.header, rule, *self.lines)]
        return "\n".join([self.title, "", *rows])


def blocks(rows: Sequence[Row], labels: dict[str, str], partial: str = "syns") -> list[Block]:
    """Group results: methods but `partial` on common pairs, then all on those of `partial`.

    Parameters
    ----------
    rows : sequence of dict
        Rows of pairs.tsv.
    labels : dict of str to str
        What to call each method, in the order of the lines.
    partial : str
        The method that ran on some of the pairs only.
    """
    ran = {row["method"] for row in rows}
    most = [name for name in labels if name in ran and name != partial]
    found = []
    if most:
        found.append(_block(rows, most, labels))
    if partial in ran:
        found.append(_block(rows, [n for n in labels if n in ran], labels, partial))
    return [block for block in found if block is not None]


def _block(
    rows: Sequence[Row], methods: list[str], labels: dict[str, str], of: str | None = None
) -> Block | None:
    by_method = {
        name: {(r["fixed"], r["moving"]): r for r in rows if r["method"] == name}
        for name in methods
    }
    shared = set.intersection(*(set(pairs) for pairs in by_method.values()))
    if not shared:
        return None
    every = {key for pairs in by_method.values() for key in pairs}
    title = f"Means over {_count(len(shared))}"
    if of:
        title += f" on which {labels[of]} ran too"
    elif len(shared) < len(every):
        title += f" (of {len(every)}: those on which every method ran)"
    lines = []
    for name in methods:
        line = [labels[name]]
        for column, _, digits in COLUMNS:
            values = [_number(by_method[name][pair].get(column)) for pair in shared]
            known = [value for value in values if value is not None]
            line.append(f"{statistics.fmean(known):.{digits}f}" if known else "–")
        lines.append(line)
    header = ["method", *(title for _, title, _ in COLUMNS)]
    used = [n for n in range(len(header)) if any(line[n] != "–" for line in lines)]
    return Block(title, [header[n] for n in used], [[line[n] for n in used] for line in lines])


def plot(path: Path, rows: Sequence[Row], labels: dict[str, str], threads: int) -> None:
    """Draw Dice against seconds: a marker at each method's means, whiskers over its pairs.

    Parameters
    ----------
    path : Path
        Image file to write.
    rows, labels
        See `blocks`.
    threads : int
        Named on the axis.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(7, 4.5), layout="constrained")
    markers = "osD^vP*Xh"
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
            marker=markers[number % len(markers)],
            markersize=8,
            capsize=2,
            elinewidth=0.8,
            linestyle="none",
            label=f"{labels[name]} ({_count(len(own))})",
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


def _count(number: int) -> str:
    return f"{number} pair" + ("" if number == 1 else "s")


def _number(text: str | None) -> float | None:
    return None if text in (None, "", "n/a") else float(text)
