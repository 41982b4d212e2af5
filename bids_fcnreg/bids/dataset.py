"""Find the reference images and lesion masks of each participant of a BIDS dataset."""

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
    Query,
    abbreviated_list,
    matches,
    queries_of_kinds,
    query_of_suffix,
    similar_labels,
    values_of,
    without_subject,
)
from bids_fcnreg.bids.layout import (
    Layout,
    RawImage,
    UnusedImage,
    find_lesion_masks,
    find_participants,
    read_layout,
)
from bids_fcnreg.bids.names import KEYS, Kind
from bids_fcnreg.bids.notes import (
    Note,
    notes_of_filters,
    notes_of_lesions,
    notes_of_phases,
    notes_of_unused,
)
from bids_fcnreg.bids.order import natural_key, order_sessions
from bids_fcnreg.bids.scan import OtherImage, Scan, scan_label
from bids_fcnreg.bids.selection import (
    match_lesions,
    owners_of,
    select_images,
    select_others,
    share_lesions,
    short_name,
)
from bids_fcnreg.config import ALIGNED_SUFFIXES, REFERENCE_SUFFIXES
from bids_fcnreg.errors import InputError

#: Maximum number of characters of a label in a message.
_MAX_CHARACTERS = 60

#: Query for the images of a session that are aligned to the registered one.
_OTHERS = "others"

#: Labels of participant and session.
_ScanKey = tuple[str, str | None]


@dataclass(frozen=True)
class Dataset:
    """Scans of a dataset, and notes about them.

    Attributes
    ----------
    scans : list of Scan
        Sorted scans, one per participant and session, also those without a usable T1w image.
    notes : list of Note
        Notes about unused images, averaged runs, sessions without an image of the chosen suffix,
        and filters without effect.
    """

    scans: list[Scan]
    notes: list[Note]


def read_dataset(
    bids_dir: Path,
    participants: Iterable[str] = (),
    sessions: Iterable[str] = (),
    filters: Filters | None = None,
    reference_suffix: str | None = None,
    others: bool = False,
    lesion_masks: Iterable[str] = (),
) -> Dataset:
    """Find the scans to register, and the images that are not used.

    Parameters
    ----------
    bids_dir : Path
        Root of a raw BIDS dataset.
    participants, sessions : iterable of str
        Labels, with or without ``sub-`` and ``ses-``; empty means all. If sessions are given,
        images without a session are excluded.
    filters : mapping, optional
        Filters from `bids_fcnreg.bids.filters.read_filter_file`.
    reference_suffix : str, optional
        Suffix of the images to register. By default, unless a filter has one, that of T1w images
        or, in sessions without them, the first of UNIT1, T2w, FLAIR and PDw.
    others : bool
        Also find the other images of each session, to be aligned to the registered one.
    lesion_masks : iterable of str
        Glob patterns of further lesion masks, see `find_lesion_masks`.

    Returns
    -------
    Dataset
        A participant without any usable image has a scan with empty ``images`` (with `sessions`,
        only if the participant is given), and so has a session without a usable image.

    Raises
    ------
    InputError
        If it is not a raw dataset, a participant or session is unknown, there is no image, or no
        file matches a pattern of lesion masks.
    """
    bids_dir = Path(bids_dir).absolute()
    check_raw(bids_dir)
    wanted, wanted_sessions = _labels(participants, "sub-"), _labels(sessions, "ses-")
    known = _check_participants(bids_dir, wanted)
    filters = filters or {}
    selecting = {name: without_subject(query) for name, query in filters.items()}
    queries = queries_of_kinds(selecting, reference_suffix)
    if others:
        queries[_OTHERS] = {"suffix": ALIGNED_SUFFIXES}
    kinds = {
        name: Kind(_strings(query["suffix"]), name == "roi", _strings(query.get("label", ())))
        for name, query in queries.items()
    }
    layout = read_layout(bids_dir, kinds, wanted)
    known_paths = {image.path for image in layout.images["roi"]}
    layout.images["roi"] += [
        image
        for image in find_lesion_masks(bids_dir, lesion_masks)
        if image.path not in known_paths and (not wanted or image.scan[0] in wanted)
    ]
    if wanted_sessions:
        known_sessions = sorted(layout.sessions, key=natural_key)
        _check_known("Session", wanted_sessions, known_sessions, bids_dir)
        _keep_sessions(layout, wanted_sessions)
    found, notes = _all_scans(layout, queries, reference_suffix, selecting)
    notes = [*notes_of_unused(layout), *notes, *notes_of_filters(layout, filters)]
    scans = []
    for participant in wanted or known:
        theirs = order_sessions(bids_dir, found.get(participant, []))
        if not theirs and (wanted or not wanted_sessions):
            session = wanted_sessions[0] if len(wanted_sessions) == 1 else None
            misplaced = [one for one in layout.unused["t1w"] if one.subject == participant]
            problem = _problem(misplaced)
            if not problem and any(one.scan[0] == participant for one in layout.images["t1w"]):
                problem = "None of its T1w images matches the filters."
            theirs = [Scan(participant, session, (), problem=problem)]
        scans += theirs
    if not any(scan.images for scan in scans):
        selected = bool(wanted or wanted_sessions or filters)
        raise InputError(
            _nothing_found(bids_dir, layout, scans, filters, selected, reference_suffix)
        )
    return Dataset(scans, notes)


def _check_participants(bids_dir: Path, wanted: tuple[str, ...]) -> list[str]:
    """Return the labels of the participants of a dataset; refuse unknown ones."""
    known, excluded = find_participants(bids_dir)
    if not known:
        why = " except those that .bidsignore excludes" if excluded else ""
        raise InputError(
            f"{bids_dir} has no sub-* directories{why}. Provide the root of a BIDS dataset, with "
            "directories sub-LABEL (letters and digits only)."
        )
    if asked := [label for label in wanted if label in excluded]:
        raise InputError(
            f"Participant {abbreviated_list(asked)} is excluded by {bids_dir / '.bidsignore'}. "
            "Remove that line, or choose another participant."
        )
    for label in wanted:
        if os.path.isdir(bids_dir / f"sub-{label}") and label not in known:
            raise InputError(
                f"{bids_dir / f'sub-{label}'} is not a valid name of a participant's directory. "
                "Rename it to sub-LABEL, with letters and digits only."
            )
    _check_known("Participant", wanted, known, bids_dir)
    return known


def _strings(value: object) -> tuple[str, ...]:
    """Return the labels of a filter, without special values."""
    return tuple(str(one) for one in values_of(value) if not isinstance(one, Query))


def _keep_sessions(layout: Layout, sessions: tuple[str, ...]) -> None:
    """Remove images of other sessions; filters cannot restore them."""
    for images in layout.images.values():
        images[:] = [image for image in images if image.scan[1] in sessions]
    for unused in layout.unused.values():
        unused[:] = [
            one
            for one in unused
            if one.session in sessions or (one.session is None and not one.in_anat)
        ]


def _all_scans(
    layout: Layout,
    queries: Mapping[str, Mapping[str, Any]],
    suffix: str | None,
    filters: Filters,
) -> tuple[dict[str, list[Scan]], list[Note]]:
    """Return the scans of each participant, sorted by session (without a session first).

    Images of another suffix substitute T1w images, unless a `suffix` was chosen.
    """
    images = {
        name: _by_scan(image for image in layout.images[name] if matches(image.entities, query))
        for name, query in queries.items()
    }
    of_session = _by_scan(
        image
        for image in layout.images.get(_OTHERS, ())
        if matches(image.entities, query_of_suffix(image.entities["suffix"], filters))
    )
    present = _by_scan(
        {
            image.path: image
            for name, theirs in layout.images.items()
            for image in theirs
            if name != "roi"
        }.values()
    )
    misplaced: dict[_ScanKey, list[UnusedImage]] = {}
    # Misplaced images that the filter excludes anyway are not reported.
    requested = {
        entity: value
        for entity, value in queries["t1w"].items()
        if entity in KEYS and value != QUERIES["t1w"].get(entity)
    }
    for one in layout.unused["t1w"]:
        if one.in_anat and not one.excluded and matches(one.entities, requested):
            misplaced.setdefault((str(one.subject), one.session), []).append(one)
    scans: dict[str, list[Scan]] = {}
    notes = []
    references = {**_others_than_t1w(layout, images, misplaced), **images["t1w"]}
    if suffix is not None:
        notes += [
            Note(f"not registered: it has no {suffix} image", scan_label(*key))
            for key in references
            if key not in images["t1w"]
        ]
        references = images["t1w"]
    for key in sorted(
        {*references, *misplaced},
        key=lambda key: tuple(natural_key(label or "") for label in key),
    ):
        if key in references:
            scan, texts = _scan(
                key,
                references[key],
                images["roi"].get(key, []),
                of_session.get(key, []),
                present[key],
            )
            notes += [Note(text, scan.label, warning=False) for text in texts]
        else:
            scan = Scan(*key, (), problem=_problem(misplaced[key]))
        scans.setdefault(key[0], []).append(scan)
    notes += notes_of_lesions(references, images["roi"])
    return scans, [*notes_of_phases(layout, queries["t1w"]), *notes]


def _others_than_t1w(
    layout: Layout,
    images: Mapping[str, Mapping[_ScanKey, list[RawImage]]],
    misplaced: Iterable[_ScanKey],
) -> dict[_ScanKey, list[RawImage]]:
    """Return images of other suffixes of the scans without any T1w image, even an unusable one.

    If another suffix was chosen, it takes the place of T1w.
    """
    with_t1w = {*misplaced, *(image.scan for image in layout.images["t1w"])}
    found: dict[_ScanKey, list[RawImage]] = {}
    for suffix in REFERENCE_SUFFIXES:
        for key, theirs in images.get(suffix, {}).items():
            if key not in with_t1w:
                found.setdefault(key, theirs)
    return found


def _by_scan(images: Iterable[RawImage]) -> dict[_ScanKey, list[RawImage]]:
    found: dict[_ScanKey, list[RawImage]] = {}
    for image in images:
        found.setdefault(image.scan, []).append(image)
    return found


def _scan(
    key: _ScanKey,
    images: Sequence[RawImage],
    masks: Sequence[RawImage],
    of_session: Sequence[RawImage],
    present: Sequence[RawImage],
) -> tuple[Scan, list[str]]:
    """Return the scan of one participant and session, and notes about it.

    Parameters
    ----------
    key : tuple
        Labels of participant and session.
    images, masks : sequence of RawImage
        Images that match the query, and lesion masks.
    of_session : sequence of RawImage
        Images that are aligned to them, unless they are among the averaged ones.
    present : sequence of RawImage
        All images of the session, also those that filters exclude.
    """
    others, texts_of_others = select_others(of_session, select_images(images).images)
    aligned = {image.path for image in others}
    selection = select_images([image for image in images if image.path not in aligned])
    chosen, lesions, unmatched = match_lesions(selection.images, masks)
    lesions_of_others, unmatched = share_lesions(others, unmatched)
    texts = [*selection.texts, *texts_of_others]
    if chosen and (suffix := chosen[0].entities["suffix"]) != "T1w":
        texts.append(f"the {suffix} image is registered")
    for mask in unmatched if chosen else ():
        texts.append(f"lesion mask {short_name(mask)} is not used: {_why(mask, present, chosen)}")
    runs, roi = _paths(chosen), _paths(lesions)
    found = tuple(
        OtherImage(image.path, _paths(theirs))
        for image, theirs in zip(others, lesions_of_others, strict=True)
    )
    return Scan(*key, runs, roi, selection.problem, found), texts


def _why(mask: RawImage, present: Sequence[RawImage], chosen: Sequence[RawImage]) -> str:
    """Return why a lesion mask is not used, if these images are present, and these averaged."""
    owners = owners_of(mask, present)
    if len(owners) > 1:
        names = " and ".join(sorted(map(short_name, owners), key=natural_key))
        return f"it could belong to {names}. Add the entities of the image to its name"
    if owners and owners[0] in chosen:
        return f"of several runs, only masks on {short_name(chosen[0])} are"
    if owners:
        return f"{short_name(owners[0])} is neither registered nor aligned"
    return "no image of its session has its entities"


def _paths(images: Iterable[RawImage]) -> tuple[Path, ...]:
    return tuple(image.path for image in images)


def _problem(misplaced: Sequence[UnusedImage]) -> str:
    """Describe why a scan with misplaced images has no T1w image."""
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
    selected: bool,
    suffix: str | None,
) -> str:
    """Return the message if no participant has a usable image, or none of the chosen suffix."""
    misplaced = [one for one in layout.unused["t1w"] if not one.excluded]
    derived = all("derived" in one.reason for one in misplaced)
    if misplaced and derived and not layout.images["t1w"]:
        return (
            f"{bids_dir} holds only derived images, such as {misplaced[0].name}. Provide the raw "
            "BIDS dataset that they were made from. To register one of them, use "
            "`fcnreg register`."
        )
    of_selection = " that matches the selection" if selected else ""
    message = f"{bids_dir} has no {suffix or 'T1w'} image{of_selection}"
    if hints := [note for note in notes_of_filters(layout, filters) if note.warning]:
        return f"{message}. {hints[0].text}"
    if problem := next((scan.problem for scan in scans if scan.problem), ""):
        return f"{bids_dir} has no usable {suffix or 'T1w'} image. {problem}"
    instead = ""
    if "suffix" not in filters.get("t1w", {}):
        instead = f", nor one of {', '.join(REFERENCE_SUFFIXES[1:])}"
    if suffix is not None:
        instead = ". Omit --reference-suffix to register the images that there are"
    return (
        f"{message} (sub-*/[ses-*/]anat/*_{suffix or 'T1w'}.nii[.gz]){instead}. Check the "
        "participants, sessions and filters, and the names of the images."
    )


def _check_known(entity: str, wanted: tuple[str, ...], known: list[str], bids_dir: Path) -> None:
    """Refuse labels that the dataset does not have."""
    unknown = [label for label in wanted if label not in known]
    if not unknown:
        return
    labels = ", ".join(
        f"{label[:_MAX_CHARACTERS]}…" if len(label) > _MAX_CHARACTERS else label or "''"
        for label in unknown
    )
    message = f"{entity} {labels} is not in {bids_dir}"
    if not known:
        option = f"--{entity.lower()}-label"
        raise InputError(f"{message}, which has no {entity.lower()}s. Omit {option}.")
    typed = [f"{prefix}{label}" for label in unknown for prefix in ("", "sub-", "ses-")]
    if files := [word for word in typed if os.path.isfile(word)]:
        raise InputError(f"{message}. To read labels from a file, write @{files[0]}.")
    if any("," in label for label in unknown):
        raise InputError(f"{message}. Separate labels by spaces, not commas.")
    if close := [match for label in unknown for match in similar_labels(label, known)]:
        raise InputError(f"{message}. Did you mean {', '.join(dict.fromkeys(close))}?")
    raise InputError(f"{message}. Choose from {abbreviated_list(known)}.")


def _labels(labels: Iterable[str], prefix: str) -> tuple[str, ...]:
    """Remove the prefix and duplicates of labels."""
    return tuple(dict.fromkeys(label.removeprefix(prefix) for label in labels))
