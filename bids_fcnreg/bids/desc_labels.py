"""Explain the labels of ``desc-`` in the file names of the derivatives: descriptions.tsv."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from contextlib import ExitStack, suppress
from pathlib import Path

from filelock import lock_descriptor

from bids_fcnreg.bids.derivatives import read_tsv, write_json, write_tsv

#: Meaning of the labels that do not depend on the templates.
DESC_LABELS: Mapping[str, str] = {
    "preproc": "Image after bias field correction and intensity normalization; with space-, "
    "resampled once from the original image",
    "brain": "Brain mask",
    "anatomy": "30 structures with the labels of FreeSurfer, segmented in native space",
    "anatomyVolumes": "Volumes of these structures in cubic millimeters",
    "logjacobian": "Natural logarithm of the Jacobian determinant of a transform",
    "quality": "Quality metrics of a registration to a template",
    "alignment": "Quality metrics of the rigid alignment of another image of the session",
}

#: Names of transform formats that are labels as well.
_FORMATS = {"ants": "ANTs", "fsl": "FSL", "freesurfer": "FreeSurfer", "afni": "AFNI", "x5": "X5"}

_HEADER = ("desc_id", "description")
_FILE = "descriptions.tsv"


def describe_labels(
    spaces: Iterable[str], formats: Iterable[str] = (), longitudinal: bool = False
) -> dict[str, str]:
    """Return the meaning of the labels of ``desc-`` in the results of a run.

    Parameters
    ----------
    spaces : iterable of str
        Spaces of the templates, which are labels of resampled atlases.
    formats : iterable of str
        Further formats of the transforms.
    longitudinal : bool
        Whether changes between sessions are computed.
    """
    found = dict(DESC_LABELS)
    found |= {one: f"Transform in the format of {_FORMATS[one]}" for one in formats}
    for space in spaces:
        found |= {
            space: f"Atlas labels resampled from the template {space} to native space",
            f"{space}Volumes": f"Volumes in cubic millimeters of the regions of desc-{space}",
        }
        if longitudinal:
            found[f"{space}Changes"] = (
                f"Volumes of the regions of desc-{space} in all sessions, and their changes"
            )
    return found


def write_descriptions(output_dir: Path, labels: Mapping[str, str]) -> None:
    """Add labels of ``desc-`` to descriptions.tsv; several processes may do so at once.

    Existing rows are kept, and may have been edited.

    Parameters
    ----------
    output_dir : Path
        Directory of derivatives from `bids_fcnreg.bids.derivatives.prepare_output`.
    labels : mapping of str to str
        Labels with their meaning, such as those from `describe_labels`.
    """
    path = output_dir / _FILE
    if not path.with_suffix(".json").exists():
        write_json(path.with_suffix(".json"), {"Description": "Labels of desc- in file names"})
    with ExitStack() as release:
        with suppress(OSError):  # the file system does not support locks
            directory = os.open(output_dir, os.O_RDONLY)
            release.callback(os.close, directory)
            lock_descriptor(directory)
        rows = read_tsv(path) if path.exists() else []
        header = tuple(rows[0]) if rows else _HEADER
        known = {row.get(_HEADER[0]) for row in rows}
        new = [
            dict(zip(_HEADER, (f"desc-{label}", text), strict=True))
            for label, text in labels.items()
            if f"desc-{label}" not in known
        ]
        if new:
            write_tsv(path, header, [[row.get(c) for c in header] for row in (*rows, *new)])
