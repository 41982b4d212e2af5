"""Coordinates of voxels and points under linear transforms, as input of `displacement.sample`."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from bids_fcnreg.fcn.cpu import kernels


def map_voxels(
    shape: Sequence[int], matrix: np.ndarray, device: torch.device | str = "cpu"
) -> Tensor:
    """Map the voxel indices of a grid by a linear transform.

    Parameters
    ----------
    shape : sequence of 3 int
        Grid size.
    matrix : ndarray (4, 4)
        The transform, for instance from voxel indices to RAS+ mm.
    device : torch.device or str
        Where to compute.

    Returns
    -------
    Tensor (1, 3, i, j, k), float32

    Examples
    --------
    >>> map_voxels((1, 1, 3), np.diag([1, 1, 2.5, 1]))[0, 2].flatten().tolist()
    [0.0, 2.5, 5.0]
    """
    if torch.device(device).type == "cpu" and kernels.enabled():
        return kernels.map_voxels(shape, matrix)
    along_i, along_j, along_k = (
        torch.arange(n, dtype=torch.float64, device=device) for n in shape
    )
    mapped = []
    for to_i, to_j, to_k, shift in matrix[:3].tolist():
        # Sums of outer products: cheaper than a matrix product at every voxel.
        plane = (to_i * along_i + shift)[:, None] + to_j * along_j
        mapped.append((plane[..., None] + to_k * along_k).float())
    return torch.stack(mapped)[None]


def map_points(coordinates: Tensor, matrix: np.ndarray) -> Tensor:
    """Map points by a linear transform.

    Parameters
    ----------
    coordinates : Tensor (1, 3, *shape)
        Any three-dimensional shape.
    matrix : ndarray (4, 4)
        The transform.

    Returns
    -------
    Tensor (1, 3, *shape)
    """
    if kernels.usable(coordinates):
        return kernels.map_points(coordinates, matrix)
    linear, shift = (
        torch.from_numpy(part).to(coordinates) for part in (matrix[:3, :3], matrix[:3, 3])
    )
    return torch.einsum("cd,ndijk->ncijk", linear, coordinates) + shift.reshape(1, 3, 1, 1, 1)
