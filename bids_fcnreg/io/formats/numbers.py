"""Matrices in text files."""

from __future__ import annotations

from pathlib import Path

import numpy as np

#: Largest text file of a linear transform.
MAX_BYTES = 2**20


def read_numbers(path: Path) -> np.ndarray | None:
    """Read rows of numbers, without lines that are empty or start with ``#``.

    Returns
    -------
    ndarray (rows, columns) or None
        None if the file is not such a text.
    """
    if path.stat().st_size > MAX_BYTES:
        return None
    try:
        lines = (line.partition("#")[0].split() for line in path.read_text("utf-8").splitlines())
        rows = [[float(number) for number in line] for line in lines if line]
    except (UnicodeDecodeError, ValueError):
        return None
    return np.array(rows) if rows and len({len(row) for row in rows}) == 1 else None


def format_rows(matrix: np.ndarray) -> str:
    """Return a line of text for each row, in double precision."""
    return "".join(" ".join(f"{number:.15g}" for number in row) + "\n" for row in matrix)
