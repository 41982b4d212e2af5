"""The folder of derivatives: what it says about itself, and how its files name their sources."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, metadata
from itertools import zip_longest
from pathlib import Path
from typing import Any

from bids_fcnreg import __version__
from bids_fcnreg.atomic import make_folder, read_json, read_text, write_bytes
from bids_fcnreg.errors import InputError, describe_os_error

NAME = "bids_fcnreg"
BIDS_VERSION = "1.10.0"
TEMPLATEFLOW_URL = "https://github.com/templateflow/templateflow"

#: Fields of a sidecar with the SHA-256 of each of its ``Sources``, by URI, and of what is
#: compressed in those that end in ``.gz``.
CHECKSUMS, UNCOMPRESSED = "SourcesSHA256", "SourcesUncompressedSHA256"

#: Reports, figures and logs, and the transforms, which BIDS has no name for yet.
_IGNORED = ("*.html", "logs", "figures", "*_xfm.*", "group", "tpl-*")
_README = """\
# Derivatives of bids_fcnreg

Brain images registered to templates with fully convolutional networks, by bids_fcnreg.

In `sub-<label>/[ses-<label>/]anat/`:

| file | what it is |
|---|---|
| `*_desc-preproc_T1w.nii.gz` | T1w image in its own space, bias-corrected and \
intensity-normalised |
| `*_desc-brain_mask.nii.gz` | brain mask in the same space |
| `*_from-T1w_to-<template>_mode-image_xfm.h5` | ITK transform that resamples the T1w image onto \
the template (it maps points of the template to points of the T1w image) |
| `*_from-<template>_to-T1w_mode-image_xfm.h5` | its inverse |
| `*_space-<template>_desc-preproc_T1w.nii.gz`, `*_space-<template>_desc-brain_mask.nii.gz` | \
image and mask in the template's space |
| `*_seg-<atlas>_desc-<template>_dseg.nii.gz`, `.tsv` | labels of an atlas, brought from the \
template into the space of the T1w image, and their names |
| `*_seg-<atlas>_desc-<template>Volumes_dseg.tsv` | volume of each region in mm³ |
| `sub-*/anat/*_desc-<template>Changes_dseg.tsv` | with several sessions registered to each other \
first: volume of each region in each session |
| `*_desc-logjacobian_xfm.nii.gz` | natural logarithm of the Jacobian determinant of the \
transform, on the template's grid |
| `*_desc-quality_xfm.json` | similarity before and after, folds, inverse consistency, seconds |

`group.html` and `group/` are what the group level made of all of them, `tpl-<label>/` is a
template of the study.

`sub-<label>.html` is the visual report; `logs/` holds the settings of each run, the text for the
methods section, and what went wrong if anything did.
"""


def prepare_output(output_dir: Path, bids_dir: Path) -> None:
    """Make the folder of derivatives and the files that describe it.

    May be called again, and by several processes at once. A README.md that is there is kept, and
    so are lines added to .bidsignore.

    Raises
    ------
    InputError
        As `check_output`, and if the folder cannot be written.
    """
    output_dir, bids_dir = Path(output_dir).absolute(), Path(bids_dir).absolute()
    check_output(output_dir, bids_dir)
    try:
        make_folder(output_dir / "logs")
        write_json(output_dir / "dataset_description.json", _description(bids_dir))
        _write_bidsignore(output_dir / ".bidsignore")
        if not (output_dir / "README.md").exists():
            write_bytes(output_dir / "README.md", _README.encode())
    except OSError as why:
        raise InputError(
            f"The output folder {output_dir} cannot be written ({describe_os_error(why)}). Choose "
            "another one with write permission."
        ) from why


def check_output(output_dir: Path, bids_dir: Path) -> None:
    """Refuse a folder that derivatives cannot go to.

    Raises
    ------
    InputError
        If it is the input dataset, or in it but not in its ``derivatives``; a file; or if it
        holds another dataset.
    """
    output_dir, bids_dir = Path(output_dir).absolute(), Path(bids_dir).absolute()
    if output_dir.exists() and not output_dir.is_dir():
        raise InputError(f"The output folder {output_dir} is a file: choose another name.")
    makers = _makers(output_dir)
    if output_dir.resolve() == bids_dir.resolve():
        advice = (
            "the first folder is that of the dataset, the second that of the derivatives"
            if makers and NAME in makers
            else f"choose another, for instance {bids_dir / 'derivatives' / NAME}"
        )
        raise InputError(f"The output folder {output_dir} is the dataset itself: {advice}.")
    if output_dir.resolve().is_relative_to(bids_dir.resolve()):
        inside = output_dir.resolve().relative_to(bids_dir.resolve())
        if inside.parts[0] != "derivatives":
            raise InputError(
                f"The output folder {output_dir} lies among the files of the dataset: choose one "
                f"outside of it, or {bids_dir / 'derivatives' / NAME}."
            )
    if makers is not None and NAME not in makers:
        raise InputError(
            f"The output folder {output_dir} holds a dataset that {NAME} did not make: choose "
            "another folder."
        )


def unrelated_files(output_dir: Path, *known: Path) -> list[str]:
    """What lies in a folder that holds no derivatives of ours, but for hidden and known things."""
    if not output_dir.is_dir() or _makers(output_dir) is not None:
        return []
    return sorted(
        one.name + ("/" if one.is_dir() else "")
        for one in output_dir.iterdir()
        if one.name != "logs" and not one.name.startswith(".") and one not in known
    )


def other_source_dataset(output_dir: Path, bids_dir: Path) -> str | None:
    """URI of the dataset that our results in a folder were made from, if it is another."""
    links = read_json(output_dir / "dataset_description.json").get("DatasetLinks")
    known = links.get("raw") if isinstance(links, dict) else None
    return known if known not in (None, Path(bids_dir).absolute().as_uri()) else None


def bids_uri(path: str | os.PathLike, bids_dir: Path | None, output_dir: Path | None) -> str:
    """Name a file the way BIDS does.

    Returns
    -------
    str
        ``bids:raw:…`` in the input dataset, ``bids::…`` in the derivatives,
        ``bids:templateflow:…`` in TemplateFlow's folder, ``file://…`` elsewhere; the links are
        in dataset_description.json. What is a URI already stays as it is.
    """
    from bids_fcnreg.bids.templates import templateflow_home

    if ":" in str(path).split("/", 1)[0]:
        return str(path)
    path = Path(path).absolute()
    # The innermost first: derivatives often lie inside the dataset they were made from.
    for link, root in (("", output_dir), ("raw", bids_dir), ("templateflow", templateflow_home())):
        if root is not None and path.is_relative_to(Path(root).absolute()):
            return f"bids:{link}:{path.relative_to(Path(root).absolute()).as_posix()}"
    return path.as_uri()


def write_json(path: Path, content: dict[str, Any]) -> Path:
    """Write JSON, whole or not at all; leave a file that says the same as it is."""
    text = json.dumps(content, indent=2, ensure_ascii=False) + "\n"
    if path.exists() and path.read_bytes() == text.encode():
        return path
    return write_bytes(path, text.encode())


def write_tsv(path: Path, header: Iterable[str], rows: Iterable[Iterable[object]]) -> Path:
    """Write a table with tabs, whole or not at all; None becomes ``n/a``."""
    lines = [tuple(header), *(tuple("n/a" if v is None else v for v in row) for row in rows)]
    text = "".join("\t".join(map(str, line)) + "\n" for line in lines)
    return write_bytes(path, text.encode())


def read_tsv(path: str | os.PathLike) -> list[dict[str, str]]:
    """Rows of a table with tabs, each by the names of the columns in its first line.

    Quotation marks have no meaning and are left out: an unbalanced one would swallow what follows,
    here or where our tables are read. Cells that a line lacks are empty.

    Raises
    ------
    InputError
        If it is no text in UTF-8.
    """
    try:
        lines = re.split(r"\r\n|\r|\n", read_text(path))
    except (OSError, UnicodeDecodeError) as why:
        raise InputError(
            f"The table {path} cannot be read ({why}): save it as text in UTF-8, with tabs "
            "between the columns."
        ) from why
    cells = [
        [" ".join(cell.replace('"', " ").split()) for cell in line.split("\t")]
        for line in lines
        if line.strip()
    ]
    header, *rows = cells or [[]]
    return [dict(zip_longest(header, row[: len(header)], fillvalue="")) for row in rows]


def _description(bids_dir: Path) -> dict[str, Any]:
    """Content of dataset_description.json."""
    raw = read_json(bids_dir / "dataset_description.json")
    source = {"URL": bids_dir.as_uri()}
    if doi := str(raw.get("DatasetDOI") or ""):
        doi = doi.removeprefix("https://doi.org/").removeprefix("doi:")
        source = {"URL": f"https://doi.org/{doi}", "DOI": f"doi:{doi}"}
    description: dict[str, Any] = {
        "Name": f"{NAME}: registration of {raw.get('Name', bids_dir.name)}",
        "BIDSVersion": BIDS_VERSION,
        "DatasetType": "derivative",
        "GeneratedBy": [_generated_by()],
        "SourceDatasets": [source],
        "DatasetLinks": {"raw": bids_dir.as_uri(), "templateflow": TEMPLATEFLOW_URL},
        "HowToAcknowledge": "Please cite the works named in logs/CITATION.md.",
    }
    if raw.get("License"):
        description["License"] = raw["License"]
    return description


def _generated_by() -> dict[str, Any]:
    """This software, and the container it runs in if the container's environment names it."""
    made: dict[str, Any] = {"Name": NAME, "Version": __version__}
    try:
        url = metadata(NAME)["Home-page"]
    except PackageNotFoundError:  # imported from a folder, not installed
        url = None
    if url:
        made["CodeURL"] = url
    if tag := os.environ.get("BIDS_FCNREG_DOCKER_TAG"):
        made["Container"] = {"Type": "docker", "Tag": f"{NAME}:{tag}"}
    elif uri := os.environ.get("BIDS_FCNREG_SINGULARITY_URL"):
        made["Container"] = {"Type": "singularity", "URI": uri}
    return made


def _makers(output_dir: Path) -> list[str] | None:
    """Software that made the dataset in a folder; None if there is no dataset.

    Raises
    ------
    InputError
        If the file that says it is damaged.
    """
    path = output_dir / "dataset_description.json"
    if not path.exists():
        return None
    there = read_json(path)
    if not there:
        raise InputError(
            f"{path} cannot be read as JSON, so that nobody knows whose results these are: if "
            f"they are of {NAME}, delete it, and it is made again; else choose another folder."
        )
    makers = there.get("GeneratedBy")
    makers = makers if isinstance(makers, list) else []
    return [str(maker.get("Name")) for maker in makers if isinstance(maker, dict)]


def _write_bidsignore(path: Path) -> None:
    """Add our lines to what is there."""
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    missing = [line for line in _IGNORED if line not in lines]
    if missing:
        write_bytes(path, ("\n".join([*lines, *missing]) + "\n").encode())
