"""The brain images of a cohort: from BIDS datasets, derivatives, files, and lists of files."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from bids_fcnreg.atomic import checksum, read_text
from bids_fcnreg.bids.dataset import read_dataset
from bids_fcnreg.bids.description import is_derivative, read_description
from bids_fcnreg.bids.notes import summarize
from bids_fcnreg.bids.templates import find_brain_mask
from bids_fcnreg.errors import InputError

_NIFTI = (".nii", ".nii.gz")
_PREPROCESSED = "sub-*/**/anat/*_desc-preproc_T1w.nii*"


@dataclass(frozen=True)
class SourceDataset:
    """Where images come from, as far as that is said.

    Attributes
    ----------
    name : str
        Of the dataset.
    doi, license : str or None
        Of the dataset, or of the one it was made from.
    """

    name: str
    doi: str | None = None
    license: str | None = None


@dataclass(frozen=True)
class Brain:
    """One image of a cohort.

    Attributes
    ----------
    image : Path
        T1w image, absolute.
    mask : Path or None
        Its brain mask; None if the image should show the brain alone.
    """

    image: Path
    mask: Path | None = None

    @property
    def person(self) -> str:
        """Folder ``sub-…`` that the image is in, else its own path: images of one share it."""
        return str(_subject_folder(self.image) or self.image)

    @property
    def source(self) -> SourceDataset:
        """Dataset that the image is in."""
        folder = _subject_folder(self.image)
        return _source(folder.parent) if folder else SourceDataset("image files")

    @property
    def fingerprint(self) -> str:
        """Changes when the content of one of the files does, wherever they are."""
        digest = hashlib.sha256()
        for path in (self.image, self.mask):
            # A link to what was not fetched has no content: reading it says so.
            content = checksum(path) if path and path.exists() else path
            digest.update(f"{content};".encode())
        return digest.hexdigest()[:16]


def find_brains(
    data: Iterable[str | Path], tell: Callable[[str], object] = lambda line: None
) -> list[Brain]:
    """Find the images of a cohort.

    Parameters
    ----------
    data : iterable of str or path
        Any mix of: a BIDS dataset (its T1w images); BIDS derivatives (every
        ``desc-preproc_T1w`` in its own space, with its brain mask); a NIfTI file, with its mask
        if that is beside it (``…_desc-brain_mask.nii.gz`` for ``…_T1w.nii.gz``); a text file
        with one image a line (relative to its folder; what follows a # is a comment).
    tell : callable
        Gets a line for each thing to be said of a dataset, such as images that are not used.

    Returns
    -------
    list of Brain
        Each once, in the order given.

    Raises
    ------
    InputError
        If one of them is missing, no such thing, or holds no T1w image.
    """
    paths = [Path(word).expanduser().absolute() for word in data]
    found = [brain for path in paths for brain in _brains_of(path, tell)]
    return list(dict.fromkeys(found))


def _brains_of(path: Path, tell: Callable[[str], object]) -> Iterator[Brain]:
    """Images that one of the words means."""
    if path.is_dir():
        yield from _brains_in(path, tell)
    elif path.name.endswith(_NIFTI):
        yield _brain(path, "the data")
    elif path.exists():
        yield from _listed(path)
    else:
        raise InputError(f"{path} does not exist: check the path.")


def _brains_in(folder: Path, tell: Callable[[str], object]) -> Iterator[Brain]:
    """Images of a BIDS dataset, raw or derived."""
    if not is_derivative(read_description(folder)):
        dataset = read_dataset(folder)
        for line in summarize(dataset.notes):
            tell(line)
        for scan in dataset.scans:
            if scan.problem:
                tell(f"warning: {scan.label}: {scan.problem}")
            yield from map(Brain, scan.t1w)
        return
    native = [path for path in sorted(folder.glob(_PREPROCESSED)) if "_space-" not in path.name]
    if not native:
        raise InputError(
            f"{folder} has no T1w image in its own space (sub-*/[ses-*/]anat/"
            "*_desc-preproc_T1w.nii.gz): give a BIDS dataset or what the participant level wrote."
        )
    for path in native:
        yield Brain(path, find_brain_mask(path))


def _listed(path: Path) -> Iterator[Brain]:
    """Images that a text file lists."""
    try:
        lines = read_text(path).splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(
            f"{path} is neither an image (.nii, .nii.gz) nor a text file that lists images."
        ) from error
    words = [word for word in (line.partition("#")[0].strip() for line in lines) if word]
    if not words:
        raise InputError(f"{path} lists no image: write one path a line.")
    for word in words:
        yield _brain((path.parent / Path(word).expanduser()).absolute(), str(path))


def _brain(path: Path, where: str) -> Brain:
    """Image file that is surely there."""
    if not path.name.endswith(_NIFTI):
        raise InputError(f"{path}, named in {where}, is no image: it must end in .nii or .nii.gz.")
    if not path.exists():
        raise InputError(f"{path}, named in {where}, does not exist: check the path.")
    return Brain(path, find_brain_mask(path))


def _subject_folder(path: Path) -> Path | None:
    """Innermost folder of a participant around a file."""
    return next((folder for folder in path.parents if folder.name.startswith("sub-")), None)


@lru_cache(maxsize=64)
def _source(root: Path) -> SourceDataset:
    """What a dataset says about itself."""
    try:
        description = read_description(root)
    except InputError:
        return SourceDataset("image files")
    made_from = [one for one in description.get("SourceDatasets") or [] if isinstance(one, dict)]
    dois = [description.get("DatasetDOI"), *(one.get("DOI") for one in made_from)]
    doi = next((str(doi) for doi in dois if doi), None)
    if doi:
        doi = "doi:" + doi.removeprefix("https://doi.org/").removeprefix("doi:")
    return SourceDataset(str(description["Name"]), doi, description.get("License"))
