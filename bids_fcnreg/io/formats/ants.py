"""The files of antsRegistration: PREFIX0GenericAffine.mat and PREFIX1Warp.nii.gz.

The warp acts on points of the fixed space first, then the affine. Both are ITK's files.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from bids_fcnreg.atomic import replacing_files
from bids_fcnreg.errors import InputError
from bids_fcnreg.fcn.spatial.transform import Affine, Transform
from bids_fcnreg.io import itk
from bids_fcnreg.io.formats.image_grids import ImageGrids
from bids_fcnreg.io.formats.itk import write_affine, write_field
from bids_fcnreg.io.formats.sampled import linear_matrix, sampling_grid

#: Endings of the two files.
AFFINE, WARP = "0GenericAffine.mat", "1Warp.nii.gz"


def names(prefix: Path) -> list[Path]:
    """Return the files of a prefix, or in a directory; that which acts on points first first."""
    if prefix.is_dir():
        return [prefix / ending for ending in (WARP, AFFINE)]
    return [prefix.with_name(prefix.name + ending) for ending in (WARP, AFFINE)]


def files(prefix: Path) -> list[Path]:
    """Return the existing files of a prefix."""
    return [path for path in names(prefix) if path.is_file()]


def read(path: Path, grids: ImageGrids) -> Transform:
    """Read the files of a prefix, or one file; `grids` are ignored."""
    if path.is_file():
        return itk.read_transform(path)
    parts = [itk.read_transform(file) for file in files(path)]
    if not parts:
        raise InputError(f"There is neither {path}{AFFINE} nor {path}{WARP}. Check the prefix.")
    return Transform(tuple(step for part in parts for step in part.steps))


def write(path: Path, transform: Transform, grids: ImageGrids) -> list[Path]:
    """Write the files of a prefix, only the affine if the transform is linear.

    Raises
    ------
    InputError
        If the transform is linear and a warp of this prefix exists, or there is no grid.
    """
    matrix = linear_matrix(transform)
    warp_file, affine_file = names(path)
    if matrix is not None and warp_file.exists():
        raise InputError(
            f"{warp_file} exists, and does not belong to this linear transform. Remove it, or "
            "choose another prefix."
        )
    with replacing_files(affine_file.parent) as directory:
        if matrix is None:
            matrix = np.eye(4)
            for step in transform.steps:
                matrix = step.matrix @ matrix if isinstance(step, Affine) else matrix
            warp = transform.then(Transform((Affine(matrix).inverse(),)))
            grid = sampling_grid(transform, grids, path)
            write_field(directory / warp_file.name, warp, grid)
        write_affine(directory / affine_file.name, matrix)
    return files(path)
