"""Does the verdict on a segmentation tell heads from wrong headers and from other objects?

    python benchmarks/segmentation_flag.py reference LABEL_MAPS
    python benchmarks/segmentation_flag.py test SCAN [SCAN ...]

`reference` measures the structures of label maps, and writes the range of each one's share of the
brain's volume and its typical position in an upright head to the package. `test` segments scans as
they are, with wrong headers, and with their voxels in a wrong order; it prints metrics and
verdicts.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

import bids_fcnreg
from bids_fcnreg.atomic import read_json
from bids_fcnreg.bids.builtin_templates import BUILTIN_FILES
from bids_fcnreg.bids.derivatives import write_json
from bids_fcnreg.fcn.arrangement import label_structures, measure_structures
from bids_fcnreg.fcn.segment import segment
from bids_fcnreg.fcn.spatial.grid import Grid, Image
from bids_fcnreg.fcn.structures import STRUCTURES
from bids_fcnreg.io import image
from bids_fcnreg.qc.segmentation import assess_segmentation
from bids_fcnreg.qc.verdict import LEVELS, reference_bounds
from bids_fcnreg.training.simulation import LabelMap

REFERENCE = Path(bids_fcnreg.__file__).parent / "data" / "quality_reference.json"

#: Its brain is upright.
TEMPLATE = BUILTIN_FILES["MNI152NLin2009cAsym"].path("t1")

#: Rotations of all label maps to their mean, which converges in a few.
ROUNDS = 5


def main() -> None:
    """Run the command of the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("reference").add_argument("maps", type=Path)
    commands.add_parser("test").add_argument("scans", type=Path, nargs="+")
    options = parser.parse_args()
    if options.command == "reference":
        write_reference(sorted(options.maps.glob("*.nii*")), REFERENCE)
    else:
        test(options.scans)


def write_reference(maps: list[Path], path: Path) -> None:
    """Measure the structures of label maps, and write them to the reference of the verdict."""
    measured = []
    for file in maps:
        anatomy = LabelMap.read(file)
        labels = anatomy.channels(flipped=False)[anatomy.indices[0, 0].numpy()]
        measured.append(measure_structures(labels, np.eye(4)))
    shares, positions = (np.stack(part) for part in zip(*measured, strict=True))
    positions = positions - positions.mean(axis=1, keepdims=True)
    typical = positions[0]
    for _ in range(ROUNDS):
        typical = np.mean([rotated(each, typical) for each in positions], axis=0)
    template = segment(image.read(TEMPLATE))
    upright = measure_structures(label_structures(template.posteriors), template.grid.affine)[1]
    typical = rotated(typical, upright - upright.mean(axis=0))
    names = [name for channel, name in enumerate(STRUCTURES.values()) if channel]
    rows = zip(names, shares.min(axis=0), shares.max(axis=0), typical, strict=True)
    structures = {
        name: [*(float(f"{share:.3g}") for share in (low, high)), *np.round(position, 1).tolist()]
        for name, low, high, position in rows
    }
    write_json(path, read_json(path) | {"structures": structures})


def rotated(positions: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Rotate positions (n, 3) about the origin to others (Kabsch 1976)."""
    left, _, right = np.linalg.svd(positions.T @ target)
    proper = np.diag([1.0, 1.0, np.linalg.det(left @ right)])
    return positions @ left @ proper @ right


def errors(scan: Image) -> Iterator[tuple[str, Image]]:
    """Yield a scan as it is, and with errors, by name."""
    yield "none", scan
    centre = scan.grid.affine @ [*((np.array(scan.grid.shape) - 1) / 2), 1.0]
    for axis, name in enumerate("xyz"):
        flip = np.eye(4)
        flip[axis, axis] = -1
        yield f"flipped along {name}", _moved(scan, flip, centre)
        turn = np.eye(4)
        one, other = {0, 1, 2} - {axis}
        turn[[one, other], [one, other]] = 0
        turn[one, other], turn[other, one] = -1, 1
        yield f"turned by 90° about {name}", _moved(scan, turn, centre)
    yield "voxels of twice the height", Image(scan.data, _stretched(scan.grid))
    order = torch.randperm(scan.grid.shape[2], generator=torch.Generator().manual_seed(0))
    yield "slices in random order", Image(scan.data[..., order], scan.grid)
    odd_first = [*range(1, len(order), 2), *range(0, len(order), 2)]
    yield "odd slices before even ones", Image(scan.data[..., odd_first], scan.grid)
    noise = torch.rand(scan.data.shape, generator=torch.Generator().manual_seed(0))
    yield "noise instead of voxels", Image(noise, scan.grid)


def _moved(scan: Image, motion: np.ndarray, centre: np.ndarray) -> Image:
    """Apply a linear map about a point to the header of a scan."""
    there, back = np.eye(4), np.eye(4)
    there[:3, 3], back[:3, 3] = -centre[:3], centre[:3]
    return Image(scan.data, Grid(scan.grid.shape, back @ motion @ there @ scan.grid.affine))


def _stretched(grid: Grid) -> Grid:
    """Return a grid with its slices twice as far apart."""
    return Grid(grid.shape, grid.affine @ np.diag([1.0, 1.0, 2.0, 1.0]))


def test(scans: list[Path]) -> None:
    """Segment scans with and without errors; print the metrics and the verdict of each."""
    table = Table("scan", "error", "misplaced, mm", "implausible", "verdict")
    for path in scans:
        for name, scan in errors(image.read(path)):
            found = assess_segmentation(segment(scan, flip=True))
            bounds = reference_bounds("predict")
            levels = [bounds[key].judge(value) for key, value in found.items()]
            table.add_row(
                path.name,
                name,
                f"{found['structures_misplaced_mm']:.1f}",
                f"{found['structures_implausible']:.0f}",
                max(levels, key=LEVELS.index),
            )
    Console(width=110).print(table)


if __name__ == "__main__":
    main()
