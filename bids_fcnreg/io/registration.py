"""Registrations as files: two ITK transforms, and the quality metrics as JSON."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from bids_fcnreg.fcn.quality import Quality
from bids_fcnreg.fcn.register import Registration
from bids_fcnreg.fcn.spatial.grid import Grid, Image
from bids_fcnreg.io.itk import read_transform, write_transform


def write_registration(
    directory: Path,
    found: Registration,
    over: Grid,
    brains: tuple[Image | None, Image | None],
    **metrics: Any,
) -> dict[str, str]:
    """Write a registration to a directory.

    Parameters
    ----------
    directory : Path
        Existing directory.
    found : Registration
        The registration.
    over : Grid
        Grid of the fixed image; see `write_transform`.
    brains : pair of Image (1, 1, i, j, k), or None
        Brain masks of the fixed and of the moving image; see `write_transform`.
    **metrics
        Further quality metrics.

    Returns
    -------
    dict of str to str
        Paths of ``transform``, ``inverse`` and ``quality``.
    """
    forward = write_transform(directory / "forward.h5", found.forward, over, brains[0])
    inverse = write_transform(directory / "inverse.h5", found.inverse, over, brains[1])
    quality = directory / "quality.json"
    quality.write_text(json.dumps(found.quality.as_dict() | metrics, indent=2) + "\n")
    return {"transform": str(forward), "inverse": str(inverse), "quality": str(quality)}


def read_registration(transform: str, inverse: str, quality: str) -> Registration:
    """Read a registration from the files of `write_registration`, without further metrics."""
    metrics = Quality(**json.loads(Path(quality).read_text()))
    return Registration(read_transform(transform), read_transform(inverse), metrics)
