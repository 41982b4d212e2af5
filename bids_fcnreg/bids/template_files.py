"""Select the image and the brain mask of a template from the files of an archive."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bids_fcnreg.bids.names import EXTENSIONS
from bids_fcnreg.bids.template_archive import Entry, fetch
from bids_fcnreg.errors import InputError
from bids_fcnreg.io.spatial_image import open_image

#: Value of the modifier ``cohort`` that chooses by age.
AUTO = "auto"


@dataclass(frozen=True)
class TemplateFiles:
    """Files of a template.

    Attributes
    ----------
    t1w : Path
        T1w image.
    mask : Path or None
        Brain mask, if there is one.
    cohort : str or None
        Cohort of both.
    """

    t1w: Path
    mask: Path | None
    cohort: str | None


def select_template_files(
    files: Sequence[Entry], name: str, modifiers: dict[str, str], directory: Path | None
) -> TemplateFiles:
    """Select the image and the mask for a name and modifiers.

    Parameters
    ----------
    files : sequence of Entry
        All files of the template.
    name : str
        Name of the template in its file names.
    modifiers : dict of str to str
        Optional ``cohort`` and ``res``. Without ``res``, the finest resolution is selected: by
        voxel size in a directory of the user, by number in TemplateFlow, whose files may not be
        downloaded yet.
    directory : Path or None
        Directory of the user with the files; None for TemplateFlow.

    Raises
    ------
    InputError
        If there is no such image, or several.
    """
    base = str(directory) if directory else name
    spec = ":".join([base, *(f"{key}-{value}" for key, value in modifiers.items())])
    files = [e for e in files if e.extension in EXTENSIONS]
    images = [e for e in files if e.suffix == "T1w"]
    if not images:
        raise InputError(f"The template {spec} has no T1w image. {_advice(name, directory)}.")
    cohort = _choose_cohort(images, modifiers.get("cohort"), spec, base)
    files = [e for e in files if e.entities.get("cohort") == cohort]
    images = [e for e in files if e.suffix == "T1w" and (e.only() or _is_brain(e))]
    if not images:
        raise InputError(f"The template {spec} has no plain T1w image. Choose another template.")
    resolution = _choose_resolution(images, modifiers.get("res"), spec, directory is not None)
    files = [e for e in files if e.entities.get("res") == resolution]
    heads = [e for e in files if e.suffix == "T1w" and e.only()]
    brains = [e for e in files if e.suffix == "T1w" and _is_brain(e)]
    masks = [e for e in files if e.suffix == "mask" and _is_brain(e)]
    image = _only((heads or brains) if masks else (brains or heads), spec)
    mask = _only(masks, spec) if masks else None
    return TemplateFiles(fetch(image), fetch(mask) if mask else None, cohort)


def _advice(name: str, directory: Path | None) -> str:
    if directory is None:
        return "Choose another template"
    return f"Name its files tpl-{name}_…_T1w.nii.gz, in {directory} or its cohort-N"


def _choose_cohort(images: Sequence[Entry], asked: str | None, spec: str, base: str) -> str | None:
    """Return the requested cohort; None if there are no cohorts."""
    cohorts = sorted({e.entities.get("cohort") for e in images}, key=_as_number)
    if asked == AUTO or asked not in cohorts:
        known = ", ".join(f"{base}:cohort-{c}" for c in cohorts if c)
        if asked == AUTO and known:
            raise InputError(
                f"{spec}: cohort-{AUTO} is available at the participant level only. Choose from "
                f"{known}."
            )
        raise InputError(
            f"The template {spec} requires one of its cohorts. Choose from {known}."
            if known
            else f"The template {spec} has no cohorts. Use {base}."
        )
    return asked


def _choose_resolution(
    images: Sequence[Entry], asked: str | None, spec: str, by_voxels: bool
) -> str | None:
    """Return the requested resolution, or the finest."""
    found = {e.entities.get("res"): e for e in images}
    if asked is not None:
        if asked not in found:
            known = ", ".join(f"res-{r}" for r in sorted(found, key=_as_number) if r)
            advice = f"Available: {known}." if known else f"It has only one: omit res-{asked}."
            raise InputError(f"The template {spec} has no such resolution. {advice}")
        return asked
    if by_voxels and len(found) > 1:
        return min(found, key=lambda res: (_voxel_volume(fetch(found[res])), _as_number(res)))
    return min(found, key=_as_number)


def _voxel_volume(path: Path) -> float:
    """Return the volume of a voxel in mm³; infinite if the file cannot be read."""
    try:
        zooms = np.array(open_image(path).header.get_zooms()[:3])
        return float(np.prod(np.round(zooms, 3)))
    except Exception:  # nibabel raises many types; `image.load` reports the error
        return float("inf")


def _as_number(label: str | None) -> tuple[float, str]:
    """Return a sort key: no label, then numbers, then other labels."""
    if label is None:
        return -1, ""
    return (int(label) if label.isdecimal() else float("inf")), label


def _is_brain(entry: Entry) -> bool:
    """Return whether the name is that of a brain or its mask; old archives use ``label-brain``."""
    named = entry.entities.get("desc", entry.entities.get("label")) == "brain"
    return named and entry.only("desc", "label")


def _only(found: Sequence[Entry], spec: str) -> Entry:
    """Return the first of several files; refuse two that differ only in their extension."""
    same = [e for e in found if e.entities == found[0].entities]
    if len(same) > 1:
        raise InputError(
            f"The template {spec} is ambiguous: it has {same[0].path} and {same[1].path}. "
            "Remove one of them."
        )
    return found[0]
