"""Brain extraction beside a reference: overlap, volumes, seconds.

    python benchmarks/brain_extraction.py IMAGE REFERENCE [--extractor synthstrip]

REFERENCE is a brain mask or a brain-extracted image, on any grid in the space of IMAGE. With
Debian's package mricron-data, which has Colin27 and a brain-extracted Colin27:

    cd /usr/share/mricron/templates
    python .../benchmarks/brain_extraction.py ch2.nii.gz ch2bet.nii.gz
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from pathlib import Path

import numpy as np
from scipy import ndimage

from bids_fcnreg.fcn.foreground import foreground
from bids_fcnreg.fcn.spatial.transform import Transform
from bids_fcnreg.interfaces.brain_extraction import BrainExtraction
from bids_fcnreg.io import image


def compare(mask: np.ndarray, reference: np.ndarray, spacing: np.ndarray) -> dict[str, str]:
    """Compare two masks (i, j, k), bool, with voxels of `spacing` mm."""
    voxel = float(np.prod(spacing)) / 1000
    both = mask & reference
    away = ndimage.distance_transform_edt(~mask, sampling=spacing)
    beyond = ndimage.distance_transform_edt(~reference, sampling=spacing)
    return {
        "Dice": f"{2 * both.sum() / (mask.sum() + reference.sum()):.4f}",
        "brain": f"{mask.sum() * voxel:.0f} ml",
        "reference": f"{reference.sum() * voxel:.0f} ml",
        "reference missed": f"{100 * (1 - both.sum() / reference.sum()):.2f} %",
        "missed by over 2 mm": f"{100 * (away > 2)[reference].mean():.2f} %",
        "mask over 5 mm beyond": f"{100 * (beyond > 5)[mask].mean():.2f} %",
    }


def main() -> None:
    """Extract the brain of one image, compare, and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("image", type=Path, help="T1-weighted image of a whole head")
    parser.add_argument("reference", type=Path, help="brain mask or brain-extracted image")
    parser.add_argument("--extractor", choices=("deepbet", "synthstrip"), default="deepbet")
    options = parser.parse_args()
    source = image.read(options.image)
    with tempfile.TemporaryDirectory() as folder:
        extraction = BrainExtraction(
            in_file=str(options.image.resolve()),
            mode="force",
            extractor=options.extractor,
            num_threads=os.cpu_count() or 1,
        )
        start = time.perf_counter()
        outputs = extraction.run(cwd=folder).outputs
        seconds = time.perf_counter() - start
        mask = image.read(outputs.mask).data[0, 0].numpy() > 0
    reference = image.read(options.reference)
    reference = Transform(()).resample(reference, source.grid, "nearest").data[0, 0].numpy()
    figures = compare(mask, foreground(reference), source.grid.spacing)
    for name, value in (figures | {"time": f"{seconds:.1f} s"}).items():
        print(f"{name:26} {value}")


if __name__ == "__main__":
    main()
