"""Labels of templates and atlases, and the length of the file names that carry them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from bids_fcnreg.errors import InputError

if TYPE_CHECKING:
    from bids_fcnreg.bids.atlases import Atlas
    from bids_fcnreg.bids.dataset import Scan
    from bids_fcnreg.bids.templates import Template

#: Most characters of a label, and of a file name on common file systems.
LONGEST_LABEL, LONGEST_NAME = 100, 255

#: Entities of a scan's file name that the names of its results keep.
_KEPT = ("sub", "ses", "acq", "ce", "rec")


def make_label(text: str, origin: str | Path) -> str:
    """Return the letters and digits of a text, as BIDS allows them in a label.

    Parameters
    ----------
    text : str
        What something is called.
    origin : str or path
        What carries that name, for the message.

    Raises
    ------
    InputError
        If nothing is left, or too much for a file name.

    Examples
    --------
    >>> make_label("My_study-T1", "tpl-My_study-T1")
    'MystudyT1'
    """
    label = re.sub(r"[^a-zA-Z0-9]", "", text)
    if not 0 < len(label) <= LONGEST_LABEL:
        raise InputError(
            f"{origin} gives its name to results: rename it, with 1 to {LONGEST_LABEL} letters "
            "from a to z and digits."
        )
    return label


def find_too_long(
    scan: Scan, templates: Sequence[Template], atlases: Mapping[str, Sequence[Atlas]]
) -> str | None:
    """Return why the results of a scan cannot be named, or None.

    Parameters
    ----------
    scan : Scan
        The scan.
    templates : sequence of Template
        Templates of the run.
    atlases : mapping of str to sequence of Atlas
        Atlases of each template, by its ``space``.
    """
    longest = max(
        (
            name
            for template in templates
            for name in _names(scan, template, atlases.get(template.space, ()))
        ),
        key=len,
        default="",
    )
    if len(longest.encode()) <= LONGEST_NAME:
        return None
    return (
        f"The name {longest} would have {len(longest)} characters, more than the {LONGEST_NAME} "
        "that a file system allows. Shorten the labels of the scan, or the name of the template "
        "or atlas."
    )


def _names(scan: Scan, template: Template, atlases: Sequence[Atlas]) -> list[str]:
    """Longest names of files and work folders of a scan, a template and its atlases."""
    first = scan.t1w[0].name if scan.t1w else scan.label
    parts = [part for part in first.split("_") if part.partition("-")[0] in _KEPT]
    prefix, space = "_".join(parts), template.space
    names = [f"{prefix}_from-T1w_to-{space}_mode-image_desc-logjacobian_xfm.nii.gz"]
    for atlas in atlases:
        names.append(f"{prefix}_seg-{atlas.name}_desc-{space}Volumes_dseg.nii.gz")
        names.append(f"{scan.label}_propagate_{space}_{atlas.name}_wf")
    return names
