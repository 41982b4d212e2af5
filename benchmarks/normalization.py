"""Brains to a template: `python normalization.py DATA OUT [--methods ...] [--template FILE]`.

DATA is a BIDS folder of brain-extracted T1w images with label images. Each method registers every
brain to the template, and brings brain and labels there, in one interpolation. Reported: how well
the labels of two brains overlap in the template's space, how much labels differ at a voxel, how
sharp the mean of the brains is, and seconds a brain. What is made is kept in OUT and used again:
a method or a brain can be added later.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from pathlib import Path
from statistics import median

import torch
from dataset import Subject, find_subjects, select
from machine import environment
from measures import Meter, PointMap, label_entropy, mean_overlap, sharpness
from peer import Task
from peers import PEERS, find
from rich.console import Console
from rich.table import Table

from bids_fcnreg.bids.builtin_templates import BUILTIN_FILES
from bids_fcnreg.fcn.intensity import standardize
from bids_fcnreg.io import image

#: The template, if none is given.
BUILTIN = "MNI152NLin2009cAsym"

DEFAULT_METHODS = ["ours-refine", "ours-predict", "synquick"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--participant-label", nargs="+", metavar="LABEL")
    parser.add_argument("--methods", nargs="+", choices=list(PEERS), default=DEFAULT_METHODS)
    parser.add_argument("--template", type=Path, default=BUILTIN_FILES[BUILTIN].path("t1"))
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    os.environ.update(environment(options.threads))  # ITK reads it when it is first used
    subjects = find_subjects(options.data)
    if options.participant_label:
        subjects = select(subjects, options.participant_label)
    columns = ("pairwise Dice", "label entropy, bit", "sharpness, 1/mm", "seconds, median")
    table = Table("method", "brains", *columns)
    for method in options.methods:
        folder = options.out / method
        seconds = [normalize(one, options.template, method, folder, options.threads)
                   for one in subjects]  # fmt: skip
        labels = [read(folder, subject, "labels").short() for subject in subjects]
        brains = [read(folder, subject, "brain") for subject in subjects]
        measured = mean_overlap(labels), label_entropy(labels)
        clarity = sharpness(torch.stack(brains).mean(dim=0), image.read(options.template).grid)
        figures = [f"{value:.4f}" for value in (*measured, clarity)]
        table.add_row(find(method).label, str(len(subjects)), *figures, f"{median(seconds):.0f}")
    Console().print(table)


def normalize(subject: Subject, template: Path, method: str, folder: Path, threads: int) -> float:
    """Register a brain to the template, unless that was done; return the seconds that it took."""
    record = folder / f"{subject.name}.json"
    if not record.exists():
        folder.mkdir(parents=True, exist_ok=True)
        meter = Meter()
        with tempfile.TemporaryDirectory() as scratch:
            task = Task(template, subject.brain, Path(scratch), threads=threads)
            maps = find(method).run(task, meter)
            points = PointMap.of(maps.forward, image.read(template).grid)
        brain, _ = standardize(image.read(subject.brain), None, "moving")
        image.write(folder / f"{subject.name}_brain.nii.gz", points.resample(brain))
        labels = points.resample(image.read(subject.labels), "label")
        image.write(folder / f"{subject.name}_labels.nii.gz", labels, "int16")
        record.write_text(json.dumps({"seconds": meter.seconds}))
    return json.loads(record.read_text())["seconds"]


def read(folder: Path, subject: Subject, what: str) -> torch.Tensor:
    """Read a brain or its labels in the template's space (i, j, k)."""
    return image.read(folder / f"{subject.name}_{what}.nii.gz").data[0, 0]


if __name__ == "__main__":
    main()
