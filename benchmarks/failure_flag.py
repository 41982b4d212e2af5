"""Fit and test the verdict on a registration: `python failure_flag.py COMMAND …`.

`pattern OUT [OUT …]` reads derivatives of the participant level in the symmetric template's space
and writes the mean asymmetry of their brains to the package. `growth OUT [OUT …]` reads those in
the spaces of both built-in templates, and writes by how much volumes differ between the templates.
`run OUT [OUT …] --table TABLE` registers these brains again after deliberate corruption, and
appends to TABLE the quality metrics of successful and failed registrations, with the distance of
each from the truth.
`fit TABLE [TABLE …]` fits the bounds of the verdict and writes them to the package;
`test TABLE [TABLE …]` prints the accuracy of the verdict. Fit and test on different brains.
"""

from __future__ import annotations

import argparse
import csv
import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from scipy.ndimage import gaussian_filter, map_coordinates

import bids_fcnreg
from bids_fcnreg.atomic import read_json
from bids_fcnreg.bids.derivatives import write_json
from bids_fcnreg.bids.results import Result, find_results
from bids_fcnreg.bids.templates import prepare_template, resolve_template
from bids_fcnreg.config import ASYMMETRIC_TEMPLATE, DEFAULT_TEMPLATE, SYMMETRIC_TEMPLATE
from bids_fcnreg.fcn.modes import MODES
from bids_fcnreg.fcn.pair import make_pair
from bids_fcnreg.fcn.quality import Quality, assess, similarity
from bids_fcnreg.fcn.register import Registration, register
from bids_fcnreg.fcn.spatial.grid import Grid, Image
from bids_fcnreg.fcn.spatial.transform import Affine, Displacement, Transform, change_grid
from bids_fcnreg.io import image
from bids_fcnreg.io.itk import read_transform
from bids_fcnreg.qc.asymmetry import (
    SMOOTHING,
    STEP_GROWTH,
    asymmetry,
    left_right_difference,
    mean_pattern,
    pattern_fractions,
    pattern_similarity,
    to_symmetric,
)
from bids_fcnreg.qc.verdict import LEVELS, judge

#: Template in whose space verdicts are fitted.
SPACE = DEFAULT_TEMPLATE
#: A registration is successful if the median error in the brain is below this (mm).
NEAR_MM = 3.0
#: Fraction of the brain's height in a cropped field of view.
KEPT = 0.6
#: Metrics with fitted bounds; asymmetry has its own, and some have bounds by judgement.
FITTED = (
    "similarity",
    "similarity_lowest",
    "brain_overlap",
    "folds_percent",
    "sd_log_jacobian",
    "inverse_consistency_p95_mm",
)
#: Smallest fraction of failed registrations that a metric must detect to get a bound.
MIN_DETECTED = 0.25
#: Distance of the bound for doubtful from the median of successful registrations, in robust SD.
DOUBTFUL_SD = 5.0
#: Lower bound of the robust SD, so that bounds generalize to other scanners.
MIN_SPREAD = 0.02
DATA = Path(bids_fcnreg.__file__).parent / "data"


@dataclass(frozen=True)
class CorruptedScan:
    """A corrupted scan, and the transform to the true one.

    Attributes
    ----------
    moving, mask : Image
        Corrupted image and mask.
    back : ndarray (4, 4)
        Maps points (RAS+ mm) of the corrupted scan to points of the true scan.
    never_right : bool
        Whether no registration of it can succeed.
    """

    moving: Image
    mask: Image
    back: np.ndarray
    never_right: bool = False


def flipped(scan: Image, mask: Image, _: np.random.Generator) -> CorruptedScan:
    """Flip left and right: voxels are stored from right to left, against the header."""
    affine = scan.grid.affine @ _mirror(scan.grid)
    return _with_header(scan, mask, affine, never_right=True)


def rotated(scan: Image, mask: Image, _: np.random.Generator) -> CorruptedScan:
    """Rotate the header by 90 degrees."""
    turn = np.array([[1, 0, 0, 0], [0, 0, -1, 0], [0, 1, 0, 0], [0, 0, 0, 1]], dtype=float)
    return _with_header(scan, mask, turn @ scan.grid.affine)


def stretched(scan: Image, mask: Image, _: np.random.Generator) -> CorruptedScan:
    """Multiply the slice thickness in the header by 1.6."""
    return _with_header(scan, mask, np.diag([1, 1, 1.6, 1]) @ scan.grid.affine)


def inverted(scan: Image, mask: Image, _: np.random.Generator) -> CorruptedScan:
    """Invert the contrast, as in a T2-weighted image."""
    brain = mask.data > 0
    top = float(np.quantile(scan.data[brain].numpy(), 0.98))
    data = torch.where(brain, (1.05 * top - scan.data).clamp(min=0.02 * top), 0.0)
    return CorruptedScan(Image(data, scan.grid), mask, np.eye(4))


def cropped(scan: Image, mask: Image, rng: np.random.Generator) -> CorruptedScan:
    """Crop the field of view within the brain, above or below."""
    height = scan.grid.points()[..., 2]
    inside = height[mask.data[0, 0] > 0]
    low, high = float(inside.min()), float(inside.max())
    kept = (height - low) / (high - low)
    kept = kept < KEPT if rng.random() < 0.5 else kept > 1 - KEPT
    data = torch.where(kept, scan.data, 0.0)
    return CorruptedScan(
        Image(data, scan.grid), Image(mask.data * kept, scan.grid), np.eye(4), True
    )


def head(scan: Image, mask: Image, _: np.random.Generator) -> CorruptedScan | None:
    """Use the whole head as brain mask, as without brain extraction."""
    outside = (scan.data > 0.05 * scan.data.max()) & (mask.data == 0)
    if float(outside.sum() / mask.data.sum()) < 0.3:
        return None
    everything = Image((scan.data > 0).float(), scan.grid)
    return CorruptedScan(scan, everything, np.eye(4), never_right=True)


KINDS = {made.__name__: made for made in (flipped, rotated, stretched, inverted, cropped, head)}


def _mirror(grid: Grid) -> np.ndarray:
    """Return the matrix that reverses the voxel axis closest to left–right."""
    axis = int(np.abs(grid.affine[0, :3]).argmax())
    matrix = np.eye(4)
    matrix[axis, axis], matrix[axis, 3] = -1, grid.shape[axis] - 1
    return matrix


def _with_header(
    scan: Image, mask: Image, affine: np.ndarray, never_right: bool = False
) -> CorruptedScan:
    grid = Grid(scan.grid.shape, affine)
    back = scan.grid.affine @ np.linalg.inv(affine)
    return CorruptedScan(Image(scan.data, grid), Image(mask.data, grid), back, never_right)


class Truth:
    """True positions of points of the template's brain in a scan, by a checked registration."""

    def __init__(self, transform: Transform, mask: Image) -> None:
        grid = mask.grid.with_spacing(6.0)
        inside = Transform(()).resample(mask, grid).data[0, 0] > 0.5
        self.points = grid.points()[inside]
        self.targets = transform.map(self.points)

    def distance(self, transform: Transform, back: np.ndarray) -> float:
        """Compute the median error (mm) of a transform at the points."""
        targets = Transform((*transform.steps, Affine(back))).map(self.points)
        return float((targets - self.targets).norm(dim=-1).median())


def scrambled(transform: Transform, rng: np.random.Generator) -> Transform:
    """Corrupt a transform by a rotation and shift of up to 20 degrees and 25 mm."""
    angle, axis = np.deg2rad(rng.uniform(5, 20)), rng.normal(size=3)
    x, y, z = axis / np.linalg.norm(axis)
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    matrix = np.eye(4)
    matrix[:3, :3] += np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross
    matrix[:3, 3] = rng.uniform(-25, 25, size=3)
    displacement, affine = transform.steps
    return Transform((displacement, Affine(affine.matrix @ matrix)))


def run(options: argparse.Namespace) -> None:
    """Measure successful and failed registrations of each scan."""
    torch.set_num_threads(options.threads)
    options.table.parent.mkdir(parents=True, exist_ok=True)
    template = prepare_template(resolve_template(SPACE), options.table.parent / "templates")
    fixed, fixed_mask = image.read(template.t1w), image.read(template.mask)
    results = [one for out in options.out for one in find_results(out) if one.space == SPACE]
    for number, result in enumerate(results[:: options.every]):
        for row in _measure(result, fixed, fixed_mask, options, number):
            _append(options.table, row)


def _measure(
    result: Result,
    fixed: Image,
    fixed_mask: Image,
    options: argparse.Namespace,
    number: int,
) -> Iterator[dict[str, object]]:
    """Yield the table rows of one scan."""
    rng = np.random.default_rng(number)
    folder = result.native_mask.parent
    native = result.native_mask.name.replace("desc-brain_mask", "desc-preproc_T1w")
    scan, mask = image.read(folder / native), image.read(result.native_mask)
    forward_file, inverse_file = (folder / f"{result.label}_{name}_mode-image_xfm.h5" for name in (
        f"from-T1w_to-{SPACE}", f"from-{SPACE}_to-T1w"
    ))  # fmt: skip
    forward, inverse = read_transform(forward_file), read_transform(inverse_file)
    truth = Truth(forward, fixed_mask)
    original_mode = json.loads(result.quality.read_text())["mode"]
    mode = options.mode or original_mode
    common = {"scan": result.label, "mode": mode}
    if mode != original_mode and {"good", "random"} & set(options.kinds):
        intact = register(
            fixed, scan, fixed_mask=fixed_mask, moving_mask=mask, mode=mode,
            threads=options.threads,
        )  # fmt: skip
        forward, inverse = intact.forward, intact.inverse

    def row(kind: str, found: Registration, back: np.ndarray, never: bool = False) -> dict:
        distance = truth.distance(found.forward, back)
        right = distance < NEAR_MM and not never
        known = {"kind": kind, "distance_mm": round(distance, 3), "right": int(right)}
        log_jacobian = found.forward.log_jacobian(fixed.grid)[0, 0].numpy()
        known["asymmetry"] = asymmetry(log_jacobian, fixed_mask.data[0, 0].numpy(), SPACE)
        return common | known | found.quality.as_dict() | {"mode": mode}

    if "good" in options.kinds:
        quality = _assess(fixed, fixed_mask, scan, mask, forward, inverse, mode)
        yield row("good", Registration(forward, inverse, quality), np.eye(4))
    if "random" in options.kinds:
        wrong = scrambled(forward, rng)
        quality = _assess(fixed, fixed_mask, scan, mask, wrong, wrong.inverse(), mode)
        yield row("random", Registration(wrong, inverse, quality), np.eye(4))
    for kind in options.kinds:
        corrupted = KINDS[kind](scan, mask, rng) if kind in KINDS else None
        if corrupted is None:
            continue
        start = time.perf_counter()
        found = register(
            fixed,
            corrupted.moving,
            fixed_mask=fixed_mask,
            moving_mask=corrupted.mask,
            mode=mode,
            threads=options.threads,
        )
        print(result.label, kind, f"{time.perf_counter() - start:.0f} s", flush=True)
        yield row(kind, found, corrupted.back, corrupted.never_right)


def _assess(
    fixed: Image,
    fixed_mask: Image,
    moving: Image,
    mask: Image,
    forward: Transform,
    inverse: Transform,
    mode: str,
) -> Quality:
    """Compute the quality metrics of given transforms."""
    displacement, affine = forward.steps
    quality = Quality(mode, "cpu")
    pair = make_pair(fixed, moving, np.eye(4), fixed_mask, mask)
    quality.similarity_initial = similarity(pair)
    pair = make_pair(fixed, moving, affine.matrix, fixed_mask, mask)
    back = next(step for step in inverse.steps if isinstance(step, Displacement))
    assess(quality, pair, *(change_grid(step, pair.grid) for step in (displacement, back)))
    return quality


def _append(table: Path, row: dict[str, object]) -> None:
    row.pop("seconds")
    new = not table.exists()
    with open(table, "a", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, list(row), delimiter="\t")
        if new:
            writer.writeheader()
        writer.writerow(row)


def share(options: argparse.Namespace) -> None:
    """Compute the mean asymmetry of brains, and the similarity of each brain to the others."""
    maps = _maps(options.out, SYMMETRIC_TEMPLATE)
    differences = np.array([left_right_difference(*one) for one in maps.values()])
    similarities = [
        pattern_similarity(one, mean_pattern(np.delete(differences, number, axis=0)))
        for number, one in enumerate(differences)
    ]
    print("similarity of each brain to the others:", np.sort(similarities).round(3))
    shared = mean_pattern(differences).astype(np.float16)
    np.savez_compressed(
        DATA / "asymmetry.npz", pattern=shared, similarities=np.float32(similarities)
    )


def _maps(outputs: Sequence[Path], space: str) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Read the log-Jacobian and the brain mask (i, j, k) of each scan in a space."""
    results = (one for out in outputs for one in find_results(out) if one.space == space)
    return {
        one.label: (
            np.asarray(nib.load(one.log_jacobian).dataobj, np.float32),
            np.asarray(nib.load(one.mask).dataobj, np.float32),
        )
        for one in results
    }


def growth(options: argparse.Namespace) -> None:
    """Compute the log-Jacobian from the symmetric to the asymmetric template.

    It is what the registrations of the same brains to both differ by, in the mean: that of a
    registration of both templates lacks what registrations of single brains do not follow.
    """
    symmetric, asymmetric = (
        _maps(options.out, space) for space in (SYMMETRIC_TEMPLATE, ASYMMETRIC_TEMPLATE)
    )
    fractions = np.stack(pattern_fractions())
    changes = []
    for label in sorted(symmetric.keys() & asymmetric.keys()):
        log_jacobian, mask = symmetric[label]
        last = np.reshape(mask.shape, (3, 1, 1, 1)) - 1
        direct = map_coordinates(log_jacobian, fractions * last, order=1)
        through, _ = to_symmetric(*asymmetric[label], ASYMMETRIC_TEMPLATE)
        changes.append(direct - through)
    path = DATA / f"asymmetry_{ASYMMETRIC_TEMPLATE}.npz"
    stored = dict(np.load(path))
    added = gaussian_filter(np.mean(changes, axis=0), SMOOTHING)
    total = stored["growth"] * STEP_GROWTH + added
    stored["growth"] = np.clip(np.round(total / STEP_GROWTH), -127, 127).astype(np.int8)
    print(len(changes), "brains, mean change", float(np.abs(added).mean().round(4)))
    np.savez_compressed(path, **stored)


def fit(options: argparse.Namespace) -> None:
    """Fit bounds for each mode, and write them with the ranges of successful registrations."""
    rows = _read(options.table)
    bounds = {}
    for mode in sorted({row["mode"] for row in rows}):
        theirs = [row for row in rows if row["mode"] == mode]
        right = [row for row in theirs if row["kind"] == "good"]
        wrong = [row for row in theirs if not row["right"] and row["kind"] != "flipped"]
        bounds[mode] = {key: _bounds(key, right, wrong) for key in FITTED}
        bounds[mode]["asymmetry"] = _asymmetry_bounds(right)
        print(mode, len(right), "right,", len(wrong), "wrong", bounds[mode])
    path = DATA / "quality_reference.json"
    stored = read_json(path)
    write_json(path, stored | {"bounds": stored["bounds"] | bounds})


def _bounds(key: str, right: list[dict], wrong: list[dict]) -> dict[str, float]:
    """Fit the range and bounds of one metric."""
    good, bad = (np.array([row[key] for row in rows]) for rows in (right, wrong))
    low, middle, high = np.percentile(good, [5, 50, 95])
    found = {"low": low, "high": high}
    side = 1 if np.median(bad) > middle else -1
    spread = 1.4826 * float(np.median(np.abs(good - middle)))
    doubtful = middle + side * DOUBTFUL_SD * max(spread, MIN_SPREAD)
    beyond = bad[side * (bad - doubtful) > 0]
    if len(beyond) >= MIN_DETECTED * len(bad):
        found |= {"doubtful": doubtful, "failed": (doubtful + np.median(beyond)) / 2}
    return {name: round(float(value), 4) for name, value in found.items()}


def _asymmetry_bounds(right: list[dict]) -> dict[str, float]:
    """Fit the range and bound of asymmetry.

    Mirrored brains have the opposite sign. The bound for doubtful is a quarter of the way from 0
    to them; there is no bound for failed, because a single brain may be atypical.
    """
    similarities = np.load(DATA / "asymmetry.npz")["similarities"]
    low, high = np.percentile([row["asymmetry"] for row in right], [5, 95])
    found = {"low": low, "high": high, "doubtful": -np.median(similarities) / 4}
    return {name: round(float(value), 4) for name, value in found.items()}


def test(options: argparse.Namespace) -> None:
    """Print verdicts and truth for each kind of registration."""
    rows = _read(options.table)
    table = Table("mode", "kind", "truth", "n", *LEVELS, "distance (mm)")
    for mode, kind, right in sorted({(row["mode"], row["kind"], row["right"]) for row in rows}):
        theirs = [row for row in rows
                  if (row["mode"], row["kind"], row["right"]) == (mode, kind, right)]  # fmt: skip
        levels = [judge(row).level for row in theirs]
        distances = [row["distance_mm"] for row in theirs]
        table.add_row(
            mode, kind, "right" if right else "wrong", str(len(theirs)),
            *(str(levels.count(level)) for level in LEVELS),
            f"{min(distances):.1f} to {max(distances):.1f}",
        )  # fmt: skip
    Console().print(table)
    for mode in sorted({row["mode"] for row in rows}):
        theirs = [row for row in rows if row["mode"] == mode]
        for name, kinds in (("all", lambda kind: True), ("not flipped", lambda k: k != "flipped")):
            levels = {
                right: [judge(r).level for r in theirs if r["right"] == right and kinds(r["kind"])]
                for right in (0, 1)
            }
            caught = np.mean([level != "good" for level in levels[0]])
            kept = np.mean([level == "good" for level in levels[1]])
            print(f"{mode}, {name}: sensitivity {caught:.3f}, specificity {kept:.3f}")


def _read(paths: Sequence[Path]) -> list[dict[str, Any]]:
    """Read the rows of tables, with numeric values as float."""
    rows = []
    for path in paths:
        with open(path, encoding="utf-8", newline="") as stream:
            rows += csv.DictReader(stream, delimiter="\t")
    text_columns = ("scan", "mode", "kind", "device", "weights")
    return [
        {
            key: value if key in text_columns else float(value)
            for key, value in row.items()
            if value not in ("", "nan")  # not measured
        }
        for row in rows
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(required=True)
    shares = commands.add_parser("pattern")
    shares.add_argument("out", type=Path, nargs="+")
    shares.set_defaults(run=share)
    growths = commands.add_parser("growth")
    growths.add_argument("out", type=Path, nargs="+")
    growths.set_defaults(run=growth)
    for done in (fit, test):
        command = commands.add_parser(done.__name__)
        command.add_argument("table", type=Path, nargs="+")
        command.set_defaults(run=done)
    runs = commands.add_parser("run")
    runs.add_argument("out", type=Path, nargs="+")
    runs.add_argument("--table", type=Path, required=True)
    runs.add_argument("--kinds", nargs="+", default=["good", "random", *KINDS])
    runs.add_argument("--mode", choices=MODES, help="by default that of OUT")
    runs.add_argument("--every", type=int, default=1, metavar="N", help="take one scan of N")
    runs.add_argument("--threads", type=int, default=2)
    runs.set_defaults(run=run)
    options = parser.parse_args()
    options.run(options)


if __name__ == "__main__":
    main()
