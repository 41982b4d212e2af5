"""Displacement fields on one grid: sample, warp, compose, exponentiate, invert, Jacobian.

A displacement is a tensor (batch, 3, i, j, k) in voxels of its grid, channels in the order
i, j, k. It maps a voxel x of the fixed grid to x + u(x), and pulls images back:
``warped(x) = moving(x + u(x))``. Outside the grid a displacement takes the value at the border.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as nnf

from bids_fcnreg.fcn.cpu import kernels
from bids_fcnreg.fcn.reproducible import mean

#: Planes of a grid of which volumes of voxels are computed at a time.
PLANES = 16


def identity(shape: Sequence[int], like: Tensor) -> Tensor:
    """Return the coordinates of every voxel.

    Parameters
    ----------
    shape : sequence of 3 int
        Grid size.
    like : Tensor
        Gives dtype and device.

    Returns
    -------
    Tensor (1, 3, i, j, k)
        Voxel indices.
    """
    axes = [torch.arange(n, dtype=like.dtype, device=like.device) for n in shape]
    return torch.stack(torch.meshgrid(*axes, indexing="ij")).unsqueeze(0)


def sample(
    image: Tensor, coordinates: Tensor, mode: str = "linear", padding: str = "zeros"
) -> Tensor:
    """Sample an image at arbitrary coordinates.

    Parameters
    ----------
    image : Tensor (batch, channels, i, j, k)
        What to sample.
    coordinates : Tensor (batch, 3, *shape)
        In voxels of the image; any three-dimensional shape.
    mode : {"linear", "nearest"}
        Interpolation.
    padding : {"zeros", "border"}
        Values outside the image: zeros (values fall linearly to zero within one voxel beyond the
        border), or the values at the border.

    Returns
    -------
    Tensor (batch, channels, *shape)
    """
    if mode == "linear" and kernels.usable(image, coordinates):
        return kernels.sample(image, coordinates, padding)
    scales = [2 / max(size - 1, 1) for size in image.shape[2:]]
    # grid_sample wants (x, y, z) = (k, j, i), scaled so that voxel centres span -1..1.
    axes = [coordinates[:, axis] * scales[axis] - 1 for axis in (2, 1, 0)]
    return _grid_sample(image, torch.stack(axes, dim=-1), mode, padding)


def _grid_sample(image: Tensor, coordinates: Tensor, mode: str, padding: str) -> Tensor:
    mode = "bilinear" if mode == "linear" else mode
    return nnf.grid_sample(image, coordinates, mode, padding, align_corners=True)


def _sample_displaced(image: Tensor, displacement: Tensor, padding: str = "zeros") -> Tensor:
    """Sample an image at the voxels of its grid moved by a displacement, in few operations."""
    if displacement.shape[2:] != image.shape[2:]:
        coordinates = identity(displacement.shape[2:], displacement) + displacement
        return sample(image, coordinates, padding=padding)
    voxels, scale = _voxels(tuple(image.shape[2:]), displacement.dtype, displacement.device)
    coordinates = torch.addcmul(voxels, displacement.flip(1).movedim(1, -1), scale)
    return _grid_sample(image, coordinates, "linear", padding)


@lru_cache(maxsize=2)
def _voxels(
    shape: tuple[int, ...], dtype: torch.dtype, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Return a grid's voxels as `grid_sample` wants them (1, i, j, k, 3), and its scale (3,)."""
    scale = [2 / max(size - 1, 1) for size in reversed(shape)]
    factor = torch.tensor(scale, dtype=dtype, device=device)
    voxels = identity(shape, torch.empty(0, dtype=dtype, device=device)).flip(1).movedim(1, -1)
    return voxels * factor - 1, factor


def warp(image: Tensor, displacement: Tensor) -> Tensor:
    """Pull an image back: ``warped(x) = image(x + u(x))``, zero outside.

    Parameters
    ----------
    image : Tensor (batch, channels, i, j, k)
        On the grid of the displacement.
    displacement : Tensor (batch, 3, i, j, k)
        In voxels.

    Returns
    -------
    Tensor (batch, channels, i, j, k)

    Examples
    --------
    >>> image = torch.arange(4.0).reshape(1, 1, 4, 1, 1)
    >>> shift = torch.zeros(1, 3, 4, 1, 1)
    >>> shift[:, 0] = 0.5
    >>> warp(image, shift).flatten().round(decimals=3).tolist()
    [0.5, 1.5, 2.5, 1.5]
    """
    if kernels.usable(image, displacement):
        return kernels.warp(image, displacement)
    return _sample_displaced(image, displacement)


def compose(first: Tensor, second: Tensor) -> Tensor:
    """Compute the displacement of ``x -> second(first(x))``, where both map x to x + u(x).

    Parameters
    ----------
    first, second : Tensor (batch, 3, i, j, k)
        Displacements in voxels; `first` acts first on a point of the fixed space.

    Returns
    -------
    Tensor (batch, 3, i, j, k)
        ``first(x) + second(x + first(x))``.
    """
    if kernels.usable(second, first):
        return kernels.compose(first, second)
    return first + _sample_displaced(second, first, padding="border")


def exponentiate(velocity: Tensor, steps: int | None = None) -> Tensor:
    """Integrate a stationary velocity field over unit time, by scaling and squaring.

    Parameters
    ----------
    velocity : Tensor (batch, 3, i, j, k)
        Voxels per unit time.
    steps : int, optional
        Number of squarings; by default the first step is at most 1/4 voxel.

    Returns
    -------
    Tensor (batch, 3, i, j, k)
        Displacement in voxels; that of ``-velocity`` is its inverse.

    References
    ----------
    Arsigny et al., A log-Euclidean framework for statistics on diffeomorphisms, MICCAI 2006.

    Examples
    --------
    >>> growth = torch.zeros(1, 3, 9, 9, 9)
    >>> growth[:, 0] = 0.4 * torch.arange(-4.0, 5.0)[:, None, None]
    >>> round(float(exponentiate(growth, steps=8)[0, 0, 6, 4, 4]), 2)  # 2 (exp(0.4) - 1)
    0.98
    """
    if steps is None:
        largest = float(velocity.detach().abs().max())
        steps = max(0, int(torch.tensor(largest * 4).clamp(min=1).log2().ceil()))
    displacement = velocity / 2**steps
    for _ in range(steps):
        displacement = compose(displacement, displacement)
    return displacement


def logarithm(displacement: Tensor, tolerance: float = 0.01, iterations: int = 20) -> Tensor:
    """Compute the stationary velocity field of a displacement: the inverse of `exponentiate`.

    The residual displacement is added to the velocity until it is below `tolerance` or stops to
    decrease.

    Parameters
    ----------
    displacement : Tensor (batch, 3, i, j, k)
        In voxels; a smooth diffeomorphism.
    tolerance : float
        Root mean square of the accepted residual, in voxels.
    iterations : int
        Maximum number of iterations.

    Returns
    -------
    Tensor (batch, 3, i, j, k)
        Voxels per unit time.

    References
    ----------
    Bossa & Olmos, A new algorithm for the computation of the group logarithm of diffeomorphisms,
    MFCA 2008; the first order of their series.
    """
    velocity, best = torch.zeros_like(displacement), displacement
    error = float(mean(displacement.square()).sqrt())
    for _ in range(iterations):
        velocity = velocity + best
        rest = compose(exponentiate(-velocity), displacement)
        size = float(mean(rest.square()).sqrt())
        if size >= error:
            return velocity - best
        best, error = rest, size
        if error < tolerance:
            break
    return velocity


def jacobian_determinant(displacement: Tensor) -> Tensor:
    """Compute the Jacobian determinant of ``x -> x + u(x)`` by central differences.

    Parameters
    ----------
    displacement : Tensor (batch, 3, i, j, k)
        In voxels.

    Returns
    -------
    Tensor (batch, 1, i, j, k)
        Local volume change: 1 for no change, at most 0 for folds. Differences are one-sided at the
        border.

    Examples
    --------
    >>> twice = torch.zeros(1, 3, 5, 5, 5)
    >>> twice[:, 0] = torch.arange(5.0)[:, None, None]
    >>> jacobian_determinant(twice).unique().tolist()
    [2.0]
    """
    if kernels.usable(displacement):
        return kernels.jacobian_determinant(displacement)
    gradients = torch.gradient(displacement, dim=(2, 3, 4))
    (a, b, c), (d, e, f), (g, h, i) = (
        [gradients[axis][:, channel] + (1.0 if axis == channel else 0.0) for axis in range(3)]
        for channel in range(3)
    )
    return (a * (e * i - f * h) - b * (d * i - f * g) + c * (d * h - e * g)).unsqueeze(1)


def geometric_determinant(displacement: Tensor) -> Tensor:
    """Compute the signed volume of each deformed voxel, in voxels.

    It is the mean over the voxel of the Jacobian determinant of ``x -> x + u(x)``, trilinear
    between the voxel's corners. Sums over a region are the volume of the deformed region.

    Parameters
    ----------
    displacement : Tensor (1, 3, i, j, k)
        In voxels, at least 2 along each axis.

    Returns
    -------
    Tensor (1, 1, i, j, k)
        1 for no change, negative for a voxel that is turned inside out. At the border the
        displacement is extrapolated linearly.

    References
    ----------
    Grandy, Efficient computation of volume of hexahedral cells, Lawrence Livermore National
    Laboratory, UCRL-ID-128886, 1997: the hexahedron whose faces have 4 triangles around their
    centre.

    Examples
    --------
    >>> twice = torch.zeros(1, 3, 5, 5, 5)
    >>> twice[:, 0] = torch.arange(5.0)[:, None, None]
    >>> geometric_determinant(twice).unique().tolist()
    [2.0]
    """
    around = displacement
    for axis in (2, 3, 4):
        low, next_low, next_high, high = (around.narrow(axis, n, 1) for n in _ends(around, axis))
        around = torch.cat([2 * low - next_low, around, 2 * high - next_high], dim=axis)
    corners = nnf.avg_pool3d(around, 2, stride=1)[0]
    size = displacement.shape[2]
    planes = [corners[:, n : n + PLANES + 1] for n in range(0, size, PLANES)]
    return torch.cat([_hexahedron_volumes(part) for part in planes])[None, None]


def _ends(data: Tensor, axis: int) -> tuple[int, int, int, int]:
    """Return the first two and the last two indices along an axis."""
    return 0, 1, data.shape[axis] - 2, data.shape[axis] - 1


def _hexahedron_volumes(corners: Tensor) -> Tensor:
    """Compute the volumes (i, j, k) of cells from the displacements of corners (3, i + 1, ...)."""
    i, j, k = (n - 1 for n in corners.shape[1:])

    def edge(start: tuple[int, int, int], end: tuple[int, int, int]) -> Tensor:
        """Return the vectors (3, i, j, k) between two deformed corners of each cell."""
        first, last = (corners[:, a : a + i, b : b + j, c : c + k] for a, b, c in (start, end))
        apart = torch.tensor([stop - begin for begin, stop in zip(start, end, strict=True)])
        return last - first + apart.to(corners)[:, None, None, None]

    def determinant(a: Tensor, b: Tensor, c: Tensor) -> Tensor:
        return (a * torch.linalg.cross(b, c, dim=0)).sum(dim=0)

    # Two parallel diagonals of opposite faces across each axis.
    near_i, far_i = edge((0, 0, 0), (0, 1, 1)), edge((1, 0, 0), (1, 1, 1))
    near_j, far_j = edge((0, 0, 0), (1, 0, 1)), edge((0, 1, 0), (1, 1, 1))
    near_k, far_k = edge((0, 0, 0), (1, 1, 0)), edge((0, 0, 1), (1, 1, 1))
    volumes = determinant(near_i + far_i, far_j, near_k)
    volumes += determinant(near_i, near_j + far_j, far_k)
    volumes += determinant(far_i, near_j, near_k + far_k)
    return volumes / 12


def gradient_of_divergence(displacement: Tensor) -> Tensor:
    """Compute the gradient of the divergence of a displacement.

    Second differences along an axis span three voxels; mixed ones are central.

    Parameters
    ----------
    displacement : Tensor (batch, 3, i, j, k)
        In voxels.

    Returns
    -------
    Tensor (batch, 3, i - 2, j - 2, k - 2)
        Without the grid's border, per voxel.

    Examples
    --------
    >>> field = torch.zeros(1, 3, 5, 3, 3)
    >>> field[:, 0] = (torch.arange(5.0) ** 2)[:, None, None]
    >>> gradient_of_divergence(field)[0, 0].flatten().tolist()
    [2.0, 2.0, 2.0]
    """
    weights = _second_differences(displacement.dtype, displacement.device)
    with torch.backends.cudnn.flags(enabled=True, deterministic=True, allow_tf32=False):
        return nnf.conv3d(displacement, weights)


def damp_divergence(displacement: Tensor, rate: float) -> Tensor:
    """Smooth the divergence of a displacement: take a step along its gradient.

    This is the volumetric term of linear elasticity (Navier–Cauchy equation): changes of volume
    are resisted, shear and rotation are not.

    Parameters
    ----------
    displacement : Tensor (batch, 3, i, j, k)
        In voxels.
    rate : float
        Length of the step; stable below 0.4.

    Returns
    -------
    Tensor (batch, 3, i, j, k)
        Unchanged at the grid's border.
    """
    if kernels.usable(displacement):
        return kernels.damp_divergence(displacement, rate)
    change = nnf.pad(gradient_of_divergence(displacement), [1] * 6)
    return torch.add(displacement, change, alpha=rate)


@lru_cache(maxsize=2)
def _second_differences(dtype: torch.dtype, device: torch.device) -> Tensor:
    """Return the filters of `gradient_of_divergence`: (component, of component, i, j, k)."""
    unit, slope, curvature = ([0, 1, 0], [-0.5, 0, 0.5], [1, -2, 1])
    weights = torch.empty(3, 3, 3, 3, 3)
    for row, column in np.ndindex(3, 3):
        along = [slope if axis in (row, column) else unit for axis in range(3)]
        if row == column:
            along[row] = curvature
        weights[row, column] = torch.einsum("i,j,k->ijk", *map(torch.tensor, along))
    return weights.to(device, dtype)
