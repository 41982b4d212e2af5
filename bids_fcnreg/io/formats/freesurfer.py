"""Transforms of FreeSurfer: linear (``.lta``) and nonlinear (``.m3z``, ``.m3d``)."""

from __future__ import annotations

from pathlib import Path

from bids_fcnreg.errors import InputError
from bids_fcnreg.fcn.spatial.transform import Transform
from bids_fcnreg.io.formats import lta, m3z
from bids_fcnreg.io.formats.image_grids import ImageGrids

_MODULES = {".lta": lta, ".m3z": m3z, ".m3d": m3z}


def read(path: Path, grids: ImageGrids) -> Transform:
    """Read a transform, by the ending of the file."""
    if (module := _MODULES.get(path.suffix.lower())) is None:
        raise InputError(f"{path} is not a transform of FreeSurfer: choose a .lta or .m3z file.")
    return module.read(path, grids)


def write(path: Path, transform: Transform, grids: ImageGrids) -> list[Path]:
    """Write a transform, by the ending of the file."""
    return _MODULES[path.suffix.lower()].write(path, transform, grids)
