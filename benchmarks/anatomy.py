"""Anatomy network beside manual labels: Dice of structures on a dataset with segmentations.

    python benchmarks/anatomy.py BIDS_DIR [-n N] [--slices MM] [--inverted]

BIDS_DIR has T1w brains and derivatives/manual/sub-*/anat/*_dseg.nii.gz with a lookup table
dseg.tsv, as OASIS-30 of the MICCAI 2012 challenge has (`ctx-` regions are merged to cortex).
Labels are compared on the grid of the scan, with --slices on that of the slices.
"""

from __future__ import annotations

import argparse
import re
import time
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from bids_fcnreg.fcn.nets import checkpoint
from bids_fcnreg.fcn.nets.packaged_weights import PACKAGED_WEIGHTS
from bids_fcnreg.fcn.segment import segment
from bids_fcnreg.fcn.spatial.filters import gaussian
from bids_fcnreg.fcn.spatial.grid import Image
from bids_fcnreg.fcn.spatial.transform import Transform
from bids_fcnreg.fcn.structures import STRUCTURES
from bids_fcnreg.fcn.tissue import classify
from bids_fcnreg.io import image

#: Pattern of a manual label's name, and the structure's name without its side.
PATTERNS = {
    r"cerebral white matter": "Cerebral-White-Matter",
    r"(inf lat vent|lateral ventricle)": "Lateral-Ventricle",
    r"cerebellum white matter": "Cerebellum-White-Matter",
    r"cerebellum exterior": "Cerebellum-Cortex",
    r"thalamus": "Thalamus",
    r"caudate": "Caudate",
    r"putamen": "Putamen",
    r"pallidum": "Pallidum",
    r"hippocampus": "Hippocampus",
    r"amygdala": "Amygdala",
    r"accumbens": "Accumbens-area",
    r"ventral dc": "VentralDC",
    r"brain stem": "Brain-Stem",
    r"3rd ventricle": "3rd-Ventricle",
    r"4th ventricle": "4th-Ventricle",
    r"vermal": "Cerebellum-Cortex",
}

#: Structures whose mean Dice is reported as "subcortical".
SUBCORTICAL = (
    "Thalamus", "Caudate", "Putamen", "Pallidum", "Hippocampus", "Amygdala", "Lateral-Ventricle",
)  # fmt: skip


def unsided(name: str) -> str:
    """Name of a structure without its side."""
    return re.sub(r"^(Left|Right)-", "", name)


def manual_classes(table: Path) -> dict[int, str]:
    """Return the structure, without side, of each manual label that has one."""
    classes = {}
    for index, name in pd.read_csv(table, sep="\t")[["index", "name"]].itertuples(index=False):
        found = [to for pattern, to in PATTERNS.items() if re.search(pattern, name.lower())]
        if found:
            classes[int(index)] = found[0]
        elif int(index) >= 100:
            classes[int(index)] = "Cerebral-Cortex"
    return classes


def degraded(scan: Image, slices: float, inverted: bool) -> Image:
    """Return the scan with thick slices along its third axis, or with inverted contrast."""
    data = scan.data.clone()
    if inverted:
        data = torch.where(data > 0, data.quantile(0.999) * 1.1 - data, data).clamp(min=0)
    if slices:
        spacing = scan.grid.spacing.copy()
        sigma = [0.0, 0.0, 0.42 * slices / spacing[2]]
        spacing[2] = slices
        grid = scan.grid.with_spacing(spacing)
        return Transform(()).resample(Image(gaussian(data, sigma), scan.grid), grid)
    return Image(data, scan.grid)


def main() -> None:
    """Segment each brain, compare, and print Dice by structure."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("bids_dir", type=Path)
    parser.add_argument("--weights", type=Path, default=PACKAGED_WEIGHTS / "anatomy.safetensors")
    parser.add_argument("--slices", type=float, default=0.0, help="slice thickness in mm")
    parser.add_argument("--inverted", action="store_true", help="invert the contrast")
    parser.add_argument("--no-flip", action="store_true", help="without the mirrored scan")
    parser.add_argument("-n", type=int, help="number of brains (default: all)")
    options = parser.parse_args()
    network, _ = checkpoint.load(options.weights, ["anatomy"])
    manual = options.bids_dir / "derivatives" / "manual"
    classes = manual_classes(manual / "dseg.tsv")
    rows = []
    for path in sorted(manual.glob("sub-*/anat/*_dseg.nii.gz"))[: options.n]:
        participant = path.parts[-3]
        scan = image.read(next(options.bids_dir.glob(f"{participant}/anat/*_T1w.nii.gz")))
        truth = image.read(path)
        began = time.perf_counter()
        seen = degraded(scan, options.slices, options.inverted)
        labels = classify(seen, segment(seen, network, flip=not options.no_flip)).labels
        labels = labels.data[0, 0].numpy().astype(int)
        seconds = time.perf_counter() - began
        truth = Transform(()).resample(truth, seen.grid, interpolation="nearest")
        names = np.array([unsided(STRUCTURES.get(n, "")) for n in range(max(STRUCTURES) + 1)])
        reference = truth.data[0, 0].numpy().astype(int)
        lookup = np.array([classes.get(n, "") for n in range(reference.max() + 1)])
        row = {}
        for name in dict.fromkeys(classes.values()):
            found = np.isin(labels, np.flatnonzero(names == name))
            wanted = np.isin(reference, np.flatnonzero(lookup == name))
            row[name] = 2 * (found & wanted).sum() / max(1, found.sum() + wanted.sum())
        rows.append(row | {"seconds": seconds})
    mean = pd.DataFrame(rows).mean()
    print(mean.round(3).to_string())
    print(f"subcortical mean {mean[list(SUBCORTICAL)].mean():.3f}")


if __name__ == "__main__":
    main()
