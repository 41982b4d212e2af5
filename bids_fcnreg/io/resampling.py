"""Values of an image, or of volumes of a series, brought onto a grid."""

from __future__ import annotations

import numpy as np
import torch

from bids_fcnreg.errors import InputError
from bids_fcnreg.fcn.spatial.grid import Grid, Image
from bids_fcnreg.fcn.spatial.transform import Transform
from bids_fcnreg.io.image import are_whole_numbers, finite_values, number_labels

_LARGEST = np.iinfo(np.int32).max


def resample_values(
    values: np.ndarray,
    affine: np.ndarray,
    grid: Grid,
    chain: Transform,
    interpolation: str,
    fill: float = 0.0,
    name: str = "The image",
) -> np.ndarray:
    """Resample values through transforms.

    Parameters
    ----------
    values : ndarray (i, j, k, n)
        Finite; n volumes, 1 with the interpolation ``label``.
    affine : ndarray (4, 4)
        Of these voxels.
    grid : Grid
        Where the values are wanted.
    chain : Transform
        Points of the grid to points of the values.
    interpolation : {"linear", "nearest", "label"}
        See `Transform.resample`.
    fill : float
        Value outside.
    name : str
        What messages call the image.

    Returns
    -------
    ndarray (*grid.shape, n)
        float32; int32 if whole numbers were not mixed.

    Raises
    ------
    InputError
        If values that are no labels are to be interpolated as labels, or labels are too large.
    """
    whole = interpolation != "linear" and are_whole_numbers(values)
    if whole or interpolation == "label":
        check_labels(values, name)
    if not whole:
        values = finite_values(values, "float32", name)
        return _resampled(values, affine, grid, chain, interpolation, fill)
    if not float(fill).is_integer() or abs(fill) > _LARGEST:
        raise InputError(f"The default value of a label image is a whole number, not {fill:g}.")
    numbers, labels = number_labels(values)
    labels = np.append(labels, fill)
    places = _resampled(numbers, affine, grid, chain, interpolation, len(labels) - 1)
    return labels.astype(np.int32)[places.astype(np.int32)]


def check_labels(values: np.ndarray, name: str) -> None:
    """Refuse values that are no labels.

    Raises
    ------
    InputError
        If they are not whole numbers, or too large.
    """
    if not are_whole_numbers(values):
        raise InputError(
            f"{name} holds values that are not whole numbers, so it is no label image: choose "
            "linear or nearest interpolation."
        )
    if np.abs(values).max() > _LARGEST:
        raise InputError(f"{name} holds labels above {_LARGEST}: give its regions other numbers.")


def _resampled(
    values: np.ndarray,
    affine: np.ndarray,
    grid: Grid,
    chain: Transform,
    interpolation: str,
    fill: float,
) -> np.ndarray:
    """The engine's resampling, for volumes along the last axis, float32."""
    channels = torch.from_numpy(np.ascontiguousarray(np.moveaxis(values, -1, 0)))[None]
    source = Image(channels, Grid(values.shape[:3], affine))
    moved = chain.resample(source, grid, interpolation=interpolation, fill=fill).data[0]
    return np.ascontiguousarray(np.moveaxis(moved.numpy(), 0, -1))
