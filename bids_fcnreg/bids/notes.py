"""Notes about a dataset, where equal notes about several images or scans are merged."""

from __future__ import annotations

import re
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bids_fcnreg.bids.filters import QUERIES, Filters, abbreviated_list, matches, unmatched_values
from bids_fcnreg.bids.layout import Layout, RawImage
from bids_fcnreg.bids.scan import Scan

#: Maximum number of images or scans in a note.
MAX_NAMED = 3


@dataclass(frozen=True)
class Note:
    """Note about an image or a scan.

    Attributes
    ----------
    text : str
        Text without the name of the image or scan.
    about : str
        Name of the image or scan, if any.
    warning : bool
        Whether it is a warning.
    """

    text: str
    about: str = ""
    warning: bool = True


def summarize(notes: Iterable[Note], most: int = MAX_NAMED) -> list[str]:
    """Return one line per text, with the first images or scans that it is about.

    Parameters
    ----------
    notes : iterable of Note
        Notes, in order.
    most : int
        Maximum number of images or scans in a line.

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


def image_kind(scan: Scan) -> str:
    """Return what the images of a scan are, such as ``acq-A_T1w``."""
    name = re.sub(r"_run-[0-9]+|\.nii(\.gz)?$", "", scan.images[0].name)
    return name.removeprefix(scan.label).removeprefix("_")


def notes_of_sessions(scans: Sequence[Scan]) -> list[Note]:
    """Return notes about sessions of one participant that were acquired differently."""
    kinds = {scan.session or "none": image_kind(scan) for scan in scans if scan.images}
    if len(set(kinds.values())) < 2:
        return []
    listed = ", ".join(f"{session}: {kind}" for session, kind in kinds.items())
    text = f"images of different kinds are used in its sessions ({listed}). Changes between them "
    return [Note(text + "may be due to the acquisition", f"sub-{scans[0].participant}")]


def notes_of_phases(layout: Layout, query: Mapping[str, Any]) -> list[Note]:
    """Return notes about phase images etc., which are only used if a filter selects them."""
    if query["part"] != QUERIES["t1w"]["part"]:
        return []
    rest = {entity: value for entity, value in query.items() if entity != "part"}
    return [
        Note(
            f"not used, because it is part-{image.entities['part']}. Only magnitude images are "
            "registered",
            image.path.name,
            warning=False,
        )
        for image in layout.images["t1w"]
        if matches(image.entities, rest) and not matches(image.entities, query)
    ]


def notes_of_lesions(
    scans: Container[tuple[str, str | None]],
    masks: Mapping[tuple[str, str | None], Sequence[RawImage]],
) -> list[Note]:
    """Return notes about the lesion masks, by scan, of other scans than those with images."""
    text = "this lesion mask is not used: no image of its session is registered"
    return [
        Note(text, mask.path.name) for scan in masks if scan not in scans for mask in masks[scan]
    ]


def notes_of_unused(layout: Layout) -> list[Note]:
    """Return notes about misplaced or misnamed images."""
    notes = [
        Note("not used, because the directory cannot be read. Change its permissions", directory)
        for directory in layout.unreadable
    ]
    for kind, noun in (("t1w", "image"), ("roi", "lesion mask")):
        for one in layout.unused[kind]:
            text = f"this {noun} is not used: {one.reason}"
            notes.append(Note(text, one.name, warning=not one.excluded))
    if any(note.warning for note in notes):
        advice = "Rename or move images that belong to the dataset; list others in .bidsignore."
        notes.append(Note(advice, warning=False))
    return notes


def notes_of_filters(layout: Layout, filters: Filters) -> list[Note]:
    """Return notes about filters that no image matches."""
    notes = []
    for name, query in filters.items():
        images = _images_of(layout, name)
        entities = [image.entities for image in images or ()]
        if images == []:
            what = "lesion mask" if name == "roi" else "image that it applies to"
            text = f"BIDS filter {name} has no effect: there is no {what} with a valid name"
            notes.append(Note(text, warning=False))
        asked = {entity: value for entity, value in query.items() if entity != "subject"}
        notes += [
            Note(f"BIDS filter {name}: {text}") for text in unmatched_values(entities, asked)
        ]
        if asked != query:
            text = f"BIDS filter {name}: subject has no effect. Use --participant-label"
            notes.append(Note(text))
    return notes


def _images_of(layout: Layout, name: str) -> list[RawImage] | None:
    """Return the images that a filter selects from; None if such images were not searched."""
    if name in layout.images:
        return layout.images[name]
    suffix = QUERIES[name]["suffix"]
    if suffix not in layout.images:
        return None
    return [
        image
        for images in layout.images.values()
        for image in images
        if image.entities.get("suffix") == suffix
    ]
