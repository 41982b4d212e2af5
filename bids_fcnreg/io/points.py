"""Read and write tables of points: text with columns x, y, z in RAS+ mm."""

from __future__ import annotations

import csv
import io
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bids_fcnreg.atomic import read_text, write_bytes
from bids_fcnreg.errors import InputError

AXES = ("x", "y", "z")


@dataclass(frozen=True, eq=False)
class PointTable:
    """A table with points.

    Attributes
    ----------
    columns : list of str
        All column names, in order.
    rows : list of dict of str to str
        Cells by column.
    separator : str
        Separator of cells.
    """

    columns: list[str]
    rows: list[dict[str, str]]
    separator: str = ","

    @property
    def points(self) -> np.ndarray:
        """Coordinates (n, 3), RAS+ mm."""
        return np.array([[float(row[axis]) for axis in AXES] for row in self.rows]).reshape(-1, 3)


def read_points(path: Path) -> PointTable:
    """Read a table of points.

    Parameters
    ----------
    path : Path
        Text whose first line names the columns. Cells are separated by tabs, commas, semicolons
        or, where the first line has none of these, by spaces.

    Raises
    ------
    InputError
        If the file cannot be read, a column is missing or duplicated, a line is too long, or a
        coordinate is not a number.

    Warns
    -----
    UserWarning
        If the columns are those of antsApplyTransformsToPoints, whose points are in LPS+ mm.
    """
    try:
        text = read_text(path)
        separator = _separator(text.partition("\n")[0])
        if separator == " ":
            text = "\n".join(" ".join(line.split()) for line in text.splitlines())
        lines = io.StringIO(text, newline="")
        reader = csv.DictReader(lines, delimiter=separator, skipinitialspace=True)
        columns = reader.fieldnames = [name.strip() for name in reader.fieldnames or ()]
        rows = list(reader)
    except (OSError, UnicodeDecodeError, csv.Error) as why:
        raise InputError(f"The table {path} cannot be read: {why}. Check the file.") from why
    if len(set(columns)) < len(columns):
        raise InputError(f"The table {path} has duplicate column names. Rename one.")
    missing = [axis for axis in AXES if axis not in columns]
    if missing:
        raise InputError(
            f"The table {path} has no column {missing[0]}. Name the columns in its first line, "
            "with x, y and z (RAS+ mm)."
        )
    for number, row in enumerate(rows, start=2):
        if None in row:
            raise InputError(f"Line {number} of {path} has more cells than columns. Correct it.")
        for axis in AXES:
            if not _is_number(row[axis]):
                raise InputError(f"Line {number} of {path}: {axis} is not a number. Correct it.")
    if columns[:4] == [*AXES, "t"]:
        warnings.warn(
            f"{path} has the columns of antsApplyTransformsToPoints, which uses LPS+ mm. They are "
            "read as RAS+ mm: change the signs of x and y if they are LPS+.",
            stacklevel=2,
        )
    return PointTable(columns, rows, separator)


def _separator(header: str) -> str:
    """Detect the separator of a table from its first line."""
    return next((mark for mark in "\t,;" if mark in header), " ")


def write_points(path: Path, table: PointTable, points: np.ndarray) -> Path:
    """Write a table with new coordinates (n, 3), atomically.

    Cells are separated by commas in .csv, by tabs in .tsv, else as in the table that was read.
    """
    text = io.StringIO()
    separator = {".csv": ",", ".tsv": "\t"}.get(path.suffix.lower(), table.separator)
    writer = csv.DictWriter(
        text, table.columns, delimiter=separator, lineterminator="\n", extrasaction="ignore"
    )
    writer.writeheader()
    for row, point in zip(table.rows, points, strict=True):
        writer.writerow(
            row | {axis: f"{value:.5f}" for axis, value in zip(AXES, point, strict=True)}
        )
    return write_bytes(path, text.getvalue().encode())


def _is_number(value: str | None) -> bool:
    try:
        return "_" not in (value or "") and bool(np.isfinite(float(value or "")))
    except ValueError:
        return False
