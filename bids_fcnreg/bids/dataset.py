"""What a BIDS dataset holds for us: the T1w images and lesion masks of each participant."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bids_fcnreg.bids.description import check_raw
from bids_fcnreg.bids.filters import (
    QUERIES,
    Filters,
    abbreviated_list,
    matches,
    similar_labels,
    values_of,
)
from bids_fcnreg.bids.layout import Layout, RawImage, UnusedImage, find_participants, read_layout
from bids_fcnreg.bids.names import KEYS, Kind
from bids_fcnreg.bids.notes import (
    Note,
    notes_of_filters,
    notes_of_phases,
    notes_of_sessions,
    notes_of_unused,
)
from bids_fcnreg.bids.order import natural_key, order_sessions
from bids_fcnreg.bids.scan import Scan
from bids_fcnreg.bids.selection import match_lesions, select_images, short_name
from bids_fcnreg.errors import InputError

#: Letters of a label that a message shows at most.
_LONGEST = 60

_Who = tuple[str, str | None]


@dataclass(frozen=True)
class Dataset:
    """What is registered of a dataset, and what is to be said of it.

    Attributes
    ----------
    scans : list of Scan
        One for each participant and session that has a T1w image or should have, sorted.
    notes : list of Note
        Images that are not used, what is averaged, filters without effect.
    """

    scans: list[Scan]
    notes: list[Note]


def find_scans(
    bids_dir: Path,
    participants: Iterable[str] = (),
    sessions: Iterable[str] = (),
    filters: Filters | None = None,
) -> list[Scan]:
    """Find what there is to register; parameters and errors as for `read_dataset`."""
    return read_dataset(bids_dir, participants, sessions, filters).scans


def read_dataset(
    bids_dir: Path,
    participants: Iterable[str] = (),
    sessions: Iterable[str] = (),
    filters: Filters | None = None,
) -> Dataset:
    """Find what there is to register, and what looks like it and is not used.

    Parameters
    ----------
    bids_dir : Path
        Root of a raw BIDS dataset.
    participants, sessions : iterable of str
        Labels, with or without ``sub-`` and ``ses-``; empty means all. Sessions asked for leave
        out images without a session.
    filters : mapping, optional
        What `bids_fcnreg.bids.filters.read_filter_file` returns.

    Returns
    -------
    Dataset
        A participant without any T1w image has a scan with an empty ``t1w`` (only if named, when
        sessions are asked for), and so has a session of which no image can be used.

    Raises
    ------
    InputError
        If there is no raw dataset, an unknown participant or session, or no T1w image at all.
    """
    bids_dir = Path(bids_dir).absolute()
    check_raw(bids_dir)
    wanted, visits = _labels(participants, "sub-"), _labels(sessions, "ses-")
    there = _check_participants(bids_dir, wanted)
    queries = _queries(filters or {})
    kinds = {
        name: Kind(tuple(str(one) for one in values_of(query["suffix"])), name == "roi")
        for name, query in queries.items()
    }
    layout = read_layout(bids_dir, kinds, wanted)
    if visits:
        _check_known("Session", visits, sorted(layout.sessions, key=natural_key), bids_dir)
        _keep_sessions(layout, visits)
    found, notes = _all_scans(layout, queries)
    notes = [*notes_of_unused(layout), *notes, *notes_of_filters(layout, filters or {})]
    scans = []
    for participant in wanted or there:
        theirs = order_sessions(bids_dir, found.get(participant, []))
        if not theirs and (wanted or not visits):
            session = visits[0] if len(visits) == 1 else None
            misplaced = [one for one in layout.unused["t1w"] if one.subject == participant]
            theirs = [Scan(participant, session, (), problem=_problem(misplaced))]
        scans += theirs
    if not any(scan.t1w for scan in scans):
        asked = bool(wanted or visits or filters)
        raise InputError(_nothing_found(bids_dir, layout, scans, filters or {}, asked))
    return Dataset(scans, notes)


def _check_participants(bids_dir: Path, wanted: tuple[str, ...]) -> list[str]:
    """Labels of the participants of a dataset; refuses those that it does not have."""
    there, excluded = find_participants(bids_dir)
    if not there:
        why = " but those that .bidsignore excludes" if excluded else ""
        raise InputError(
            f"{bids_dir} has no sub-* folders{why}: is it the root of the dataset? Their names "
            "are sub-LABEL, with letters and digits only."
        )
    if asked := [label for label in wanted if label in excluded]:
        raise InputError(
            f"Participant {abbreviated_list(asked)} is excluded by {bids_dir / '.bidsignore'}. "
            "Remove that line, or choose another participant."
        )
    for label in wanted:
        if os.path.isdir(bids_dir / f"sub-{label}") and label not in there:
            raise InputError(
                f"{bids_dir / f'sub-{label}'} is not a legal folder of a participant: rename it "
                "to sub-LABEL, with letters and digits only."
            )
    _check_known("Participant", wanted, there, bids_dir)
    return there


def _queries(filters: Filters) -> dict[str, dict[str, Any]]:
    """What is asked of each kind of image."""
    queries = {name: {**default, **filters.get(name, {})} for name, default in QUERIES.items()}
    for query in queries.values():
        query.pop("subject", None)  # who it is, only the command line says
    return queries


def _keep_sessions(layout: Layout, visits: tuple[str, ...]) -> None:
    """Remove images of other sessions; the filter narrows what is left, and overrides nothing."""
    for images in layout.images.values():
        images[:] = [image for image in images if image.scan[1] in visits]
    for unused in layout.unused.values():
        unused[:] = [
            one
            for one in unused
            if one.session in visits or (one.session is None and not one.in_anat)
        ]


def _all_scans(
    layout: Layout, queries: Mapping[str, Mapping[str, Any]]
) -> tuple[dict[str, list[Scan]], list[Note]]:
    """Scans of each participant, sorted by session (images without one come first)."""
    images = {
        name: _by_scan(image for image in layout.images[name] if matches(image.entities, query))
        for name, query in queries.items()
    }
    misplaced: dict[_Who, list[UnusedImage]] = {}
    # Those that a filter does not ask for are missed by nobody.
    asked = {
        entity: value
        for entity, value in queries["t1w"].items()
        if entity in KEYS and value != QUERIES["t1w"].get(entity)
    }
    for one in layout.unused["t1w"]:
        if one.in_anat and not one.excluded and matches(one.entities, asked):
            misplaced.setdefault((str(one.subject), one.session), []).append(one)
    scans: dict[str, list[Scan]] = {}
    notes = []
    for who in sorted(
        {*images["t1w"], *misplaced},
        key=lambda who: tuple(natural_key(label or "") for label in who),
    ):
        if who in images["t1w"]:
            scan, texts = _scan(who, images["t1w"][who], images["roi"].get(who, []))
            notes += [Note(text, scan.label, warning=False) for text in texts]
        else:
            scan = Scan(*who, (), problem=_problem(misplaced[who]))
        scans.setdefault(who[0], []).append(scan)
    notes += [note for theirs in scans.values() for note in notes_of_sessions(theirs)]
    return scans, [*notes_of_phases(layout, queries["t1w"]), *notes]


def _by_scan(images: Iterable[RawImage]) -> dict[_Who, list[RawImage]]:
    found: dict[_Who, list[RawImage]] = {}
    for image in images:
        found.setdefault(image.scan, []).append(image)
    return found


def _scan(
    who: _Who, images: Sequence[RawImage], masks: Sequence[RawImage]
) -> tuple[Scan, list[str]]:
    """The scan of one participant and session, and what is to be said of it."""
    selection = select_images(images)
    chosen, lesions, others = match_lesions(selection.images, masks)
    texts = list(selection.texts)
    if chosen and others:
        names = ", ".join(map(short_name, others))
        texts.append(
            f"lesion mask {names} is not used: it belongs to another image than "
            f"{short_name(chosen[0])}"
        )
    t1w, roi = (tuple(image.path for image in group) for group in (chosen, lesions))
    return Scan(*who, t1w, roi, selection.problem), texts


def _problem(misplaced: Sequence[UnusedImage]) -> str:
    """Why there is no T1w image of somebody who has some that look like it."""
    if not misplaced:
        return ""
    first, others = misplaced[0], len(misplaced) - 1
    more = f" ({others} more cannot be used either)" if others else ""
    return (
        f"{first.name} is not used: {first.reason}{more}. Rename or move it if it is the raw scan."
    )


def _nothing_found(
    bids_dir: Path,
    layout: Layout,
    scans: Sequence[Scan],
    filters: Filters,
    asked: bool,
) -> str:
    """Message when no participant has a T1w image that can be used."""
    misplaced = [one for one in layout.unused["t1w"] if not one.excluded]
    derived = all("derived" in one.reason for one in misplaced)
    if misplaced and derived and not layout.images["t1w"]:
        return (
            f"{bids_dir} holds only derived images, such as {misplaced[0].name}: give the raw "
            "BIDS dataset that they were made from. To register one of them, use "
            "`fcnreg register`."
        )
    chosen = " for what was asked" if asked else ""
    sentence = f"{bids_dir} has no T1w image{chosen}"
    if hints := notes_of_filters(layout, filters):
        return f"{sentence}. {hints[0].text}"
    if problem := next((scan.problem for scan in scans if scan.problem), ""):
        return f"{sentence} that can be used. {problem}"
    return (
        f"{sentence} (sub-*/[ses-*/]anat/*_T1w.nii[.gz]): check the "
        "participants, sessions and filters, and that the images are named as BIDS asks."
    )


def _check_known(what: str, wanted: tuple[str, ...], there: list[str], bids_dir: Path) -> None:
    """Refuse labels that the dataset does not have."""
    unknown = [label for label in wanted if label not in there]
    if not unknown:
        return
    told = ", ".join(
        f"{label[:_LONGEST]}…" if len(label) > _LONGEST else label or "''" for label in unknown
    )
    sentence = f"{what} {told} is not in {bids_dir}"
    if not there:
        option = f"--{what.lower()}-label"
        raise InputError(f"{sentence}, which has no {what.lower()}s: leave {option} away.")
    if any("," in label for label in unknown):
        raise InputError(f"{sentence}: put spaces between labels, not commas.")
    if close := [match for label in unknown for match in similar_labels(label, there)]:
        raise InputError(f"{sentence}: did you mean {', '.join(dict.fromkeys(close))}?")
    raise InputError(f"{sentence}: choose from {abbreviated_list(there)}.")


def _labels(labels: Iterable[str], prefix: str) -> tuple[str, ...]:
    """Labels without their prefix, each once, in the order given."""
    return tuple(dict.fromkeys(label.removeprefix(prefix) for label in labels))
