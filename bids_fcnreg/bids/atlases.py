"""Atlases: label images in the space of a template, and the names of their labels."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path

from bids_fcnreg.atomic import checksum
from bids_fcnreg.bids.builtin_templates import BUILTIN_FILES
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
    parse_modifiers,
)
from bids_fcnreg.errors import InputError
from bids_fcnreg.io.labels import read_label_values
from bids_fcnreg.io.nifti import is_intact, load
from bids_fcnreg.preprocessing.brain import MIN_EQUAL, equal_neighbours
from bids_fcnreg.preprocessing.template_images import fraction_inside, write_tissues

#: Built-in atlas, with the label values of fMRIPrep's tissue classes in BIDS order.
TISSUE = "tissue"
_TISSUE_LABELS = ((1, "CSF"), (2, "GM"), (3, "WM"))

#: Minimum share of atlas voxels inside the brain of the template.
MIN_SHARE_INSIDE = 0.5

#: A label image with more values needs a lookup table; it may be an intensity image.
MAX_UNNAMED = 1000

#: An intensity image has more values.
MIN_VALUES = 50

#: Largest label of a 32-bit label image.
MAX_LABEL = 2**31 - 1
_FILE = re.compile(r"(?P<image>.+?\.nii(?:\.gz)?)(?::(?P<table>.+))?")


@dataclass(frozen=True)
class Atlas:
    """A label image in the space of a template.

    Attributes
    ----------
    name : str
        Alphanumeric label for the ``atlas-`` entity.
    image : Path or None
        Label image on any grid of the space of the template; None until `prepare_atlas`
        creates it.
    labels : tuple of (int, str)
        Value and name of each region, by value, without the background 0.
    table : Path or None
        Lookup table with the names.
    builtin : str or None
        Name of the built-in template whose tissue maps it is made from.
    doubts : tuple of str
        Warnings about the lookup table.
    segmentation : str or None
        Alphanumeric label for the ``seg-`` entity, if the atlas has several segmentations.
    """

    name: str
    image: Path | None
    labels: tuple[tuple[int, str], ...]
    table: Path | None = None
    builtin: str | None = None
    doubts: tuple[str, ...] = ()
    segmentation: str | None = None

    @property
    def label(self) -> str:
        """Label of atlas and segmentation, which is unique in a template."""
        return self.name + (self.segmentation or "")

    @property
    def entities(self) -> dict[str, str]:
        """Entities in the names of its files, by their names in pybids.

        Examples
        --------
        >>> Atlas("Schaefer2018", None, (), segmentation="100Parcels").entities
        {'atlas': 'Schaefer2018', 'segmentation': '100Parcels'}
        """
        segmentation = {"segmentation": self.segmentation} if self.segmentation else {}
        return {"atlas": self.name, **segmentation}

    @property
    def pairs(self) -> str:
        """Entities as in the names of its files: ``atlas-LABEL`` or ``atlas-LABEL_seg-LABEL``."""
        return f"atlas-{self.name}" + (f"_seg-{self.segmentation}" if self.segmentation else "")

    @property
    def label_image(self) -> Path:
        """Label image of an atlas from `prepare_atlas`."""
        if self.image is None:
            raise ValueError(f"The atlas {self.name} has no label image yet.")
        return self.image

    @property
    def sources(self) -> dict[str, str]:
        """SHA-256 of each source file, by path or URL."""
        if self.builtin:
            files = BUILTIN_FILES[self.builtin]
            return {files.uri(kind): checksum(files.path(kind)) for kind in ("gm", "wm")}
        return {str(path): checksum(path) for path in (self.image, self.table) if path}


def default_atlases(template: Template) -> list[Atlas]:
    """Return the tissue segmentation (CSF, GM, WM) for a built-in template, else nothing."""
    return [Atlas(TISSUE, None, _TISSUE_LABELS, builtin=template.name)] if template.builtin else []


def resolve_atlas(spec: str, template: Template) -> Atlas:
    """Find an atlas.

    Parameters
    ----------
    spec : str
        ``tissue`` (for the built-in templates); an atlas, segmentation or description of
        TemplateFlow or of the user's directory of this template, with modifiers if there are
        several, such as ``Schaefer2018:desc-100Parcels7Networks``; a label image ``FILE.nii.gz``
        with its lookup table in ``FILE.tsv``; or ``FILE.nii.gz:TABLE.tsv``. A lookup table has the
        columns ``index`` and ``name`` (or ``label``), separated by tabs; labels without a name
        are named by their value.
    template : Template
        Template that the atlas belongs to.

    Raises
    ------
    InputError
        If it does not exist, is ambiguous, or does not hold whole numbers.
    """
    if spec.lower() == TISSUE:
        if not template.builtin:
            raise InputError(
                f"The atlas {TISSUE} belongs to the built-in templates, not to {template.space}. "
                "Choose an atlas of that template."
            )
        return default_atlases(template)[0]
    if match := _FILE.fullmatch(spec):
        path = Path(match["image"]).expanduser().absolute()
        table = Path(match["table"]).expanduser() if match["table"] else None
        atlas = _from_file(path, table, *_names_of(path))
        _check_overlap(path, template)
        return atlas
    return _from_archive(spec, template)


def prepare_atlas(atlas: Atlas, template: Template, directory: Path) -> Atlas:
    """Create the built-in label image in a directory, unless it exists; keep other atlases."""
    if atlas.image is not None:
        return atlas
    files = BUILTIN_FILES[template.name]
    t1w, gray, white = map(files.path, ("t1", "gm", "wm"))
    path = cache_path(directory, t1w, f"seg-{TISSUE}_dseg", gray, white)
    if not is_intact(path):
        write_tissues(t1w, gray, white, path, files.certain)
    return replace(atlas, image=path)


def write_lookup(path: Path, labels: tuple[tuple[int, str], ...]) -> Path:
    """Write the lookup table of an atlas for a ``_dseg`` file in BIDS."""
    return write_tsv(path, ("index", "name"), labels)


def _from_archive(spec: str, template: Template) -> Atlas:
    """Find an atlas by its name in TemplateFlow or in the directory of the template."""
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
                f"The built-in template {template.space} has no atlas {spec}, only {TISSUE}. "
                "Choose a --template that has it, such as MNI152NLin2009cAsym, or provide a NIfTI "
                "file."
            )
        known = ", ".join(sorted({_spec_of(e) for e in named or images}))
        advice = f"Available: {known}. Choose one of these, or provide" if known else "Provide"
        raise InputError(
            f"{template.directory or 'TemplateFlow'} has no atlas {spec} for {template.space}. "
            f"{advice} a NIfTI file."
        )
    kinds = sorted({_spec_of(e) for e in hits})
    if len(kinds) > 1:
        raise InputError(f"The atlas {spec} is ambiguous. Choose one of {', '.join(kinds)}.")
    # Any grid will do, since labels are resampled: choose the finest, with the lowest number.
    chosen = min(hits, key=lambda e: _resolution(e))
    identity = {k: v for k, v in chosen.entities.items() if k not in ("res", "tpl", "cohort")}
    tables = [e for e in files if e.extension == ".tsv" and e.only(*identity)]
    tables = _matching(tables, identity)
    table = fetch(tables[0]) if tables else None
    path = fetch(chosen)
    return _from_file(path, table, *_split_labels(list(identity.values()), path))


def _archive_of(template: Template, spec: str) -> list[Entry]:
    """List the files of the template, atlases included."""
    if template.directory is not None:
        return list_entries(template.directory)
    try:
        return list_templateflow_entries(template.name)
    except InputError as why:
        raise InputError(
            f"There is no atlas {spec} for the template {template.space}, which is not in "
            "TemplateFlow. Check the name, or provide a NIfTI file."
        ) from why


def _resolution(entry: Entry) -> float:
    label = entry.entities.get("res", "0")
    return int(label) if label.isdecimal() else float("inf")


def _matching(files: list[Entry], entities: dict[str, str]) -> list[Entry]:
    """Return the files that have all of these entities."""
    return [e for e in files if entities.items() <= e.entities.items()]


def _spec_of(entry: Entry) -> str:
    """Return the specification of an atlas for `resolve_atlas`, without its resolution."""
    first, *rest = [(k, v) for k, v in entry.entities.items() if k not in ("tpl", "cohort", "res")]
    return ":".join([first[1], *(f"{key}-{value}" for key, value in rest)])


def _names_of(path: Path) -> tuple[str, str | None]:
    """Return the labels of atlas and segmentation from the entities of a file, or its name."""
    entry = parse_file_name(path)
    entities = entry.entities if entry else {}
    keys = ("atlas", "seg", "scale", "desc")
    labels = [entities[key] for key in keys if key in entities]
    return _split_labels(labels, path) if labels else (label_of_file(path), None)


def _split_labels(labels: list[str], path: Path) -> tuple[str, str | None]:
    """Return the label of the atlas, which is the first, and that of its segmentation."""
    atlas, *rest = labels
    return make_label(atlas, path), make_label("".join(rest), path) if rest else None


def _from_file(
    path: Path, table: Path | None, name: str, segmentation: str | None = None
) -> Atlas:
    """Create an atlas from a label image and a lookup table (by default, the one beside it)."""
    values = read_label_values(path)
    if values is None or values[0] < 0:
        raise InputError(
            f"The atlas {path} holds values that are not whole numbers from 0 up. Provide a label "
            "image with one number per region, not probabilities."
        )
    if values[-1] > MAX_LABEL:
        raise InputError(f"The atlas {path} holds labels above {MAX_LABEL}. Renumber its regions.")
    beside = path.with_name(re.sub(r"\.nii(\.gz)?$", ".tsv", path.name))
    if table is None and beside.exists():
        table = beside
    lookup = read_lookup(table) if table is not None else None
    if lookup is None and len(values) > MAX_UNNAMED:
        raise InputError(
            f"The atlas {path} holds {len(values)} different values but has no lookup table. "
            f"Provide a label image, with {beside.name} (columns index, name) beside it."
        )
    labels = {int(v): str(int(v)) for v in values}
    doubts: tuple[str, ...] = ()
    if lookup is not None:
        doubts = check_lookup(lookup, path, labels)
        labels |= lookup.names
    if len(values) > MIN_VALUES and equal_neighbours(load(path).get_fdata()) < MIN_EQUAL:
        doubts += (
            f"the atlas {path} looks like an intensity image, because most neighbouring voxels "
            "differ. Provide a label image with one number per region",
        )
    labels.pop(0, None)
    regions = tuple(sorted(labels.items()))
    return Atlas(name, path, regions, table, doubts=doubts, segmentation=segmentation)


def _check_overlap(path: Path, template: Template) -> None:
    """Refuse an atlas most of which lies outside the brain of the template."""
    inside = fraction_inside(path, template.t1w, template.mask)
    if inside < MIN_SHARE_INSIDE:
        raise InputError(
            f"{1 - inside:.0%} of the atlas {path} lie outside the brain of {template.space}. "
            "Provide an atlas in the space of this template."
        )
