"""Separable filters of volumes, each axis as products with small dense matrices.

A filter along an axis is a matrix with a band around its diagonal. Its rows are taken in blocks,
each times just the voxels it needs: faster than a convolution on CPU and GPU alike, and the border
is exact: rows sum to one, so that a filter averages what is there.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from bids_fcnreg.fcn.cpu import kernels

#: Rows of a filter's matrix that are multiplied at a time.
BLOCK = 64

#: Blocks of rows, and the first and last voxel that each needs.
_Banded = tuple[tuple[Tensor, int, int], ...]


def gaussian(data: Tensor, sigma: float | Sequence[float] | np.ndarray) -> Tensor:
    """Smooth by a Gaussian.

    Parameters
    ----------
    data : Tensor (batch, channels, i, j, k)
        What to smooth.
    sigma : float or 3 of them
        Standard deviation along i, j, k in voxels; axes with 0 are left alone.

    Returns
    -------
    Tensor, shape of `data`
    """
    deviations = [float(sigma)] * 3 if isinstance(sigma, (int, float)) else [*map(float, sigma)]
    if kernels.usable(data):
        return kernels.gaussian(data, deviations)
    return _separable(
        data,
        [
            _gaussian_bands(size, deviation, data.dtype, data.device) if deviation > 0 else None
            for size, deviation in zip(data.shape[2:], deviations, strict=True)
        ],
    )


def box(data: Tensor, radius: int) -> Tensor:
    """Mean over the cube of ``2 * radius + 1`` voxels around each voxel, cut at the border.

    Parameters
    ----------
    data : Tensor (batch, channels, i, j, k)
        What to average.
    radius : int
        In voxels.

    Returns
    -------
    Tensor, shape of `data`
    """
    return _separable(
        data, [_box_bands(n, radius, False, data.dtype, data.device) for n in data.shape[2:]]
    )


def box_transposed(data: Tensor, radius: int) -> Tensor:
    """Adjoint of `box`: what a gradient with respect to the means becomes for the voxels."""
    return _separable(
        data, [_box_bands(n, radius, True, data.dtype, data.device) for n in data.shape[2:]]
    )


def dilate(mask: Tensor, radius: int) -> Tensor:
    """Largest value in the cube of ``2 * radius + 1`` voxels around each voxel.

    Parameters
    ----------
    mask : Tensor (batch, channels, i, j, k)
        Such as zeros and ones.
    radius : int
        In voxels.

    Returns
    -------
    Tensor, shape of `mask`
    """
    for axis in (2, 3, 4):
        size, near = mask.shape[axis], mask.clone()
        for shift in range(1, min(radius, size - 1) + 1):
            for low, high in ((0, shift), (shift, 0)):
                target = near.narrow(axis, low, size - shift)
                torch.maximum(target, mask.narrow(axis, high, size - shift), out=target)
        mask = near
    return mask


def _separable(data: Tensor, bands: Sequence[_Banded | None]) -> Tensor:
    """Multiply each axis of (batch, channels, i, j, k) by its matrix, none where it is None."""
    batch, channels, *shape = data.shape
    along_i, along_j, along_k = bands
    if along_i is not None:
        data = data.reshape(batch * channels, shape[0], -1)
        data = torch.cat([m @ data[:, low:high] for m, low, high in along_i], dim=1)
        data = data.reshape(batch, channels, *shape)
    if along_j is not None:
        data = torch.cat([m @ data[..., low:high, :] for m, low, high in along_j], dim=-2)
    if along_k is not None:
        data = torch.cat([data[..., low:high] @ m.T for m, low, high in along_k], dim=-1)
    return data


@lru_cache(maxsize=64)
def _gaussian_bands(size: int, sigma: float, dtype: torch.dtype, device: torch.device) -> _Banded:
    """Rows are Gaussians of `sigma` voxels around the diagonal, cut at 3 sigma, with sum 1."""
    place = torch.arange(size, dtype=torch.float64)
    distance = place[:, None] - place
    matrix = torch.exp(-0.5 * (distance / sigma) ** 2) * (distance.abs() <= 3 * sigma + 0.5)
    return _blocks(matrix / matrix.sum(dim=1, keepdim=True), dtype, device)


@lru_cache(maxsize=64)
def _box_bands(
    size: int, radius: int, transposed: bool, dtype: torch.dtype, device: torch.device
) -> _Banded:
    """Rows average the `radius` neighbours on both sides, as far as there are any."""
    place = torch.arange(size)
    matrix = ((place[:, None] - place).abs() <= radius).to(torch.float64)
    matrix = matrix / matrix.sum(dim=1, keepdim=True)
    return _blocks(matrix.T if transposed else matrix, dtype, device)


def _blocks(matrix: Tensor, dtype: torch.dtype, device: torch.device) -> _Banded:
    """Rows of a banded matrix in blocks, each with the columns that are not zero in it."""
    blocks = []
    for first in range(0, len(matrix), BLOCK):
        rows = matrix[first : first + BLOCK]
        used = rows.any(dim=0).nonzero()
        low, high = int(used.min()), int(used.max()) + 1
        block = rows[:, low:high].to(dtype=dtype, device=device).contiguous()
        blocks.append((block, low, high))
    return tuple(blocks)
