"""Choose the image and the brain mask of a template among the files of an archive."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bids_fcnreg.bids.template_archive import Entry, fetch
from bids_fcnreg.errors import InputError
from bids_fcnreg.io.spatial_image import open_image

_NIFTI = (".nii.gz", ".nii")


@dataclass(frozen=True)
class TemplateFiles:
    """Files of a template.

    Attributes
    ----------
    t1w : Path
        The image.
    mask : Path or None
        Its brain mask, if there is one.
    cohort : str or None
        Whose they are.
    """

    t1w: Path
    mask: Path | None
    cohort: str | None


def select_template_files(
    files: Sequence[Entry], name: str, modifiers: dict[str, str], folder: Path | None
) -> TemplateFiles:
    """Choose the image and the mask that a name and its modifiers mean.

    Parameters
    ----------
    files : sequence of Entry
        All files of the template.
    name : str
        Of the template, as in the names of its files.
    modifiers : dict of str to str
        ``cohort`` and ``res``, where they are given. Without ``res``, the finest is chosen: by
        its voxels in a folder of the user, by its number in TemplateFlow, where not all files
        are there.
    folder : Path or None
        The user's folder that they are in; None for TemplateFlow.

    Raises
    ------
    InputError
        If there is no such image, or several.
    """
    base = str(folder) if folder else name
    spec = ":".join([base, *(f"{key}-{value}" for key, value in modifiers.items())])
    files = [e for e in files if e.extension in _NIFTI]
    images = [e for e in files if e.suffix == "T1w"]
    if not images:
        raise InputError(f"The template {spec} has no T1w image: {_advice(name, folder)}.")
    cohort = _choose_cohort(images, modifiers.get("cohort"), spec, base)
    files = [e for e in files if e.entities.get("cohort") == cohort]
    images = [e for e in files if e.suffix == "T1w" and (e.only() or _is_brain(e))]
    if not images:
        raise InputError(f"The template {spec} has no plain T1w image: choose another template.")
    resolution = _choose_resolution(images, modifiers.get("res"), spec, folder is not None)
    files = [e for e in files if e.entities.get("res") == resolution]
    heads = [e for e in files if e.suffix == "T1w" and e.only()]
    brains = [e for e in files if e.suffix == "T1w" and e.only("desc") and _is_brain(e)]
    masks = [e for e in files if e.suffix == "mask" and e.only("desc", "label") and _is_brain(e)]
    image = _only((heads or brains) if masks else (brains or heads), spec)
    mask = _only(masks, spec) if masks else None
    return TemplateFiles(fetch(image), fetch(mask) if mask else None, cohort)


def _advice(name: str, folder: Path | None) -> str:
    if folder is None:
        return "choose another template"
    return f"its files must be called tpl-{name}_…_T1w.nii.gz, in {folder} or its cohort-N"


def _choose_cohort(images: Sequence[Entry], asked: str | None, spec: str, base: str) -> str | None:
    """The cohort that is asked for; None for images that are of none."""
    cohorts = sorted({e.entities.get("cohort") for e in images}, key=_as_number)
    if asked not in cohorts:
        known = ", ".join(f"{base}:cohort-{c}" for c in cohorts if c)
        raise InputError(
            f"The template {spec} needs one of its cohorts: {known}."
            if known
            else f"The template {spec} has no cohorts: give {base}."
        )
    return asked


def _choose_resolution(
    images: Sequence[Entry], asked: str | None, spec: str, by_voxels: bool
) -> str | None:
    """The resolution that is asked for, or the finest."""
    found = {e.entities.get("res"): e for e in images}
    if asked is not None:
        if asked not in found:
            known = ", ".join(f"res-{r}" for r in sorted(found, key=_as_number) if r)
            raise InputError(
                f"The template {spec} has no such resolution; it has {known or 'only one'}."
            )
        return asked
    if by_voxels and len(found) > 1:
        return min(found, key=lambda res: (_voxel_volume(fetch(found[res])), _as_number(res)))
    return min(found, key=_as_number)


def _voxel_volume(path: Path) -> float:
    """Volume of a voxel in mm³; infinite if the file cannot be read: `image.load` says why."""
    try:
        zooms = np.array(open_image(path).header.get_zooms()[:3])
        return float(np.prod(np.round(zooms, 3)))
    except Exception:  # nibabel raises many kinds
        return float("inf")


def _as_number(label: str | None) -> tuple[float, str]:
    """Sort key: no label, numbers, others."""
    if label is None:
        return -1, ""
    return (int(label) if label.isdecimal() else float("inf")), label


def _is_brain(entry: Entry) -> bool:
    """Whether the name is that of a brain or its mask; old archives say ``label-brain``."""
    return entry.entities.get("desc", entry.entities.get("label")) == "brain"


def _only(found: Sequence[Entry], spec: str) -> Entry:
    """The first of several files; two that differ in nothing but their extension are refused."""
    same = [e for e in found if e.entities == found[0].entities]
    if len(same) > 1:
        raise InputError(
            f"The template {spec} is ambiguous: it has {same[0].path} and {same[1].path}. "
            "Remove one of them."
        )
    return found[0]
