"""Read a chain of transforms from files or memory, some of them inverted."""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch.nn import functional as nnf

from bids_fcnreg.config import IDENTITY
from bids_fcnreg.errors import InputError
from bids_fcnreg.fcn.spatial.displacement import identity, sample
from bids_fcnreg.fcn.spatial.transform import Displacement, Transform
from bids_fcnreg.io.formats import table
from bids_fcnreg.io.formats.image_grids import ImageGrids
from bids_fcnreg.io.formats.sampled import affine_transform

#: A transform: a file, one in memory, or the matrix (4, 4) of a linear one, RAS+ mm.
SingleTransform = str | os.PathLike[str] | Transform | np.ndarray

#: A transform, or a transform and whether to invert it.
TransformLike = SingleTransform | tuple[SingleTransform, bool]

_SINGLE = (str, os.PathLike, Transform, np.ndarray)

#: Errors of an inverse up to this (mm) are not reported.
INVERSE_ERROR_MM = 0.5


def read_transforms(
    given: Sequence[TransformLike] | TransformLike,
    grids: ImageGrids | None = None,
    name: str | None = None,
) -> Transform:
    """Read several transforms as one chain.

    Parameters
    ----------
    given : sequence of transform or (transform, bool), or one of them
        Files, transforms in memory, or matrices (4, 4) in RAS+ mm. The first one acts first on a
        point. True inverts the transform.
    grids : ImageGrids, optional
        Grids of the fixed and the moving image of the chain, on which some formats depend.
    name : str, optional
        Name of the format of the files (see `bids_fcnreg.io.formats.table`); detected by default.

    Raises
    ------
    InputError
        If a file cannot be read, or an item is not a transform.

    Warns
    -----
    UserWarning
        If a displacement field cannot be inverted accurately.
    """
    given = list_transforms(given)
    grids, last = grids or ImageGrids(), len(given) - 1
    parts = []
    for n, one in enumerate(given):
        fixed = grids.fixed if n == 0 else None
        moving = grids.moving if n == last else None
        parts.append(_read(one, ImageGrids(fixed, moving), name))
    return Transform(tuple(step for part in parts for step in part.steps))


def list_transforms(given: Sequence[TransformLike] | TransformLike) -> list[TransformLike]:
    """Return transforms as a list.

    Raises
    ------
    InputError
        If they are of another type, or there are none.
    """
    if isinstance(given, _SINGLE) or (isinstance(given, tuple) and _is_pair(given)):
        return [given]
    if not isinstance(given, Sequence):
        raise InputError(f"Transforms are of type {type(given).__name__}. Pass a list of files.")
    if not given:
        raise InputError("There is no transform. Pass at least one.")
    return list(given)  # type: ignore[arg-type]  # not a pair


def inverse_error(field: Displacement, inverse: Displacement) -> torch.Tensor:
    """Compute the inverse consistency error of a field and its inverse.

    Parameters
    ----------
    field, inverse : Displacement
        On one grid.

    Returns
    -------
    Tensor (n,)
        In mm, at the voxel centres and at the centres between eight of them.
    """
    to_mm = torch.from_numpy(field.grid.affine[:3, :3]).to(field.field)
    voxels = identity(field.grid.shape, field.field)
    errors = []
    for centers, moved in (
        (voxels, inverse.field),
        (nnf.avg_pool3d(voxels, 2, 1), nnf.avg_pool3d(inverse.field, 2, 1)),
    ):
        left = moved + sample(field.field, centers + moved, padding="border")
        errors.append((to_mm @ left.reshape(3, -1)).norm(dim=0))
    return torch.cat(errors)


def _is_pair(given: Sequence[Any]) -> bool:
    """Return whether this is a pair of a transform and a flag for its inverse."""
    return len(given) == 2 and isinstance(given[0], _SINGLE) and _is_flag(given[1])


def _is_flag(given: Any) -> bool:
    """Return whether this is a boolean, 0 or 1."""
    return isinstance(given, bool | np.bool_ | int | np.integer) and given in (0, 1)


def _read(given: Any, grids: ImageGrids, name: str | None) -> Transform:
    """Read a transform from its source, or its inverse; `grids` are those of the result."""
    pair = isinstance(given, tuple | list) and _is_pair(given)
    source, inverted = given if pair else (given, False)
    if isinstance(source, Transform):
        transform, described = source, "the transform"
    elif isinstance(source, np.ndarray):
        transform, described = _from_matrix(source), "the matrix"
    elif not isinstance(source, str | os.PathLike):
        raise InputError(
            f"{_describe(given)} is not a transform. Pass a file, or (file, True) for its "
            "inverse, and several files as a list."
        )
    elif os.fspath(source) == IDENTITY:
        return Transform(())
    else:
        transform = table.read(source, grids.swapped() if inverted else grids, name)
        described = os.fspath(source)
    return _inverted(transform, described) if inverted else transform


def _from_matrix(matrix: np.ndarray) -> Transform:
    """Return the linear transform of a matrix (4, 4), RAS+ mm."""
    if (
        matrix.shape != (4, 4)
        or matrix.dtype.kind not in "iuf"
        or not np.allclose(matrix[3], (0, 0, 0, 1))
    ):
        raise InputError(
            f"An array of shape {matrix.shape} is not a transform. Pass a matrix (4, 4) of real "
            "numbers with the last row 0, 0, 0, 1."
        )
    return affine_transform(matrix.astype(np.float64), "The matrix")


def _describe(given: Any) -> str:
    """Describe an invalid transform, for messages."""
    if isinstance(given, tuple | list):
        items = (repr(os.fspath(x) if isinstance(x, os.PathLike) else x) for x in given)
        return f"({', '.join(items)})"
    return type(given).__name__


def _inverted(transform: Transform, path: str) -> Transform:
    """Invert a transform; warn if a field cannot be inverted accurately."""
    inverse = transform.inverse()
    for step, back in zip(transform.steps, reversed(inverse.steps), strict=True):
        if not isinstance(step, Displacement) or not isinstance(back, Displacement):
            continue
        error = inverse_error(step, back)
        largest, wrong = float(error.max()), float((error > INVERSE_ERROR_MM).double().mean())
        if wrong:
            warnings.warn(
                f"The inverse of {path} has errors of up to {largest:.1f} mm, above "
                f"{INVERSE_ERROR_MM} mm at {100 * wrong:.2g} % of its voxels: the field folds or "
                "is too steep for its voxels. Use the inverse written by the registration, if "
                "there is one.",
                stacklevel=4,
            )
    return inverse
