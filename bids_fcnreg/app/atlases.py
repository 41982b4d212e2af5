"""Match atlases to templates."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from bids_fcnreg.bids.atlases import Atlas, default_atlases, resolve_atlas
from bids_fcnreg.bids.template_archive import Entry, parse_file_name
from bids_fcnreg.bids.templates import Template
from bids_fcnreg.errors import InputError


def choose_atlases(specs: Sequence[str], templates: Sequence[Template]) -> dict[str, list[Atlas]]:
    """Find the atlases of each template of a run.

    Parameters
    ----------
    specs : sequence of str
        Values of ``--atlas``; if empty, the atlas built into each template.
    templates : sequence of Template
        Templates of the run.

    Returns
    -------
    dict
        Atlases by `Template.space`. With several templates, a named atlas belongs to those that
        have it, and a file to the template in its name (``tpl-NAME_…``).

    Raises
    ------
    InputError
        If an atlas belongs to none of the templates.
    """
    if not specs:
        return {template.space: default_atlases(template) for template in templates}
    chosen: dict[str, list[Atlas]] = {template.space: [] for template in templates}
    for spec in dict.fromkeys(specs):
        for template, atlas in _resolve(spec, templates):
            labels = {other.label.lower() for other in chosen[template.space]}
            if atlas.label.lower() in labels:
                raise InputError(
                    f"Two of the atlases are called {atlas.label} ({spec} is one of them). Omit "
                    "one of them, or rename its file."
                )
            chosen[template.space].append(atlas)
    return chosen


def _resolve(spec: str, templates: Sequence[Template]) -> list[tuple[Template, Atlas]]:
    """Return the templates that an atlas belongs to, each with the atlas."""
    file = spec.partition(".nii")[0] if ".nii" in spec else None
    if file is not None and len(templates) > 1:
        entry = parse_file_name(Path(f"{file}.nii.gz"))
        templates = _named(entry, templates) if entry else []
        if not templates:
            raise InputError(
                f"The name of the atlas file {spec} does not contain the name of one of the "
                "templates (tpl-NAME_…). Rename it, or run one template at a time."
            )
    found, refused = [], None
    for template in templates:
        try:
            found.append((template, resolve_atlas(spec, template)))
        except InputError as error:
            refused = error
    if not found and refused is not None:
        raise refused
    return found


def _named(entry: Entry, templates: Sequence[Template]) -> list[Template]:
    """Return the templates in the name of an atlas file; none if its cohort is ambiguous."""
    name = re.sub(r"[^a-zA-Z0-9+]", "", entry.entities.get("tpl", ""))
    cohort = entry.entities.get("cohort")
    found = [one for one in templates if name in (one.name, one.space)]
    if cohort is None and len(found) == 1:
        return found
    return [one for one in found if cohort == one.cohort or name == one.space]
