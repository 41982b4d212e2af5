"""Separable filters of volumes as products with banded matrices.

A filter along an axis is a banded matrix. Its rows are multiplied in blocks, each with only the
voxels it needs, which is faster than a convolution on CPU and GPU. Rows sum to one, also at the
border.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as nnf

from bids_fcnreg.fcn.cpu import kernels

#: Rows of a filter's matrix that are multiplied at a time on a CPU; on a GPU all of them are, in
#: one launch.
BLOCK = 64

#: Blocks of rows, and the first and last voxel that each needs.
_Banded = tuple[tuple[Tensor, int, int], ...]


def gaussian(data: Tensor, sigma: float | Sequence[float] | np.ndarray) -> Tensor:
    """Smooth with a Gaussian.

    Parameters
    ----------
    data : Tensor (batch, channels, i, j, k)
        What to smooth.
    sigma : float or 3 of them
        Standard deviation along i, j, k in voxels; axes with 0 are not smoothed.

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
    """Average a cube of ``2 * radius + 1`` voxels around each voxel, cut at the border.

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
    """Apply the adjoint of `box`, which maps a gradient by the means to one by the voxels."""
    return _separable(
        data, [_box_bands(n, radius, True, data.dtype, data.device) for n in data.shape[2:]]
    )


def fill(data: Tensor, known: Tensor, radius: int) -> Tensor:
    """Replace unknown voxels by the mean of known ones near by.

    The mean is that of a Gaussian with the standard deviation of a cube of ``2 * radius + 1``
    voxels: in such cubes around known voxels, replaced ones add nearly nothing to variances and
    covariances, so that correlations are about those of the known voxels alone.

    Parameters
    ----------
    data : Tensor (batch, channels, i, j, k)
        What to fill.
    known : Tensor (1, 1, i, j, k)
        How much of each voxel is known, 0 to 1.
    radius : int
        In voxels.

    Returns
    -------
    Tensor, shape of `data`
        Falling to zero far from all known voxels.

    References
    ----------
    Knutsson & Westin, Normalized and differential convolution, CVPR 1993.
    """
    sigma = (radius * (radius + 1) / 3) ** 0.5
    means = gaussian(known * data, sigma) / gaussian(known, sigma).clamp(min=1e-3)
    return torch.lerp(means, data, known)


def slope(data: Tensor, axis: int) -> Tensor:
    """Compute the derivative along an axis of (batch, channels, i, j, k), per voxel.

    Central differences, one-sided at the border.
    """
    bands: list[_Banded | None] = [None, None, None]
    bands[axis] = _slope_bands(data.shape[axis + 2], data.dtype, data.device)
    return _separable(data, bands)


def halve(data: Tensor) -> Tensor:
    """Average blocks of two voxels along each axis; the last voxel of an odd size is repeated.

    Parameters
    ----------
    data : Tensor (batch, channels, i, j, k)
        What to average.

    Returns
    -------
    Tensor (batch, channels, i/2, j/2, k/2), sizes rounded up
    """
    if kernels.usable(data):
        return kernels.halve(data)
    return nnf.avg_pool3d(data, 2, ceil_mode=True, count_include_pad=False)


def double(data: Tensor, shape: Sequence[int]) -> Tensor:
    """Interpolate linearly at twice the resolution; the first voxel is split in two.

    Parameters
    ----------
    data : Tensor (batch, channels, i/2, j/2, k/2), or larger
        What to interpolate.
    shape : 3 int
        (i, j, k), at most twice the sizes of `data`.

    Returns
    -------
    Tensor (batch, channels, i, j, k)
    """
    if kernels.usable(data):
        return kernels.double(data, shape)
    i, j, k = shape
    fine = nnf.interpolate(data, scale_factor=2, mode="trilinear", align_corners=False)
    return fine[..., :i, :j, :k].contiguous()


def dilate(mask: Tensor, radius: int) -> Tensor:
    """Compute the maximum in a cube of ``2 * radius + 1`` voxels around each voxel.

    Parameters
    ----------
    mask : Tensor (batch, channels, i, j, k)
        For instance zeros and ones.
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
    """Multiply each axis of (batch, channels, i, j, k) by its matrix, unless that is None."""
    batch, channels, *shape = data.shape
    along_i, along_j, along_k = bands
    if along_i is not None:
        data = data.reshape(batch * channels, shape[0], -1)
        data = _joined([m @ data[:, low:high] for m, low, high in along_i], dim=1)
        data = data.reshape(batch, channels, *shape)
    if along_j is not None:
        data = _joined([m @ data[..., low:high, :] for m, low, high in along_j], dim=-2)
    if along_k is not None:
        data = _joined([data[..., low:high] @ m.T for m, low, high in along_k], dim=-1)
    return data


def _joined(parts: list[Tensor], dim: int) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim=dim)


@lru_cache(maxsize=64)
def _gaussian_bands(size: int, sigma: float, dtype: torch.dtype, device: torch.device) -> _Banded:
    """Make a matrix whose rows are Gaussians of `sigma` voxels, cut at 3 sigma, with sum 1."""
    index = torch.arange(size, dtype=torch.float64)
    distance = index[:, None] - index
    matrix = torch.exp(-0.5 * (distance / sigma) ** 2) * (distance.abs() <= 3 * sigma + 0.5)
    return _blocks(matrix / matrix.sum(dim=1, keepdim=True), dtype, device)


@lru_cache(maxsize=64)
def _box_bands(
    size: int, radius: int, transposed: bool, dtype: torch.dtype, device: torch.device
) -> _Banded:
    """Make a matrix whose rows average up to `radius` neighbours on either side."""
    index = torch.arange(size)
    matrix = ((index[:, None] - index).abs() <= radius).to(torch.float64)
    matrix = matrix / matrix.sum(dim=1, keepdim=True)
    return _blocks(matrix.T if transposed else matrix, dtype, device)


@lru_cache(maxsize=64)
def _slope_bands(size: int, dtype: torch.dtype, device: torch.device) -> _Banded:
    """Make a matrix that computes differences between the neighbours of a voxel."""
    index = torch.arange(size)
    high, low = (index + 1).clamp(max=size - 1), (index - 1).clamp(min=0)
    apart = (high - low).clamp(min=1).to(torch.float64)
    identity = torch.eye(size, dtype=torch.float64)
    return _blocks((identity[high] - identity[low]) / apart[:, None], dtype, device)


def _blocks(matrix: Tensor, dtype: torch.dtype, device: torch.device) -> _Banded:
    """Split a banded matrix into blocks of rows, each with its nonzero columns."""
    blocks = []
    size = BLOCK if device.type == "cpu" else len(matrix)
    for first in range(0, len(matrix), size):
        rows = matrix[first : first + size]
        used = rows.any(dim=0).nonzero()
        low, high = int(used.min()), int(used.max()) + 1
        block = rows[:, low:high].to(dtype=dtype, device=device).contiguous()
        blocks.append((block, low, high))
    return tuple(blocks)
