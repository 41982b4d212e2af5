"""Stacks of transforms read from files, some of them inverted."""

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
from bids_fcnreg.io import itk

#: What is taken as a transform: an ITK file, or a file and whether its inverse is meant.
TransformLike = str | os.PathLike | tuple[str | os.PathLike, bool]

#: Errors of an inverse up to this (mm) are not reported.
INVERSE_ERROR_MM = 0.5


def read_stack(given: Sequence[TransformLike] | TransformLike) -> Transform:
    """Read all transforms of a stack as one.

    Parameters
    ----------
    given : sequence of path or (path, bool), or one of them
        The first listed moves points first. True stands for the inverse.

    Raises
    ------
    InputError
        If a file cannot be read or holds no transform, or an item is no transform.

    Warns
    -----
    UserWarning
        If a displacement field cannot be inverted accurately.
    """
    if isinstance(given, str | os.PathLike) or (isinstance(given, tuple) and _is_pair(given)):
        given = [given]
    if not isinstance(given, Sequence):
        raise InputError(f"Transforms are a list of ITK files, not {type(given).__name__}.")
    if not given:
        raise InputError("No transform was given.")
    return Transform(tuple(step for one in given for step in _read(one).steps))


def inverse_error(field: Displacement, inverse: Displacement) -> torch.Tensor:
    """Compute how far points end from where they started, through an inverse and its field.

    Parameters
    ----------
    field, inverse : Displacement
        On one grid.

    Returns
    -------
    Tensor (n,)
        In mm, at the voxel centers and in the middle between each eight of them.
    """
    to_mm = torch.from_numpy(field.grid.affine[:3, :3]).to(field.field)
    places = identity(field.grid.shape, field.field)
    errors = []
    for centers, moved in (
        (places, inverse.field),
        (nnf.avg_pool3d(places, 2, 1), nnf.avg_pool3d(inverse.field, 2, 1)),
    ):
        left = moved + sample(field.field, centers + moved, padding="border")
        errors.append((to_mm @ left.reshape(3, -1)).norm(dim=0))
    return torch.cat(errors)


def _is_pair(given: Sequence[Any]) -> bool:
    """Whether it is a file and whether its inverse is meant."""
    return len(given) == 2 and isinstance(given[0], str | os.PathLike) and _is_flag(given[1])


def _is_flag(given: Any) -> bool:
    """Whether it is true or false; 1 and 0 are taken for them."""
    return isinstance(given, bool | np.bool_ | int | np.integer) and given in (0, 1)


def _read(given: Any) -> Transform:
    """Read a transform from its file, or its inverse."""
    pair = isinstance(given, tuple | list) and _is_pair(given)
    path, inverted = given if pair else (given, False)
    if not isinstance(path, str | os.PathLike):
        raise InputError(
            f"A transform is a file, or (file, True) for its inverse, not {_shown(given)}. List "
            "several files one after another."
        )
    if os.fspath(path) == IDENTITY:
        return Transform(())
    transform = itk.read_transform(path)
    return _inverted(transform, os.fspath(path)) if inverted else transform


def _shown(given: Any) -> str:
    """What is no transform, for messages."""
    if isinstance(given, tuple | list):
        words = (repr(os.fspath(x) if isinstance(x, os.PathLike) else x) for x in given)
        return f"({', '.join(words)})"
    return type(given).__name__


def _inverted(transform: Transform, path: str) -> Transform:
    """The inverse; a field that cannot be inverted accurately is reported."""
    inverse = transform.inverse()
    for step, back in zip(transform.steps, reversed(inverse.steps), strict=True):
        if not isinstance(step, Displacement) or not isinstance(back, Displacement):
            continue
        error = inverse_error(step, back)
        largest, wrong = float(error.max()), float((error > INVERSE_ERROR_MM).double().mean())
        if wrong:
            warnings.warn(
                f"The inverse of {path} is off by up to {largest:.1f} mm, and by more than "
                f"{INVERSE_ERROR_MM} mm at {100 * wrong:.2g} % of its voxels: the field folds, or "
                "is too steep for its voxels. Give the inverse that the registration wrote, if "
                "there is one.",
                stacklevel=4,
            )
    return inverse
