"""Lookup tables of atlases: names of labels, and their consistency with the label image."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from bids_fcnreg.bids.derivatives import read_tsv
from bids_fcnreg.bids.filters import abbreviated_list
from bids_fcnreg.errors import InputError

#: Names of label 0 if it is the background.
_BACKGROUND = re.compile(
    r"(the )?(back ?ground|bg|bkg|unknown|clear( label)?|none|no ?label|not? ?labell?ed|"
    r"un ?labell?ed|un ?assigned|un ?defined|outside|exterior|air|empty|null|void|zero|other|"
    r"n/?a|0|\?+)( label| region)?"
)

#: Whole numbers, also as pandas writes those of a column with missing values.
_WHOLE = re.compile(r"([+-]?[0-9]+)(?:\.0*)?")

#: Maximum number of labels in a warning.
_MAX_NAMED = 3


@dataclass(frozen=True)
class Lookup:
    """Names of labels.

    Attributes
    ----------
    path : Path
        File of the table.
    names : dict of int to str
        Names by index; an index without a name is its own name.
    named : bool
        Whether the table has a column of names.
    """

    path: Path
    names: dict[int, str]
    named: bool = True


def read_lookup(path: Path) -> Lookup:
    """Read a table with the column index and, optionally, name (or label).

    Raises
    ------
    InputError
        If it has no column index, or an index that is not a whole number or occurs twice.
    """
    rows = read_tsv(path)
    indices = next((name for name in rows[0] if name.lower() == "index"), None) if rows else None
    if indices is None:
        raise InputError(
            f"The lookup table {path} has no column index. Provide the tab-separated columns "
            "index and name."
        )
    column = _name_column(rows)
    names: dict[int, str] = {}
    for row in rows:
        if not (whole := _WHOLE.fullmatch(row[indices])):
            raise InputError(
                f"The lookup table {path} has the index {row[indices]!r}, which is not a whole "
                "number. Correct it."
            )
        index = int(whole[1])
        if index in names:
            raise InputError(f"The lookup table {path} has the index {index} twice. Remove one.")
        names[index] = (row.get(column) if column else None) or str(index)
    return Lookup(path, names, column is not None)


def _name_column(rows: Sequence[dict[str, str]]) -> str | None:
    """Return the column of names; a column label may hold numbers, which are not names."""
    columns = {column.strip().lower(): column for column in rows[0]}
    if "name" in columns:
        return columns["name"]
    values = [row.get(columns.get("label", "")) or "" for row in rows]
    numbers = all(re.fullmatch(r"\d*(\.0*)?", value) for value in values)
    return None if numbers else columns["label"]


def check_lookup(table: Lookup, image: Path, present: Collection[int]) -> tuple[str, ...]:
    """Compare a lookup table with the labels of an image.

    Parameters
    ----------
    table : Lookup
        Lookup table.
    image : Path
        Label image.
    present : collection of int
        Values in the label image.

    Returns
    -------
    tuple of str
        A warning for each inconsistency: names without a label, labels without a name, label 0
        with a name other than background, no names at all.

    Raises
    ------
    InputError
        If no label of the image is in the table.
    """
    labels, names = set(present) - {0}, table.names
    if not labels & set(names):
        raise InputError(
            f"No index of the lookup table {table.path} occurs in the atlas {image} (table: "
            f"{_some(set(names) - {0})}; atlas: {_some(labels)}). Provide the table of this atlas."
        )
    if not table.named:
        return (
            f"the lookup table {table.path} has no column name, so regions are named by their "
            "index. Add the column, or rename the one with the names",
        )
    doubts = []
    zero = 0 in names and not _is_background(names[0])
    if zero:
        doubts.append(
            f"the lookup table {table.path} calls label 0 {names[0]!r}, but 0 is the background "
            "of an atlas. Check that its indices are not shifted by one"
        )
    if nameless := labels - set(names):
        doubts.append(
            f"{len(nameless)} of {len(labels)} labels of the atlas {image} have no name in "
            f"{table.path} ({_some(nameless)}). Check that the table is that of this atlas"
        )
    if unused := set(names) - labels - {0}:
        doubts.append(
            f"{len(unused)} of {len(set(names) - {0})} names in {table.path} have no label in "
            f"the atlas {image} ({_some(unused)}). Check that the table is that of this atlas"
        )
    return tuple(doubts)


def _is_background(name: str) -> bool:
    plain = re.sub(r"[\s_-]+", " ", name).strip().lower()
    return not plain or _BACKGROUND.fullmatch(plain) is not None


def _some(labels: Collection[int]) -> str:
    """List the first of some labels."""
    return abbreviated_list(list(map(str, sorted(labels))), _MAX_NAMED) or "none"
