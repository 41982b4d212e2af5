"""Training images from BIDS datasets, derivatives, files, and lists of files."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from bids_fcnreg.atomic import checksum, read_text
from bids_fcnreg.bids.dataset import read_dataset
from bids_fcnreg.bids.description import is_derivative, read_description
from bids_fcnreg.bids.names import EXTENSIONS
from bids_fcnreg.bids.notes import summarize
from bids_fcnreg.bids.templates import find_brain_mask
from bids_fcnreg.errors import InputError

_PREPROCESSED = "sub-*/**/anat/*_desc-preproc_T1w.nii*"


@dataclass(frozen=True)
class SourceDataset:
    """Source dataset of images.

    Attributes
    ----------
    name : str
        Name of the dataset.
    doi, license : str or None
        DOI and license of the dataset, or of its source dataset.
    """

    name: str
    doi: str | None = None
    license: str | None = None


@dataclass(frozen=True)
class Brain:
    """Brain image of a cohort.

    Attributes
    ----------
    image : Path
        Absolute path of the T1w image.
    mask : Path or None
        Brain mask; None for a skull-stripped image.
    """

    image: Path
    mask: Path | None = None

    @property
    def person(self) -> str:
        """Key of the participant: the directory ``sub-…`` of the image, else the image itself."""
        return str(_subject_directory(self.image) or self.image)

    @property
    def source(self) -> SourceDataset:
        """Dataset of the image."""
        directory = _subject_directory(self.image)
        return _source(directory.parent) if directory else SourceDataset("image files")

    @property
    def fingerprint(self) -> str:
        """Hash of the content of the files, independent of their paths."""
        digest = hashlib.sha256()
        for path in (self.image, self.mask):
            # A broken link has no content; the error is reported when it is read.
            content = checksum(path) if path and path.exists() else path
            digest.update(f"{content};".encode())
        return digest.hexdigest()[:16]


def find_brains(
    data: Iterable[str | Path], report: Callable[[str], object] = lambda line: None
) -> list[Brain]:
    """Find the images of a cohort.

    Parameters
    ----------
    data : iterable of str or path
        Any mix of: a BIDS dataset (its T1w images); BIDS derivatives (every
        ``desc-preproc_T1w`` in native space, with its brain mask); a NIfTI file, with the mask
        beside it, if there is one (``…_desc-brain_mask.nii.gz`` for ``…_T1w.nii.gz``); a text file
        with one image per line (relative to its directory; comments start with #).
    report : callable
        Called with each line to print about a dataset, such as unused images.

    Returns
    -------
    list of Brain
        Images without duplicates, in order.

    Raises
    ------
    InputError
        If an item does not exist, is invalid, or contains no T1w image.
    """
    paths = [Path(item).expanduser().absolute() for item in data]
    found = [brain for path in paths for brain in _brains_of(path, report)]
    return list(dict.fromkeys(found))


def _brains_of(path: Path, report: Callable[[str], object]) -> Iterator[Brain]:
    """Yield the images of one item of the data."""
    if path.is_dir():
        yield from _brains_in(path, report)
    elif path.name.endswith(EXTENSIONS):
        yield _brain(path, "the data")
    elif path.exists():
        yield from _listed(path)
    else:
        raise InputError(f"{path} does not exist. Check the path.")


def _brains_in(directory: Path, report: Callable[[str], object]) -> Iterator[Brain]:
    """Yield the images of a BIDS dataset, raw or derived."""
    if not is_derivative(read_description(directory)):
        dataset = read_dataset(directory)
        for line in summarize(dataset.notes):
            report(line)
        for scan in dataset.scans:
            if scan.problem:
                report(f"warning: {scan.label}: {scan.problem}")
            yield from map(Brain, scan.images if scan.is_t1w else ())
        return
    native = [path for path in sorted(directory.glob(_PREPROCESSED)) if "_space-" not in path.name]
    if not native:
        raise InputError(
            f"{directory} has no T1w image in native space (sub-*/[ses-*/]anat/"
            "*_desc-preproc_T1w.nii.gz). Provide a BIDS dataset, or the output of the participant "
            "level."
        )
    for path in native:
        yield Brain(path, find_brain_mask(path))


def _listed(path: Path) -> Iterator[Brain]:
    """Yield the images listed in a text file."""
    try:
        lines = read_text(path).splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(
            f"{path} is neither an image (.nii, .nii.gz) nor a text file that lists images."
        ) from error
    names = [name for name in (line.partition("#")[0].strip() for line in lines) if name]
    if not names:
        raise InputError(f"{path} lists no image. Write one path per line.")
    for name in names:
        yield _brain((path.parent / Path(name).expanduser()).absolute(), str(path))


def _brain(path: Path, where: str) -> Brain:
    """Return an existing image file, with the mask beside it."""
    if not path.name.endswith(EXTENSIONS):
        raise InputError(f"{path}, listed in {where}, does not end in .nii or .nii.gz.")
    if not path.exists():
        raise InputError(f"{path}, listed in {where}, does not exist. Check the path.")
    return Brain(path, find_brain_mask(path))


def _subject_directory(path: Path) -> Path | None:
    """Return the innermost directory of a participant that contains a file."""
    return next((parent for parent in path.parents if parent.name.startswith("sub-")), None)


@lru_cache(maxsize=64)
def _source(root: Path) -> SourceDataset:
    """Read name, DOI and license of a dataset."""
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
