"""The text for the methods section of a publication, and its references."""

from __future__ import annotations

import subprocess
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from importlib.resources import files
from pathlib import Path

import pypandoc
from nipype import Workflow

from bids_fcnreg.atomic import read_json, write_bytes
from bids_fcnreg.bids.results import find_preprocessed
from bids_fcnreg.bids.scan import Scan
from bids_fcnreg.config import Config
from bids_fcnreg.workflows.preprocess import describe_extraction

#: Formats of the text with formatted references: the ending, and pandoc's name.
_FORMATS = {".html": "html", ".tex": "latex"}


def write_methods(config: Config, workflow: Workflow, scans: Iterable[Scan] = ()) -> Path:
    """Write the text for the methods section and its references.

    Writes ``CITATION.md`` and ``CITATION.bib``, and the text with formatted references as
    ``CITATION.html`` and ``CITATION.tex``. With ``--md-only-boilerplate``, the latter two are
    removed. Files of the same text are kept.

    Parameters
    ----------
    config : Config
        Settings, with the path of the derivatives.
    workflow : Workflow
        Workflow whose nodes describe the methods.
    scans : iterable of Scan
        Scans: the text reports how many of those that were processed were skull-stripped.

    Returns
    -------
    Path
        ``CITATION.md``.
    """
    directory = config.output_dir / "logs"
    references = files("bids_fcnreg").joinpath("data", "references.bib").read_bytes()
    made = find_preprocessed(config.output_dir, scans)
    sidecars = (preproc.with_name(f"{preproc.name[:-7]}.json") for _, preproc, _ in made)
    recorded = [read_json(sidecar).get("SkullStripped") for sidecar in sidecars]
    stripped = [one for one in recorded if one is not None]
    text = f"{describe_extraction(workflow.visit_desc().strip(), stripped)}\n".encode()
    path, bibliography = directory / "CITATION.md", directory / "CITATION.bib"
    formatted = [] if config.md_only_boilerplate else [path.with_suffix(one) for one in _FORMATS]
    complete = all(file.exists() for file in (path, bibliography, *formatted))
    if complete and (path.read_bytes(), bibliography.read_bytes()) == (text, references):
        return path
    write_bytes(bibliography, references)
    if config.md_only_boilerplate:
        for ending in _FORMATS:
            path.with_suffix(ending).unlink(missing_ok=True)
    else:
        _format_references(text, path)
    return write_bytes(path, text)  # last: it says that the others are of the same text


def _format_references(text: bytes, path: Path) -> None:
    """Write a Markdown text as HTML and LaTeX, with formatted references, beside `path`."""
    # Names without directories: pandoc may fail on non-ASCII paths in some locales.
    command = [pypandoc.get_pandoc_path(), "--from", "markdown", "--standalone", "--citeproc"]
    command += ["--bibliography", f"{path.stem}.bib", "--metadata", "pagetitle=Methods"]

    def convert(kind: str) -> bytes:
        done = subprocess.run(
            [*command, "--to", kind], input=text, cwd=path.parent, capture_output=True
        )
        if done.returncode:
            raise RuntimeError(f"pandoc failed: {done.stderr.decode(errors='replace').strip()}")
        return done.stdout

    with ThreadPoolExecutor(max_workers=len(_FORMATS)) as pool:
        converted = pool.map(convert, _FORMATS.values())
        for ending, content in zip(_FORMATS, converted, strict=True):
            write_bytes(path.with_suffix(ending), content)
