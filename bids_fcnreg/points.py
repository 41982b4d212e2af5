"""Tables of points, CSV with columns x, y, z in RAS+ mm, in and out."""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bids_fcnreg.errors import InputError
from bids_fcnreg.files import read_text, write_bytes

AXES = ("x", "y", "z")


@dataclass(frozen=True, eq=False)
class PointTable:
    """A table with points.

    Attributes
    ----------
    columns : list of str
        All of them, in their order.
    rows : list of dict of str to str
        By column.
    """

    columns: list[str]
    rows: list[dict[str, str]]

    @property
    def points(self) -> np.ndarray:
        """Coordinates (n, 3), RAS+ mm."""
        return np.array([[float(row[axis]) for axis in AXES] for row in self.rows]).reshape(-1, 3)


def read_points(path: Path) -> PointTable:
    """Read a table of points.

    Raises
    ------
    InputError
        If the file cannot be read, a column is missing or there twice, a line is too long, or a
        coordinate is no number.
    """
    try:
        reader = csv.DictReader(io.StringIO(read_text(path), newline=""))
        columns, rows = list(reader.fieldnames or ()), list(reader)
    except (OSError, UnicodeDecodeError, csv.Error) as why:
        raise InputError(f"The table {path} cannot be read: {why}.") from why
    if len(set(columns)) < len(columns):
        raise InputError(f"The table {path} has two columns of one name: rename one.")
    missing = [axis for axis in AXES if axis not in columns]
    if missing:
        raise InputError(
            f"The table {path} has no column {missing[0]}: it needs the columns x, y and z, in mm."
        )
    for number, row in enumerate(rows, start=2):
        if None in row:
            raise InputError(f"Line {number} of {path} has more cells than there are columns.")
        for axis in AXES:
            if not _is_number(row[axis]):
                raise InputError(f"Line {number} of {path} has no number for {axis}: correct it.")
    return PointTable(columns, rows)


def write_points(path: Path, table: PointTable, points: np.ndarray) -> Path:
    """Write a table with other coordinates (n, 3); whole or not at all."""
    text = io.StringIO()
    writer = csv.DictWriter(text, table.columns, lineterminator="\n", extrasaction="ignore")
    writer.writeheader()
    for row, point in zip(table.rows, points, strict=True):
        writer.writerow(
            row | {axis: f"{value:.5f}" for axis, value in zip(AXES, point, strict=True)}
        )
    return write_bytes(path, text.getvalue().encode())


def _is_number(word: str | None) -> bool:
    try:
        return bool(np.isfinite(float(word or "")))
    except ValueError:
        return False
