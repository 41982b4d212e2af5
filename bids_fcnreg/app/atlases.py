"""Which atlas goes with which template."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from bids_fcnreg.bids.atlases import Atlas, default_atlases, resolve_atlas
from bids_fcnreg.bids.template_archive import Entry, parse_file_name
from bids_fcnreg.bids.templates import Template
from bids_fcnreg.errors import InputError


def choose_atlases(specs: Sequence[str], templates: Sequence[Template]) -> dict[str, list[Atlas]]:
    """Atlases of each template of a run.

    Parameters
    ----------
    specs : sequence of str
        As given by the user; none means those that come with a template.
    templates : sequence of Template
        Templates of the run.

    Returns
    -------
    dict
        By `Template.space`. With several templates a named atlas goes with those that have it,
        and a file with the one that its name says (``tpl-NAME_…``).

    Raises
    ------
    InputError
        When an atlas belongs to none of the templates.
    """
    if not specs:
        return {template.space: default_atlases(template) for template in templates}
    chosen: dict[str, list[Atlas]] = {template.space: [] for template in templates}
    for spec in dict.fromkeys(specs):
        for template, atlas in _resolve(spec, templates):
            names = {other.name.lower() for other in chosen[template.space]}
            if atlas.name.lower() in names:
                raise InputError(
                    f"Two of the atlases are called {atlas.name} ({spec} is one of them): give "
                    "one of them, or rename its file."
                )
            chosen[template.space].append(atlas)
    return chosen


def _resolve(spec: str, templates: Sequence[Template]) -> list[tuple[Template, Atlas]]:
    """The templates an atlas belongs to, with the atlas."""
    file = spec.partition(".nii")[0] if ".nii" in spec else None
    if file is not None and len(templates) > 1:
        entry = parse_file_name(Path(f"{file}.nii.gz"))
        templates = _named(entry, templates) if entry else []
        if not templates:
            raise InputError(
                f"The name of the atlas file {spec} does not say to which of the templates it "
                "belongs (tpl-NAME_…): rename it, or run one template at a time."
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
    """Templates to which an atlas file belongs by its name; none if it leaves the cohort open."""
    name = re.sub(r"[^a-zA-Z0-9+]", "", entry.entities.get("tpl", ""))
    cohort = entry.entities.get("cohort")
    found = [one for one in templates if name in (one.name, one.space)]
    if cohort is None and len(found) == 1:
        return found
    return [one for one in found if cohort == one.cohort or name == one.space]
