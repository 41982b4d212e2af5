"""Template archives: file names laid out as TemplateFlow lays them out, and how to fetch them."""

from __future__ import annotations

import difflib
import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from bids_fcnreg.errors import InputError

if TYPE_CHECKING:
    from templateflow.client import TemplateFlowClient
    from templateflow.conf.bids import Layout

BUILTIN = "MNI152NLin2009aSym"
_DOWNLOAD_SECONDS = 10
_FILE = re.compile(
    r"(?:tpl-(?P<tpl>.+?)_)?(?P<entities>(?:[a-zA-Z]+-[^_]+_)*)"
    r"(?P<suffix>[a-zA-Z0-9]+)(?P<extension>(?:\.[a-zA-Z0-9]+)+)"
)


@dataclass(frozen=True)
class Entry:
    """A file of an archive: its path and what its name says.

    ``entities`` maps ``tpl``, ``cohort``, ``res``, ``atlas``, ``seg``, ``desc``, … to labels;
    ``res`` and ``cohort`` have no leading zeros.
    """

    path: Path
    suffix: str
    extension: str
    entities: dict[str, str] = field(hash=False)

    def only(self, *keys: str) -> bool:
        """Whether the name has no other entities than these (and tpl, cohort, res)."""
        return set(self.entities) <= {"tpl", "cohort", "res", *keys}


def parse_file_name(path: Path, template: str | None = None) -> Entry | None:
    """Take a file name apart.

    Parameters
    ----------
    path : Path
        File; only its name is looked at.
    template : str, optional
        Name of the template that the file belongs to, which may hold any characters.

    Returns
    -------
    Entry or None
        None if the name is not of this kind, or is that of another template.

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
    """Where TemplateFlow keeps its files: ``TEMPLATEFLOW_HOME``, or its folder in the cache."""
    from platformdirs import user_cache_dir

    return Path(os.environ.get("TEMPLATEFLOW_HOME") or user_cache_dir("templateflow")).absolute()


def list_entries(folder: Path) -> list[Entry]:
    """Files of one template, in ``tpl-NAME/`` and ``tpl-NAME/cohort-N/``, sorted by path.

    Raises
    ------
    InputError
        If a file in the folder of a cohort is named for another one.
    """
    found = []
    for path in sorted((*folder.glob("tpl-*"), *folder.glob("cohort-*/tpl-*"))):
        entry = None if path.is_dir() else parse_file_name(path, folder.name.removeprefix("tpl-"))
        if entry is None:
            continue
        if path.parent != folder:
            cohort = path.parent.name.removeprefix("cohort-").lstrip("0") or "0"
            if entry.entities.setdefault("cohort", cohort) != cohort:
                raise InputError(
                    f"{path} is named for another cohort than its folder: rename or move it."
                )
        found.append(entry)
    return found


def list_templateflow_entries(name: str) -> list[Entry]:
    """Files that TemplateFlow knows of one template, those not downloaded yet included.

    Raises
    ------
    InputError
        If TemplateFlow knows no such template, or its folder can be neither read nor made.
    """
    home = templateflow_home()
    if not home.is_dir() or not any(home.iterdir()):
        try:
            _client(home).cache.ensure()  # unpacks the list of files that the package carries
        except OSError as why:
            raise InputError(
                f"The template {name} was looked for in TEMPLATEFLOW_HOME ({home}), which is "
                f"empty and cannot be written ({why.strerror or why}): set it to a folder that "
                f"holds it, or use the built-in {BUILTIN}, which needs no download."
            ) from why
    found = list_entries(home / f"tpl-{name}")
    if not found:
        known = sorted(p.name[4:] for p in home.glob("tpl-*"))
        similar = difflib.get_close_matches(name, [*known, BUILTIN], n=3, cutoff=0.8)
        advice = (
            f"did you mean {' or '.join(similar)}?"
            if similar
            else f"check the name (known: {', '.join(known) or 'none'}), or use the built-in "
            f"{BUILTIN}, which needs no download."
        )
        raise InputError(
            f"The template {name} is neither a file nor a folder, and not in TEMPLATEFLOW_HOME "
            f"({home}): {advice}"
        )
    return found


def fetch(entry: Entry) -> Path:
    """Path of a file of an archive that is surely there, downloaded from TemplateFlow if need be.

    Raises
    ------
    InputError
        If it is not there and cannot be downloaded; after about ten seconds at most.
    """
    path = entry.path
    if path.is_file() and path.stat().st_size:
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
            why = "downloading it failed: is there an internet connection?"
            if isinstance(error, PermissionError):
                why = f"{home} cannot be written"
    if path.is_file() and path.stat().st_size:
        return path
    raise InputError(
        f"The template file {path.name} is not in {path.parent} ({why}): put it there, or use the "
        f"built-in {BUILTIN}, which needs no download."
    )


#: Entities as they are written in file names, and as TemplateFlow's queries name them.
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
    """TemplateFlow's client on a folder, with a short patience.

    Importing templateflow fills the folder that TEMPLATEFLOW_HOME names if it is empty; it does
    not go to the network.
    """
    from templateflow.client import TemplateFlowClient

    return TemplateFlowClient(root=home, timeout=_DOWNLOAD_SECONDS)


def _layout_of(home: Path, name: str) -> Layout:
    """TemplateFlow's index of one template: that of all of them takes ten seconds."""
    from bids.layout import BIDSLayoutIndexer
    from templateflow.conf.bids import Layout

    others = re.compile(rf"^/(?!tpl-{re.escape(name)}(?:/|$))")
    indexer = BIDSLayoutIndexer(validate=False, ignore=[others], index_metadata=False)
    return Layout(home, validate=False, config="templateflow", indexer=indexer)
