"""Resample images, volumes of a series, and masks onto a grid."""

from __future__ import annotations

import os
from typing import Any

import nibabel as nib
import numpy as np
import torch

from bids_fcnreg.config import LABEL_INTERPOLATIONS
from bids_fcnreg.errors import InputError
from bids_fcnreg.fcn.spatial.grid import Grid, Image, voxel_to_voxel
from bids_fcnreg.fcn.spatial.transform import Transform
from bids_fcnreg.io.image import to_image, to_nifti
from bids_fcnreg.io.itk_interpolation import INTERPOLATORS, resample_by_itk
from bids_fcnreg.io.labels import are_integers, index_label_values
from bids_fcnreg.io.nifti import finite_values, grid_of, load
from bids_fcnreg.io.orientation import SCANNER, Codes
from bids_fcnreg.io.spatial_image import open_image

_MAX_LABEL = np.iinfo(np.int32).max

#: Largest integer up to which all are represented in double precision.
_MAX_EXACT = 2**53


def resample_values(
    values: np.ndarray,
    affine: np.ndarray,
    grid: Grid,
    chain: Transform,
    interpolation: str,
    fill: float = 0.0,
    name: str = "The image",
    stored: np.dtype[Any] | None = None,
) -> np.ndarray:
    """Resample values through transforms.

    Parameters
    ----------
    values : ndarray (i, j, k, n)
        Finite; n volumes, 1 with the interpolation ``label``.
    affine : ndarray (4, 4)
        Voxels to RAS+ mm.
    grid : Grid
        Grid of the result.
    chain : Transform
        Maps points of the grid to points of the values.
    interpolation : {"linear", "nearest", "label", "cubic", "lanczos"}
        See `Transform.resample` and `resample_by_itk`.
    fill : float
        Value outside.
    name : str
        Name of the image in messages.
    stored : dtype, optional
        Data type of the image's file.

    Returns
    -------
    ndarray (*grid.shape, n)
        With ``nearest`` and ``label``, `label_dtype` for integers, and float64 for values that
        float32 does not represent exactly; else float32.

    Raises
    ------
    InputError
        If the interpolation is ``label`` and values are not labels, or labels are too large.
    """
    if interpolation in INTERPOLATORS:
        values = finite_values(values, "float32", name)
        return resample_by_itk(values, affine, grid, chain, interpolation, fill)
    whole = interpolation in LABEL_INTERPOLATIONS and are_integers(values)
    if whole or interpolation == "label":
        check_labels(values, name)
    if not whole:
        single = finite_values(values, "float32", name)
        if interpolation == "nearest" and not (single == values).all():
            return _nearest(values, affine, grid, chain, fill)
        return _resampled(single, affine, grid, chain, interpolation, fill)
    if not float(fill).is_integer() or abs(fill) > _MAX_EXACT:
        raise InputError(f"The default value {fill:g} of a label image must be an integer.")
    indexed, labels = index_label_values(values)
    labels = np.append(labels, fill)
    indices = _resampled(indexed, affine, grid, chain, interpolation, len(labels) - 1)
    return labels.astype(label_dtype(stored, labels))[indices.astype(np.int32)]


def label_dtype(stored: np.dtype[Any] | None, labels: np.ndarray) -> np.dtype[Any]:
    """Return the data type of resampled labels.

    Parameters
    ----------
    stored : dtype or None
        That of the label image, if known.
    labels : ndarray
        Integers.

    Returns
    -------
    dtype
        That of the label image if it is an integer type that holds all labels; else int32, or
        float64 for labels beyond it.
    """
    least, most = labels.min(initial=0), labels.max(initial=0)
    for dtype in (stored, np.dtype(np.int32)):
        if dtype is None or dtype.kind not in "iu":
            continue
        if np.iinfo(dtype).min <= least and most <= np.iinfo(dtype).max:
            return dtype.newbyteorder("=")
    return np.dtype(np.float64)


def resample_labels(
    path: str | os.PathLike[str],
    grid: Grid,
    chain: Transform,
    interpolation: str,
    space: Codes = SCANNER,
) -> nib.Nifti1Image:
    """Resample a label image, the outside of which is background.

    Parameters
    ----------
    path : path
        File of the label image.
    grid, chain, interpolation
        As for `resample_values`; ``nearest`` or ``label``.
    space : int or (int, int)
        NIfTI codes of sform and qform; see `to_nifti`.

    Returns
    -------
    nibabel.Nifti1Image
        Of the data type of the file if it is an integer type that holds all labels, else int32.

    Raises
    ------
    InputError
        If labels are too large.
    """
    volume = load(path, dtype="float64")
    indices, labels = index_label_values(volume.get_fdata())
    check_labels(labels, os.fspath(path), _MAX_LABEL)
    source = to_image(nib.Nifti1Image(indices, volume.affine))
    resampled = to_nifti(chain.resample(source, grid, interpolation=interpolation), "int32", space)
    dtype = label_dtype(open_image(path).get_data_dtype(), labels)
    values = labels[np.asanyarray(resampled.dataobj)].astype(np.int32).astype(dtype)
    return nib.Nifti1Image(values, resampled.affine, resampled.header, dtype=dtype)


def check_labels(values: np.ndarray, name: str, largest: int = _MAX_EXACT) -> None:
    """Reject values that are not labels, up to a largest one.

    Raises
    ------
    InputError
        If they are not integers, or too large.
    """
    if not are_integers(values):
        raise InputError(
            f"{name} contains non-integer values and is not a label image. Choose linear or "
            "nearest interpolation."
        )
    if np.abs(values).max() > largest:
        raise InputError(f"{name} contains labels above {largest}. Renumber its labels.")


def _nearest(
    values: np.ndarray, affine: np.ndarray, grid: Grid, chain: Transform, fill: float
) -> np.ndarray:
    """Resample volumes of float64 exactly, by nearest-neighbour interpolation."""
    found = np.zeros((*grid.shape, values.shape[-1]))
    # A number of double precision is the sum of three of single precision.
    for _ in range(3):
        part, outside = values.astype(np.float32), float(np.float32(fill))
        found += _resampled(part, affine, grid, chain, "nearest", outside)
        values, fill = values - part, fill - outside
    return found


def _resampled(
    values: np.ndarray,
    affine: np.ndarray,
    grid: Grid,
    chain: Transform,
    interpolation: str,
    fill: float,
) -> np.ndarray:
    """Resample volumes along the last axis, float32."""
    channels = torch.from_numpy(np.ascontiguousarray(np.moveaxis(values, -1, 0)))[None]
    source = Image(channels, Grid(values.shape[:3], affine))
    moved = chain.resample(source, grid, interpolation=interpolation, fill=fill).data[0]
    return np.ascontiguousarray(np.moveaxis(moved.numpy(), 0, -1))


def resample_mask(mask: nib.Nifti1Image, grid: Grid) -> np.ndarray:
    """Resample a mask to a grid by world coordinates.

    Parameters
    ----------
    mask : nibabel.Nifti1Image
        Nonzero in the mask.
    grid : Grid
        Grid of the result.

    Returns
    -------
    ndarray (i, j, k), bool
        Voxels whose nearest mask voxel is set, and voxels nearest to a set mask voxel: nothing is
        lost between grids of different voxel sizes.
    """
    inside = np.asanyarray(mask.dataobj) != 0
    binary = Image(torch.from_numpy(inside)[None, None].float(), grid_of(mask))
    onto = Transform(()).resample(binary, grid, "nearest").data[0, 0].numpy() > 0
    matrix = voxel_to_voxel(binary.grid, grid)
    voxels = np.argwhere(inside) @ matrix[:3, :3].T + matrix[:3, 3]
    voxels = np.rint(voxels).astype(int)
    voxels = voxels[((voxels >= 0) & (voxels < grid.shape)).all(axis=1)]
    onto[tuple(voxels.T)] = True
    return onto
