"""What the verdict on a registration is worth: `python failure_flag.py {pattern,run,fit,test} …`.

`pattern OUT [OUT …]` takes derivatives of the participant level in the built-in template's space
and writes the asymmetry that their brains share into the package. `run OUT [OUT …] --table TABLE`
registers such brains again after something was broken on purpose, and appends to TABLE the quality
numbers of what was right and of what was broken, with the distance of each from the truth.
`fit TABLE [TABLE …]` finds the bounds of the verdict and writes them into the package;
`test TABLE [TABLE …]` prints how often the verdict is right. Fit and test on different brains.
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

import bids_fcnreg
from bids_fcnreg.bids.derivatives import write_json
from bids_fcnreg.bids.results import Result, find_results
from bids_fcnreg.bids.templates import materialise, resolve_template
from bids_fcnreg.fcn.modes import MODES
from bids_fcnreg.fcn.pair import make_pair
from bids_fcnreg.fcn.quality import Quality, assess, similarity
from bids_fcnreg.fcn.register import Registration, register
from bids_fcnreg.fcn.spatial.grid import Grid, Image
from bids_fcnreg.fcn.spatial.transform import Affine, Displacement, Transform, change_grid
from bids_fcnreg.io import image
from bids_fcnreg.io.itk import read_transform
from bids_fcnreg.qc.asymmetry import (
    asymmetry,
    left_right_difference,
    mean_pattern,
    pattern_similarity,
)
from bids_fcnreg.qc.metrics import JUDGED
from bids_fcnreg.qc.verdict import LEVELS, judge

SPACE = "MNI152NLin2009aSym"
#: A registration is right when most of the brain is this near (mm) to where it should be.
NEAR_MM = 3.0
#: Part of the brain's height that a broken field of view leaves.
KEPT = 0.6
#: Metrics of which a bound is looked for; asymmetry has its own.
FITTED = tuple(key for key in JUDGED if key != "asymmetry")
#: Wrong registrations that a number has to tell from right ones to be judged.
TOLD = 0.25
#: Robust standard deviations from the median of right registrations to where doubt begins.
DOUBT = 5.0
#: Smallest spread of right registrations, so that bounds fit other scanners too.
LEAST_SPREAD = 0.02
DATA = Path(bids_fcnreg.__file__).parent / "data"


@dataclass(frozen=True)
class Broken:
    """A brain after something went wrong, and how to get back from it.

    Attributes
    ----------
    moving, mask : Image
        What a user would have given.
    back : ndarray (4, 4)
        Points (RAS+ mm) of what was given to points of the true scan.
    never_right : bool
        No registration of it can be right.
    """

    moving: Image
    mask: Image
    back: np.ndarray
    never_right: bool = False


def flipped(scan: Image, mask: Image, _: np.random.Generator) -> Broken:
    """Voxels stored from right to left, the header says from left to right."""
    affine = scan.grid.affine @ _mirror(scan.grid)
    return _with_header(scan, mask, affine, never_right=True)


def rotated(scan: Image, mask: Image, _: np.random.Generator) -> Broken:
    """The header is turned by 90 degrees: up is where the nose should be."""
    turn = np.array([[1, 0, 0, 0], [0, 0, -1, 0], [0, 1, 0, 0], [0, 0, 0, 1]], dtype=float)
    return _with_header(scan, mask, turn @ scan.grid.affine)


def stretched(scan: Image, mask: Image, _: np.random.Generator) -> Broken:
    """The header says 1.6 times the thickness of slices."""
    return _with_header(scan, mask, np.diag([1, 1, 1.6, 1]) @ scan.grid.affine)


def inverted(scan: Image, mask: Image, _: np.random.Generator) -> Broken:
    """Another contrast: dark is bright, as in a T2-weighted image."""
    brain = mask.data > 0
    top = float(np.quantile(scan.data[brain].numpy(), 0.98))
    data = torch.where(brain, (1.05 * top - scan.data).clamp(min=0.02 * top), 0.0)
    return Broken(Image(data, scan.grid), mask, np.eye(4))


def cropped(scan: Image, mask: Image, rng: np.random.Generator) -> Broken:
    """The field of view ends within the brain, above or below."""
    height = scan.grid.points()[..., 2]
    inside = height[mask.data[0, 0] > 0]
    low, high = float(inside.min()), float(inside.max())
    kept = (height - low) / (high - low)
    kept = kept < KEPT if rng.random() < 0.5 else kept > 1 - KEPT
    data = torch.where(kept, scan.data, 0.0)
    return Broken(Image(data, scan.grid), Image(mask.data * kept, scan.grid), np.eye(4), True)


def head(scan: Image, mask: Image, _: np.random.Generator) -> Broken | None:
    """Without brain extraction: what should be the brain mask is a head."""
    outside = (scan.data > 0.05 * scan.data.max()) & (mask.data == 0)
    if float(outside.sum() / mask.data.sum()) < 0.3:
        return None
    everything = Image((scan.data > 0).float(), scan.grid)
    return Broken(scan, everything, np.eye(4), never_right=True)


KINDS = {made.__name__: made for made in (flipped, rotated, stretched, inverted, cropped, head)}


def _mirror(grid: Grid) -> np.ndarray:
    """Reverses the voxel axis that runs most from left to right."""
    axis = int(np.abs(grid.affine[0, :3]).argmax())
    matrix = np.eye(4)
    matrix[axis, axis], matrix[axis, 3] = -1, grid.shape[axis] - 1
    return matrix


def _with_header(
    scan: Image, mask: Image, affine: np.ndarray, never_right: bool = False
) -> Broken:
    grid = Grid(scan.grid.shape, affine)
    back = scan.grid.affine @ np.linalg.inv(affine)
    return Broken(Image(scan.data, grid), Image(mask.data, grid), back, never_right)


class Truth:
    """Where points of the template's brain lie in a scan, by a registration that was looked at."""

    def __init__(self, transform: Transform, mask: Image) -> None:
        grid = mask.grid.with_spacing(6.0)
        inside = Transform(()).resample(mask, grid).data[0, 0] > 0.5
        self.points = grid.points()[inside]
        self.places = transform.map(self.points)

    def distance(self, transform: Transform, back: np.ndarray) -> float:
        """Median distance (mm) of where a transform puts the points."""
        places = Transform((*transform.steps, Affine(back))).map(self.points)
        return float((places - self.places).norm(dim=-1).median())


def scrambled(transform: Transform, rng: np.random.Generator) -> Transform:
    """A transform made wrong: turned and shifted, by up to 20 degrees and 25 mm."""
    angle, axis = np.deg2rad(rng.uniform(5, 20)), rng.normal(size=3)
    x, y, z = axis / np.linalg.norm(axis)
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    matrix = np.eye(4)
    matrix[:3, :3] += np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross
    matrix[:3, 3] = rng.uniform(-25, 25, size=3)
    displacement, affine = transform.steps
    return Transform((displacement, Affine(affine.matrix @ matrix)))


def run(options: argparse.Namespace) -> None:
    """Measure what is right and what is broken, scan after scan."""
    torch.set_num_threads(options.threads)
    options.table.parent.mkdir(parents=True, exist_ok=True)
    template = materialise(resolve_template(SPACE), options.table.parent / "templates")
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
    """Rows of one scan."""
    rng = np.random.default_rng(number)
    folder = result.native_mask.parent
    native = result.native_mask.name.replace("desc-brain_mask", "desc-preproc_T1w")
    scan, mask = image.read(folder / native), image.read(result.native_mask)
    there, back = (folder / f"{result.label}_{name}_mode-image_xfm.h5" for name in (
        f"from-T1w_to-{SPACE}", f"from-{SPACE}_to-T1w"
    ))  # fmt: skip
    forward, inverse = read_transform(there), read_transform(back)
    truth = Truth(forward, fixed_mask)
    said = json.loads(result.quality.read_text())["mode"]
    mode = options.mode or said
    about = {"scan": result.label, "mode": mode}
    if mode != said and {"good", "random"} & set(options.kinds):
        intact = register(
            fixed, scan, fixed_mask=fixed_mask, moving_mask=mask, mode=mode,
            threads=options.threads,
        )  # fmt: skip
        forward, inverse = intact.forward, intact.inverse

    def row(kind: str, found: Registration, back: np.ndarray, never: bool = False) -> dict:
        distance = truth.distance(found.forward, back)
        right = distance < NEAR_MM and not never
        known = {"kind": kind, "distance_mm": round(distance, 3), "right": int(right)}
        growth = found.forward.log_jacobian(fixed.grid)[0, 0].numpy()
        known["asymmetry"] = asymmetry(growth, fixed_mask.data[0, 0].numpy())
        return about | known | found.quality.as_dict() | {"mode": mode}

    if "good" in options.kinds:
        quality = _assess(fixed, fixed_mask, scan, mask, forward, inverse, mode)
        yield row("good", Registration(forward, inverse, quality), np.eye(4))
    if "random" in options.kinds:
        wrong = scrambled(forward, rng)
        quality = _assess(fixed, fixed_mask, scan, mask, wrong, wrong.inverse(), mode)
        yield row("random", Registration(wrong, inverse, quality), np.eye(4))
    for kind in options.kinds:
        broken = KINDS[kind](scan, mask, rng) if kind in KINDS else None
        if broken is None:
            continue
        begun = time.perf_counter()
        found = register(
            fixed,
            broken.moving,
            fixed_mask=fixed_mask,
            moving_mask=broken.mask,
            mode=mode,
            threads=options.threads,
        )
        print(result.label, kind, f"{time.perf_counter() - begun:.0f} s", flush=True)
        yield row(kind, found, broken.back, broken.never_right)


def _assess(
    fixed: Image,
    fixed_mask: Image,
    moving: Image,
    mask: Image,
    forward: Transform,
    inverse: Transform,
    mode: str,
) -> Quality:
    """Quality numbers of transforms that are there."""
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
    """Find the asymmetry that brains share, and how well each of them fits that of the others."""
    results = [one for out in options.out for one in find_results(out) if one.space == SPACE]
    differences = np.array([
        left_right_difference(*(np.asarray(nib.load(path).dataobj, np.float32)
                          for path in (one.log_jacobian, one.mask)))
        for one in results
    ])  # fmt: skip
    alike = [
        pattern_similarity(one, mean_pattern(np.delete(differences, number, axis=0)))
        for number, one in enumerate(differences)
    ]
    print("likeness of each brain to the others:", np.sort(alike).round(3))
    shared = mean_pattern(differences).astype(np.float16)
    np.savez_compressed(DATA / "asymmetry.npz", pattern=shared, likeness=np.float32(alike))


def fit(options: argparse.Namespace) -> None:
    """Find bounds for each mode and write them with the ranges of right registrations."""
    rows = _read(options.table)
    bounds = {}
    for mode in sorted({row["mode"] for row in rows}):
        theirs = [row for row in rows if row["mode"] == mode]
        right = [row for row in theirs if row["kind"] == "good"]
        wrong = [row for row in theirs if not row["right"] and row["kind"] != "flipped"]
        bounds[mode] = {key: _bounds(key, right, wrong) for key in FITTED}
        bounds[mode]["asymmetry"] = _asymmetry_bounds(right)
        print(mode, len(right), "right,", len(wrong), "wrong", bounds[mode])
    # Refined, or trained on the pair alone, a deformation ends where one pass of a trained network
    # does, or better.
    for mode in ("refine", "optimize"):
        bounds.setdefault(mode, bounds["predict"])
    write_json(DATA / "quality_reference.json", {"bounds": bounds})


def _bounds(key: str, right: list[dict], wrong: list[dict]) -> dict[str, float]:
    """Range and bounds of one number."""
    good, bad = (np.array([row[key] for row in rows]) for rows in (right, wrong))
    low, middle, high = np.percentile(good, [5, 50, 95])
    found = {"low": low, "high": high}
    side = 1 if np.median(bad) > middle else -1
    spread = 1.4826 * float(np.median(np.abs(good - middle)))
    doubtful = middle + side * DOUBT * max(spread, LEAST_SPREAD)
    beyond = bad[side * (bad - doubtful) > 0]
    if len(beyond) >= TOLD * len(bad):
        found |= {"doubtful": doubtful, "failed": (doubtful + np.median(beyond)) / 2}
    return {name: round(float(value), 4) for name, value in found.items()}


def _asymmetry_bounds(right: list[dict]) -> dict[str, float]:
    """Range and bound of each brain's likeness to the others.

    Mirrored brains have the opposite likeness: 0 is as far from them as from the others. Doubt
    begins beyond a quarter of the way to them; one brain is never sure proof.
    """
    alike = np.load(DATA / "asymmetry.npz")["likeness"]
    low, high = np.percentile([row["asymmetry"] for row in right], [5, 95])
    found = {"low": low, "high": high, "doubtful": -np.median(alike) / 4}
    return {name: round(float(value), 4) for name, value in found.items()}


def test(options: argparse.Namespace) -> None:
    """Print for each kind of registration what the verdict is, and what it should be."""
    rows = _read(options.table)
    table = Table("mode", "kind", "truth", "n", *LEVELS, "distance (mm)")
    for mode, kind, right in sorted({(row["mode"], row["kind"], row["right"]) for row in rows}):
        theirs = [row for row in rows
                  if (row["mode"], row["kind"], row["right"]) == (mode, kind, right)]  # fmt: skip
        said = [judge(row).level for row in theirs]
        distances = [row["distance_mm"] for row in theirs]
        table.add_row(
            mode, kind, "right" if right else "wrong", str(len(theirs)),
            *(str(said.count(level)) for level in LEVELS),
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
    """Rows of tables, numbers as numbers."""
    rows = []
    for path in paths:
        with open(path, encoding="utf-8", newline="") as stream:
            rows += csv.DictReader(stream, delimiter="\t")
    words = ("scan", "mode", "kind", "device", "weights")
    return [{k: v if k in words else float(v) for k, v in row.items() if v} for row in rows]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(required=True)
    shares = commands.add_parser("pattern")
    shares.add_argument("out", type=Path, nargs="+")
    shares.set_defaults(run=share)
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
