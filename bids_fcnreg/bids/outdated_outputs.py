"""Find outputs of earlier versions whose names this version does not write."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

from bids_fcnreg.bids.atlases import Atlas
from bids_fcnreg.bids.derivatives import version_that_wrote
from bids_fcnreg.bids.names import LABEL
from bids_fcnreg.bids.output_names import output_names
from bids_fcnreg.bids.scan import OtherImage, Scan
from bids_fcnreg.bids.selection import KEPT_OF_OTHERS
from bids_fcnreg.bids.templates import Template

#: Stand for any label, and any suffix of an image, in a name.
_ANY, _SUFFIX, _OTHER = "ANYLABEL", "ANYSUFFIX", "OTHERSUFFIX"
_FIGURES = (".svg", ".png", ".html")


def outdated_outputs(output_dir: Path, scan: Scan) -> list[str]:
    """List the outputs of a scan that earlier versions wrote under names no longer in use.

    Outputs in other spaces and of other atlases, which another run may have written, are not
    among them, nor are files that another program or the user wrote.

    Returns
    -------
    list of str
        Names without extensions, sorted.
    """
    directory = output_dir.joinpath(*scan.label.split("_"), "anat")
    figures = output_dir / f"sub-{scan.participant}" / "figures"
    found = {
        path.name
        for path in directory.glob(f"{scan.label}_*.json")
        if not _written(path.name) and version_that_wrote(path) is not None
    }
    found |= {
        path.name
        for path in figures.glob(f"{scan.label}_*")
        if path.name.endswith(_FIGURES) and not _written(path.name)
    }
    return sorted({name.partition(".")[0] for name in found})


def _written(name: str) -> bool:
    """Return whether this version writes outputs with such a name."""
    return _pattern().fullmatch(name) is not None


@cache
def _pattern() -> re.Pattern[str]:
    """Return the pattern of the names of all outputs and figures, whatever their labels."""
    scan = Scan(
        _ANY,
        None,
        (Path(f"sub-{_ANY}_{_SUFFIX}.nii.gz"),),
        others=tuple(OtherImage(Path(f"sub-{_ANY}_{one}.nii.gz")) for one in (_OTHER, _SUFFIX)),
    )
    templates = [Template(_ANY, None, one, Path(), None) for one in (None, _ANY)]
    atlases = [Atlas(_ANY, None, (), segmentation=one) for one in (None, _ANY)]
    prefix = f"sub-{_ANY}_"
    endings = {
        name.removeprefix(prefix) for name in output_names(scan, templates, {_ANY: atlases})
    }
    # Of several sessions that were registered to each other.
    endings |= {f"{one.pairs}_desc-{_ANY}Changes_dseg.json" for one in atlases}
    any_name = "|".join(map(re.escape, sorted(endings)))
    for one in (_ANY, _SUFFIX, _OTHER):
        any_name = any_name.replace(one, LABEL.pattern)
    entities = "|".join(("ses", *KEPT_OF_OTHERS))
    return re.compile(f"sub-{LABEL.pattern}_(?:(?:{entities})-{LABEL.pattern}_)*(?:{any_name})")
