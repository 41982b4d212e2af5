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


def write_methods(config: Config, workflow: Workflow, scans: Iterable[Scan] = ()) -> Path:
    """Write the text for the methods section and its references.

    Writes ``CITATION.md`` and ``CITATION.bib``, and the text with formatted references as
    ``CITATION.html`` and ``CITATION.tex``, but with ``--md-only-boilerplate``.

    Parameters
    ----------
    config : Config
        Settings, with the path of the derivatives.
    workflow : Workflow
        Workflow whose nodes describe the methods.
    scans : iterable of Scan
        Processed scans: the text reports how many were skull-stripped.

    Returns
    -------
    Path
        ``CITATION.md``.
    """
    directory = config.output_dir / "logs"
    references = files("bids_fcnreg").joinpath("data", "references.bib").read_bytes()
    bibliography = write_bytes(directory / "CITATION.bib", references)
    made = find_preprocessed(config.output_dir, scans)
    sidecars = (preproc.with_name(f"{preproc.name[:-7]}.json") for _, preproc, _ in made)
    recorded = [read_json(sidecar).get("SkullStripped") for sidecar in sidecars]
    stripped = [one for one in recorded if one is not None]
    text = describe_extraction(workflow.visit_desc().strip(), stripped)
    path = write_bytes(directory / "CITATION.md", f"{text}\n".encode())
    if not config.md_only_boilerplate:
        _format_references(path, bibliography)
    return path


def _format_references(path: Path, bibliography: Path) -> None:
    """Convert ``CITATION.md`` to HTML and LaTeX, with formatted references."""
    # Names without directories: pandoc may fail on non-ASCII paths in some locales.
    command = [pypandoc.get_pandoc_path(), path.name, "--standalone", "--citeproc"]
    command += ["--bibliography", bibliography.name, "--metadata", "pagetitle=Methods"]

    def convert(kind: str) -> bytes:
        done = subprocess.run([*command, "--to", kind], cwd=path.parent, capture_output=True)
        if done.returncode:
            raise RuntimeError(f"pandoc failed: {done.stderr.decode(errors='replace').strip()}")
        return done.stdout

    endings = {"html": ".html", "latex": ".tex"}
    with ThreadPoolExecutor(max_workers=len(endings)) as pool:
        for ending, text in zip(endings.values(), pool.map(convert, endings), strict=True):
            write_bytes(path.with_suffix(ending), text)
