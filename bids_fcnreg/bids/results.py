"""Find and read the participant-level results in the derivatives."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from bids_fcnreg.atomic import read_json
from bids_fcnreg.bids.derivatives import read_tsv
from bids_fcnreg.bids.order import natural_key
from bids_fcnreg.bids.scan import Scan, scan_label
from bids_fcnreg.bids.templates import find_brain_mask
from bids_fcnreg.errors import InputError
from bids_fcnreg.fcn.modes import MODES
from bids_fcnreg.io.nifti import is_intact
from bids_fcnreg.io.spatial_image import open_image
from bids_fcnreg.qc.metrics import REGISTRATION_METRICS
from bids_fcnreg.qc.verdict import LEVELS

_QUALITY = re.compile(
    r"(?P<prefix>sub-(?P<participant>[^_]+)(_ses-(?P<session>[^_]+))?(_[^_]+)*?)"
    r"_from-(?P<suffix>[^_]+)_to-(?P<space>[^_]+)_mode-image_desc-quality_xfm\.json"
)
#: Entities of the atlas in the name of a table of volumes; earlier versions wrote ``seg-`` only.
_VOLUMES = re.compile(
    r"_(?:atlas-(?P<atlas>[^_]+)(?:_seg-(?P<segmentation>[^_]+))?|seg-(?P<before>[^_]+))"
    r"_desc-(?P<space>[^_]+)Volumes_dseg\.tsv"
)

AnyScan = TypeVar("AnyScan", bound="RegisteredScan")

#: File with the messages of failed scans, in the directory of a run under ``logs/``.
FAILURES = "failures.json"


@dataclass(frozen=True)
class RegisteredScan:
    """One scan registered to one template, at any ``--level``.

    Attributes
    ----------
    participant : str
        Label without ``sub-``.
    session : str or None
        Label without ``ses-``.
    space : str
        Space of the template.
    quality : Path
        JSON file of the quality metrics.
    """

    participant: str
    session: str | None
    space: str
    quality: Path

    @property
    def label(self) -> str:
        """``sub-01`` or ``sub-01_ses-x``."""
        return scan_label(self.participant, self.session)

    @property
    def suffix(self) -> str:
        """BIDS suffix of the registered image."""
        return self.quality.name.partition("_from-")[2].partition("_")[0]

    @property
    def mode(self) -> str:
        """Mode of the registration: ``predict``, ``refine`` or ``optimize``."""
        return read_quality(self.quality)["mode"]

    @property
    def verdict(self) -> str:
        """Verdict: ``good``, ``doubtful``, ``failed`` or ``unknown``."""
        return read_quality(self.quality)["verdict"]


@dataclass(frozen=True)
class Result(RegisteredScan):
    """Output files of one scan registered to one template, with ``--level full``.

    Attributes
    ----------
    t1w, mask : Path
        Image and brain mask on the grid of the template.
    log_jacobian : Path
        Log-Jacobian map on the grid of the template.
    native_mask : Path
        Brain mask in the native space of the scan.
    volumes : dict of str to Path
        TSV files of regional volumes by the label of the atlas (with that of its segmentation).
    superseded : tuple of Path
        Quality metrics of older results of the same scan, from another acquisition.
    """

    t1w: Path
    mask: Path
    log_jacobian: Path
    native_mask: Path
    volumes: dict[str, Path]
    superseded: tuple[Path, ...] = ()

    @property
    def on_template(self) -> tuple[Path, ...]:
        """Images on the grid of the template."""
        return self.t1w, self.mask, self.log_jacobian

    @property
    def damaged(self) -> Path | None:
        """First image or table that is damaged, if any."""
        images = (*self.on_template, self.native_mask)
        broken = [path for path in images if not is_intact(path)]
        for path in self.volumes.values():
            try:
                read_volumes(path)
            except InputError:
                broken.append(path)
        return next(iter(broken), None)


def find_results(
    output_dir: Path, participant: str = "*", prefix: str | None = None
) -> list[Result]:
    """Find the complete participant-level results.

    Parameters
    ----------
    output_dir : Path
        Directory of the derivatives.
    participant : str
        Label without ``sub-``; by default, all participants.
    prefix : str, optional
        Prefix of the names of the results of one acquisition, such as ``sub-01_acq-A``.

    Returns
    -------
    list of Result
        The newest result of each scan and space (several acquisitions of a scan may have been
        registered), sorted. Results with missing files or damaged quality metrics are omitted.
    """
    results: dict[tuple[str, str], Result] = {}
    for quality, match in _quality_files(output_dir, participant, prefix):
        one = _result(quality, match)
        if one is not None:
            older = results.get((one.label, one.space))
            paths = (*older.superseded, older.quality) if older else ()
            results[one.label, one.space] = replace(one, superseded=paths)
    return _sorted(results)


def find_registered(output_dir: Path, participant: str, prefix: str) -> list[RegisteredScan]:
    """Find the registrations of one acquisition, at any ``--level``.

    Parameters are those of `find_results`.

    Returns
    -------
    list of RegisteredScan
        One of each space, sorted. Those with neither the results of ``--level full`` nor
        transforms, native mask and quality metrics are omitted.
    """
    found: dict[tuple[str, str], RegisteredScan] = {}
    for quality, match in _quality_files(output_dir, participant, prefix):
        source, space = match["suffix"], match["space"]
        directions = ((source, space), (space, source))
        files = [f"{prefix}_from-{one}_to-{other}_mode-image_xfm.h5" for one, other in directions]
        files.append(f"{prefix}_desc-brain_mask.nii.gz")
        minimal = all((quality.parent / name).exists() for name in files)
        if (minimal and read_quality(quality)) or _result(quality, match):
            one = RegisteredScan(match["participant"], match["session"], space, quality)
            found[one.label, one.space] = one
    return _sorted(found)


def _quality_files(
    output_dir: Path, participant: str, prefix: str | None
) -> Iterator[tuple[Path, re.Match[str]]]:
    """Yield the files of quality metrics, the oldest first, and what their names say."""
    names = list(Path(output_dir).glob(f"sub-{participant}/**/anat/*_desc-quality_xfm.json"))
    names.sort(key=lambda path: path.stat().st_mtime)
    for path in names:
        if (match := _QUALITY.fullmatch(path.name)) and prefix in (None, match["prefix"]):
            yield path, match


def _sorted(found: Mapping[tuple[str, str], AnyScan]) -> list[AnyScan]:
    """Sort by label and space, numbers by their value."""
    return [found[key] for key in sorted(found, key=lambda key: tuple(map(natural_key, key)))]


def _result(quality: Path, match: re.Match[str]) -> Result | None:
    """Return the result of a file of quality metrics; None if a file is missing."""
    directory, prefix, space = quality.parent, match["prefix"], match["space"]
    suffix = match["suffix"]
    t1w = _newest(directory, f"{prefix}_space-{space}_", f"desc-preproc_{suffix}.nii.gz")
    mask = _newest(directory, f"{prefix}_space-{space}_", "desc-brain_mask.nii.gz")
    ending = "_desc-quality_xfm.json"
    log_jacobian = directory / f"{quality.name.removesuffix(ending)}_desc-logjacobian_xfm.nii.gz"
    native_mask = directory / f"{prefix}_desc-brain_mask.nii.gz"
    if t1w is None or mask is None:
        return None
    files = (t1w, mask, log_jacobian, native_mask)
    if not all(path.exists() for path in files) or not read_quality(quality):
        return None
    key = match["participant"], match["session"], space
    volumes = _find_volumes(directory, prefix, space)
    return Result(*key, quality, t1w, mask, log_jacobian, native_mask, volumes)


def _find_volumes(directory: Path, prefix: str, space: str) -> dict[str, Path]:
    """Return the tables of regional volumes by the label of the atlas.

    Of two tables of one atlas, that with the name of this version is returned.
    """
    volumes: dict[str, Path] = {}
    for path in sorted(directory.glob(f"{prefix}_*Volumes_dseg.tsv"), reverse=True):
        found = _VOLUMES.fullmatch(path.name.removeprefix(prefix))
        if found and found["space"] == space:
            labels = found.group("atlas", "segmentation", "before")
            volumes["".join(filter(None, labels))] = path
    return dict(sorted(volumes.items()))


def find_damaged(results: Sequence[Result]) -> dict[tuple[str, str], tuple[Path, str]]:
    """Find results that cannot be combined with the others.

    Returns
    -------
    dict of (str, str) to (Path, str)
        A file that is damaged or not on the grid of most others, and which of the two applies, by
        the label of the scan and the space.
    """
    found, grids = {}, {}
    for one in results:
        if (path := one.damaged) is not None:
            found[one.label, one.space] = path, "is damaged"
        else:
            grids[one.label, one.space] = [(path, _grid(path)) for path in one.on_template]
    for space in {one.space for one in results}:
        theirs = {key: files for key, files in grids.items() if key[1] == space}
        count = Counter(grid for files in theirs.values() for _, grid in files)
        for key, files in theirs.items():
            for path, grid in files:
                if grid != count.most_common(1)[0][0]:
                    found[key] = path, "is not on the grid of the others"
    return found


def _grid(path: Path) -> tuple[tuple[int, ...], tuple[float, ...]]:
    """Return the shape and the rounded affine of an image."""
    nifti = open_image(path)
    return nifti.shape, tuple((nifti.affine.round(3) + 0.0).ravel())


def read_quality(path: Path) -> dict[str, Any]:
    """Read the quality metrics of a registration; return none if they are missing or damaged."""
    content = read_json(path)
    seconds = content.get("seconds")
    metrics = [content[one.key] for one in REGISTRATION_METRICS if one.key in content]
    valid = (
        content.get("mode") in tuple(MODES)
        and content.get("verdict") in LEVELS
        and isinstance(content.get("verdict_reason"), str | None)
        and isinstance(seconds, dict)
        and all(isinstance(value, int | float) for value in (*metrics, *seconds.values()))
    )
    return content if valid else {}


def _newest(directory: Path, begin: str, end: str) -> Path | None:
    """Return the newest of the files whose names differ only in the resolution."""
    name = re.compile(re.escape(begin) + r"(res-[^_]+_)?" + re.escape(end))
    files = [path for path in directory.iterdir() if name.fullmatch(path.name)]
    return max(files, key=lambda path: path.stat().st_mtime, default=None)


def find_preprocessed(output_dir: Path, scans: Iterable[Scan]) -> list[tuple[Scan, Path, Path]]:
    """Find the preprocessed images of scans, registered or not.

    Returns
    -------
    list of (Scan, Path, Path)
        Preprocessed scans, with their preprocessed image and brain mask in native space.
    """
    found = []
    for scan in scans:
        directory = Path(output_dir).joinpath(*scan.label.split("_"), "anat")
        images = sorted(directory.glob(f"{scan.label}*_desc-preproc_{scan.suffix}.nii.gz"))
        native = [path for path in images if "_space-" not in path.name]
        newest = max(native, key=lambda path: path.stat().st_mtime, default=None)
        if newest and (mask := find_brain_mask(newest)):
            found.append((scan, newest, mask))
    return found


def read_failures(output_dir: Path) -> dict[str, str]:
    """Read why scans failed in their last run.

    Returns
    -------
    dict of str to str
        Message by the label of the scan.
    """
    failures: dict[str, str] = {}
    files = Path(output_dir).glob(f"logs/*/{FAILURES}")
    for path in sorted(files, key=lambda path: path.stat().st_mtime):
        messages = read_json(path)
        failures |= {label: why for label, why in messages.items() if isinstance(why, str)}
    return failures


def read_volumes(path: Path) -> dict[str, tuple[int, float]]:
    """Read index and volume (mm³) of each region, by its name, from the table of a scan.

    The index is appended to names that are not unique.

    Raises
    ------
    InputError
        If the table is damaged.
    """
    rows = read_tsv(path)
    try:
        count = Counter(row["name"] for row in rows)
        found: dict[str, tuple[int, float]] = {}
        for row in rows:
            name = row["name"]
            while name in found or count[name] > 1:
                name += f" {row['index']}"
            found[name] = int(row["index"]), float(row["volume_mm3"])
        return found
    except (KeyError, ValueError) as why:
        raise InputError(f"{path} is damaged. Run the participant level again.") from why
