"""Template archives with the layout of TemplateFlow: file names and downloads."""

from __future__ import annotations

import difflib
import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from platformdirs import user_cache_dir

from bids_fcnreg.config import BUILTIN_NAMES, BUILTIN_TEMPLATES
from bids_fcnreg.errors import InputError

if TYPE_CHECKING:
    from templateflow.client import TemplateFlowClient
    from templateflow.conf.bids import Layout

_DOWNLOAD_SECONDS = 10
_FILE = re.compile(
    r"(?:tpl-(?P<tpl>.+?)_)?(?P<entities>(?:[a-zA-Z]+-[^_]+_)*)"
    r"(?P<suffix>[a-zA-Z0-9]+)(?P<extension>(?:\.[a-zA-Z0-9]+)+)"
)


@dataclass(frozen=True)
class Entry:
    """A file of an archive, with the parts of its name.

    ``entities`` maps ``tpl``, ``cohort``, ``res``, ``atlas``, ``seg``, ``desc``, … to labels;
    ``res`` and ``cohort`` have no leading zeros.
    """

    path: Path
    suffix: str
    extension: str
    entities: dict[str, str] = field(hash=False)

    def only(self, *keys: str) -> bool:
        """Return whether the name has no entities except these (and tpl, cohort, res)."""
        return set(self.entities) <= {"tpl", "cohort", "res", *keys}


def parse_file_name(path: Path, template: str | None = None) -> Entry | None:
    """Parse a file name of an archive.

    Parameters
    ----------
    path : Path
        File, of which only the name is used.
    template : str, optional
        Name of the template of the file, which may contain any characters.

    Returns
    -------
    Entry or None
        None if the name is not valid, or is that of another template.

    Examples
    --------
    >>> parse_file_name(Path("tpl-Kids_cohort-1_res-02_T1w.nii.gz")).entities
    {'tpl': 'Kids', 'cohort': '1', 'res': '2'}
    >>> parse_file_name(Path("tpl-My_Study_T1w.nii.gz")).entities
    {'tpl': 'My_Study'}
    """
    name, start = path.name, f"tpl-{template}_"
    if template is not None:
        if not name.startswith(start):
            return None
        name = name.removeprefix(start)
    match = _FILE.fullmatch(name)
    if match is None:
        return None
    entities = {"tpl": tpl} if (tpl := template or match["tpl"]) else {}
    for part in match["entities"].split("_")[:-1]:
        key, value = part.split("-", 1)
        entities[key] = (value.lstrip("0") or "0") if key in ("res", "cohort") else value
    return Entry(path, match["suffix"], match["extension"], entities)


def templateflow_home() -> Path:
    """Return TemplateFlow's directory: ``TEMPLATEFLOW_HOME``, or that in the user's cache."""
    return Path(os.environ.get("TEMPLATEFLOW_HOME") or user_cache_dir("templateflow")).absolute()


def list_entries(directory: Path) -> list[Entry]:
    """List the files of one template, in ``tpl-NAME/`` and ``tpl-NAME/cohort-N/``, sorted.

    Raises
    ------
    InputError
        If a file in the directory of a cohort has the name of another cohort.
    """
    found = []
    template = directory.name.removeprefix("tpl-")
    for path in sorted((*directory.glob("tpl-*"), *directory.glob("cohort-*/tpl-*"))):
        entry = None if path.is_dir() else parse_file_name(path, template)
        if entry is None:
            continue
        if path.parent != directory:
            cohort = path.parent.name.removeprefix("cohort-").lstrip("0") or "0"
            if entry.entities.setdefault("cohort", cohort) != cohort:
                raise InputError(
                    f"The cohort in the name of {path} differs from that of its directory. Rename "
                    "or move it."
                )
        found.append(entry)
    return found


def is_downloaded(name: str, resolution: str) -> bool:
    """Return whether TemplateFlow's directory holds image and brain mask of a template."""
    found = {
        entry.suffix
        for entry in list_entries(templateflow_home() / f"tpl-{name}")
        if entry.entities.get("res") == resolution
        and (entry.suffix, entry.entities.get("desc")) in (("T1w", None), ("mask", "brain"))
        and entry.only("desc")
        and _has_content(entry.path)
    }
    return found == {"T1w", "mask"}


def _has_content(path: Path) -> bool:
    """Return whether a file exists and is not one of the empty files that wait for a download."""
    return path.is_file() and path.stat().st_size > 0


def list_templateflow_entries(name: str) -> list[Entry]:
    """List TemplateFlow's files of one template, including those not downloaded yet.

    Raises
    ------
    InputError
        If TemplateFlow has no such template, or its directory cannot be read or created.
    """
    home = templateflow_home()
    if not home.is_dir() or not any(home.iterdir()):
        try:
            _client(home).cache.ensure()  # unpacks the list of files that the package carries
        except OSError as why:
            raise InputError(
                f"The template {name} is not available: TEMPLATEFLOW_HOME ({home}) is empty and "
                f"cannot be written ({why.strerror or why}). Set it to a directory with the "
                f"template, or use the built-in {BUILTIN_NAMES}, which needs no download."
            ) from why
    found = list_entries(home / f"tpl-{name}")
    if not found:
        known = sorted(p.name[4:] for p in home.glob("tpl-*"))
        similar = difflib.get_close_matches(name, {*known, *BUILTIN_TEMPLATES}, n=3, cutoff=0.8)
        advice = (
            f"Did you mean {' or '.join(similar)}?"
            if similar
            else f"Check the name (known: {', '.join(known) or 'none'}), or use the built-in "
            f"{BUILTIN_NAMES}, which needs no download."
        )
        raise InputError(
            f"The template {name} is neither a file nor a directory, and not in TEMPLATEFLOW_HOME "
            f"({home}). {advice}"
        )
    return found


def fetch(entry: Entry) -> Path:
    """Return the path of an existing file of an archive, downloaded from TemplateFlow if needed.

    Raises
    ------
    InputError
        If it does not exist and cannot be downloaded, after about 10 s at most.
    """
    path = entry.path
    if _has_content(path):
        return path
    home = templateflow_home()
    why = "it is not part of TemplateFlow"
    if path.is_relative_to(home):
        query: dict[str, str | int | None] = {
            name: entry.entities.get(key) for key, name in _NAMES.items()
        }
        numbers = {"resolution": entry.entities.get("res"), "cohort": entry.entities.get("cohort")}
        query |= {name: int(number) for name, number in numbers.items() if number is not None}
        try:
            client = _client(home)
            client.cache.layout = _layout_of(home, entry.entities["tpl"])
            client.get(
                entry.entities["tpl"], suffix=entry.suffix, extension=entry.extension, **query
            )
        except (OSError, RuntimeError) as error:
            why = "the download failed; check the internet connection"
            if isinstance(error, PermissionError):
                why = f"{home} cannot be written"
    if _has_content(path):
        return path
    raise InputError(
        f"The template file {path.name} is not in {path.parent} ({why}). Copy it there, or use "
        f"the built-in {BUILTIN_NAMES}, which needs no download."
    )


#: Names of entities in TemplateFlow's queries, by their keys in file names.
_NAMES = {
    "res": "resolution",
    "cohort": "cohort",
    "atlas": "atlas",
    "seg": "segmentation",
    "scale": "scale",
    "desc": "desc",
    "label": "label",
}


def _client(home: Path) -> TemplateFlowClient:
    """Return TemplateFlow's client for a directory, with a short timeout.

    Importing templateflow fills an empty TEMPLATEFLOW_HOME, without network access.
    """
    from templateflow.client import TemplateFlowClient

    return TemplateFlowClient(root=home, timeout=_DOWNLOAD_SECONDS)


def _layout_of(home: Path, name: str) -> Layout:
    """Return TemplateFlow's index of one template; indexing all templates takes 10 s."""
    from bids.layout import BIDSLayoutIndexer
    from templateflow.conf.bids import Layout

    others = re.compile(rf"^/(?!tpl-{re.escape(name)}(?:/|$))")
    indexer = BIDSLayoutIndexer(validate=False, ignore=[others], index_metadata=False)
    return Layout(home, validate=False, config="templateflow", indexer=indexer)
