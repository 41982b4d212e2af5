"""The directory of derivatives: dataset description, JSON and TSV files, and BIDS URIs."""

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
from bids_fcnreg.atomic import make_directory, read_json, read_text, write_bytes
from bids_fcnreg.bids.template_archive import templateflow_home
from bids_fcnreg.errors import InputError, describe_os_error

NAME = "bids_fcnreg"
BIDS_VERSION = "1.11.1"
TEMPLATEFLOW_URL = "https://github.com/templateflow/templateflow"

#: Fields of a sidecar with the SHA-256 of each of its ``Sources``, by URI, and of the
#: decompressed content of those that end in ``.gz``.
CHECKSUMS, UNCOMPRESSED = "SourcesSHA256", "SourcesUncompressedSHA256"

#: Reports, figures, logs, and what BIDS has no names for: transforms, and TemplateFlow's
#: description of a template.
_IGNORED = ("*.html", "logs", "figures", "*_xfm.*", "group", "template_description.json")
#: Patterns of earlier versions, for what has a name in BIDS since.
_NOT_IGNORED = ("tpl-*",)
_README = """\
# Derivatives of bids_fcnreg

Brain images registered to templates with fully convolutional networks, by bids_fcnreg.

In `sub-<label>/[ses-<label>/]anat/`:

| file | content |
|---|---|
| `*_desc-preproc_T1w.nii.gz` | T1w image in its own space, bias-corrected and \
intensity-normalised |
| `*_desc-brain_mask.nii.gz` | brain mask in the same space |
| `*_from-T1w_to-<template>_mode-image_xfm.h5` | ITK transform that resamples the T1w image onto \
the template (it maps points of the template to points of the T1w image) |
| `*_from-<template>_to-T1w_mode-image_xfm.h5` | its inverse |
| `*_space-<template>_desc-preproc_T1w.nii.gz`, `*_space-<template>_desc-brain_mask.nii.gz` | \
image and mask in the template's space |
| `*_space-T1w_desc-preproc_<suffix>.nii.gz`, `*_from-<suffix>_to-T1w_mode-image_xfm.txt` | \
another image of the session (such as T2w) on the grid of the T1w image, and its rigid transform |
| `*_atlas-<atlas>_[seg-<label>_]desc-<template>_dseg.nii.gz`, `.tsv` | labels of an atlas, \
resampled from the template to the space of the T1w image, and their names |
| `*_atlas-<atlas>_[seg-<label>_]desc-<template>Volumes_dseg.tsv` | volume of each region in mm³ |
| `sub-*/anat/*_desc-<template>Changes_dseg.tsv` | with several sessions registered to each other \
first: volume of each region in each session |
| `*_desc-logjacobian_xfm.nii.gz` | natural logarithm of the Jacobian determinant of the \
transform, on the template's grid |
| `*_desc-quality_xfm.json` | similarity before and after, folds, inverse consistency, seconds |

`descriptions.tsv` explains the labels of `desc-` in file names, `atlas-<atlas>_description.json`
describes an atlas. `group.html` and `group/` are the results of the group level, `tpl-<label>/` is
a study template.

`sub-<label>.html` is the visual report; `logs/` holds the settings of each run, the text for the
methods section, and error messages.
"""


def prepare_output(output_dir: Path, bids_dir: Path) -> None:
    """Create the directory of derivatives and the files that describe it.

    It may be called repeatedly, and by several processes at once. An existing README.md, and what
    was added to .bidsignore and dataset_description.json (such as ``Authors``), are kept.

    Raises
    ------
    InputError
        As `check_output`, and if the directory cannot be written.
    """
    output_dir, bids_dir = Path(output_dir).absolute(), Path(bids_dir).absolute()
    check_output(output_dir, bids_dir)
    try:
        make_directory(output_dir / "logs")
        description = output_dir / "dataset_description.json"
        write_json(description, read_json(description) | _description(bids_dir))
        _write_bidsignore(output_dir / ".bidsignore")
        if not (output_dir / "README.md").exists():
            write_bytes(output_dir / "README.md", _README.encode())
    except OSError as why:
        raise InputError(
            f"The output directory {output_dir} cannot be written ({describe_os_error(why)}). "
            "Choose another one with write permission."
        ) from why


def check_output(output_dir: Path, bids_dir: Path) -> None:
    """Refuse an unsuitable output directory.

    Raises
    ------
    InputError
        If it is the input dataset, inside it but not in its ``derivatives``, a file, or another
        dataset.
    """
    output_dir, bids_dir = Path(output_dir).absolute(), Path(bids_dir).absolute()
    if output_dir.exists() and not output_dir.is_dir():
        raise InputError(f"The output directory {output_dir} is a file. Choose another path.")
    makers = _makers(output_dir)
    if output_dir.resolve() == bids_dir.resolve():
        advice = (
            "The first argument is the BIDS dataset, the second the output directory"
            if makers and NAME in makers
            else f"Choose another one, for example {bids_dir / 'derivatives' / NAME}"
        )
        raise InputError(f"The output directory {output_dir} is the dataset itself. {advice}.")
    if output_dir.resolve().is_relative_to(bids_dir.resolve()):
        inside = output_dir.resolve().relative_to(bids_dir.resolve())
        if inside.parts[0] != "derivatives":
            raise InputError(
                f"The output directory {output_dir} is inside the dataset. Choose one outside of "
                f"it, or {bids_dir / 'derivatives' / NAME}."
            )
    if makers is not None and NAME not in makers:
        raise InputError(
            f"The output directory {output_dir} holds a dataset that {NAME} did not create. "
            "Choose another directory."
        )


def unrelated_files(output_dir: Path, *known: Path) -> list[str]:
    """List the visible files in an output directory that is not a dataset, except known ones."""
    if not output_dir.is_dir() or _makers(output_dir) is not None:
        return []
    return sorted(
        one.name + ("/" if one.is_dir() else "")
        for one in output_dir.iterdir()
        if one.name != "logs" and not one.name.startswith(".") and one not in known
    )


def other_source_dataset(output_dir: Path, bids_dir: Path) -> str | None:
    """Return the URI of the source dataset of existing derivatives, if it is another one."""
    links = read_json(output_dir / "dataset_description.json").get("DatasetLinks")
    known = links.get("raw") if isinstance(links, dict) else None
    return known if known not in (None, Path(bids_dir).absolute().as_uri()) else None


def bids_uri(path: str | os.PathLike[str], bids_dir: Path | None, output_dir: Path | None) -> str:
    """Return the BIDS URI of a file.

    Returns
    -------
    str
        ``bids:raw:…`` in the input dataset, ``bids::…`` in the derivatives,
        ``bids:templateflow:…`` in TemplateFlow's directory, ``file://…`` elsewhere; the links are
        in dataset_description.json. URIs are returned unchanged.
    """
    if ":" in str(path).split("/", 1)[0]:
        return str(path)
    path = Path(path).absolute()
    # The innermost first: derivatives are often inside their source dataset.
    for link, root in (("", output_dir), ("raw", bids_dir), ("templateflow", templateflow_home())):
        if root is not None and path.is_relative_to(Path(root).absolute()):
            return f"bids:{link}:{path.relative_to(Path(root).absolute()).as_posix()}"
    return path.as_uri()


def write_json(path: Path, content: dict[str, Any]) -> Path:
    """Write JSON atomically; keep a file with the same content."""
    text = json.dumps(content, indent=2, ensure_ascii=False) + "\n"
    if path.exists() and path.read_bytes() == text.encode():
        return path
    return write_bytes(path, text.encode())


def write_tsv(path: Path, header: Iterable[str], rows: Iterable[Iterable[object]]) -> Path:
    """Write a TSV file atomically; None becomes ``n/a``."""
    lines = [tuple(header), *(tuple("n/a" if v is None else v for v in row) for row in rows)]
    text = "".join("\t".join(map(str, line)) + "\n" for line in lines)
    return write_bytes(path, text.encode())


def read_tsv(path: str | os.PathLike[str]) -> list[dict[str, str]]:
    """Read the rows of a TSV file, as cells by the name of their column.

    Quotation marks are removed: an unbalanced one would swallow the following cells, here or in
    readers of the derivatives. Missing cells are empty.

    Raises
    ------
    InputError
        If it is not text in UTF-8.
    """
    try:
        lines = re.split(r"\r\n|\r|\n", read_text(path))
    except (OSError, UnicodeDecodeError) as why:
        raise InputError(
            f"The table {path} cannot be read ({why}). Save it as tab-separated text in UTF-8."
        ) from why
    cells = [
        [" ".join(cell.replace('"', " ").split()) for cell in line.split("\t")]
        for line in lines
        if line.strip()
    ]
    header, *rows = cells or [[]]
    return [dict(zip_longest(header, row[: len(header)], fillvalue="")) for row in rows]


def _description(bids_dir: Path) -> dict[str, Any]:
    """Return the content of dataset_description.json."""
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
    """Return name and version of this software, and its container from the environment."""
    made: dict[str, Any] = {"Name": NAME, "Version": __version__}
    if url := _code_url():
        made["CodeURL"] = url
    if tag := os.environ.get("BIDS_FCNREG_DOCKER_TAG"):
        made["Container"] = {"Type": "docker", "Tag": f"{NAME}:{tag}"}
    elif uri := os.environ.get("BIDS_FCNREG_SINGULARITY_URL"):
        made["Container"] = {"Type": "singularity", "URI": uri}
    return made


def version_that_wrote(sidecar: Path) -> str | None:
    """Return which version of this software wrote a sidecar; None if it does not state one."""
    makers = read_json(sidecar).get("GeneratedBy")
    for maker in makers if isinstance(makers, list) else []:
        if isinstance(maker, dict) and maker.get("Name") == NAME:
            return str(maker.get("Version", ""))
    return None


def _code_url() -> str | None:
    """Return the URL of the source code, or else the home page, from the package's metadata."""
    try:
        known = metadata(NAME)
    except PackageNotFoundError:  # imported from a directory, not installed
        return None
    pairs = [url.partition(",") for url in known.get_all("Project-URL") or []]
    urls = {re.sub("[^a-z]", "", label.lower()): url.strip() for label, _, url in pairs}
    urls.setdefault("homepage", next(iter(known.get_all("Home-page") or []), "").strip())
    labels = ("source", "sourcecode", "repository", "github", "homepage")
    # Old versions of setuptools write UNKNOWN.
    return next((urls[label] for label in labels if "://" in urls.get(label, "")), None)


def _makers(output_dir: Path) -> list[str] | None:
    """Return the software that created the dataset in a directory; None without a dataset.

    Raises
    ------
    InputError
        If dataset_description.json is damaged.
    """
    path = output_dir / "dataset_description.json"
    if not path.exists():
        return None
    description = read_json(path)
    if not description:
        raise InputError(
            f"{path} cannot be read as JSON, so the results are of unknown origin. Delete it if "
            f"they are results of {NAME}; otherwise choose another output directory."
        )
    makers = description.get("GeneratedBy")
    makers = makers if isinstance(makers, list) else []
    return [str(maker.get("Name")) for maker in makers if isinstance(maker, dict)]


def _write_bidsignore(path: Path) -> None:
    """Add the ignored patterns to an existing or new .bidsignore."""
    before = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    lines = [line for line in before if line not in _NOT_IGNORED]
    lines += [line for line in _IGNORED if line not in lines]
    if lines != before:
        write_bytes(path, ("\n".join(lines) + "\n").encode())
