"""How well phantoms were registered: the derivatives of a run beside the truth.

    fcnreg phantom BIDS_DIR
    bids_fcnreg BIDS_DIR OUT_DIR participant --template MNI152NLin2009aSym
    python benchmarks/phantom.py BIDS_DIR OUT_DIR

Errors are distances in mm, in native space, between where the estimated and the true transform
take the points of the template's brain. Overlaps are Dice coefficients in native space.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

import nibabel as nib
import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from bids_fcnreg.bids.templates import prepare_template, resolve_template
from bids_fcnreg.config import SYMMETRIC_TEMPLATE
from bids_fcnreg.errors import FcnregError, InputError
from bids_fcnreg.io import image, nifti
from bids_fcnreg.io.itk import read_transform
from bids_fcnreg.phantom.dataset import mask_points, registration_error

XFM = f"from-T1w_to-{SYMMETRIC_TEMPLATE}_mode-image_xfm.h5"

#: What is asked of the default mode: median and 95th percentile of the error, mm.
MEDIAN, P95 = 1.0, 2.5


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("bids_dir", type=Path, help="made by fcnreg phantom")
    parser.add_argument("out_dir", type=Path, help="derivatives of a run on it")
    args = parser.parse_args()
    try:
        rows = measure(args.bids_dir, args.out_dir)
    except FcnregError as error:
        print(error, file=sys.stderr)
        return 2
    table = Table(title="Phantoms: registration beside the truth")
    for column in rows[0]:
        table.add_column(column, justify="right")
    for row in rows:
        table.add_row(*(v if isinstance(v, str) else f"{v:.3f}" for v in row.values()))
    Console(width=None if sys.stdout.isatty() else 120).print(table)
    good = all(row["error median mm"] <= MEDIAN and row["error p95 mm"] <= P95 for row in rows)
    verdict = "all within" if good else "NOT all within"
    print(f"{verdict} the bounds: median at most {MEDIAN} mm, 95th percentile at most {P95} mm")
    return 0 if good else 1


def measure(bids_dir: Path, out_dir: Path) -> list[dict[str, str | float]]:
    """Measure one row of metrics per participant."""
    with tempfile.TemporaryDirectory() as folder:
        mask = prepare_template(resolve_template(SYMMETRIC_TEMPLATE), Path(folder)).mask
        points = mask_points(image.read(mask))
    truths = sorted((bids_dir / "derivatives" / "truth").glob(f"sub-*/anat/*_{XFM}"))
    if not truths:
        raise InputError(f"{bids_dir} holds no truth: make it with fcnreg phantom.")
    rows = []
    for path in truths:
        name = path.name.split("_")[0]
        ours, truth = out_dir / name / "anat", path.parent
        estimate = read_transform(_the(ours, f"{name}_{XFM}"))
        error = registration_error(read_transform(path), estimate, points).numpy()
        row: dict[str, str | float] = {"participant": name}
        row |= {
            "error median mm": float(np.median(error)),
            "error p95 mm": float(np.percentile(error, 95)),
        }
        row |= {"error max mm": float(error.max())}
        tissues = _voxels(_the(ours, f"{name}_atlas-tissue_desc-{SYMMETRIC_TEMPLATE}_dseg.nii.gz"))
        true_tissues = _voxels(truth / f"{name}_dseg.nii.gz")
        for index, tissue in enumerate(("CSF", "GM", "WM"), start=1):
            row[f"Dice {tissue}"] = dice(tissues == index, true_tissues == index)
        brain = f"{name}_desc-brain_mask.nii.gz"
        row["Dice brain"] = dice(_voxels(_the(ours, brain)) > 0, _voxels(truth / brain) > 0)
        rows.append(row)
    return rows


def dice(one: torch.Tensor, other: torch.Tensor) -> float:
    """Compute the Dice coefficient of two masks on one grid."""
    if one.shape != other.shape:
        raise InputError(
            f"Images of {tuple(one.shape)} and {tuple(other.shape)} voxels cannot be compared: "
            "are the derivatives those of this dataset?"
        )
    return 2 * float((one & other).sum()) / float(one.sum() + other.sum())


def _voxels(path: Path) -> torch.Tensor:
    """Read labels reoriented to RAS, for comparable grids."""
    return image.to_image(nib.as_closest_canonical(nifti.load(path))).data


def _the(folder: Path, pattern: str) -> Path:
    """Return the single file that matches a pattern."""
    found = sorted(folder.glob(pattern))
    if not found:
        raise InputError(f"{folder / pattern} is not there: did the run succeed?")
    return found[0]


if __name__ == "__main__":
    sys.exit(main())
