"""What is to be said of a dataset: the same of many images or scans is said once."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bids_fcnreg.bids.filters import QUERIES, Filters, abbreviated_list, matches, unmatched_values
from bids_fcnreg.bids.layout import Layout

if TYPE_CHECKING:
    from bids_fcnreg.bids.scan import Scan

#: Images or scans that a note names at most.
NAMED = 3


@dataclass(frozen=True)
class Note:
    """What is to be said of an image or a scan.

    Attributes
    ----------
    text : str
        Without the name of the image or scan.
    about : str
        Image or scan; empty if the text says all.
    warning : bool
        Whether something may be wrong.
    """

    text: str
    about: str = ""
    warning: bool = True


def summarize(notes: Iterable[Note], most: int = NAMED) -> list[str]:
    """One line for each text, with the first of those that it is about.

    Parameters
    ----------
    notes : iterable of Note
        In the order in which they are said.
    most : int
        Images or scans named in a line.

    Examples
    --------
    >>> summarize([Note("not used", "a"), Note("not used", "b"), Note("not used", "c")], 2)
    ['warning: a, b and 1 more: not used']
    """
    about: dict[tuple[str, bool], list[str]] = {}
    for note in notes:
        names = about.setdefault((note.text, note.warning), [])
        if note.about and note.about not in names:
            names.append(note.about)
    return [
        ("warning: " if warning else "")
        + (f"{abbreviated_list(names, most)}: " if names else "")
        + text
        for (text, warning), names in about.items()
    ]


def notes_of_sessions(scans: Sequence[Scan]) -> list[Note]:
    """What is to be said of sessions of one participant that were acquired differently."""
    kinds = {
        scan.session or "none": re.sub(r"_run-[0-9]+|\.nii(\.gz)?$", "", scan.t1w[0].name)
        .removeprefix(scan.label)
        .removeprefix("_")
        for scan in scans
        if scan.t1w
    }
    if len(set(kinds.values())) < 2:
        return []
    told = ", ".join(f"{session}: {kind}" for session, kind in kinds.items())
    text = f"images of different kinds are used in its sessions ({told}): changes between them "
    return [Note(text + "may be those of the scan", f"sub-{scans[0].participant}")]


def notes_of_phases(layout: Layout, query: Mapping[str, Any]) -> list[Note]:
    """What is to be said of images that are left out unless a filter asks for them."""
    if query["part"] != QUERIES["t1w"]["part"]:
        return []
    rest = {entity: value for entity, value in query.items() if entity != "part"}
    return [
        Note(
            f"not used, for it is part-{image.entities['part']}: of several parts, only "
            "magnitude images are registered",
            image.path.name,
            warning=False,
        )
        for image in layout.images["t1w"]
        if matches(image.entities, rest) and not matches(image.entities, query)
    ]


def notes_of_unused(layout: Layout) -> list[Note]:
    """What is to be said of images that are not in their place."""
    notes = [
        Note("not used, for the folder cannot be read: change its permissions", folder)
        for folder in layout.unreadable
    ]
    for kind, what in (("t1w", "image"), ("roi", "lesion mask")):
        for one in layout.unused[kind]:
            text = f"this {what} is not used: {one.reason}"
            notes.append(Note(text, one.name, warning=not one.excluded))
    if any(note.warning for note in notes):
        advice = "Rename or move images that belong to the dataset; list others in .bidsignore."
        notes.append(Note(advice, warning=False))
    return notes


def notes_of_filters(layout: Layout, filters: Filters) -> list[Note]:
    """What is to be said of filters that ask for what no image has."""
    notes = []
    for name, query in filters.items():
        entities = [image.entities for image in layout.images[name]]
        asked = {entity: value for entity, value in query.items() if entity != "subject"}
        notes += [
            Note(f"BIDS filter {name}: {text}") for text in unmatched_values(entities, asked)
        ]
        if asked != query:
            text = f"BIDS filter {name}: subject has no effect, use --participant-label"
            notes.append(Note(text))
    return notes
