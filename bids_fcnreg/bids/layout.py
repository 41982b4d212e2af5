"""Find the images of a raw BIDS dataset by path and name, and misplaced images."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from bids_fcnreg.bids.bidsignore import Bidsignore
from bids_fcnreg.bids.names import (
    EXTENSIONS,
    SESSION_DIRECTORY,
    SUBJECT_DIRECTORY,
    Kind,
    MisnamedError,
    guess_entities,
    read_entities,
    read_mask_entities,
)
from bids_fcnreg.bids.order import natural_key
from bids_fcnreg.errors import InputError

#: Directories of participants, including misspelled ones.
_LIKE_SUBJECT = re.compile(r"sub(?:j(?:ect)?)?(?![a-z])", re.IGNORECASE)
#: Extensions of directories that are one file of another modality.
_FILES = (".ds", ".zarr", ".mefd", ".bti")


@dataclass(frozen=True)
class RawImage:
    """An image with a valid path and name.

    Attributes
    ----------
    path : Path
        Absolute path.
    entities : mapping of str to str
        Entities from `bids_fcnreg.bids.names.read_entities`.
    """

    path: Path
    entities: Mapping[str, str]

    @property
    def scan(self) -> tuple[str, str | None]:
        """Labels of participant and session."""
        return self.entities["subject"], self.entities.get("session")


@dataclass(frozen=True)
class UnusedImage:
    """An image that resembles one of the requested kinds, but is not used.

    Attributes
    ----------
    parts : tuple of str
        Parts of the path from the root of the dataset.
    reason : str
        Why it is not used.
    entities : mapping of str to str
        Entities that it seems to have.
    excluded : bool
        Whether .bidsignore excludes it.
    """

    parts: tuple[str, ...]
    reason: str
    entities: Mapping[str, str]
    excluded: bool = False

    @property
    def name(self) -> str:
        """Path from the root of the dataset, with unprintable characters escaped."""
        path = "/".join(self.parts)
        return "".join(
            one if one.isprintable() else one.encode("unicode_escape").decode() for one in path
        )

    @property
    def subject(self) -> str | None:
        """Label of the participant's directory that contains it."""
        found = SUBJECT_DIRECTORY.fullmatch(self.parts[0]) if len(self.parts) > 1 else None
        return found and found[1]

    @property
    def session(self) -> str | None:
        """Label of the session's directory that contains it."""
        found = SESSION_DIRECTORY.fullmatch(self.parts[1]) if len(self.parts) > 2 else None
        return found and found[1]

    @property
    def in_anat(self) -> bool:
        """Whether it is directly in the ``anat`` directory of a participant or session."""
        above = self.parts[1:-1] if self.session is None else self.parts[2:-1]
        return self.subject is not None and above == ("anat",)


@dataclass
class Layout:
    """Images of a dataset, by the name of their kind.

    Attributes
    ----------
    images : dict of str to list of RawImage
        Images with valid paths and names.
    unused : dict of str to list of UnusedImage
        Images that resemble them.
    sessions : set of str
        Labels of the directories of sessions.
    unreadable : list of str
        Directories that cannot be read.
    """

    images: dict[str, list[RawImage]] = field(default_factory=dict)
    unused: dict[str, list[UnusedImage]] = field(default_factory=dict)
    sessions: set[str] = field(default_factory=set)
    unreadable: list[str] = field(default_factory=list)


def find_participants(bids_dir: Path) -> tuple[list[str], list[str]]:
    """Return the labels of participants with a directory, and of those in .bidsignore."""
    ignore = Bidsignore.read(bids_dir)
    included: list[str] = []
    excluded: list[str] = []
    for entry in _entries(bids_dir, []):
        label = SUBJECT_DIRECTORY.fullmatch(entry.name)
        if label and _is_directory(entry):
            labels = excluded if ignore.excludes((entry.name,), directory=True) else included
            labels.append(label[1])
    return sorted(included, key=natural_key), sorted(excluded, key=natural_key)


def read_layout(
    bids_dir: Path, kinds: Mapping[str, Kind], participants: Iterable[str] = ()
) -> Layout:
    """Find images by the names of directories and files; only .bidsignore is opened.

    Parameters
    ----------
    bids_dir : Path
        Root of a BIDS dataset.
    kinds : mapping of str to Kind
        Kinds of images to find.
    participants : iterable of str
        Labels; empty means all. Directories with similar names are searched as well.
    """
    layout = Layout({name: [] for name in kinds}, {name: [] for name in kinds})
    ignore = Bidsignore.read(bids_dir)
    for parts in _files(bids_dir, tuple(participants), layout.unreadable):
        if len(parts) > 2 and (session := SESSION_DIRECTORY.fullmatch(parts[1])):
            layout.sessions.add(session[1])
        for name, kind in kinds.items():
            if not kind.resembles(parts[-1]):
                continue
            if ignore.excludes(parts):
                reason = ".bidsignore excludes it"
                layout.unused[name].append(UnusedImage(parts, reason, guess_entities(parts), True))
                continue
            try:
                entities = read_entities(parts, kind)
            except MisnamedError as why:
                unused = UnusedImage(parts, str(why), guess_entities(parts))
                layout.unused[name].append(unused)
            else:
                layout.images[name].append(RawImage(bids_dir.joinpath(*parts), entities))
    for images in layout.images.values():
        images.sort(key=lambda one: natural_key(one.path))
    for unused_images in layout.unused.values():
        unused_images.sort(key=lambda one: natural_key(one.name))
    return layout


def find_lesion_masks(bids_dir: Path, patterns: Iterable[str]) -> list[RawImage]:
    """Find lesion masks that are named by glob patterns, in or outside of the dataset.

    Parameters
    ----------
    bids_dir : Path
        Root of the BIDS dataset.
    patterns : iterable of str
        Relative to the dataset, or absolute.

    Raises
    ------
    InputError
        If no file matches a pattern, or the name of a file has no participant.
    """
    found = {}
    for pattern in patterns:
        paths = sorted(glob.glob(str(bids_dir / pattern), recursive=True), key=natural_key)
        if not paths:
            raise InputError(
                f"--lesion-masks: no file matches {pattern}. Check the pattern, which is relative "
                f"to {bids_dir}."
            )
        for path in map(Path, paths):
            try:
                found[path] = RawImage(path, read_mask_entities(path.name))
            except MisnamedError as why:
                raise InputError(
                    f"--lesion-masks: {path} cannot be used: {why}. Name it as in BIDS, or change "
                    "the pattern."
                ) from why
    return list(found.values())


def _files(
    bids_dir: Path, participants: tuple[str, ...], unreadable: list[str]
) -> Iterator[tuple[str, ...]]:
    """Yield the paths of files in the root and in directories of participants or similar ones."""
    pending: list[tuple[str, ...]] = []
    for entry in _entries(bids_dir, unreadable):
        if not _is_directory(entry):
            yield (entry.name,)
        elif _LIKE_SUBJECT.match(entry.name) and _is_wanted(entry.name, participants):
            pending.append((entry.name,))
    while pending:
        directory = pending.pop()
        for entry in _entries(bids_dir.joinpath(*directory), unreadable):
            parts = (*directory, entry.name)
            # A directory with the name of an image is refused when it is read.
            if entry.name.endswith(EXTENSIONS) or (
                entry.is_symlink() and not _may_hold_anat(parts)
            ):
                yield parts  # without resolving links, which is slow
            elif not _is_directory(entry):
                yield parts
            elif not entry.name.lower().endswith(_FILES):
                pending.append(parts)


def _entries(directory: Path, unreadable: list[str]) -> list[os.DirEntry[str]]:
    """Return the entries of a directory, without hidden ones."""
    try:
        with os.scandir(directory) as entries:
            return [entry for entry in entries if not entry.name.startswith(".")]
    except OSError:
        unreadable.append(str(directory))
        return []


def _is_directory(entry: os.DirEntry[str]) -> bool:
    """Return whether an entry is a directory, or a link to one."""
    try:
        return entry.is_dir()
    except OSError:  # circular links
        return False


def _is_wanted(name: str, participants: tuple[str, ...]) -> bool:
    """Return whether a directory is, or resembles, that of one of the participants."""
    if not participants:
        return True
    if label := SUBJECT_DIRECTORY.fullmatch(name):
        return label[1] in participants
    rest = _LIKE_SUBJECT.sub("", name, count=1).lstrip("-_. ")
    return any(
        rest.startswith(label) and not rest[len(label) :][:1].isalnum() for label in participants
    )


def _may_hold_anat(parts: tuple[str, ...]) -> bool:
    """Return whether BIDS allows anatomical images in a directory or below it."""
    session = len(parts) > 1 and SESSION_DIRECTORY.fullmatch(parts[1])
    inner = parts[2:] if session else parts[1:]
    return bool(SUBJECT_DIRECTORY.fullmatch(parts[0])) and inner in ((), ("anat",))
