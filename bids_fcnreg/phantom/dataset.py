"""Simulated BIDS dataset with known ground truth.

Every participant is the symmetric built-in template after a random diffeomorphism and affine, with
its own tissue contrast, scalp and skull, bias field, noise, voxel size and orientation. Its left
and right sides differ as those of most brains do. The ground truth is in ``derivatives/truth``:
transforms, tissues and brain mask.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import uuid
from pathlib import Path

import numpy as np
from torch import Tensor

from bids_fcnreg import __version__
from bids_fcnreg.bids.atlases import TISSUE, prepare_atlas, resolve_atlas, write_lookup
from bids_fcnreg.bids.derivatives import BIDS_VERSION, NAME, write_json, write_tsv
from bids_fcnreg.bids.templates import prepare_template, resolve_template
from bids_fcnreg.config import SYMMETRIC_TEMPLATE as SPACE
from bids_fcnreg.errors import InputError
from bids_fcnreg.fcn.spatial.grid import Image
from bids_fcnreg.fcn.spatial.transform import Transform
from bids_fcnreg.io import image
from bids_fcnreg.io.itk import write_transform
from bids_fcnreg.phantom.head import Head, build_head
from bids_fcnreg.phantom.scan import SCANS, Participant, simulate_sessions

#: Disk space of a scan and its ground truth.
GB_PER_SCAN = 0.03

#: Smallest and largest voxel size of scans, in mm.
MIN_SPACING_MM, MAX_SPACING_MM = 0.7, 5.0


def make_dataset(
    directory: str | os.PathLike[str],
    participants: int = 2,
    seed: int = 0,
    max_displacement: float = 10.0,
    sessions: int = 1,
    spacing: float | None = None,
) -> Path:
    """Make a BIDS dataset of phantoms, with the truth in ``derivatives/truth``.

    Parameters
    ----------
    directory : path
        Output directory; must be empty or not exist. Created atomically.
    participants : int
        Number of participants. A participant does not depend on their number.
    seed : int
        The same seed gives the same files, bit for bit.
    max_displacement : float
        Largest displacement by the diffeomorphism inside a brain, in mm; a participant's own
        largest displacement is between 60 and 100 % of it.
    sessions : int
        Number of sessions. With several, the ventricles grow and the left hippocampus shrinks from
        session to session (`CHANGES`), each with its own noise and position.
    spacing : float, optional
        Voxel size of all scans in mm; by default each has its own (`SCANS`). With large voxels,
        scans are simulated and processed faster.

    Returns
    -------
    pathlib.Path
        `directory`.

    Raises
    ------
    InputError
        If `directory` is not empty, a number is less than 1, the voxel size is not between
        `MIN_SPACING_MM` and `MAX_SPACING_MM`, or disk space is insufficient.
    """
    directory = Path(directory)
    if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
        raise InputError(f"{directory} is not an empty directory. Choose a new one.")
    if participants < 1:
        raise InputError(f"{participants} participants cannot be simulated. Choose at least 1.")
    if sessions < 1:
        raise InputError(f"{sessions} sessions cannot be simulated. Choose at least 1.")
    if spacing is not None and not MIN_SPACING_MM <= spacing <= MAX_SPACING_MM:
        raise InputError(
            f"Scans with voxels of {spacing:g} mm cannot be simulated. Choose {MIN_SPACING_MM:g} "
            f"to {MAX_SPACING_MM:g} mm."
        )
    directory.parent.mkdir(parents=True, exist_ok=True)
    needed = participants * sessions * GB_PER_SCAN
    available = shutil.disk_usage(directory.parent).free / 1024**3
    if needed > available:
        raise InputError(
            f"{participants * sessions} scans need about {needed:.0f} GB; {available:.0f} GB are "
            f"free at {directory}. Choose fewer, or another directory."
        )
    # Named before it is created, so that a signal at any moment finds it.
    staging = directory.with_name(f".{directory.name}.{uuid.uuid4().hex[:8]}")
    try:
        staging.mkdir()
        head = build_template_head()
        labels = [f"{number:02d}" for number in range(1, participants + 1)]
        _write_dataset(staging, labels)
        for number, label in enumerate(labels):
            rng = np.random.default_rng([seed, number])
            axes, voxel, angle = SCANS[number % len(SCANS)]
            scan = axes, voxel if spacing is None else (spacing,) * 3, angle
            scans = simulate_sessions(head, scan, max_displacement, rng, sessions)
            for visit, participant in enumerate(scans, start=1):
                session = f"ses-{visit}" if sessions > 1 else None
                _write_participant(staging, f"sub-{label}", session, participant)
        os.replace(staging, directory)
    except BaseException:
        shutil.rmtree(staging, ignore_errors=True)
        raise
    return directory


def build_template_head() -> Head:
    """Build the head around the symmetric built-in template."""
    with tempfile.TemporaryDirectory() as directory:
        template = prepare_template(resolve_template(SPACE), Path(directory))
        atlas = prepare_atlas(resolve_atlas(TISSUE, template), template, Path(directory))
        files = (template.t1w, template.brain_mask, atlas.label_image)
        return build_head(*(image.read(path) for path in files))


def registration_error(truth: Transform, estimate: Transform, points: Tensor) -> Tensor:
    """Compute the error of a registration, in native space.

    Parameters
    ----------
    truth, estimate : Transform
        Both map points of the template to points of the scan (``from-T1w_to-<template>``).
    points : Tensor (..., 3)
        Points of the template, RAS+ mm; `mask_points` gives those of the brain.

    Returns
    -------
    Tensor (...)
        Distances in mm between the mapped points.
    """
    return (truth.map(points) - estimate.map(points)).norm(dim=-1)


def mask_points(mask: Image) -> Tensor:
    """Return the centres of the voxels of a mask, (n, 3), float64, RAS+ mm."""
    return mask.grid.points()[mask.data[0, 0] > 0]


def _write_participant(
    directory: Path, subject: str, session: str | None, participant: Participant
) -> None:
    name = f"{subject}_{session}" if session else subject
    subdirectory = Path(*name.split("_"), "anat")
    raw = directory / subdirectory
    image.write(raw / f"{name}_T1w.nii.gz", participant.t1w, "int16")
    write_json(raw / f"{name}_T1w.json", {"Modality": "MR", "SeriesDescription": "simulated"})
    truth = directory / "derivatives" / "truth" / subdirectory
    image.write(truth / f"{name}_dseg.nii.gz", participant.dseg, "uint8")
    image.write(truth / f"{name}_desc-brain_mask.nii.gz", participant.mask, "uint8")
    for source, target, transform in (
        ("T1w", SPACE, participant.forward),
        (SPACE, "T1w", participant.inverse),
    ):
        file = f"{name}_from-{source}_to-{target}_mode-image_xfm.h5"
        write_transform(truth / file, transform)


def _write_dataset(directory: Path, labels: list[str]) -> None:
    """Write the descriptions of the raw dataset and of its ground truth."""
    made_by = [{"Name": NAME, "Version": __version__}]
    common = {"BIDSVersion": BIDS_VERSION, "License": "CC0", "GeneratedBy": made_by}
    write_json(
        directory / "dataset_description.json",
        {"Name": "Phantom heads", "DatasetType": "raw", **common},
    )
    (directory / "README.md").write_text(
        "# Phantom heads\n\n"
        f"Simulated T1-weighted scans: each is the {SPACE} brain after a random diffeomorphism\n"
        "and affine, with skull and scalp, tissue contrast, bias field and noise of its own.\n"
        "The transforms, tissues and brain masks that they were made from are in\n"
        "`derivatives/truth`.\n"
    )
    write_tsv(directory / "participants.tsv", ["participant_id"], [[f"sub-{n}"] for n in labels])
    truth = directory / "derivatives" / "truth"
    write_json(
        truth / "dataset_description.json",
        {"Name": "Truth of the phantom heads", "DatasetType": "derivative", **common},
    )
    (truth / "README.md").write_text(
        "# Truth of the phantom heads\n\n"
        f"`from-T1w_to-{SPACE}` takes points of the template to points of the scan, which is\n"
        "what resamples the scan onto the template; its inverse takes them back.\n"
    )
    (truth / ".bidsignore").write_text("*_xfm.h5\n")
    write_lookup(truth / "dseg.tsv", resolve_atlas(TISSUE, resolve_template(SPACE)).labels)
