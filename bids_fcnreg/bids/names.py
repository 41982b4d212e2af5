"""Names of raw BIDS images: validation of paths, and their entities."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from bids_fcnreg.config import ALIGNED_SUFFIXES

#: Characters of a label; plus signs are allowed since BIDS 1.10.
LABEL = re.compile(r"[0-9A-Za-z+]+")
EXTENSIONS = (".nii", ".nii.gz")

#: Names in filter files (those of pybids) of the entities of raw data, by key.
RAW = {
    "sub": "subject", "ses": "session", "sample": "sample", "task": "task",
    "tracksys": "tracksys", "acq": "acquisition", "nuc": "nucleus", "voi": "volume",
    "ce": "ceagent", "trc": "tracer", "stain": "staining", "rec": "reconstruction",
    "dir": "direction", "run": "run", "mod": "modality", "echo": "echo", "flip": "flip",
    "inv": "inv", "mt": "mt", "part": "part", "proc": "proc", "split": "split",
    "recording": "recording", "chunk": "chunk",
}  # fmt: skip
#: Names of the entities of derivatives, by key.
DERIVED = {
    "tpl": "template", "cohort": "cohort", "space": "space", "desc": "desc", "label": "label",
    "res": "res", "den": "den", "hemi": "hemi", "seg": "segmentation", "scale": "scale",
    "atlas": "atlas", "from": "from", "to": "to", "mode": "mode", "roi": "roi",
    "model": "model", "subset": "subset",
}  # fmt: skip
NAMES = RAW | DERIVED
KEYS = {name: key for key, name in NAMES.items()}

#: Patterns of labels that are restricted.
FORMS = {
    **dict.fromkeys(("run", "echo", "flip", "inv", "split", "chunk"), re.compile(r"[0-9]+")),
    "mt": re.compile("on|off"),
    "part": re.compile("mag|phase|real|imag"),
}

SUBJECT_DIRECTORY = re.compile(rf"sub-({LABEL.pattern})")
SESSION_DIRECTORY = re.compile(rf"ses-({LABEL.pattern})")

#: Labels of lesion masks.
_LESION = re.compile("lesions?[0-9]*", re.IGNORECASE)

#: Entities of a lesion mask that may name the suffix of the image that it was drawn on.
_DRAWN_ON = ("mod", "space")
#: Name of that suffix among the entities of a lesion mask.
DRAWN_ON = "drawn_on"

#: Maximum number of characters of an entity in a message.
_MAX_CHARACTERS = 30

#: Suffixes of derived images whose names may contain another suffix.
_OTHERS = {"mask", "roi", "dseg", "probseg", "defacemask", "xfm"}


class MisnamedError(ValueError):
    """An image has a path or name that is not valid in BIDS.

    Parameters
    ----------
    reason : str
        What is wrong, without the name of the file.
    """


@dataclass(frozen=True)
class Kind:
    """Kind of images to find.

    Attributes
    ----------
    suffixes : tuple of str
        Valid suffixes.
    lesion : bool
        Whether the images are lesion masks, which may have a ``label-``.
    labels : tuple of str
        Valid labels of lesion masks besides ``lesion``.
    """

    suffixes: tuple[str, ...]
    lesion: bool = False
    labels: tuple[str, ...] = ()

    def resembles(self, name: str) -> bool:
        """Return whether a file name is, or resembles, that of an image of this kind."""
        stem, _ = split_extension(name)
        if stem is None or not self.suffixes:
            return False
        tokens = stem.lower().split("_")
        last = re.split(r"[^0-9a-z+]+", stem.lower())[-1]
        wanted = "|".join(re.escape(suffix.lower()) for suffix in self.suffixes)
        if self.lesion:
            named = {f"label-{one.lower()}" for one in self.labels}
            marked = "lesion" in stem.lower() or named.intersection(tokens)
            unlabelled = last == "roi" and not any(one.startswith("label-") for one in tokens)
            with_suffix = re.fullmatch(wanted, last) and (marked or unlabelled)
            return bool(with_suffix or "lesion" in last)
        begins = any(re.match(rf"(?:{wanted})(?![0-9a-z+])", token) for token in tokens)
        ends = re.search(rf"(?<![0-9a-z+])(?:{wanted})$", tokens[-1])
        return bool(begins or ends) and last not in _OTHERS


def split_extension(name: str) -> tuple[str | None, str]:
    """Split the name of a NIfTI file (in any case); the stem of any other file is None."""
    for extension in EXTENSIONS:
        if name.lower().endswith(extension):
            return name[: -len(extension)], name[-len(extension) :]
    return None, ""


def normalize_label(key: str, label: str) -> str:
    """Return the label of an entity, numbers without leading zeros.

    Examples
    --------
    >>> [normalize_label(*pair) for pair in (("run", "01"), ("run", "0"), ("acq", "01"))]
    ['1', '0', '01']
    """
    return str(int(label)) if key in FORMS and label.isdecimal() else label


def read_entities(parts: Sequence[str], kind: Kind) -> dict[str, str]:
    """Read the entities of an image with a valid path and name.

    Parameters
    ----------
    parts : sequence of str
        Parts of the path from the root of the dataset.
    kind : Kind
        Kind of the image.

    Returns
    -------
    dict of str to str
        Labels by the name of the entity, with ``suffix``, ``extension`` and ``datatype``. For a
        lesion mask, `DRAWN_ON` is the suffix of the image that it was drawn on, if its name has
        one.

    Raises
    ------
    MisnamedError
        If the image is misplaced, misnamed, or a derived image.
    """
    subject, session = _read_directories(parts[:-1])
    stem, extension = split_extension(parts[-1])
    pairs = (stem or "").split("_")
    suffix = pairs.pop()
    _check_labels(pairs, subject, session)
    entities: dict[str, str] = {}
    for pair in pairs:
        if kind.lesion and (drawn_on := _read_drawn_on(pair)):
            entities[DRAWN_ON] = drawn_on
            continue
        key, label = _read_pair(pair, kind)
        if NAMES[key] in entities:
            raise MisnamedError(f"its name has the entity {key}- twice")
        if key == "label" and not (_LESION.fullmatch(label) or label in kind.labels):
            raise MisnamedError("its label- is not lesion")
        entities[NAMES[key]] = label
    if suffix not in kind.suffixes:
        wanted = " or ".join(f"_{one}" for one in kind.suffixes)
        raise MisnamedError(f"its name does not end in {wanted}")
    if extension not in EXTENSIONS:
        raise MisnamedError("its extension is not written .nii or .nii.gz")
    return {**entities, "suffix": suffix, "extension": extension, "datatype": "anat"}


def read_mask_entities(name: str) -> dict[str, str]:
    """Read the entities of a lesion mask that is named by the user, from its file name.

    Entities of derivatives are ignored, except the label and what the mask was drawn on.

    Examples
    --------
    >>> found = read_mask_entities("sub-01_run-1_space-FLAIR_desc-x_label-lesion_mask.nii.gz")
    >>> [found[key] for key in ("subject", "run", DRAWN_ON, "label", "suffix")]
    ['01', '1', 'FLAIR', 'lesion', 'mask']

    Raises
    ------
    MisnamedError
        If it is no NIfTI file, or its name does not begin with a participant.
    """
    stem, extension = split_extension(name)
    if stem is None:
        raise MisnamedError("it is not a .nii or .nii.gz file")
    *pairs, _ = stem.split("_")
    found = {}
    for pair in pairs:
        key, _, label = pair.partition("-")
        if drawn_on := _read_drawn_on(pair):
            found[DRAWN_ON] = drawn_on
        elif key in RAW or key == "label":
            found[NAMES[key]] = label
    if "subject" not in found:
        raise MisnamedError("its name has no sub-")
    return {**found, "suffix": "mask", "extension": extension, "datatype": "anat"}


def guess_entities(parts: Sequence[str]) -> dict[str, str]:
    """Guess the entities of a misnamed image; those of its directories take precedence."""
    stem, extension = split_extension(parts[-1])
    *pairs, suffix = (stem or "").split("_")
    found = {}
    for part in (*pairs, *reversed(parts[:-1])):
        key, dash, label = part.partition("-")
        if dash and key in NAMES:
            found[NAMES[key]] = label
    return {**found, "suffix": suffix, "extension": extension, "datatype": "anat"}


def _read_directories(directories: Sequence[str]) -> tuple[str, str | None]:
    """Read the labels of participant and session from the directories of an image."""
    subject = SUBJECT_DIRECTORY.fullmatch(directories[0]) if directories else None
    if subject is None:
        raise MisnamedError("it is not in a directory sub-LABEL with letters and digits only")
    rest, session = list(directories[1:]), None
    if rest and rest[0].lower().startswith("ses"):
        session = SESSION_DIRECTORY.fullmatch(rest.pop(0))
        if session is None:
            raise MisnamedError(
                "the directory of its session is not ses-LABEL with letters and digits only"
            )
    if rest != ["anat"]:
        raise MisnamedError("it is not directly in the anat directory of a participant or session")
    return subject[1], session and session[1]


def _check_labels(pairs: list[str], subject: str, session: str | None) -> None:
    """Refuse a name whose participant or session differs from its directories."""
    if not pairs or pairs[0] != f"sub-{subject}":
        raise MisnamedError("its name does not begin with the participant of its directory")
    sessions = [pair for pair in pairs if pair.startswith("ses-")]
    if sessions != ([] if session is None else [f"ses-{session}"]):
        raise MisnamedError("the session in its name differs from that of its directory")


def _read_drawn_on(pair: str) -> str | None:
    """Read the suffix of the image that a lesion mask was drawn on from a part of its name.

    Examples
    --------
    >>> [_read_drawn_on(pair) for pair in ("FLAIR", "mod-T2w", "space-FLAIR", "space-MNI")]
    ['FLAIR', 'T2w', 'FLAIR', None]
    """
    key, _, label = pair.rpartition("-")
    return label if label in ALIGNED_SUFFIXES and key in ("", *_DRAWN_ON) else None


def _read_pair(pair: str, kind: Kind) -> tuple[str, str]:
    """Read key and label of an entity in the name of an image."""
    key, dash, label = pair.partition("-")
    if not dash:
        raise MisnamedError("a part of its name is not of the form ENTITY-LABEL")
    if key in DERIVED and not (kind.lesion and key == "label"):
        raise MisnamedError(f"{key}- marks a derived image, not a raw one")
    if key not in NAMES:
        shown = key if len(key) <= _MAX_CHARACTERS else f"{key[:_MAX_CHARACTERS]}…"
        raise MisnamedError(f"{shown}- is not an entity of BIDS")
    if not LABEL.fullmatch(label):
        raise MisnamedError(f"the label of {key}- has characters other than letters and digits")
    if key in FORMS and not FORMS[key].fullmatch(label):
        valid = FORMS[key].pattern.replace("|", ", ")
        raise MisnamedError(
            f"the label of {key}- is not a number"
            if valid.startswith("[")
            else f"the label of {key}- is not one of {valid}"
        )
    return key, label
