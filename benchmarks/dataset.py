"""Brains of a dataset, pairs of them, and what their labels are called."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

#: First cortical label of the MICCAI 2012 protocol (as in OASIS), and the beginning of the names
#: of FreeSurfer's cortical labels.
FIRST_CORTICAL = 100
CORTICAL_PREFIX = "ctx"


@dataclass(frozen=True)
class Subject:
    """A brain and its labels.

    Attributes
    ----------
    name : str
        Such as ``sub-01``.
    brain, labels : Path
        Files.
    """

    name: str
    brain: Path
    labels: Path


def find_subjects(data: Path) -> list[Subject]:
    """Find subjects with a T1w image and labels, by name; the first matching file of each."""
    found = []
    for folder in sorted(path for path in data.glob("sub-*") if path.is_dir()):
        brains = sorted(folder.rglob("*_T1w.nii.gz"))
        labels = sorted(folder.rglob("*_dseg.nii.gz"))
        labels += sorted(data.glob(f"derivatives/*/{folder.name}/**/*_dseg.nii.gz"))
        if brains and labels:
            found.append(Subject(folder.name, brains[0], labels[0]))
    return found


def select(subjects: list[Subject], labels: Iterable[str]) -> list[Subject]:
    """Return the subjects with these participant labels, with or without ``sub-``.

    Raises
    ------
    KeyError
        With the labels that are missing.
    """
    by_label = {subject.name.removeprefix("sub-"): subject for subject in subjects}
    wanted = list(dict.fromkeys(label.removeprefix("sub-") for label in labels))
    missing = [label for label in wanted if label not in by_label]
    if missing:
        raise KeyError(", ".join(missing))
    return [by_label[label] for label in sorted(wanted)]


def choose_pairs(subjects: int, count: int) -> list[tuple[int, int]]:
    """Choose ordered pairs (fixed, moving) in which subjects recur as little as possible.

    First each subject once (0 and 1, 2 and 3, ...), then the other way round, then others.
    """
    free = [(i, j) for i in range(subjects) for j in range(subjects) if i != j]
    fixed, moving = [0] * subjects, [0] * subjects
    chosen: list[tuple[int, int]] = []

    def recurrence(pair: tuple[int, int]) -> tuple[int, ...]:
        i, j = pair
        return fixed[i] + moving[i] + fixed[j] + moving[j], fixed[i] + moving[j], i, j

    while free and len(chosen) < count:
        best = min(free, key=recurrence)
        free.remove(best)
        chosen.append(best)
        fixed[best[0]] += 1
        moving[best[1]] += 1
    return chosen


def label_names(data: Path) -> dict[int, str]:
    """Read the names of labels from the first lookup table of the dataset, if any."""
    for path in sorted([*data.glob("*dseg.tsv"), *data.glob("derivatives/*/*dseg.tsv")]):
        with path.open(newline="") as file:
            rows = csv.DictReader(file, delimiter="\t")
            return {int(row["index"]): row["name"] for row in rows}
    return {}


def is_cortical(label: int, names: Mapping[int, str]) -> bool:
    """Return whether a label is of the cerebral cortex.

    By its name in a lookup table of FreeSurfer, else by its number in the MICCAI 2012 protocol.
    """
    if any(name.startswith(CORTICAL_PREFIX) for name in names.values()):
        return names.get(label, "").startswith(CORTICAL_PREFIX)
    return label >= FIRST_CORTICAL


def group_means(structures: list[dict], names: Mapping[int, str]) -> dict[str, float | None]:
    """Compute the mean Dice of cortical and of all other structures of a pair."""
    groups: dict[bool, list[float]] = {True: [], False: []}
    for structure in structures:
        groups[is_cortical(structure["label"], names)].append(structure["dice"])
    cortical, other = (fmean(groups[kind]) if groups[kind] else None for kind in (True, False))
    return {"dice_cortical": cortical, "dice_subcortical": other}
