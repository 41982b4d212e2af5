"""Combine the sessions of a participant: their images are averaged in the space of the first."""

from __future__ import annotations

from collections.abc import Container, Iterable, Sequence
from dataclasses import replace

from bids_fcnreg.bids.notes import Note, image_kind, notes_of_sessions
from bids_fcnreg.bids.order import natural_key
from bids_fcnreg.bids.scan import OtherImage, Scan, session_title, suffix_of
from bids_fcnreg.config import REFERENCE_SUFFIXES


def combine_sessions(
    scans: Iterable[Scan], participants: Container[str]
) -> tuple[list[Scan], list[Note]]:
    """Combine the sessions of participants into one scan without a session.

    The first session in the natural order of labels (``ses-2`` before ``ses-10``, as in fMRIPrep)
    with an image of the preferred contrast defines the space. Sessions with images of another
    kind, or with lesion masks, are not averaged with it. A single session remains as it is, with
    its label: fMRIPrep names its results with this label too, and looks them up by it.

    Returns
    -------
    scans : list of Scan
        One for each of these participants, and those of the other participants.
    notes : list of Note
        Which sessions are averaged and which are not; and, of the other participants, which
        sessions were acquired differently.
    """
    people: dict[str, list[Scan]] = {}
    for scan in scans:
        people.setdefault(scan.participant, []).append(scan)
    combined: list[Scan] = []
    notes: list[Note] = []
    for person, theirs in people.items():
        if person not in participants:
            combined += theirs
            notes += notes_of_sessions(theirs)
            continue
        scan, texts = _combine(theirs)
        combined.append(scan)
        notes += texts
    return combined, notes


def _combine(scans: Sequence[Scan]) -> tuple[Scan, list[Note]]:
    """Combine the sessions of one participant."""
    usable = [scan for scan in scans if scan.images]
    if not usable:
        return scans[0], []
    first, *_ = sorted(usable, key=_preference)
    used, notes = [first], []
    for scan in sorted(scans, key=_preference):
        if scan is first:
            continue
        if why := _difference(scan, first):
            title = session_title(first.session)
            notes.append(Note(f"not averaged with {title}: {why}", scan.label))
        else:
            used.append(scan)
    if len(used) == 1:
        return first, notes
    others, unaligned = _others(used)
    notes += unaligned
    titles = ", ".join(session_title(scan.session) for scan in used)
    text = f"the images of {titles} are averaged in the space of the first of them"
    notes.append(Note(text, f"sub-{first.participant}", warning=False))
    together = replace(
        first,
        session=None,
        images=tuple(path for scan in used for path in scan.images),
        others=others,
        sessions=tuple(scan.session for scan in used),
    )
    return together, notes


def _preference(scan: Scan) -> tuple[object, ...]:
    """Return a key that sorts sessions: of the preferred contrast first, then by label."""
    order = REFERENCE_SUFFIXES
    contrast = order.index(suffix_of(scan.images[0])) if scan.images else len(order)
    return contrast, scan.session is not None, natural_key(scan.session or "")


def _difference(scan: Scan, first: Scan) -> str:
    """Return why the images of a session are not averaged with those of the first; else ""."""
    if not scan.images:
        return scan.problem or "it has no usable image"
    if image_kind(scan) != image_kind(first):
        return f"it has {image_kind(scan)} images, not {image_kind(first)} images"
    if scan.all_lesions:
        return "it has lesion masks, and only those of the first session are used"
    return ""


def _others(scans: Sequence[Scan]) -> tuple[tuple[OtherImage, ...], list[Note]]:
    """Return the other images to align: the first of each kind; and notes about the rest."""
    found: dict[str, OtherImage] = {}
    notes = []
    for scan in scans:
        for other in scan.others:
            kind = other.path.name.removeprefix(f"{scan.label}_").partition(".")[0]
            if found.setdefault(kind, other) is not other:
                text = "not aligned, because an earlier session has an image of this kind"
                notes.append(Note(text, other.path.name, warning=False))
    return tuple(found.values()), notes
