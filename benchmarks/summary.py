"""The closing tables of the pairwise benchmark, from its rows."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from rich.table import Table

Row = dict[str, str]

#: Column of pairs.tsv, title, digits.
COLUMNS = (
    ("dice", "Dice", 4),
    ("dice_cortical", "– cortical", 4),
    ("dice_subcortical", "– subcortical", 4),
    ("hd95_mm", "HD95 mm", 2),
    ("folds_percent", "folds %", 4),
    ("sd_log_jacobian", "sd log J", 3),
    ("harmonic_energy", "energy", 3),
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
        for place, column in enumerate(self.header):
            table.add_column(column, justify="right" if place else "left")
        for line in self.lines:
            table.add_row(*line)
        return table

    def markdown(self) -> str:
        """Format as a Markdown table with title."""
        rule = ["---"] + ["---:"] * (len(self.header) - 1)
        rows = [f"| {' | '.join(cells)} |" for cells in (self.header, rule, *self.lines)]
        return "\n".join([self.title, "", *rows])


def blocks(rows: Sequence[Row], labels: dict[str, str], slow: Sequence[str]) -> list[Block]:
    """Group results: methods but the slow on common pairs, then all on those of the slow.

    Parameters
    ----------
    rows : sequence of dict
        Rows of pairs.tsv.
    labels : dict of str to str
        What to call each method, in the order of the lines.
    slow : sequence of str
        The methods that ran on some of the pairs only.
    """
    ran = {row["method"] for row in rows}
    late = [name for name in labels if name in ran and name in slow]
    most = [name for name in labels if name in ran and name not in slow]
    found = []
    if most:
        found.append(_block(rows, most, labels))
    if late:
        found.append(_block(rows, [n for n in labels if n in ran], labels, late))
    return [block for block in found if block is not None]


def _block(
    rows: Sequence[Row], methods: list[str], labels: dict[str, str], of: Sequence[str] = ()
) -> Block | None:
    by_method = {name: by_pair(rows, name) for name in methods}
    shared = set.intersection(*(set(pairs) for pairs in by_method.values()))
    if not shared:
        return None
    every = {key for pairs in by_method.values() for key in pairs}
    title = f"Means over {count(len(shared))}"
    if of:
        title += f" on which {' and '.join(labels[name] for name in of)} ran too"
    elif len(shared) < len(every):
        title += f" (of {len(every)}: those on which every method ran)"
    lines = []
    for name in methods:
        line = [labels[name]]
        for column, _, digits in COLUMNS:
            values = [number(by_method[name][pair].get(column)) for pair in shared]
            known = [value for value in values if value is not None]
            line.append(f"{statistics.fmean(known):.{digits}f}" if known else "–")
        lines.append(line)
    header = ["method", *(title for _, title, _ in COLUMNS)]
    used = [n for n in range(len(header)) if any(line[n] != "–" for line in lines)]
    return Block(title, [header[n] for n in used], [[line[n] for n in used] for line in lines])


def by_pair(rows: Sequence[Row], method: str) -> dict[tuple[str, str], Row]:
    """Return the rows of a method by fixed and moving brain."""
    return {(row["fixed"], row["moving"]): row for row in rows if row["method"] == method}


def count(pairs: int) -> str:
    """Return a number of pairs in words."""
    return f"{pairs} pair" + ("" if pairs == 1 else "s")


def number(text: str | None) -> float | None:
    """Read a cell of a table."""
    return None if text in (None, "", "n/a") else float(text)
