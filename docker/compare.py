"""Whether two folders of derivatives hold the same results: `python compare.py ONE OTHER`.

Images, transforms and tables are compared by what they hold, bit for bit. Left out are logs, and
what a file says about time, place and machine. Exits with 1 if something differs.
"""

from __future__ import annotations

import argparse
import csv
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import nibabel as nib
import numpy as np

#: Keys of JSON files, and columns of tables, that say when, where and on what something was made.
CIRCUMSTANCES = {"seconds", "hours", "GeneratedBy", "SourceDatasets", "DatasetLinks"}


def same_image(one: Path, other: Path) -> bool:
    """Affine, data type and every voxel."""
    first, second = nib.load(one), nib.load(other)
    return (
        first.get_data_dtype() == second.get_data_dtype()
        and np.array_equal(first.affine, second.affine)
        and np.array_equal(np.asanyarray(first.dataobj), np.asanyarray(second.dataobj))
    )


def same_transform(one: Path, other: Path) -> bool:
    """Every dataset of two HDF5 files."""

    def content(path: Path) -> dict[str, bytes | str]:
        found: dict[str, bytes | str] = {}

        def take(name: str, node: h5py.Dataset | h5py.Group) -> None:
            # ITK notes its version and that of the system that wrote a file.
            if isinstance(node, h5py.Dataset) and not name.endswith(("Version", "OSName")):
                value = np.asarray(node[()])
                found[name] = str(value) if value.dtype == object else value.tobytes()

        with h5py.File(path) as file:
            file.visititems(take)
        return found

    return content(one) == content(other)


def same_json(one: Path, other: Path) -> bool:
    """Everything but `CIRCUMSTANCES`."""

    def content(path: Path) -> dict[str, Any]:
        read = json.loads(path.read_text(encoding="utf-8"))
        return {key: value for key, value in read.items() if key not in CIRCUMSTANCES}

    return content(one) == content(other)


def same_table(one: Path, other: Path) -> bool:
    """Every cell but those of `CIRCUMSTANCES`."""

    def content(path: Path) -> list[dict[str, str]]:
        with open(path, newline="", encoding="utf-8") as stream:
            rows = list(csv.DictReader(stream, delimiter="\t"))
        return [{key: row[key] for key in row if key not in CIRCUMSTANCES} for row in rows]

    return content(one) == content(other)


def same_bytes(one: Path, other: Path) -> bool:
    return one.read_bytes() == other.read_bytes()


KINDS: dict[str, Callable[[Path, Path], bool]] = {
    ".nii.gz": same_image,
    ".h5": same_transform,
    ".json": same_json,
    ".tsv": same_table,
    ".safetensors": same_bytes,
}


def files(folder: Path) -> set[Path]:
    """Names of all files but logs, from the folder on."""
    found = {path.relative_to(folder) for path in folder.rglob("*") if path.is_file()}
    return {name for name in found if name.parts[0] != "logs"}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("one", type=Path)
    parser.add_argument("other", type=Path)
    options = parser.parse_args()
    here, there = files(options.one), files(options.other)
    wrong = 0
    for folder, names in ((options.one, here - there), (options.other, there - here)):
        for name in sorted(names):
            print(f"only in {folder}: {name}")
            wrong += 1
    compared = 0
    for name in sorted(here & there):
        kind = next((end for end in KINDS if name.name.endswith(end)), None)
        if kind is None:
            continue
        compared += 1
        if not KINDS[kind](options.one / name, options.other / name):
            print(f"differs: {name}")
            wrong += 1
    print(f"{len(here & there)} files in both, {compared} compared, {wrong} differ")
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main())
