"""Compare two directories of derivatives: `python compare.py ONE OTHER`.

Numbers are compared with a tolerance, which is printed: rounding differs between machines and
builds of libraries. `--exact` compares bit for bit, which holds only on one machine with one
environment. Logs, figures, reports, and metadata about time, paths and software are ignored. The
exit code is 1 if something differs.
"""

from __future__ import annotations

import argparse
import csv
import json
import math
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import nibabel as nib
import numpy as np
from safetensors import safe_open

#: Keys of JSON files, and columns of tables, about time, paths and software.
CIRCUMSTANCES = {"seconds", "hours", "GeneratedBy", "SourceDatasets", "DatasetLinks"}

#: Maximum number of parameters of a linear transform; larger datasets are displacement fields.
_MAX_PARAMETERS = 100


@dataclass(frozen=True)
class Tolerance:
    """Tolerance of the comparison.

    Attributes
    ----------
    relative : float
        Relative tolerance of a number, or of a voxel relative to the maximum of its image; of a
        standard deviation, relative to that of the mean.
    absolute : float
        Additional absolute tolerance of any number.
    field_mm : float
        Tolerance of a displacement in mm: the larger of its rounding steps. It is also that of a
        log-Jacobian, which is the derivative of a displacement between voxels of 1 mm.
    share : float
        Share of the voxels that may differ more: labels at borders, and displacements that are
        smoothed because they are near a limit of compression.
    """

    relative: float = 1e-3
    absolute: float = 1e-4
    field_mm: float = 0.02
    share: float = 5e-3

    def __str__(self) -> str:
        return (
            f"numbers within {self.relative:g} (relative) or {self.absolute:g} (absolute), "
            f"displacements within {self.field_mm:g} mm, except {self.share:g} of voxels"
        )


#: Bitwise comparison.
EXACT = Tolerance(0, 0, 0, 0)

#: Description of a difference; None if there is none.
Difference = str | None


def compare_images(one: Path, other: Path, tolerance: Tolerance) -> Difference:
    """Compare shape, data type, affine (to 1e-5) and every voxel."""
    first, second = nib.load(one), nib.load(other)
    if first.get_data_dtype() != second.get_data_dtype():
        return f"data type {first.get_data_dtype()}, {second.get_data_dtype()}"
    small = 0 if tolerance == EXACT else 1e-5
    if found := compare_arrays(first.affine, second.affine, small):
        return f"affine {found}"
    voxels = [np.asanyarray(nifti.dataobj) for nifti in (first, second)]
    if tolerance != EXACT and all(v.dtype.kind in "iub" for v in voxels):
        return compare_labels(*voxels, tolerance.share)
    scales = list(voxels)
    mean = one.with_name(one.name.replace("_desc-sd_", "_desc-mean_"))
    if mean != one and mean.exists():
        # A standard deviation is as inexact as the images, whose mean is beside it.
        scales.append(np.asanyarray(nib.load(mean).dataobj))
    largest = max(float(np.abs(v[np.isfinite(v)]).max(initial=0)) for v in scales)
    allowed = tolerance.absolute + tolerance.relative * largest
    if "logjacobian" in one.name:
        allowed = max(allowed, tolerance.field_mm)
    return compare_arrays(*voxels, allowed, tolerance.share)


def compare_labels(one: np.ndarray, other: np.ndarray, share: float) -> Difference:
    """Compare label images or masks: the share of differing voxels among those with a label."""
    if one.shape != other.shape:
        return f"shape {one.shape}, {other.shape}"
    count, labelled = int((one != other).sum()), int(((one != 0) | (other != 0)).sum())
    return f"{count} of {labelled} labelled voxels" if count > share * labelled else None


def compare_arrays(
    one: np.ndarray, other: np.ndarray, allowed: float, share: float = 0.0
) -> Difference:
    """Compare arrays of numbers or strings; without tolerance, bit for bit.

    A `share` of the numbers may differ by more than allowed.
    """
    if one.shape != other.shape:
        return f"shape {one.shape}, {other.shape}"
    if one.dtype.kind not in "fiub" or other.dtype.kind not in "fiub":
        return None if np.array_equal(one, other) else "text"
    if not np.any(allowed):
        same = one.dtype == other.dtype and one.tobytes() == other.tobytes()
        return None if same else "bits"
    first, second = one.astype("float64"), other.astype("float64")
    known = np.isfinite(first)
    special = np.where(known, 0, first), np.where(np.isfinite(second), 0, second)
    if not np.array_equal(*special, equal_nan=True):
        return "NaN or infinite in one of them only"
    apart = np.abs(np.where(known, first, 0) - np.where(known, second, 0))
    many = (apart > allowed).sum() > share * apart.size
    return f"by up to {apart.max():.3g}" if many else None


def compare_transforms(one: Path, other: Path, tolerance: Tolerance) -> Difference:
    """Compare every dataset of two HDF5 files."""
    first, second = _datasets(one), _datasets(other)
    if first.keys() != second.keys():
        return f"only one has {', '.join(sorted(first.keys() ^ second.keys()))}"
    for name, value in first.items():
        allowed, share = 0.0, 0.0
        if value.dtype.kind == "f" and tolerance != EXACT:
            is_field = value.size > _MAX_PARAMETERS
            allowed, share = (tolerance.field_mm, tolerance.share) if is_field else (1e-5, 0.0)
        if found := compare_arrays(value, second[name], allowed, share):
            return f"{name} {found}"
    return None


def _datasets(path: Path) -> dict[str, np.ndarray]:
    """Read the datasets of an HDF5 file, without the versions of ITK and the system."""
    found: dict[str, np.ndarray] = {}

    def take(name: str, node: h5py.Dataset | h5py.Group) -> None:
        if isinstance(node, h5py.Dataset) and not name.endswith(("Version", "OSName")):
            value = np.asarray(node[()])
            found[name] = value if value.dtype.kind in "fiub" else np.asarray(str(value))

    with h5py.File(path) as file:
        file.visititems(take)
    return found


def compare_json(one: Path, other: Path, tolerance: Tolerance) -> Difference:
    """Compare JSON files without `CIRCUMSTANCES`."""
    first, second = (json.loads(path.read_text(encoding="utf-8")) for path in (one, other))
    return next(_unequal(first, second, tolerance, "top"), None)


def _unequal(one: Any, other: Any, tolerance: Tolerance, where: str) -> Iterator[str]:
    """Yield the differences between two JSON values."""
    if isinstance(one, dict) and isinstance(other, dict):
        for key in [*one, *(key for key in other if key not in one)]:
            if key in CIRCUMSTANCES or (tolerance != EXACT and is_checksum_of_result(key, one)):
                continue
            if key not in one or key not in other:
                yield f"{where}.{key} is in one of them only"
            else:
                yield from _unequal(one[key], other[key], tolerance, f"{where}.{key}")
    elif isinstance(one, list) and isinstance(other, list):
        if len(one) != len(other):
            yield f"{where} has {len(one)} and {len(other)} items"
        for number, (a, b) in enumerate(zip(one, other, strict=False)):
            yield from _unequal(a, b, tolerance, f"{where}[{number}]")
    elif not _same_value(one, other, tolerance):
        yield f"{where}: {one!r}, {other!r}"


def is_checksum_of_result(key: str, checksums: dict[str, Any]) -> bool:
    """Return whether an item of ``SourcesSHA256`` is of a result, which is compared itself."""
    return key.startswith("bids::") and isinstance(checksums[key], str)


def _same_value(one: Any, other: Any, tolerance: Tolerance) -> bool:
    """Return whether two values are equal: floats within the tolerance, others exactly."""
    if isinstance(one, float) or isinstance(other, float):
        if isinstance(one, bool) or isinstance(other, bool):
            return False
        if isinstance(one, int | float) and isinstance(other, int | float):
            if math.isnan(one) or math.isnan(other):
                return math.isnan(one) and math.isnan(other)
            near = {"rel_tol": tolerance.relative, "abs_tol": tolerance.absolute}
            return math.isclose(one, other, **near)
    return type(one) is type(other) and one == other


def compare_tables(one: Path, other: Path, tolerance: Tolerance) -> Difference:
    """Compare all cells of tables without `CIRCUMSTANCES`."""
    first, second = _cells(one), _cells(other)
    if len(first) != len(second):
        return f"{len(first)} and {len(second)} lines"
    if first and first[0] != second[0]:
        return f"columns {first[0]}, {second[0]}"
    for number, (mine, theirs) in enumerate(zip(first, second, strict=True), start=1):
        if len(mine) != len(theirs):
            return f"line {number} has {len(mine)} and {len(theirs)} cells"
        for title, a, b in zip(first[0], mine, theirs, strict=False):
            equal = a == b or _same_value(_number(a), _number(b), tolerance)
            if title not in CIRCUMSTANCES and not equal:
                return f"line {number}, {title}: {a}, {b}"
        if mine[len(first[0]) :] != theirs[len(first[0]) :]:
            return f"line {number}, beyond the columns"
    return None


def _cells(path: Path) -> list[list[str]]:
    with open(path, newline="", encoding="utf-8") as stream:
        return list(csv.reader(stream, delimiter="\t"))


def _number(cell: str) -> int | float | str:
    """Convert a cell to a number, if possible."""
    for kind in (int, float):
        try:
            return kind(cell)
        except ValueError:
            pass
    return cell


def compare_weights(one: Path, other: Path, tolerance: Tolerance) -> Difference:
    """Compare the weights of networks."""
    if tolerance == EXACT:
        return None if one.read_bytes() == other.read_bytes() else "bits"
    with safe_open(one, "numpy") as first, safe_open(other, "numpy") as second:
        if set(first.keys()) != set(second.keys()):
            return "names of weights"
        for name in first.keys():  # noqa: SIM118  (not a dict)
            mine, theirs = first.get_tensor(name), second.get_tensor(name)
            allowed = tolerance.absolute + tolerance.relative * float(np.abs(mine).max(initial=0))
            if found := compare_arrays(mine, theirs, allowed):
                return f"{name} {found}"
    return None


KINDS: dict[str, Callable[[Path, Path, Tolerance], Difference]] = {
    ".nii.gz": compare_images,
    ".nii": compare_images,
    ".h5": compare_transforms,
    ".json": compare_json,
    ".tsv": compare_tables,
    ".safetensors": compare_weights,
}


def compare_files(one: Path, other: Path, tolerance: Tolerance) -> Difference:
    """Compare two files of the same kind."""
    kind = next(end for end in KINDS if one.name.endswith(end))
    try:
        return KINDS[kind](one, other, tolerance)
    except (OSError, ValueError, KeyError, TypeError, nib.filebasedimages.ImageFileError) as why:
        return f"cannot be read ({why})"


def list_files(folder: Path) -> set[Path]:
    """Return the relative paths of all files except logs."""
    found = {path.relative_to(folder) for path in folder.rglob("*") if path.is_file()}
    return {name for name in found if name.parts[0] != "logs"}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("one", type=Path)
    parser.add_argument("other", type=Path)
    parser.add_argument("--exact", action="store_true", help="compare bit for bit")
    options = parser.parse_args()
    tolerance = EXACT if options.exact else Tolerance()
    first, second = list_files(options.one), list_files(options.other)
    differences = 0
    for folder, names in ((options.one, first - second), (options.other, second - first)):
        for name in sorted(names):
            print(f"only in {folder}: {name}")
            differences += 1
    compared = [name for name in sorted(first & second) if name.name.endswith(tuple(KINDS))]
    for name in compared:
        found = compare_files(options.one / name, options.other / name, tolerance)
        if found is not None:
            print(f"differs: {name}: {found}")
            differences += 1
    print(f"{len(first & second)} files in both, {len(compared)} compared, {differences} differ")
    print(f"Compared: {'bit for bit' if options.exact else tolerance}")
    return int(differences > 0)


if __name__ == "__main__":
    sys.exit(main())
