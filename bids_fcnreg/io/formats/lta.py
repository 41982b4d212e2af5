"""Linear transforms of FreeSurfer (``.lta``).

The matrix maps the source (moving) to the destination (fixed) image: RAS+ mm of the scanner in
type 1 (``LINEAR_RAS_TO_RAS``), voxel indices in type 0 (``LINEAR_VOX_TO_VOX``). The file contains
the geometry of both images.

Definition: ``transform.cpp`` (`LTAwrite`, `LTAchangeType`) of FreeSurfer.
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from bids_fcnreg.atomic import write_bytes
from bids_fcnreg.errors import InputError
from bids_fcnreg.fcn.spatial.grid import Grid
from bids_fcnreg.fcn.spatial.transform import Transform
from bids_fcnreg.io.formats.geometry import VolumeGeometry
from bids_fcnreg.io.formats.image_grids import ImageGrids
from bids_fcnreg.io.formats.numbers import MAX_BYTES, format_rows
from bids_fcnreg.io.formats.sampled import affine_transform, check_finite, linear_matrix

#: Types of matrices.
VOXELS, RAS = 0, 1

_NUMBER = r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?|[-+]?nan|[-+]?inf"


def read(path: Path, grids: ImageGrids) -> Transform:
    """Read a transform; `grids` replace geometries that the file lacks."""
    if path.stat().st_size > MAX_BYTES:
        raise ValueError("too large for a linear transform")
    text = "\n".join(line.partition("#")[0] for line in path.read_text("utf-8").splitlines())
    kind, count = int(_value(text, "type")[0]), int(_value(text, "nxforms")[0])
    if count != 1:
        raise InputError(f"{path} contains {count} transforms. Choose a file with one.")
    if kind not in (VOXELS, RAS):
        raise InputError(
            f"{path} is of type {kind}. Convert it to type 1 (LINEAR_RAS_TO_RAS) with lta_convert."
        )
    body, _, volumes = text.partition("src volume info")
    matrix = np.array(re.findall(_NUMBER, re.split(r"^1 4 4\s*$", body, flags=re.M)[1], re.I))
    matrix = matrix.astype(float).reshape(4, 4)
    check_finite(matrix, path)
    if kind == VOXELS:
        source, destination = volumes.split("dst volume info")
        moving = _geometry(source) or grids.need("moving", path, "it lacks the source volume")
        fixed = _geometry(destination) or grids.need(
            "fixed", path, "it lacks the destination volume"
        )
        matrix = fixed.affine @ matrix @ np.linalg.inv(moving.affine)
    return affine_transform(matrix, path).inverse()


def write(path: Path, transform: Transform, grids: ImageGrids) -> list[Path]:
    """Write a transform as type 1, with the geometry of both images."""
    why = "FreeSurfer stores the geometry of both images"
    moving, fixed = (grids.need(role, path, why) for role in ("moving", "fixed"))
    matrix = linear_matrix(transform)
    assert matrix is not None  # checked by the table of formats
    text = (
        "type      = 1 # LINEAR_RAS_TO_RAS\n"
        "nxforms   = 1\n"
        "mean      = 0.0000 0.0000 0.0000\n"
        "sigma     = 1.0000\n"
        f"1 4 4\n{format_rows(np.linalg.inv(matrix))}"
        f"src volume info\n{_format(moving)}dst volume info\n{_format(fixed)}"
    )
    return [write_bytes(path, text.encode())]


def _value(text: str, name: str) -> list[str]:
    """Return the words of a field ``name = …``."""
    found = re.search(rf"^{name}\s*=(.*)$", text, re.MULTILINE)
    if found is None:
        raise ValueError(f"no {name}")
    return found[1].split()


def _geometry(text: str) -> Grid | None:
    """Read the geometry of an image; None if it is marked as invalid."""
    if _value(text, "valid")[0] == "0":
        return None
    numbers = {
        name: np.array([float(word) for word in _value(text, name)])
        for name in ("volume", "voxelsize", "xras", "yras", "zras", "cras")
    }
    i, j, k = (int(n) for n in numbers["volume"])
    axes = np.stack([numbers[name] for name in ("xras", "yras", "zras")])
    return VolumeGeometry((i, j, k), numbers["voxelsize"], axes, numbers["cras"]).grid


def _format(grid: Grid) -> str:
    """Return the geometry of a grid as text."""
    geometry = VolumeGeometry.of(grid)
    rows = [geometry.spacing, *geometry.axes, geometry.centre]
    names = ("voxelsize", "xras  ", "yras  ", "zras  ", "cras  ")
    lines = [
        f"{name} = {' '.join(f'{n:.15e}' for n in row)}\n"
        for name, row in zip(names, rows, strict=True)
    ]
    shape = " ".join(map(str, geometry.shape))
    head = f"valid = 1  # volume info valid\nfilename = unknown\nvolume = {shape}\n"
    return head + "".join(lines)
