"""Do all contrasts of a head lead to the same place? `python contrasts.py BIDS_DIR [options]`.

BIDS_DIR has sessions with a T1w image of a head and images of other contrasts. Each image is
registered to the built-in template: the T1w with its brain mask, the others, and the T1w once
more, as T1w-like images. The other contrasts are aligned to the T1w rigidly. Printed are, over
points of the template's brain, distances (mm) between where the T1w and the other image put the
same point, and the quality metrics. The rigid alignment is repeated with the header of the other
image moved at random by up to 30 degrees about each axis and 30 mm along it: printed is the
largest distance between any result and that of the unchanged header.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from scipy.spatial.transform import Rotation

from bids_fcnreg.bids.builtin_templates import nilearn_map
from bids_fcnreg.bids.order import natural_key
from bids_fcnreg.fcn.foreground import foreground
from bids_fcnreg.fcn.linear.align import align
from bids_fcnreg.fcn.modes import MODES
from bids_fcnreg.fcn.nets import checkpoint
from bids_fcnreg.fcn.nets.anatomy import AnatomyFCN
from bids_fcnreg.fcn.nets.packaged_weights import PACKAGED_WEIGHTS
from bids_fcnreg.fcn.register import Registration, register
from bids_fcnreg.fcn.spatial.grid import Grid, Image, apply_affine
from bids_fcnreg.interfaces.brain_extraction import BrainExtraction
from bids_fcnreg.io import image
from bids_fcnreg.preprocessing.any_contrast import prepare_brain
from bids_fcnreg.preprocessing.contrast import contrast_of_name
from bids_fcnreg.qc.metrics import JUDGED
from bids_fcnreg.qc.verdict import judge

#: Every how manyth voxel of the template's brain is a point.
STRIDE = 997
DEGREES, MILLIMETRES = 30.0, 30.0


@dataclass(frozen=True)
class Settings:
    """Settings of all registrations, and the points where they are compared."""

    template: Image
    points: torch.Tensor
    network: AnatomyFCN
    mode: str
    model: Path | None
    starts: int

    def to_template(self, brain: Image, mask: Image) -> Registration:
        """Register a brain to the template."""
        return register(self.template, brain, moving_mask=mask, mode=self.mode, model=self.model)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("bids_dir", type=Path)
    parser.add_argument("--participant-label", nargs="+", help="default: all")
    parser.add_argument("--mode", choices=MODES, default="refine")
    parser.add_argument("--model", type=Path, help="weights of the registration network")
    parser.add_argument(
        "--weights",
        type=Path,
        default=PACKAGED_WEIGHTS / "anatomy.safetensors",
        help="weights of the anatomy network",
    )
    parser.add_argument("--starts", type=int, default=20, help="number of random starts")
    options = parser.parse_args()
    template = image.read(nilearn_map("t1"))
    voxels = np.argwhere(foreground(template.data[0, 0].numpy()))[::STRIDE]
    points = torch.from_numpy(apply_affine(template.grid.affine, voxels))
    network, checksum = checkpoint.load(options.weights, ["anatomy"])
    settings = Settings(template, points, network, options.mode, options.model, options.starts)
    columns = ("image", "median", "mean", "95th", "starts", *JUDGED, "verdict")
    table = Table(*columns, title=f"{options.mode}, anatomy network {checksum[:12]}")
    wanted = options.participant_label or ["*"]
    folders = {
        path
        for label in wanted
        for pattern in ("anat", "ses-*/anat")
        for path in options.bids_dir.glob(f"sub-{label.removeprefix('sub-')}/{pattern}")
    }
    for folder in sorted(folders, key=natural_key):
        for row in compare(folder, settings):
            print("\t".join(row), flush=True)
            table.add_row(*row)
    Console(width=200).print(table)


def compare(folder: Path, settings: Settings) -> Iterator[list[str]]:
    """Yield a row for each image of a session; none without a T1w and another contrast."""
    paths = sorted(folder.glob("*.nii.gz"))
    t1w = [path for path in paths if path.name.endswith("_T1w.nii.gz") and "_ce-" not in path.name]
    others = [path for path in paths if contrast_of_name(path.name) == "other"]
    if not t1w or not others:
        return
    head, mask = image.read(t1w[0]), extract_brain(t1w[0])
    reference = settings.to_template(head, mask)
    there = reference.forward.map(settings.points)
    yield [t1w[0].name, *"––––", *metrics(reference)]
    brain = prepare_brain(head, settings.network)
    like, like_mask = brain.t1w_like, brain.mask
    found = settings.to_template(like, like_mask)
    yield [
        f"{t1w[0].name}, T1w-like",
        *distances(found.forward.map(settings.points), there),
        "–",
        *metrics(found),
    ]
    for path in others:
        brain = prepare_brain(image.read(path), settings.network)
        other, other_mask = brain.t1w_like, brain.mask
        rigid = rigid_alignment(like, other, like_mask, other_mask)
        found = settings.to_template(other, other_mask)
        back = apply_affine(np.linalg.inv(rigid), found.forward.map(settings.points).numpy())
        spread = "–"
        if settings.starts:
            results = moved_alignments(like, other, like_mask, other_mask, settings.starts)
            expected = apply_affine(rigid, there.numpy())
            away = [
                np.linalg.norm(apply_affine(one, there.numpy()) - expected, axis=1).max()
                for one in results
            ]
            spread = f"{max(away):.3f}"
        yield [path.name, *distances(torch.from_numpy(back), there), spread, *metrics(found)]


def extract_brain(path: Path) -> Image:
    """Return the brain mask of a T1w image of a head, on its grid."""
    with tempfile.TemporaryDirectory() as folder:
        extraction = BrainExtraction(
            in_file=str(path.resolve()),
            mode="force",
            extractor="deepbet",
            num_threads=os.cpu_count() or 1,
        )
        return image.read(extraction.run(cwd=folder).outputs.mask)


def rigid_alignment(fixed: Image, moving: Image, fixed_mask: Image, moving_mask: Image):
    """Return the matrix that maps points of the fixed head to the moving one."""
    return align(fixed, moving, fixed_mask=fixed_mask, moving_mask=moving_mask, dof="rigid")


def moved_alignments(
    fixed: Image, moving: Image, fixed_mask: Image, moving_mask: Image, starts: int
) -> Iterator[np.ndarray]:
    """Yield alignments with the header of the moving image moved at random, moved back."""
    rng = np.random.default_rng(0)
    centre = moving.grid.centre
    for _ in range(starts):
        motion = np.eye(4)
        angles = rng.uniform(-DEGREES, DEGREES, 3)
        motion[:3, :3] = Rotation.from_euler("xyz", angles, degrees=True).as_matrix()
        motion[:3, 3] = centre - motion[:3, :3] @ centre
        motion[:3, 3] += rng.uniform(-MILLIMETRES, MILLIMETRES, 3)
        grid = Grid(moving.grid.shape, motion @ moving.grid.affine)
        moved, mask = (Image(one.data, grid) for one in (moving, moving_mask))
        yield np.linalg.inv(motion) @ rigid_alignment(fixed, moved, fixed_mask, mask)


def distances(one: torch.Tensor, other: torch.Tensor) -> list[str]:
    """Format median, mean and 95th percentile of the distances between points (n, 3)."""
    away = (one - other).norm(dim=1)
    return [f"{value:.2f}" for value in (away.median(), away.mean(), away.quantile(0.95))]


def metrics(found: Registration) -> list[str]:
    """Format the metrics that determine the verdict, and the verdict on T1w images."""
    quality = found.quality.as_dict()
    values = [quality.get(key) for key in JUDGED]
    return [*("–" if value is None else f"{value:.3f}" for value in values), judge(quality).level]


if __name__ == "__main__":
    main()
