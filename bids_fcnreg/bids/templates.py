"""Templates: the built-in ones, those of TemplateFlow, NIfTI files, and directories."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

import numpy as np

from bids_fcnreg.atomic import checksum
from bids_fcnreg.bids.builtin_templates import BUILTIN_FILES
from bids_fcnreg.bids.space_labels import make_label
from bids_fcnreg.bids.template_archive import (
    Entry,
    is_downloaded,
    list_entries,
    list_templateflow_entries,
    parse_file_name,
    templateflow_home,
)
from bids_fcnreg.bids.template_files import AUTO, select_template_files
from bids_fcnreg.errors import InputError
from bids_fcnreg.io import nifti
from bids_fcnreg.preprocessing.brain import may_be_brain_only
from bids_fcnreg.preprocessing.template_images import write_brain, write_brain_mask

if TYPE_CHECKING:
    from bids_fcnreg.bids.scan import Scan


@dataclass(frozen=True)
class Template:
    """A template image and its brain mask.

    Attributes
    ----------
    name : str
        Alphanumeric label of the space.
    cohort, resolution : str or None
        Cohort and requested resolution, without leading zeros.
    t1w : Path
        T1w image.
    mask : Path or None
        Brain mask on the same grid; None until `prepare_template` estimates it from a
        skull-stripped image.
    builtin : bool
        Whether it is a built-in template, also if its files are those of TemplateFlow.
    originals : tuple of Path
        Original files, image first, if `prepare_template` has replaced some of them.
    directory : Path or None
        Directory ``tpl-NAME`` of the user with the template and its atlases.
    scans : frozenset of str or None
        Labels of the scans for whose ages ``cohort-auto`` chose it; None if it is for all scans.
    """

    name: str
    cohort: str | None
    resolution: str | None
    t1w: Path
    mask: Path | None
    builtin: bool = False
    originals: tuple[Path, ...] = ()
    directory: Path | None = None
    scans: frozenset[str] | None = None

    @property
    def space(self) -> str:
        """Label in file names: the name, with ``+`` and the cohort as sMRIPrep writes it."""
        return f"{self.name}+{self.cohort}" if self.cohort else self.name

    @property
    def title(self) -> str:
        """Name in the methods text."""
        if self.scans is not None:
            return f"the cohort of {self.name} for the age of the participant"
        return f"cohort {self.cohort} of {self.name}" if self.cohort else self.name

    @property
    def brain_mask(self) -> Path:
        """Brain mask of a template from `prepare_template`."""
        if self.mask is None:
            raise ValueError(f"The template {self.name} has no brain mask yet.")
        return self.mask

    @property
    def reference(self) -> str:
        """URI of the original image, for ``SpatialReference`` and ``Sources``."""
        if self._packaged:
            return BUILTIN_FILES[self.name].reference
        path, home = self.found[0], templateflow_home()
        if path.is_relative_to(home):
            return f"bids:templateflow:{path.relative_to(home).as_posix()}"
        return path.as_uri()

    @property
    def found(self) -> tuple[Path, ...]:
        """Original image and, if there is one, original mask."""
        return self.originals or tuple(path for path in (self.t1w, self.mask) if path)

    @property
    def sources(self) -> dict[str, str]:
        """SHA-256 of each original file, by path or URL."""
        if self._packaged:
            files = BUILTIN_FILES[self.name]
            return {files.uri("t1"): checksum(files.path("t1"))}
        return {str(path): checksum(path) for path in self.found}

    @property
    def _packaged(self) -> bool:
        """Whether the image is part of an installed package."""
        return self.builtin and self.found[0] == BUILTIN_FILES[self.name].path("t1")


def resolve_templates(
    specs: Iterable[str], scans: Mapping[str, frozenset[str]] = MappingProxyType({})
) -> list[Template]:
    """Find several templates; refuse different ones with the same space.

    Parameters
    ----------
    specs : iterable of str
        Templates, as for `resolve_template`.
    scans : mapping of str to frozenset of str
        `Template.scans` of those that are not for all scans.
    """
    templates: dict[str, Template] = {}
    for spec in dict.fromkeys(specs):
        template = replace(resolve_template(spec), scans=scans.get(spec))
        key = template.space.lower()  # some file systems are case-insensitive
        if key in templates:
            # The same directory by another path.
            if replace(template, scans=None) == replace(templates[key], scans=None):
                if template.scans is None:
                    templates[key] = template
                continue
            raise InputError(
                f"Two of the templates are called {template.space} ({spec} is one of them). Omit "
                "one of them, or rename its file."
            )
        templates[key] = template
    return list(templates.values())


def templates_of(scan: Scan, templates: Iterable[Template]) -> list[Template]:
    """Return the templates that a scan is registered to."""
    return [one for one in templates if one.scans is None or scan.label in one.scans]


def resolve_template(spec: str) -> Template:
    """Find a template.

    Parameters
    ----------
    spec : str
        ``MNI152NLin2009aSym`` or ``MNI152NLin2009cAsym`` (built in; the files of TemplateFlow,
        if it has downloaded the latter); a TemplateFlow name with modifiers such as
        ``MNIPediatricAsym:cohort-3:res-1`` (by default, the finest resolution); a NIfTI file, with
        its brain mask beside it (``…_desc-brain_mask.nii.gz`` for ``…_T1w.nii.gz``) or
        skull-stripped; or a directory ``tpl-NAME`` with the layout of TemplateFlow, with the same
        modifiers. Not with ``cohort-auto``, which depends on the scan.

    Raises
    ------
    InputError
        If it does not exist, is ambiguous, unreadable, or has no brain mask.
    """
    if (own := _own_directory(spec)) is not None:
        directory, modifiers = own
        return _from_entries(
            list_entries(directory), directory.name.removeprefix("tpl-"), modifiers, directory
        )
    path = Path(spec).expanduser()
    if spec.endswith((".nii", ".nii.gz")):
        return _from_file(path.absolute())
    if "/" in spec:
        raise InputError(
            f"The template {spec} is neither a NIfTI file nor a directory named tpl-NAME. Check "
            "the path."
        )
    name, modifiers = parse_modifiers(spec, ("cohort", "res"))
    if name in BUILTIN_FILES and modifiers in ({}, {"res": "1"}):
        files = BUILTIN_FILES[name]
        if not (files.downloaded_first and is_downloaded(name, "1")):
            mask = files.path("mask") if "mask" in files.files else None
            return Template(name, None, modifiers.get("res"), files.path("t1"), mask, True)
    return _from_entries(list_templateflow_entries(name), name, modifiers)


def is_automatic(spec: str) -> bool:
    """Return whether the cohort of a template is chosen by age."""
    return f"cohort-{AUTO}" in spec.split(":")[1:]


def template_directory(spec: str) -> Path:
    """Return the directory ``tpl-NAME`` of a template of TemplateFlow or of the user.

    Raises
    ------
    InputError
        If there is no such template.
    """
    if (own := _own_directory(spec)) is not None:
        return own[0]
    name, _ = parse_modifiers(spec, ("cohort", "res"))
    list_templateflow_entries(name)
    return templateflow_home() / f"tpl-{name}"


def _own_directory(spec: str) -> tuple[Path, dict[str, str]] | None:
    """Return the directory ``tpl-NAME`` and the modifiers of a specification, if it has one."""
    parts = spec.split(":")
    for count in range(len(parts), 0, -1):
        directory = Path(":".join(parts[:count])).expanduser().absolute()
        if not directory.is_dir():
            continue
        more = parts[count:]
        if directory.name.startswith("cohort-") and directory.parent.name.startswith("tpl-"):
            directory, more = directory.parent, [directory.name, *more]
        if not directory.name.startswith("tpl-"):
            directory = directory.resolve()
        if directory.name.startswith("tpl-"):
            return directory, read_modifiers(more, ("cohort", "res"), spec, str(directory))
    return None


def _from_entries(
    files: list[Entry], name: str, modifiers: dict[str, str], directory: Path | None = None
) -> Template:
    """Create a template from the files of TemplateFlow or of a directory of the user."""
    label = make_label(name, directory or name)
    found = select_template_files(files, name, modifiers, directory)
    if found.mask is None:
        _check_extracted(found.t1w)
    builtin = directory is None and name in BUILTIN_FILES
    return Template(
        label, found.cohort, modifiers.get("res"), found.t1w, found.mask, builtin, (), directory
    )


def prepare_template(template: Template, directory: Path) -> Template:
    """Create the missing brain mask and skull-stripped image of a template.

    Parameters
    ----------
    template : Template
        Template from `resolve_template`.
    directory : Path
        Cache of the files; intact ones are reused.

    Returns
    -------
    Template
        Template whose ``t1w`` is zero outside the brain, with a binary ``mask`` on the same grid.
    """
    template = replace(template, originals=template.found)
    if template.mask is None:
        mask_path = cache_path(directory, template.t1w, "desc-brain_mask")
        if not nifti.is_intact(mask_path):
            write_brain_mask(template.t1w, mask_path)
        template = replace(template, mask=mask_path)
    mask = template.brain_mask
    brain_path = cache_path(directory, template.t1w, "desc-brain_T1w", mask)
    if nifti.is_intact(brain_path) or write_brain(template.t1w, mask, brain_path):
        return replace(template, t1w=brain_path)
    return template


def parse_modifiers(spec: str, allowed: tuple[str, ...]) -> tuple[str, dict[str, str]]:
    """Parse ``Name:cohort-3:res-01``: the name, and the modifiers without leading zeros."""
    name, *parts = spec.split(":")
    modifiers = read_modifiers(parts, allowed, spec, name)
    if not re.fullmatch(r"[a-zA-Z0-9-]+", name):
        raise InputError(f"{spec!r} is neither a file nor the name of a template or atlas.")
    return name, modifiers


def read_modifiers(
    parts: Iterable[str], allowed: tuple[str, ...], spec: str, name: str
) -> dict[str, str]:
    """Read modifiers such as ``res-01``; `spec` and `name` are for the message.

    Raises
    ------
    InputError
        If one of them is invalid.
    """
    modifiers = {}
    for part in parts:
        key, _, value = part.partition("-")
        key = {"resolution": "res"}.get(key, key)
        in_outputs = key in ("res", "cohort")  # part of the names of outputs
        valid = r"[a-zA-Z0-9]+" if in_outputs else r"[a-zA-Z0-9-]+"
        if key not in allowed or not re.fullmatch(valid, value):
            raise InputError(
                f"{spec}: the modifier {part!r} is invalid. Write for example "
                f"{name}:{allowed[0]}-1 (known: {', '.join(allowed)})."
            )
        modifiers[key] = (value.lstrip("0") or "0") if in_outputs else value
    return modifiers


def cache_path(directory: Path, source: Path, ending: str, *also: Path) -> Path:
    """Return the path in the cache of a file derived from these files, hashing their content."""
    digest = hashlib.sha256()
    for path in (source, *also):
        digest.update(f"{path.name}:{checksum(path)};".encode())
    name = re.sub(r"[^a-zA-Z0-9]", "", source.name.partition(".")[0])[:40]
    return Path(directory) / f"{name}{digest.hexdigest()[:12]}_{ending}.nii.gz"


def label_of_file(path: Path) -> str:
    """Return the letters and digits of a file name without extensions; see `make_label`."""
    return make_label(re.sub(r"\.nii(\.gz)?$", "", path.name), path)


def _from_file(path: Path) -> Template:
    """Create a template from a NIfTI file and, if it exists, the mask beside it."""
    _check_contrast(path)
    entry = parse_file_name(path)
    entities = entry.entities if entry else {}
    named = entities.get("tpl")
    name = make_label(named, path) if named else label_of_file(path)
    cohort = entities.get("cohort") if named else None
    cohort = cohort and make_label(cohort, path)
    mask = find_brain_mask(path)
    if mask is None:
        _check_extracted(path)
    return Template(name, cohort, None, path, mask)


def find_brain_mask(path: Path) -> Path | None:
    """Find the mask ``…_desc-brain_mask.nii[.gz]`` beside ``…[_desc-x]_T1w.nii[.gz]``, if any."""
    stem = re.sub(r"(_desc-[a-zA-Z0-9]+)?(_T1w)?\.nii(\.gz)?$", "", path.name)
    beside = [path.with_name(f"{stem}_desc-brain_mask{end}") for end in (".nii.gz", ".nii")]
    return next((candidate for candidate in beside if candidate.exists()), None)


def _check_extracted(path: Path) -> None:
    """Refuse an image that is not skull-stripped."""
    loaded = nifti.load(path)
    if not may_be_brain_only(loaded.get_fdata() != 0, loaded.affine):
        stem = re.sub(r"(_T1w)?\.nii(\.gz)?$", "", path.name)
        raise InputError(
            f"The template {path} is not skull-stripped. Put its brain mask beside it as "
            f"{stem}_desc-brain_mask.nii.gz."
        )


def _check_contrast(path: Path) -> None:
    """Refuse an image that cannot be read, or has no contrast."""
    values = nifti.load(path).get_fdata()
    if np.ptp(values[values != 0]) == 0:
        raise InputError(
            f"The template {path} has the same value in all nonzero voxels. Provide the image, "
            "not its mask."
        )
