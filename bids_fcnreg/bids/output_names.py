"""Names of the output files of a scan, and their validation before the run."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from bids_fcnreg.bids.names import LABEL
from bids_fcnreg.bids.selection import KEPT, KEPT_OF_OTHERS
from bids_fcnreg.errors import InputError
from bids_fcnreg.fcn.structures import TISSUES

if TYPE_CHECKING:
    from bids_fcnreg.bids.atlases import Atlas
    from bids_fcnreg.bids.scan import OtherImage, Scan
    from bids_fcnreg.bids.templates import Template

#: Maximum length of a file name in bytes, if the file system does not report it.
_NAME_MAX = 255
#: Entities of an image that its outputs keep.
#: Extensions of a label image with a lookup table.
_TABLED = ("nii.gz", "json", "tsv")
#: Extensions of nonlinear transforms in other formats; the second is that of the affine.
CONVERTED = {
    "ants": (".nii.gz", ".mat"),
    "fsl": (".nii.gz",),
    "freesurfer": (".m3z",),
    "afni": (".nii.gz",),
    "x5": (".x5",),
}
_VALID = re.compile(
    rf"[a-z]+-{LABEL.pattern}(?:_[a-z]+-{LABEL.pattern})*_[0-9A-Za-z]+\.[0-9a-z.]+"
)


def output_prefix(scan: Scan) -> str:
    """Return the prefix of the names of all outputs of a scan with at least one image."""
    return "_".join([scan.label, *_kept_pairs(scan.images[0], KEPT)])


def preprocessed_uri(scan: Scan) -> str:
    """Return the BIDS URI of the preprocessed image of a scan in the derivatives."""
    name = f"{output_prefix(scan)}_desc-preproc_{scan.suffix}.nii.gz"
    return "/".join([f"bids::{scan.label.replace('_', '/')}", "anat", name])


def alignment_name(scan: Scan, other: OtherImage) -> str:
    """Return the file name of the quality of the alignment of another image of a session."""
    way = f"from-{other.suffix}_to-{scan.suffix}_mode-image"
    return f"{other_prefix(scan, other)}_{way}_desc-alignment_xfm.json"


def other_prefix(scan: Scan, other: OtherImage) -> str:
    """Return the prefix of the names of all outputs of another image of the session of a scan."""
    return "_".join([scan.label, *_kept_pairs(other.path, KEPT_OF_OTHERS)])


def other_label(scan: Scan, other: OtherImage) -> str:
    """Return what identifies another image of a session, such as ``acq-hires_T2w``."""
    return f"{other_prefix(scan, other)}_{other.suffix}".removeprefix(f"{scan.label}_")


def _kept_pairs(path: Path, kept: Sequence[str]) -> list[str]:
    """Return the entities of an image that its outputs keep, as in their names."""
    pairs = (pair.partition("-") for pair in path.name.split("_"))
    labels = {key: label for key, dash, label in pairs if dash}
    return [f"{key}-{labels[key]}" for key in kept if key in labels]


def output_names(
    scan: Scan, templates: Sequence[Template], atlases: Mapping[str, Sequence[Atlas]]
) -> list[str]:
    """Return the file names of all outputs and figures of a scan.

    Parameters
    ----------
    scan : Scan
        Scan with at least one image.
    templates : sequence of Template
        Templates that it is registered to.
    atlases : mapping of str to sequence of Atlas
        Atlases by the ``space`` of the template.
    """
    suffix = scan.suffix
    endings = [
        *(f"desc-preproc_{suffix}{one}" for one in (".nii.gz", ".json")),
        *(f"desc-brain_mask{one}" for one in (".nii.gz", ".json", ".svg", ".png")),
        f"desc-summary_{suffix}.html",
        *(f"{one}dseg.{end}" for one in ("", "desc-anatomy_") for end in _TABLED),
        *(f"desc-anatomyVolumes_dseg.{end}" for end in ("tsv", "json")),
        *(f"label-{one}_probseg.{end}" for one in TISSUES for end in ("nii.gz", "json")),
        *(f"desc-tissue_probseg.{end}" for end in ("svg", "png")),
    ]
    for template in templates:
        space = template.space
        grid = _grid(template)
        endings += [
            f"{grid}_desc-{what}{one}"
            for what in (f"preproc_{suffix}", "brain_mask")
            for one in (".nii.gz", ".json")
        ]
        for way in (f"from-{suffix}_to-{space}", f"from-{space}_to-{suffix}"):
            endings += [f"{way}_mode-image_xfm{one}" for one in (".h5", ".json")]
            endings += [
                f"{way}_mode-image_desc-{name}_xfm{one}"
                for name, files in CONVERTED.items()
                for one in (*files, ".json")
            ]
        endings += [
            f"from-{suffix}_to-{space}_mode-image_desc-{what}"
            for what in ("logjacobian_xfm.nii.gz", "logjacobian_xfm.json", "quality_xfm.json")
        ]
        endings += [
            f"space-{space}_desc-{what}_{suffix}{one}"
            for what in ("contours", "flicker", "deformation")
            for one in (".svg", ".png")
        ]
        endings += [f"space-{space}_desc-{what}_xfm.html" for what in ("quality", "verdict")]
        for atlas in atlases.get(space, ()):
            endings += [
                f"{atlas.pairs}_desc-{space}{what}"
                for what in ("_dseg.nii.gz", "_dseg.json", "_dseg.tsv", "_dseg.svg", "_dseg.png",
                             "Volumes_dseg.tsv", "Volumes_dseg.json")
            ]  # fmt: skip
    prefix = output_prefix(scan)
    names = [f"{prefix}_{ending}" for ending in endings]
    return names + [name for one in scan.others for name in other_names(scan, one, templates)]


def other_names(scan: Scan, other: OtherImage, templates: Sequence[Template]) -> list[str]:
    """Return the file names of all outputs and figures of another image of a session.

    Parameters
    ----------
    scan : Scan
        Scan with at least one image.
    other : OtherImage
        The image that is aligned to it.
    templates : sequence of Template
        Templates that the scan is registered to.
    """
    own, suffix = other.suffix, scan.suffix
    endings = [
        *(f"from-{own}_to-{suffix}_mode-image_xfm.{one}" for one in ("txt", "json")),
        *(f"space-{suffix}_desc-aligned_{own}.{one}" for one in ("svg", "png")),
        f"space-{suffix}_desc-alignment_{own}.html",
    ]
    if own != suffix:
        endings += [f"from-{suffix}_to-{own}_mode-image_xfm.{one}" for one in ("txt", "json")]
    for grid in (f"space-{suffix}", *map(_grid, templates)):
        endings += [f"{grid}_desc-preproc_{own}.{one}" for one in ("nii.gz", "json")]
    prefix = other_prefix(scan, other)
    return [alignment_name(scan, other), *(f"{prefix}_{ending}" for ending in endings)]


def _grid(template: Template) -> str:
    """Return the entities of the grid of a template."""
    return f"space-{template.space}" + (
        f"_res-{template.resolution}" if template.resolution else ""
    )


def check_output_names(
    scan: Scan,
    templates: Sequence[Template],
    atlases: Mapping[str, Sequence[Atlas]],
    output_dir: Path,
) -> None:
    """Refuse a scan whose outputs cannot have valid names.

    Parameters are those of `output_names`, and the directory of derivatives.

    Raises
    ------
    InputError
        If a name is too long for the file system, or not valid in BIDS.
    """
    names = output_names(scan, templates, atlases)
    if invalid := [name for name in names if not _VALID.fullmatch(name)]:
        raise InputError(
            f"The output {invalid[0]} would not have a valid BIDS name. Rename the template or "
            "atlas, with letters and digits only."
        )
    limit, longest = _max_name_length(output_dir), max(names, key=lambda name: len(name.encode()))
    if (length := len(longest.encode())) > limit:
        entity = max(output_prefix(scan).split("_"), key=len)
        raise InputError(
            f"{scan.images[0]}: names of its outputs would have up to {length} characters, but "
            f"the output directory allows {limit}. Shorten the label of "
            f"{entity.partition('-')[0]}-."
        )


def _max_name_length(directory: Path) -> int:
    """Return the maximum length of a file name in bytes in a directory, which need not exist."""
    existing = next((one for one in (directory, *directory.parents) if one.is_dir()), Path("/"))
    try:
        return os.pathconf(existing, "PC_NAME_MAX")
    except (OSError, ValueError):
        return _NAME_MAX
