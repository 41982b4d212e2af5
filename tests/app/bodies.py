"""A study of coarse lobed bodies, whose shapes are known."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace

import nibabel as nib
import numpy as np

#: Space of the template of `write_study`.
SPACE = "body"

#: Options to register bodies, which have no skull, in little time.
QUICK = (
    *("--device", "cpu", "--nprocs", 2, "--omp-nthreads", 1, "--mode", "predict"),
    *("--skip-bids-validation", "--skull-strip-t1w", "skip"),
)

#: Centre of the core, and its radius, in mm.
CORE, CORE_RADIUS = (7.5, 0.0, 0.0), 15.0


def body(
    spacing: float, size: float = 1.0, turn: float = 0.0, dark: float = 1.0, seed: int = 0
) -> nib.Nifti1Image:
    """A lobed body with texture and a dark core of a known size, turned about z."""
    shape = [round(extent / spacing) for extent in (162, 189, 153)]
    affine = np.diag([spacing] * 3 + [1.0])
    affine[:3, 3] = [-spacing * (n - 1) / 2 for n in shape]
    points = np.moveaxis(np.indices(shape), 0, -1) * spacing + affine[:3, 3]
    cos, sin = np.cos(turn), np.sin(turn)
    points = points @ np.array([[cos, -sin, 0], [sin, cos, 0], [0, 0, 1]]) / size
    x, y, z = np.moveaxis(points, -1, 0)
    lobes = 1 + 0.15 * np.sin(3 * np.arctan2(y, x)) + 0.1 * z / 45
    radius = np.sqrt((x / 46) ** 2 + (y / 58) ** 2 + (z / 41) ** 2) / lobes
    inside = np.clip((1 - radius) * 8, 0, 1)
    core = np.clip(1.5 - np.linalg.norm(points - CORE, axis=-1) / (CORE_RADIUS * dark), 0, 1)
    texture = 6 * np.sin(x / 7) * np.cos(y / 8) * np.sin(z / 7)
    noise = np.random.default_rng(seed).normal(0, 0.5, shape)
    values = (100 * inside - 70 * core + texture * inside + noise) * (inside > 0.05)
    return nib.Nifti1Image(values.clip(0).astype("float32"), affine)


def write_study(
    folder: Path, name: str, spacing: float, scans: Mapping[str, nib.Nifti1Image]
) -> SimpleNamespace:
    """Write a dataset of scans by their labels, a template, and its atlas of core and rest."""
    study = SimpleNamespace(folder=folder, bids=folder / "bids", out=folder / "out")
    for label, scan in scans.items():
        scan.to_filename(scan_path(study.bids, label))
    (study.bids / "dataset_description.json").write_text(
        json.dumps({"Name": name, "BIDSVersion": "1.10.0"})
    )
    study.template, study.atlas = folder / f"{SPACE}.nii.gz", folder / "atlas.nii.gz"
    template = body(spacing)
    template.to_filename(study.template)
    points = np.moveaxis(np.indices(template.shape), 0, -1) * spacing + template.affine[:3, 3]
    core = np.linalg.norm(points - CORE, axis=-1) < CORE_RADIUS
    labels = (template.get_fdata() > 0).astype("int16") + core.astype("int16")
    nib.Nifti1Image(labels, template.affine).to_filename(study.atlas)
    (folder / "atlas.tsv").write_text("index\tname\n1\trest\n2\tcore\n")
    return study


def scan_path(bids: Path, label: str) -> Path:
    """Path of the T1w image of a scan; its folder is created."""
    path = bids / label.replace("_", "/") / "anat" / f"{label}_T1w.nii.gz"
    path.parent.mkdir(parents=True)
    return path


def read_table(path: Path) -> list[dict[str, str]]:
    """Rows of a TSV file."""
    with open(path, newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream, delimiter="\t"))
