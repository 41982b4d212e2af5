"""How well change between sessions is recovered: `python longitudinal.py BIDS_DIR OUT [OUT ...]`.

BIDS_DIR is made by `fcnreg phantom BIDS_DIR --sessions 3`; each OUT is what the participant level
made of it, for instance one with `--longitudinal` and one without. Compared are logarithms of the
Jacobian determinant, a later session's minus the first's, on the template's voxels, with those of
the true transforms.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

from bids_fcnreg.bids.order import natural_key
from bids_fcnreg.io import image
from bids_fcnreg.io.itk import read_transform
from bids_fcnreg.phantom.scan import CHANGES

SPACE = "MNI152NLin2009aSym"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("bids", type=Path)
    parser.add_argument("out", type=Path, nargs="+")
    options = parser.parse_args()
    table = Table("derivatives", "sessions", "RMS error, brain", "region", "true", "estimated")
    for out in options.out:
        for subject in sorted(options.bids.glob("sub-*"), key=natural_key):
            visits = sorted((path.name for path in subject.glob("ses-*")), key=natural_key)
            for visit in visits[1:]:
                for row in compare(options.bids, out, subject.name, visits[0], visit):
                    table.add_row(out.name, f"{subject.name} {visits[0]} → {visit}", *row)
    Console().print(table)


def compare(bids: Path, out: Path, subject: str, first: str, later: str) -> list[list[str]]:
    """Yield a row for each changing region: RMS error in the brain, true and estimated change."""
    mask = image.read(_file(out, subject, first, f"space-{SPACE}_desc-brain_mask.nii.gz"))
    brain = mask.data > 0
    maps, truths = [], []
    for session in (first, later):
        name = f"from-T1w_to-{SPACE}_mode-image"
        maps.append(
            image.read(_file(out, subject, session, f"{name}_desc-logjacobian_xfm.nii.gz"))
        )
        truth = bids / "derivatives" / "truth"
        transform = read_transform(_file(truth, subject, session, f"{name}_xfm.h5"))
        truths.append(transform.log_jacobian(mask.grid))
    found, true = maps[1].data - maps[0].data, truths[1] - truths[0]
    error = float((found - true)[brain].square().mean().sqrt())
    rows = []
    for centre, width, growth in CHANGES:
        away = mask.grid.points().float() - torch.tensor(centre)
        near = (away.square().sum(dim=-1) < (0.7 * width) ** 2)[None, None] & brain
        means = (float(values[near].mean()) for values in (true, found))
        place = "ventricles" if growth > 0 else "hippocampus"
        rows.append([f"{error:.4f}", place, *(f"{100 * mean:+.2f} %" for mean in means)])
    return rows


def _file(folder: Path, subject: str, session: str, ending: str) -> Path:
    return folder / subject / session / "anat" / f"{subject}_{session}_{ending}"


if __name__ == "__main__":
    main()
