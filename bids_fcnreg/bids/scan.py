"""A scan: the images and lesion masks of one participant in one session."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from bids_fcnreg.atomic import checksum
from bids_fcnreg.config import OTHER_CONTRASTS, REFERENCE_SUFFIXES


def scan_label(participant: str, session: str | None) -> str:
    """Return ``sub-01`` or ``sub-01_ses-x``, from labels without prefixes."""
    return f"sub-{participant}" + (f"_ses-{session}" if session else "")


def session_title(session: str | None) -> str:
    """Return ``ses-x``, or what a session without a label is called in messages."""
    return f"ses-{session}" if session else "the session without a label"


def suffix_of(path: Path) -> str:
    """Return the BIDS suffix in the name of an image."""
    return path.name.partition(".")[0].rpartition("_")[2]


@dataclass(frozen=True)
class Precomputed:
    """Existing results of a scan.

    Attributes
    ----------
    preproc, mask, dseg : Path or None
        Preprocessed image, brain mask, and tissue segmentation.
    tissue_labels : tuple of int
        Labels of gray matter, white matter and CSF in the segmentation.
    probseg : tuple of Path
        Probability maps of the same tissues; empty if not all exist.
    affines : mapping of str to Path
        Linear ITK transforms that map points of a template to points of the image, by its space.
    origins : mapping of Path to str
        Name of the derivatives that each file is in.
    """

    preproc: Path | None = None
    mask: Path | None = None
    dseg: Path | None = None
    tissue_labels: tuple[int, ...] = (1, 2, 3)
    probseg: tuple[Path, ...] = ()
    affines: Mapping[str, Path] = field(default_factory=dict, hash=False)
    origins: Mapping[Path, str] = field(default_factory=dict, hash=False)

    @property
    def images(self) -> tuple[Path, ...]:
        """Preprocessed image and brain mask, as far as they exist."""
        return tuple(path for path in (self.preproc, self.mask) if path is not None)

    @property
    def tissue(self) -> tuple[Path, ...]:
        """Segmentation and probability maps, as far as they exist."""
        return (*((self.dseg,) if self.dseg else ()), *self.probseg)

    @property
    def paths(self) -> tuple[Path, ...]:
        """All files."""
        return (*self.images, *self.tissue, *self.affines.values())

    @property
    def descriptions(self) -> dict[str, str]:
        """File names with the name of their derivatives, for the report, by kind of result."""
        kinds = {
            "image": (self.preproc,),
            "brain mask": (self.mask,),
            "tissue segmentation": self.tissue,
            "affine": tuple(self.affines.values()),
        }
        found = {kind: [path for path in paths if path] for kind, paths in kinds.items()}
        return {
            kind: ", ".join(f"{path.name} ({self.origins[path]})" for path in paths)
            for kind, paths in found.items()
            if paths
        }


@dataclass(frozen=True)
class OtherImage:
    """Image of a session that is aligned to the registered one.

    Attributes
    ----------
    path : Path
        The image.
    lesions : tuple of Path
        Lesion masks that were drawn on it.
    """

    path: Path
    lesions: tuple[Path, ...] = ()

    @property
    def suffix(self) -> str:
        """BIDS suffix of the image."""
        return suffix_of(self.path)

    @property
    def sources(self) -> dict[str, str]:
        """SHA-256 of each existing file, by path."""
        return _checksums((self.path, *self.lesions))


@dataclass(frozen=True)
class Scan:
    """Reference images of one participant in one session, whose runs are averaged.

    With `sessions`, the images of several sessions; see `combine_sessions`.

    Attributes
    ----------
    participant : str
        Label without ``sub-``.
    session : str or None
        Label without ``ses-``.
    images : tuple of Path
        Runs to average, sorted; empty if there is no usable image.
    lesions : tuple of Path
        Lesion masks that were drawn on them.
    problem : str
        Why no image is usable, if there are unusable ones.
    others : tuple of OtherImage
        Images of the session that are aligned to them.
    sessions : tuple of (str or None)
        Labels of the sessions whose images are averaged, if there are several.
    precomputed : Precomputed
        Existing results that are used in place of new ones.
    """

    participant: str
    session: str | None
    images: tuple[Path, ...]
    lesions: tuple[Path, ...] = ()
    problem: str = ""
    others: tuple[OtherImage, ...] = ()
    sessions: tuple[str | None, ...] = ()
    precomputed: Precomputed = Precomputed()

    @property
    def first_session(self) -> str | None:
        """Label of the session that defines the space."""
        return self.sessions[0] if self.sessions else self.session

    @property
    def label(self) -> str:
        """``sub-01`` or ``sub-01_ses-x``."""
        return scan_label(self.participant, self.session)

    def why_no_image(self, suffix: str | None = None) -> str:
        """Return why no image is registered, if only images with a suffix are, or any."""
        *others, last = REFERENCE_SUFFIXES
        wanted = suffix or f"{', '.join(others)} or {last}"
        return self.problem or f"no {wanted} image"

    @property
    def suffix(self) -> str:
        """BIDS suffix in the names of its results: ``T1w`` also for images of its contrast."""
        suffix = suffix_of(self.images[0]) if self.images else ""
        return suffix if suffix in OTHER_CONTRASTS else "T1w"

    @property
    def is_t1w(self) -> bool:
        """Whether the images have the contrast of T1w images."""
        return self.suffix == "T1w"

    @property
    def sources(self) -> dict[str, str]:
        """SHA-256 of each existing file, by path."""
        return _checksums((*self.images, *self.all_lesions, *self.precomputed.paths))

    @property
    def all_lesions(self) -> tuple[Path, ...]:
        """All lesion masks, also those that were drawn on other images."""
        return (*self.lesions, *(path for other in self.others for path in other.lesions))


def _checksums(paths: Iterable[Path]) -> dict[str, str]:
    """Return the SHA-256 of each existing file, by path."""
    return {str(path): checksum(path) for path in paths if path.is_file()}
