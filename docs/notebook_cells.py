"""Cells of the notebooks in docs/notebooks: MyST Markdown as Jupytext reads and writes it."""

from __future__ import annotations

import json
import re
from pathlib import Path

#: A code cell, and the metadata at the top of the page.
_CODE = re.compile(r"^```\{code-cell\}.*\n((?:.*\n)*?)```$", re.MULTILINE)
_METADATA = re.compile(r"\A---\n(?:.*\n)*?---\n")


def split_cells(page: str) -> list[tuple[str, str]]:
    """Split a notebook into its cells: kind ("markdown" or "code") and text."""
    parts = _CODE.split(_METADATA.sub("", page))
    kinds = [("markdown", "code")[number % 2] for number in range(len(parts))]
    return [(kind, text.strip()) for kind, text in zip(kinds, parts, strict=True) if text.strip()]


def write_jupyter(page: Path) -> Path:
    """Write a notebook in Jupyter's format next to its page."""
    cells = []
    for number, (kind, text) in enumerate(split_cells(page.read_text(encoding="utf-8"))):
        cell = {"cell_type": kind, "id": f"cell-{number}", "metadata": {}}
        cell["source"] = text.splitlines(keepends=True)
        cells.append(cell | ({"execution_count": None, "outputs": []} if kind == "code" else {}))
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    notebook = {"cells": cells, "metadata": {"kernelspec": kernel}}
    notebook |= {"nbformat": 4, "nbformat_minor": 5}
    path = page.with_suffix(".ipynb")
    path.write_text(json.dumps(notebook, indent=1) + "\n", encoding="utf-8")
    return path
