"""How well brains overlap in a template: `python template.py DATA OUT --space A B [--ants DIR]`.

DATA is a BIDS folder of T1w images with label images; OUT is what the participant level or the
group task `template` left of it, with transforms to the spaces. Every brain's labels are brought
into each space; reported is the Dice coefficient of the labels of two brains, mean over labels
and over all pairs of brains. It depends on the size of structures in the template: large ones
overlap better. Therefore labels are also carried from one brain through the template to another
one, and compared there, for all ordered pairs. The first figure is also measured for the template
that antspyx's `build_template` makes of the same images with SyNQuick, two iterations, and to
which SyNQuick registers them; whatever it makes is kept in DIR and used again.
"""

from __future__ import annotations

import argparse
import itertools
import json
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import fmean

import torch
from dataset import Subject, find_subjects
from measures import Meter, PointMap, mean_overlap
from peer import Task
from peers import PEERS
from rich.console import Console
from rich.table import Table

from bids_fcnreg.bids.builtin_templates import BUILTIN_FILES
from bids_fcnreg.fcn.spatial.grid import Image
from bids_fcnreg.fcn.spatial.transform import Transform
from bids_fcnreg.io import image
from bids_fcnreg.io.itk import read_transform

#: What antspyx's `build_template` is asked for.
ITERATIONS, PEER = 2, "synquick"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--space", nargs="+", default=[])
    parser.add_argument("--ants", type=Path, metavar="DIR")
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    subjects = find_subjects(options.data)
    table = Table("template", "Dice in its space", "Dice from brain to brain", "seconds")
    for space in options.space:
        overlap = mean_overlap(list(ours(options.out, space, subjects)))
        table.add_row(space, f"{overlap:.4f}", f"{carried(options.out, space, subjects):.4f}", "–")
    if options.ants:
        options.ants.mkdir(parents=True, exist_ok=True)
        seconds = build(subjects, options.ants)
        overlap = mean_overlap(list(theirs(subjects, options.ants, options.threads)))
        table.add_row(f"antspyx build_template ({PEER})", f"{overlap:.4f}", "–", f"{seconds:.0f}")
    Console().print(table)


def ours(out: Path, space: str, subjects: Sequence[Subject]) -> Iterator[torch.Tensor]:
    """Resample the labels of each brain to a space with the transforms of the derivatives."""
    if space in BUILTIN_FILES:
        template = BUILTIN_FILES[space].path("t1")
    else:
        template = next(out.glob(f"tpl-{space}/*_res-01_T1w.nii.gz"))
    grid = image.read(template).grid
    for subject in subjects:
        transform = find_transform(out, subject, "T1w", space)
        yield transform.resample(image.read(subject.labels), grid, "label").data.short()


def carried(out: Path, space: str, subjects: Sequence[Subject]) -> float:
    """Compute the mean Dice of each brain's labels and those carried to it from another one."""
    every = [image.read(subject.labels) for subject in subjects]
    to_space = [find_transform(out, one, space, "T1w") for one in subjects]
    from_space = [find_transform(out, one, "T1w", space) for one in subjects]
    overlaps = []
    for fixed, moving in itertools.permutations(range(len(subjects)), 2):
        chain = Transform((*to_space[fixed].steps, *from_space[moving].steps))
        labels = chain.resample(every[moving], every[fixed].grid, "label")
        overlaps.append(mean_overlap([_labels(every[fixed]), _labels(labels)]))
    return fmean(overlaps)


def find_transform(out: Path, subject: Subject, source: str, target: str) -> Transform:
    """Read a transform of the derivatives: resamples images of `source` onto `target`."""
    name = f"{subject.name}_from-{source}_to-{target}_mode-image_xfm.h5"
    return read_transform(out / subject.name / "anat" / name)


def build(subjects: Sequence[Subject], folder: Path) -> float:
    """Make the template of antspyx, unless it is there; the seconds that took."""
    import ants

    record = folder / "build.json"
    if not record.exists():
        begun = time.perf_counter()
        made = ants.build_template(
            image_list=[ants.image_read(str(subject.brain)) for subject in subjects],
            iterations=ITERATIONS,
            type_of_transform="antsRegistrationSyNQuick[s]",
        )
        seconds = time.perf_counter() - begun
        ants.image_write(made, str(folder / "template.nii.gz"))
        record.write_text(json.dumps({"seconds": seconds}))
    return json.loads(record.read_text())["seconds"]


def theirs(subjects: Sequence[Subject], folder: Path, threads: int) -> Iterator[torch.Tensor]:
    """Resample the labels of each brain to the template of antspyx."""
    template = folder / "template.nii.gz"
    grid = image.read(template).grid
    for subject in subjects:
        kept = folder / f"{subject.name}_labels.nii.gz"
        if not kept.exists():
            scratch = folder / subject.name
            scratch.mkdir(exist_ok=True)
            task = Task(template, subject.brain, scratch, threads=threads)
            maps = PEERS[PEER].run(task, Meter())
            points = PointMap.of(maps.forward, grid)
            image.write(kept, points.resample(image.read(subject.labels), "label"), "int16")
        yield _labels(image.read(kept))


def _labels(labels: Image) -> torch.Tensor:
    return labels.data.round().short()


if __name__ == "__main__":
    main()
