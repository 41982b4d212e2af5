"""Summary table of a run, in as many columns as fit the terminal."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rich import box
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

#: Columns that are dropped, in this order, until the table fits.
_DISPENSABLE = ("Files", "Seconds", "Before", "Folds %")


@dataclass(frozen=True)
class SummaryRow:
    """Outcome of one registration; missing values are dashes.

    Attributes
    ----------
    subject : str
        Label such as ``sub-01_ses-x``.
    template : str
        Space of the template.
    seconds, before, similarity, folds : str
        Seconds, similarity before and after, and percentage of folded voxels.
    verdict : str
        ``good``, ``doubtful``, ``failed``, ``unknown`` or ``no result``.
    files : str
        Directory of the results, relative to the derivatives.
    """

    subject: str
    template: str = "–"
    seconds: str = "–"
    before: str = "–"
    similarity: str = "–"
    folds: str = "–"
    verdict: str = "no result"
    files: str = "–"

    def cells(self, without: Sequence[str]) -> dict[str, str]:
        """Return the cells by the title of their column, without dropped columns."""
        both = f"{self.before} → {self.similarity}" if self.similarity != "–" else "–"
        cells = {
            "Subject": self.subject,
            "Template": self.template,
            "Seconds": self.seconds,
            "Similarity": self.similarity if "Before" in without else both,
            "Folds %": self.folds,
            "Verdict": self.verdict,
            "Files": self.files,
        }
        return {title: cell for title, cell in cells.items() if title not in without}


def print_table(console: Console, rows: Sequence[SummaryRow]) -> None:
    """Print a table that fits the console, or a list if none fits.

    Labels and names of templates are never broken.
    """
    for number in range(len(_DISPENSABLE) + 1):
        table = _table([row.cells(_DISPENSABLE[:number]) for row in rows])
        unlimited = console.options.update(max_width=10_000)
        if console.measure(table, options=unlimited).maximum <= console.width:
            console.print(table)
            return
    for row in rows:
        for line in _lines(row, console.width):
            console.print(line, soft_wrap=True, markup=False, highlight=False)


def _table(rows: Sequence[dict[str, str]]) -> Table:
    """Return a table whose cells are never wrapped."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    titles = list(rows[0]) if rows else []
    for title in titles:
        numeric = title in ("Seconds", "Similarity", "Folds %")
        table.add_column(title, justify="right" if numeric else "left", no_wrap=True)
    for row in rows:
        table.add_row(*(Text(cell) for cell in row.values()))
    return table


def _lines(row: SummaryRow, width: int) -> list[str]:
    """Return a row as lines that break between its parts only."""
    if row.template == "–":
        parts = [row.verdict, f"{row.seconds} s"]
    else:
        parts = [
            row.template,
            row.verdict,
            f"similarity {row.before} → {row.similarity}",
            f"folds {row.folds} %",
            f"{row.seconds} s",
        ]
    lines = [row.subject]
    for number, part in enumerate(parts):
        piece = part if number == len(parts) - 1 else f"{part},"
        longer = f"{lines[-1]} {piece}"
        if number and cell_len(longer) <= width:
            lines[-1] = longer
        else:
            lines.append(f"  {piece}")
    return lines
