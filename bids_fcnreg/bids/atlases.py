"""Atlases to bring into each participant's space: label images and the names of their labels."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path

import nibabel as nib
import numpy as np

from bids_fcnreg.atomic import checksum
from bids_fcnreg.bids.derivatives import write_tsv
from bids_fcnreg.bids.lookup_tables import check_lookup, read_lookup
from bids_fcnreg.bids.space_labels import make_label
from bids_fcnreg.bids.template_archive import (
    Entry,
    fetch,
    list_entries,
    list_templateflow_entries,
    parse_file_name,
)
from bids_fcnreg.bids.templates import (
    Template,
    cache_path,
    label_of_file,
    materialise,
    nilearn_map,
    nilearn_url,
    parse_modifiers,
)
from bids_fcnreg.errors import InputError
from bids_fcnreg.fcn.foreground import foreground
from bids_fcnreg.io import image

#: The built-in atlas, with the label values of fMRIPrep's tissue classes in BIDS order.
TISSUE = "tissue"
_TISSUE_LABELS = ((1, "CSF"), (2, "GM"), (3, "WM"))

#: Part of an atlas's voxels that lies in the template's brain at least; how many are looked at.
LEAST_INSIDE, MOST_POINTS = 0.5, 100_000

#: A label image with more values than this has a table of their names, or is none.
MOST_UNNAMED = 1000

#: What label images of 32 bits can hold.
LARGEST_LABEL = 2**31 - 1
_FILE = re.compile(r"(?P<image>.+?\.nii(?:\.gz)?)(?::(?P<table>.+))?")


@dataclass(frozen=True)
class Atlas:
    """A label image in the space of a template.

    Attributes
    ----------
    name : str
        Alphanumeric, for the ``seg-`` entity.
    image : Path or None
        Integers on any grid of the template's space; None where `materialise_atlas` makes it.
    labels : tuple of (int, str)
        Value and name of each region, by value; the background 0 is not among them.
    table : Path or None
        Where the names are from.
    builtin : bool
        Whether it is the one that comes with the software.
    doubts : tuple of str
        What is said against its table of names.
    """

    name: str
    image: Path | None
    labels: tuple[tuple[int, str], ...]
    table: Path | None = None
    builtin: bool = False
    doubts: tuple[str, ...] = ()

    @property
    def label_image(self) -> Path:
        """Its label image, of an atlas from `materialise_atlas`."""
        if self.image is None:
            raise ValueError(f"The atlas {self.name} has no label image yet.")
        return self.image

    @property
    def sources(self) -> dict[str, str]:
        """Path or URL of each file it is made from, with its SHA-256."""
        if self.builtin:
            return {nilearn_url(kind): checksum(nilearn_map(kind)) for kind in ("gm", "wm")}
        return {str(path): checksum(path) for path in (self.image, self.table) if path}


def default_atlases(template: Template) -> list[Atlas]:
    """The tissue segmentation (CSF, GM, WM) if the template is the built-in one, else nothing."""
    return [Atlas(TISSUE, None, _TISSUE_LABELS, builtin=True)] if template.builtin else []


def resolve_atlas(spec: str, template: Template) -> Atlas:
    """Find an atlas.

    Parameters
    ----------
    spec : str
        ``tissue`` (built in, for the built-in template); a name that TemplateFlow, or the user's
        folder of this template, uses as atlas, segmentation or description, with modifiers where
        there are several, such as ``Schaefer2018:desc-100Parcels7Networks``; a label image
        ``FILE.nii.gz`` with its table in ``FILE.tsv``; or ``FILE.nii.gz:TABLE.tsv``. A table has
        the columns ``index`` and ``name`` (or ``label``), separated by tabs; labels without a
        name are named by their value.
    template : Template
        The template it belongs to.

    Raises
    ------
    InputError
        If it is not there, ambiguous, or does not hold whole numbers.
    """
    if spec.lower() == TISSUE:
        if not template.builtin:
            raise InputError(
                f"The atlas {TISSUE} belongs to the built-in template, not to {template.space}: "
                "give an atlas of that template."
            )
        return default_atlases(template)[0]
    if match := _FILE.fullmatch(spec):
        path = Path(match["image"]).expanduser().absolute()
        table = Path(match["table"]).expanduser() if match["table"] else None
        atlas = _from_file(path, table, _name_of(path))
        _check_place(path, template)
        return atlas
    return _from_archive(spec, template)


def materialise_atlas(atlas: Atlas, template: Template, folder: Path) -> Atlas:
    """Make the built-in label image in a folder, unless it is there; others stay as they are.

    Tissue is decided in each voxel of the brain mask by the largest of three probabilities: grey
    and white matter from the maps, cerebrospinal fluid as what they leave to one.
    """
    if atlas.image is not None:
        return atlas
    grey_path, white_path = nilearn_map("gm"), nilearn_map("wm")
    path = cache_path(folder, template.t1w, f"seg-{TISSUE}_dseg", grey_path, white_path)
    if not image.is_whole(path):
        brain = image.load(materialise(template, folder).brain_mask)
        grey = image.load(grey_path).get_fdata()
        white = image.load(white_path).get_fdata()
        # The maps hold 0 to 255 for probabilities of 0 to 1.
        probability = np.stack([255 - grey - white, grey, white])
        tissue = (probability.argmax(axis=0) + 1) * (brain.get_fdata() > 0)
        image.write(path, image.like(brain, tissue, "uint8"))
    return replace(atlas, image=path)


def write_lookup(path: Path, labels: tuple[tuple[int, str], ...]) -> Path:
    """Write the table of an atlas as BIDS wants it beside a ``_dseg``."""
    return write_tsv(path, ("index", "name"), labels)


def _from_archive(spec: str, template: Template) -> Atlas:
    """Atlas by the name that the template's folder, or TemplateFlow, gives it."""
    keys = ("desc", "seg", "scale", "atlas", "res")
    name, asked = parse_modifiers(spec, keys)
    files = [
        e
        for e in _archive_of(template, spec)
        if e.suffix == "dseg" and e.entities.get("cohort") == template.cohort
    ]
    images = [e for e in files if e.extension in (".nii.gz", ".nii")]
    named = next(
        (hits for key in ("atlas", "seg", "desc") if (hits := _matching(images, {key: name}))), []
    )
    hits = _matching(named, asked)
    if not hits:
        if template.builtin and not images:
            raise InputError(
                f"The built-in template {template.space} has no atlas {spec}, only {TISSUE}: give "
                "with --template one that has it, such as MNI152NLin2009cAsym, or a NIfTI file."
            )
        known = sorted({_spec_of(e) for e in named or images})
        raise InputError(
            f"{template.folder or 'TemplateFlow'} has no atlas {spec} for {template.space}: it "
            f"has {', '.join(known) or 'none'}; or give a NIfTI file."
        )
    kinds = sorted({_spec_of(e) for e in hits})
    if len(kinds) > 1:
        raise InputError(f"The atlas {spec} is ambiguous: choose one of {', '.join(kinds)}.")
    # Any grid will do, for labels are sampled in world coordinates: the finest, numbered lowest.
    chosen = min(hits, key=lambda e: _resolution(e))
    identity = {k: v for k, v in chosen.entities.items() if k not in ("res", "tpl", "cohort")}
    tables = [e for e in files if e.extension == ".tsv" and e.only(*identity)]
    tables = _matching(tables, identity)
    table = fetch(tables[0]) if tables else None
    path = fetch(chosen)
    return _from_file(path, table, make_label("".join(identity.values()), path))


def _archive_of(template: Template, spec: str) -> list[Entry]:
    """Files among which the atlases of a template are."""
    if template.folder is not None:
        return list_entries(template.folder)
    try:
        return list_templateflow_entries(template.name)
    except InputError as why:
        raise InputError(
            f"There is no atlas {spec} for the template {template.space}, which is not one of "
            "TemplateFlow's: check the name, or give a NIfTI file."
        ) from why


def _resolution(entry: Entry) -> float:
    label = entry.entities.get("res", "0")
    return int(label) if label.isdecimal() else float("inf")


def _matching(files: list[Entry], entities: dict[str, str]) -> list[Entry]:
    """Files that carry all of these entities."""
    return [e for e in files if entities.items() <= e.entities.items()]


def _spec_of(entry: Entry) -> str:
    """How to ask for an atlas, apart from its resolution."""
    first, *rest = [(k, v) for k, v in entry.entities.items() if k not in ("tpl", "cohort", "res")]
    return ":".join([first[1], *(f"{key}-{value}" for key, value in rest)])


def _name_of(path: Path) -> str:
    """Label of an atlas file: what its entities say, or else its name."""
    entry = parse_file_name(path)
    entities = entry.entities if entry else {}
    parts = [entities[key] for key in ("atlas", "seg", "desc") if key in entities]
    return make_label("".join(parts), path) if parts else label_of_file(path)


def _from_file(path: Path, table: Path | None, name: str) -> Atlas:
    """Atlas from a label image and a table of names (by default the one beside it)."""
    values = image.whole_numbers(path)
    if values is None or values[0] < 0:
        raise InputError(
            f"The atlas {path} holds values that are not whole numbers from 0 up: give a label "
            "image, one number a region (not probabilities)."
        )
    if values[-1] > LARGEST_LABEL:
        raise InputError(
            f"The atlas {path} holds labels above {LARGEST_LABEL}: give its regions other numbers."
        )
    beside = path.with_name(re.sub(r"\.nii(\.gz)?$", ".tsv", path.name))
    if table is None and beside.exists():
        table = beside
    lookup = read_lookup(table) if table is not None else None
    if lookup is None and len(values) > MOST_UNNAMED:
        raise InputError(
            f"The atlas {path} holds {len(values)} different values and has no table of their "
            f"names: give a label image, with {beside.name} (columns index, name) beside it."
        )
    labels = {int(v): str(int(v)) for v in values}
    doubts: tuple[str, ...] = ()
    if lookup is not None:
        doubts = check_lookup(lookup, path, labels)
        labels |= lookup.names
    labels.pop(0, None)
    return Atlas(name, path, tuple(sorted(labels.items())), table, doubts=doubts)


def _check_place(path: Path, template: Template) -> None:
    """Refuse labels most of which lie outside the template's brain."""
    labels, brain = image.load(path), image.load(template.mask or template.t1w)
    there = np.argwhere(np.rint(labels.get_fdata()) != 0)
    there = there[:: max(1, len(there) // MOST_POINTS)]
    voxels = np.linalg.inv(brain.affine) @ labels.affine
    place = np.rint(nib.affines.apply_affine(voxels, there)).astype(int)
    within = ((place >= 0) & (place < brain.shape)).all(axis=1)
    inside = brain.get_fdata() if template.mask else foreground(brain.get_fdata())
    hits = inside[tuple(place[within].T)] != 0
    if hits.sum() < LEAST_INSIDE * len(there):
        raise InputError(
            f"Of the atlas {path}, {1 - hits.sum() / len(there):.0%} lie outside the brain of "
            f"{template.space}: give an atlas in the space of this template."
        )
