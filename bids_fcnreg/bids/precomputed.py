"""Find existing results of a scan in other derivatives: mask, image, segmentation, affine."""

from __future__ import annotations

import re
from collections.abc import Container, Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

from bids_fcnreg.bids.derivatives import read_tsv
from bids_fcnreg.bids.names import normalize_label
from bids_fcnreg.bids.scan import Precomputed, Scan
from bids_fcnreg.errors import InputError
from bids_fcnreg.fcn.foreground import MIN_VOLUME_MM3
from bids_fcnreg.fcn.structures import TISSUES
from bids_fcnreg.io.header import check_file
from bids_fcnreg.io.nifti import canonical_grid, load, read_grid

#: Entities in which a result must agree with the image of the scan, if it has them.
_COMMON = ("acq", "ce", "rec", "run")
#: Spaces that are that of the image itself.
_NATIVE = ("T1w", "orig", "individual")
#: Names of tissues in lookup tables.
_TISSUE_NAMES = {
    **dict.fromkeys(("gm", "gray matter", "grey matter"), "GM"),
    **dict.fromkeys(("wm", "white matter"), "WM"),
    **dict.fromkeys(("csf", "cerebrospinal fluid"), "CSF"),
}
_IMAGES, _LINEAR = (".nii", ".nii.gz"), (".txt", ".mat")
_NAME = re.compile(r"[\w.-]+")


def parse_derivatives(specs: Iterable[str]) -> dict[str, Path]:
    """Return directories of derivatives by name, from ``NAME=PATH`` or ``PATH``.

    Raises
    ------
    InputError
        If a directory does not exist or a name is given twice.
    """
    found: dict[str, Path] = {}
    for spec in specs:
        name, equals, text = spec.partition("=")
        named = equals and _NAME.fullmatch(name) and not Path(spec).exists()
        path = Path(text if named else spec).expanduser().absolute()
        name = name if named else path.name
        if not path.is_dir():
            raise InputError(f"--derivatives: {path} is not a directory. Check the path.")
        if name in found and found[name] != path:
            raise InputError(
                f"--derivatives: {found[name]} and {path} have the same name {name}. Name one of "
                "them, as in NAME=PATH."
            )
        found[name] = path
    return found


def find_precomputed(
    scan: Scan, derivatives: Mapping[str, Path], spaces: Container[str] = (), alone: bool = True
) -> tuple[Precomputed, list[str]]:
    """Find and check the existing results of a scan.

    Parameters
    ----------
    scan : Scan
        Scan with at least one image.
    derivatives : mapping of str to Path
        Directories by name. A later one takes precedence over an earlier one, as in fMRIPrep.
    spaces : container of str
        Spaces of the templates of which affine transforms are used.
    alone : bool
        Whether it is the only scan of its participant: results without a session are of it.

    Returns
    -------
    found : Precomputed
    doubts : list of str
        Warnings.

    Raises
    ------
    InputError
        If there are several candidates in one directory, or a result is damaged, empty, or on
        another grid than the scan.
    """
    found, doubts = Precomputed(), []
    origins: dict[Path, str] = {}
    for name, directory in derivatives.items():
        by_kind = _by_kind(scan, directory, alone)
        for kind, paths in by_kind.items():
            if len(paths) > 1:
                raise InputError(
                    f"{paths[0]} and {paths[1].name} are both candidates for the {kind}. Move one "
                    "of them, or choose another --derivatives."
                )
        one = _assemble({kind: paths[0] for kind, paths in by_kind.items()})
        for what, old, new in (
            ("image", found.preproc, one.preproc),
            ("brain mask", found.mask, one.mask),
            ("tissue segmentation", found.tissue, one.tissue),
            ("affine", found.affines.keys() & one.affines.keys(), one.affines),
        ):
            if old and new:
                doubts.append(
                    f"the {what} of {name} is used in place of that of earlier --derivatives"
                )
        if one.tissue:
            labels = _tissue_labels(one.dseg, directory)
            found = replace(found, dseg=one.dseg, probseg=one.probseg, tissue_labels=labels)
        found = replace(
            found,
            preproc=one.preproc or found.preproc,
            mask=one.mask or found.mask,
            affines={
                **found.affines,
                **{space: path for space, path in one.affines.items() if space in spaces},
            },
        )
        origins |= dict.fromkeys(one.paths, name)
    found = replace(found, origins={path: origins[path] for path in found.paths})
    doubts += _check(scan, found)
    return found, doubts


def _assemble(paths: Mapping[str, Path]) -> Precomputed:
    """Return the results of one directory, by their kind."""
    probseg = tuple(paths[f"{tissue} probability"] for tissue in TISSUES
                    if f"{tissue} probability" in paths)  # fmt: skip
    return Precomputed(
        preproc=paths.get("preprocessed image"),
        mask=paths.get("brain mask"),
        dseg=paths.get("tissue segmentation"),
        probseg=probseg if len(probseg) == len(TISSUES) else (),
        affines={
            kind.removeprefix("affine to "): path
            for kind, path in paths.items()
            if kind.startswith("affine to ")
        },
    )


def _tissue_labels(dseg: Path | None, directory: Path) -> tuple[int, ...]:
    """Return the labels of `TISSUES` by the lookup table of a segmentation, or those of BIDS."""
    if dseg is not None:
        beside = dseg.with_name(f"{dseg.name.partition('.')[0]}.tsv")
        for table in (beside, directory / "dseg.tsv"):
            rows = read_tsv(table) if table.is_file() else []
            names = {_TISSUE_NAMES.get(row.get("name", "").lower()): row.get("index", "")
                     for row in rows}  # fmt: skip
            if all(names.get(tissue, "").isdecimal() for tissue in TISSUES):
                return tuple(int(names[tissue]) for tissue in TISSUES)
    return Precomputed.tissue_labels


def _by_kind(scan: Scan, directory: Path, alone: bool) -> dict[str, list[Path]]:
    """Return the results of a scan in one directory, by kind."""
    found: dict[str, list[Path]] = {}
    for path in sorted(set(_files(scan, directory))):
        entities, suffix, extension = _parse(path.name)
        if not _is_of(scan, entities, alone):
            continue
        if kind := _kind(scan, entities, suffix, extension):
            found.setdefault(kind, []).append(path)
    return found


def _files(scan: Scan, directory: Path) -> Iterator[Path]:
    """Yield the files of a participant in directories for anatomical images, or in none."""
    person = f"sub-{scan.participant}"
    yield from directory.glob(f"{person}_*")
    own = directory if directory.name == person else directory / person
    for inside in ("", "anat/", "ses-*/", "ses-*/anat/"):
        yield from own.glob(f"{inside}{person}_*")


def _parse(name: str) -> tuple[dict[str, str], str, str]:
    """Return entities, suffix and extension of a file name."""
    stem, dot, extension = name.partition(".")
    *pairs, suffix = stem.split("_")
    return dict(pair.split("-", 1) for pair in pairs if "-" in pair), suffix, dot + extension


def _is_of(scan: Scan, entities: Mapping[str, str], alone: bool) -> bool:
    """Return whether entities of a result do not contradict those of a scan."""
    if entities.get("sub") != scan.participant:
        return False
    session = entities.get("ses")
    if session != scan.session and not (session is None and alone):
        return False
    image, _, _ = _parse(scan.images[0].name)
    return all(
        normalize_label(key, entities[key]) == normalize_label(key, image.get(key, ""))
        for key in _COMMON
        if key in entities
    )


def _kind(scan: Scan, entities: Mapping[str, str], suffix: str, extension: str) -> str:
    """Return the kind of a result, or nothing."""
    rest = {key: label for key, label in entities.items() if key not in ("sub", "ses", *_COMMON)}
    if suffix == "xfm" and extension in _LINEAR:
        linear = {"from": scan.suffix, "mode": "image"}
        target = rest.pop("to", "")
        return f"affine to {target}" if target and rest == linear else ""
    if rest.get("space") in (scan.suffix, *_NATIVE):
        del rest["space"]
    if extension not in _IMAGES:
        return ""
    kinds = {
        ("desc-preproc", scan.suffix): "preprocessed image",
        ("desc-brain", "mask"): "brain mask",
        ("", "dseg"): "tissue segmentation",
        **{(f"label-{one}", "probseg"): f"{one} probability" for one in TISSUES},
    }
    pairs = "_".join(f"{key}-{label}" for key, label in rest.items())
    return kinds.get((pairs, suffix), "")


def _check(scan: Scan, found: Precomputed) -> list[str]:
    """Refuse unusable results; return warnings."""
    for path in (*found.images, *found.tissue):
        check_file(path)
    reference = found.preproc or scan.images[0]
    for path in (*([found.mask] if found.mask else []), *found.tissue):
        if not _same_grid(path, reference):
            raise InputError(
                f"{path} is on another grid than {reference}. Resample it, or choose other "
                "--derivatives."
            )
    if found.mask is not None:
        mask = load(found.mask)
        volume = (np.asanyarray(mask.dataobj) > 0).sum() * abs(np.linalg.det(mask.affine[:3, :3]))
        if volume < MIN_VOLUME_MM3:
            raise InputError(
                f"{found.mask} has only {volume / 1000:.1f} ml. Check the mask, or choose other "
                "--derivatives."
            )
    if found.dseg is not None:
        values = np.asanyarray(load(found.dseg).dataobj)
        if not np.isin(values, (0, *found.tissue_labels)).all():
            known = zip(found.tissue_labels, TISSUES, strict=True)
            raise InputError(
                f"{found.dseg} has other labels than "
                f"{', '.join(f'{label} {name}' for label, name in known)}. Correct its lookup "
                "table, or choose other --derivatives."
            )
    for path in found.affines.values():
        _check_linear(path)
    if found.preproc is not None and not _same_grid(found.preproc, scan.images[0]):
        return [f"{found.preproc} is on another grid than the scan; so are the results"]
    return []


def _check_linear(path: Path) -> None:
    """Refuse a file that is not a linear transform of ITK."""
    from bids_fcnreg.io.itk import read_transform  # imports PyTorch

    if read_transform(path).displacements:
        raise InputError(f"{path} is nonlinear. Remove it, or choose other --derivatives.")


def _same_grid(one: Path, other: Path) -> bool:
    """Return whether two images have the same voxels, in any order of the axes."""
    first, second = (canonical_grid(read_grid(path)) for path in (one, other))
    return first.shape == second.shape and np.allclose(
        first.affine, second.affine, rtol=0, atol=1e-2
    )
