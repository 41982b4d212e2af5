"""The other images of a session: alignments, and outdated results of those not aligned."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bids_fcnreg.atomic import read_json
from bids_fcnreg.bids.output_names import alignment_name, other_prefix, output_prefix
from bids_fcnreg.bids.scan import OtherImage, Scan

_ALIGNMENT = re.compile(
    r"(?P<prefix>.+)_from-(?P<suffix>[^_]+)_to-(?P<reference>[^_]+)_mode-image_desc-alignment_xfm"
    r"\.json"
)


def used_lesions(output_dir: Path, scan: Scan) -> tuple[Path, ...]:
    """Return the lesion masks of a scan, without those on images that could not be aligned."""
    aligned = (
        other
        for other in scan.others
        if _read_alignment(output_dir, scan, other).get("verdict") != "failed"
    )
    return (*scan.lesions, *(path for other in aligned for path in other.lesions))


def alignment_warnings(output_dir: Path, scan: Scan) -> list[str]:
    """Return a message for each other image whose alignment is not good, and outdated results.

    Only for a run that aligns images.
    """
    messages = []
    for other in scan.others:
        quality = _read_alignment(output_dir, scan, other)
        verdict, reason = quality.get("verdict"), quality.get("verdict_reason")
        if verdict == "failed":
            masks = ", nor are its lesion masks used" if other.lesions else ""
            messages.append(f"warning: {other.path.name} is not aligned{masks}: {reason}")
        elif verdict == "doubtful":
            messages.append(
                f"warning: the alignment of {other.path.name} is doubtful: {reason}. Check the "
                "figure in the report"
            )
    outdated = [path for path in _outdated_results(output_dir, scan) if path.parent.name == "anat"]
    if outdated:
        names = ", ".join(path.name for path in outdated)
        messages.append(
            f"warning: {names}: results of an earlier run, of images that are not "
            "aligned now. They are not updated. Delete them"
        )
    return messages


def remove_outdated_figures(output_dir: Path, scan: Scan) -> None:
    """Remove the figures of images that are not aligned now, which the report would show."""
    for path in _outdated_results(output_dir, scan):
        if path.parent.name == "figures":
            path.unlink(missing_ok=True)


def _read_alignment(output_dir: Path, scan: Scan, other: OtherImage) -> dict[str, Any]:
    """Read the quality of the alignment of another image; empty if there is none."""
    return read_json(_anat(output_dir, scan) / alignment_name(scan, other))


def _anat(output_dir: Path, scan: Scan) -> Path:
    return output_dir.joinpath(*scan.label.split("_"), "anat")


def _outdated_results(output_dir: Path, scan: Scan) -> Iterator[Path]:
    """Yield the results and figures of images that an earlier run aligned, and this one did not.

    They are no longer in the dataset, no longer used, or could not be aligned this time.
    """
    anat, figures = _anat(output_dir, scan), output_dir / f"sub-{scan.participant}" / "figures"
    known = {alignment_name(scan, one): one for one in scan.others}
    aligned = {
        (other_prefix(scan, one), one.suffix)
        for one in scan.others
        if _read_alignment(output_dir, scan, one).get("verdict") != "failed"
    }
    for path in sorted(anat.glob(f"{scan.label}_*_desc-alignment_xfm.json")):
        match = _ALIGNMENT.fullmatch(path.name)
        if match is None:
            continue
        prefix, suffix, to = match["prefix"], match["suffix"], match["reference"]
        if (prefix, suffix) == (output_prefix(scan), scan.suffix):
            continue  # the names of the registered image
        if path.name not in known:
            yield path
            yield from figures.glob(f"{prefix}_space-{to}_desc-alignment_{suffix}.html")
        elif (prefix, suffix) in aligned:
            continue
        yield from figures.glob(f"{prefix}_space-{to}_desc-aligned_{suffix}.*")
        # On the grid of a template, names do not tell what an image was aligned to.
        space = to if (prefix, suffix) in aligned else "*"
        yield from sorted(anat.glob(f"{prefix}_space-{space}_desc-preproc_{suffix}.*"))
        for way in dict.fromkeys((f"from-{suffix}_to-{to}", f"from-{to}_to-{suffix}")):
            yield from sorted(anat.glob(f"{prefix}_{way}_mode-image_xfm.*"))
