"""Select the images of a scan to average, the others to align, and their lesion masks."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from bids_fcnreg.atomic import uncompressed_checksum
from bids_fcnreg.bids.filters import abbreviated_list
from bids_fcnreg.bids.layout import RawImage
from bids_fcnreg.bids.names import DRAWN_ON, KEYS, RAW, normalize_label
from bids_fcnreg.bids.order import natural_key
from bids_fcnreg.config import T1W_CONTRASTS

#: Entities by which one of several kinds of images is preferred: images without the entity first,
#: then by its label.
PREFERENCE = tuple(dict.fromkeys(["ce", "part", "rec", "mod", "acq", *RAW]))
_NO_KIND = ("sub", "ses", "run")
#: Entities of the registered image that its results keep.
KEPT = ("acq", "ce", "rec")
#: Entities of a session's other images that their results keep.
KEPT_OF_OTHERS = ("acq", "ce", "rec", "run", "echo", "part")
#: Maximum number of images in a note.
_MAX_NAMED = 4


@dataclass(frozen=True)
class Selection:
    """Images to average, and notes about the selection.

    Attributes
    ----------
    images : tuple of RawImage
        Sorted images, which differ only in ``run-``; empty if none can be selected.
    texts : tuple of str
        Notes about averaged and unused images.
    problem : str
        Why none can be selected.
    """

    images: tuple[RawImage, ...]
    texts: tuple[str, ...] = ()
    problem: str = ""


def select_images(images: Sequence[RawImage]) -> Selection:
    """Select the images of a scan to average.

    Runs are averaged, images that differ in any other entity never. Images without ``ce-`` are
    preferred, then those without ``part-``, ``rec-``, ``mod-``, ``acq-`` (in this order); if all
    have an entity, those with the first label.
    """
    kinds: dict[tuple[object, ...], list[RawImage]] = {}
    for image in sorted(images, key=_order):
        kinds.setdefault(_kind(image), []).append(image)
    if not kinds:
        return Selection(())
    first = min(kinds)
    texts = []
    runs: dict[int | None, list[RawImage]] = {}
    for image in kinds[first]:
        runs.setdefault(_run(image), []).append(image)
    chosen = []
    for same in runs.values():
        best, *others = sorted(same, key=lambda one: not one.path.name.endswith(".gz"))
        for other in others:
            if not _have_same_content(best.path, other.path):
                return Selection(
                    (),
                    problem=f"{best.path} and {other.path} have the same entities but different "
                    "content. Remove one of them, or list it in .bidsignore.",
                )
            texts.append(
                f"{short_name(other)} is not used, because it is a copy of {short_name(best)}"
            )
        chosen.append(best)
    if len(chosen) > 1:
        texts.append(f"{len(chosen)} runs are averaged ({_names(chosen)})")
    if others := [one for kind, group in kinds.items() if kind != first for one in group]:
        keys = ", ".join(_differing(kinds))
        texts.append(
            f"{_names(chosen)} {'is' if len(chosen) == 1 else 'are'} used and {_names(others)} "
            f"not: images that differ in {keys} are never averaged (select others with "
            "--bids-filter-file)"
        )
    return Selection(tuple(chosen), tuple(texts))


def match_lesions(
    images: Sequence[RawImage], masks: Sequence[RawImage]
) -> tuple[tuple[RawImage, ...], tuple[RawImage, ...], tuple[RawImage, ...]]:
    """Find the lesion masks of the selected images.

    Parameters
    ----------
    images : sequence of RawImage
        Runs to average, on the grid of the first one.
    masks : sequence of RawImage
        All lesion masks of the scan.

    Returns
    -------
    images, used, unused : tuple of RawImage
        Runs, that of a mask first; masks whose entities match those of the first run; and the
        other masks.
    """
    runs_of_masks = {_run(mask) for mask in masks if "run" in mask.entities}
    ordered = tuple(sorted(images, key=lambda one: _run(one) not in runs_of_masks))
    used = tuple(mask for mask in masks if ordered and _matches(mask, ordered[0]))
    return ordered, used, tuple(mask for mask in masks if mask not in used)


def select_others(
    images: Sequence[RawImage], chosen: Sequence[RawImage]
) -> tuple[tuple[RawImage, ...], tuple[str, ...]]:
    """Select the images of a session that are aligned to the averaged ones.

    All other contrasts are, including T1w images with a contrast agent, but not further images of
    the contrast of the averaged ones.

    Parameters
    ----------
    images : sequence of RawImage
        All anatomical images of the session.
    chosen : sequence of RawImage
        Runs to average.

    Returns
    -------
    others : tuple of RawImage
        Sorted.
    texts : tuple of str
        Notes about unused images.
    """
    if not chosen:
        return (), ()
    suffix = chosen[0].entities["suffix"]
    # Results of the averaged images have T1w as suffix if that is their contrast.
    found: dict[tuple[object, ...], RawImage] = {
        ("T1w" if suffix in T1W_CONTRASTS else suffix, *_kept(chosen[0], KEPT)): chosen[0]
    }
    texts = []
    for image in sorted(images, key=lambda one: (*_order(one), not one.path.name.endswith(".gz"))):
        if _kind(image) == _kind(chosen[0]) or _is_same_contrast(image, chosen[0]):
            continue
        name = (image.entities["suffix"], *_kept(image, KEPT_OF_OTHERS))
        first = found.setdefault(name, image)
        if first is not image:
            texts.append(
                f"{short_name(image)} is not aligned, because its results would have the names of "
                f"those of {short_name(first)}"
            )
    others = [image for image in found.values() if image is not chosen[0]]
    return tuple(sorted(others, key=lambda one: natural_key(one.path.name))), tuple(texts)


def _kept(image: RawImage, keys: Sequence[str]) -> list[object]:
    """Return the labels of `KEPT_OF_OTHERS` in the names of results that keep these entities."""
    return [
        (_run(image) if key == "run" else image.entities.get(RAW[key])) if key in keys else None
        for key in KEPT_OF_OTHERS
    ]


def _is_same_contrast(image: RawImage, other: RawImage) -> bool:
    """Return whether images have the same suffix and contrast agent."""
    return all(image.entities.get(key) == other.entities.get(key) for key in ("suffix", "ceagent"))


def share_lesions(
    images: Sequence[RawImage], masks: Sequence[RawImage]
) -> tuple[list[tuple[RawImage, ...]], tuple[RawImage, ...]]:
    """Find the lesion masks that were drawn on each of several images.

    Parameters
    ----------
    images : sequence of RawImage
        Images of one session.
    masks : sequence of RawImage
        Lesion masks of the session.

    Returns
    -------
    used : list of tuple of RawImage
        Masks of each image: those whose entities match that image only.
    unused : tuple of RawImage
        The other masks.
    """
    owners = {mask.path: owners_of(mask, images) for mask in masks}
    used = [
        tuple(mask for mask in masks if owners[mask.path] == [image]) for image in images
    ]  # fmt: skip
    return used, tuple(mask for mask in masks if len(owners[mask.path]) != 1)


def owners_of(mask: RawImage, images: Iterable[RawImage]) -> list[RawImage]:
    """Return the images that a lesion mask may have been drawn on, by their entities."""
    return [image for image in images if _matches(mask, image)]


def short_name(image: RawImage) -> str:
    """Return the file name without participant and session."""
    return re.sub(r"^sub-[^_]+_(ses-[^_]+_)?", "", image.path.name)


def _have_same_content(one: Path, other: Path) -> bool:
    """Return whether two files have the same decompressed content."""
    try:
        return uncompressed_checksum(one) == uncompressed_checksum(other)
    except OSError:
        return False


def _kind(image: RawImage) -> tuple[object, ...]:
    """Return a key that is equal for images to average; the smallest one is preferred."""
    return (
        natural_key(image.entities.get("suffix", "")),
        *(
            natural_key(normalize_label(key, image.entities[RAW[key]]))
            if RAW[key] in image.entities
            else ((), "")
            for key in PREFERENCE
            if key not in _NO_KIND
        ),
    )


def _order(image: RawImage) -> tuple[object, ...]:
    """Return a key that sorts runs by number, after an image without one."""
    run = _run(image)
    return -1 if run is None else run, natural_key(image.path.name)


def _run(image: RawImage) -> int | None:
    return int(image.entities["run"]) if "run" in image.entities else None


def _differing(kinds: Mapping[tuple[object, ...], Sequence[RawImage]]) -> list[str]:
    """Return the entities in which kinds of images differ, as in file names."""
    firsts = [group[0].entities for group in kinds.values()]
    names = [name for name in KEYS if KEYS[name] not in _NO_KIND]
    keys = [f"{KEYS[name]}-" for name in names if len({one.get(name) for one in firsts}) > 1]
    return keys + ["suffix"] * (len({one.get("suffix") for one in firsts}) > 1)


def _matches(mask: RawImage, image: RawImage) -> bool:
    """Return whether all entities of a mask agree with those of an image."""
    suffix = image.entities["suffix"]
    drawn_on = mask.entities.get(DRAWN_ON, suffix)
    if suffix not in (T1W_CONTRASTS if drawn_on == "T1w" else (drawn_on,)):
        return False
    return all(
        _run(mask) == _run(image) if name == "run" else label == image.entities.get(name)
        for name, label in mask.entities.items()
        if name in KEYS and name != "label"
    )


def _names(images: Iterable[RawImage]) -> str:
    return abbreviated_list([short_name(one) for one in images], _MAX_NAMED)
