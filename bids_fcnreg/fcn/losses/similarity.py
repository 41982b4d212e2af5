"""Similarity of two images: global and local normalized cross-correlation.

Positive linear changes of intensities hardly matter. The variances of local NCC's windows are
damped: flat windows, where noise prevails, count little. Without damping, all of them would count;
with a least variance, forces would jump where the last digits let a window pass. Gradients are in
closed form: cheaper than automatic differentiation, in time and in memory. On a CPU, `cpu.forces`
computes local NCC where it can. The linear stage has a similarity of its own
(`linear.gauss_newton`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from bids_fcnreg.fcn.cpu import kernels
from bids_fcnreg.fcn.reproducible import total, variance
from bids_fcnreg.fcn.spatial.filters import box, box_transposed, slope

#: Added to the variances of windows, as a fraction of the image's variance.
DAMPING = 2e-4

#: Additional damping, as a fraction of the image's mean square: it exceeds rounding errors.
ROUNDING = 1e-6

#: Least damping, for empty images.
LEAST_DAMPING = 1e-12


def ncc(fixed: Tensor, warped: Tensor, weight: Tensor | None = None) -> Tensor:
    """Compute the global normalized cross-correlation.

    Parameters
    ----------
    fixed, warped : Tensor (batch, channels, i, j, k)
        The two images, on the same grid.
    weight : Tensor, broadcastable, optional
        Weight of each voxel, at least 0.

    Returns
    -------
    Tensor ()
        Between -1 and 1; differentiable.

    References
    ----------
    Li & Fan, arXiv:1709.00799.

    Examples
    --------
    >>> image = torch.rand(1, 1, 6, 6, 6, generator=torch.Generator().manual_seed(0))
    >>> round(float(ncc(image, 3 * image + 1)), 3), round(float(ncc(image, -image)), 3)
    (1.0, -1.0)
    """
    weight = torch.ones_like(fixed) if weight is None else weight.expand_as(fixed)
    axes = (2, 3, 4)
    mass = weight.sum(axes, keepdim=True).clamp(min=1e-6)
    a = fixed - (weight * fixed).sum(axes, keepdim=True) / mass
    b = warped - (weight * warped).sum(axes, keepdim=True) / mass
    covariance = (weight * a * b).sum(axes)
    variances = (weight * a * a).sum(axes) * (weight * b * b).sum(axes)
    return (covariance / variances.clamp(min=1e-12).sqrt()).mean()


def local_ncc(
    fixed: Tensor, warped: Tensor, radius: int = 2, weight: Tensor | None = None
) -> Tensor:
    """Compute the mean signed squared correlation in a cubic window around each voxel.

    Parameters
    ----------
    fixed, warped : Tensor (batch, channels, i, j, k)
        The two images, on the same grid.
    radius : int
        The window has ``2 * radius + 1`` voxels along each axis.
    weight : Tensor, broadcastable, optional
        Weight of the window around each voxel, at least 0.

    Returns
    -------
    Tensor ()
        Between -1 and 1; differentiable with respect to `warped` only, with constant damping.

    References
    ----------
    Avants et al., Symmetric diffeomorphic image registration with cross-correlation, Med. Image
    Anal. 12(1), 2008; with the sign of the correlation kept.
    """
    if radius in kernels.RADII and warped.shape[1] == 1 and kernels.usable(fixed, warped):
        images = torch.cat([fixed, warped]).detach()
        share = _normalised(weight, fixed)
        return kernels.local_ncc(images, radius, share, window_damping(images))
    return _LocalNCC.apply(warped, fixed, radius, weight)


class FixedWindows:
    """Windows of a fixed image, for comparison with several warped images.

    Parameters
    ----------
    fixed : Tensor (batch, 1, i, j, k)
        The fixed image.
    radius : int
        The window has ``2 * radius + 1`` voxels along each axis.
    """

    def __init__(self, fixed: Tensor, radius: int) -> None:
        self.fixed = fixed
        self.radius = radius
        self.mean, square = box(torch.cat([fixed, fixed**2], dim=1), radius).chunk(2, dim=1)
        self.variance = _damped(square - self.mean**2, fixed)

    def compare(self, warped: Tensor) -> Comparison:
        """Compute the local correlation with a warped image of the same shape."""
        means = box(torch.cat([warped, warped**2, self.fixed * warped], dim=1), self.radius)
        mean, square, product = means.chunk(3, dim=1)
        spread = _damped(square - mean**2, warped)
        covariance = product - self.mean * mean
        slope = covariance.abs() / (self.variance * spread)
        return Comparison(
            value=(slope * covariance).clamp(-1, 1),
            to_fixed=2 * slope,
            to_warped=2 * slope * covariance / spread,
            mean=mean,
        )


@dataclass(frozen=True)
class Comparison:
    """Local correlation of two images, and the terms of its gradient.

    With the means m, damped variances s and covariance c of a window and its value
    ``v = |c| c / (s_F s_W)``, the derivative of v by a voxel W(x) of the window is
    ``2 |c| / (s_F s_W) (F(x) - m_F) - 2 v / s_W (W(x) - m_W)``, divided by the number of voxels.

    Attributes
    ----------
    value : Tensor (batch, 1, i, j, k)
        v of the window around each voxel.
    to_fixed, to_warped : Tensor (batch, 1, i, j, k)
        The factors of the fixed and of the warped intensities in the derivative.
    mean : Tensor (batch, 1, i, j, k)
        m_W.
    """

    value: Tensor
    to_fixed: Tensor
    to_warped: Tensor
    mean: Tensor

    def gradient(self, windows: FixedWindows, warped: Tensor, share: Tensor) -> Tensor:
        """Compute the derivative by each voxel of the sum of all windows' values times `share`."""
        to_fixed, to_warped = share * self.to_fixed, share * self.to_warped
        offset = to_warped * self.mean - to_fixed * windows.mean
        terms = box_transposed(torch.cat([to_fixed, to_warped, offset], dim=1), windows.radius)
        to_fixed, to_warped, offset = terms.chunk(3, dim=1)
        return to_fixed * windows.fixed - to_warped * warped + offset


@dataclass(frozen=True)
class Forces:
    """Local correlation of two images, and the forces on their points that increase it.

    Attributes
    ----------
    value : Tensor ()
        Weighted mean of the windows' values.
    on_first, on_second : Tensor (1, 3, i, j, k)
        Derivative of `value` by a displacement (in voxels) of each voxel of the first and of the
        second image: that by the voxel's intensity (`Comparison.gradient`), times the gradient of
        the image; zero where the weight is.
    """

    value: Tensor
    on_first: Tensor
    on_second: Tensor


def local_ncc_forces(
    first: Tensor,
    second: Tensor,
    radius: int = 2,
    weight: Tensor | None = None,
    shares: Sequence[float] | None = None,
) -> Forces:
    """Compute the local correlation of two images and the forces that increase it.

    Parameters
    ----------
    first, second : Tensor (1, channels, i, j, k)
        The two images, on the same grid; their channels are compared separately.
    radius : int
        The window has ``2 * radius + 1`` voxels along each axis.
    weight : Tensor, broadcastable to (1, 1, i, j, k), optional
        Weight of the window around each voxel, at least 0.
    shares : sequence of float, optional
        Weight of each channel; by default equal weights of sum 1.

    Returns
    -------
    Forces
        Zero where `weight` is zero. Symmetric in the images.
    """
    if first.shape != second.shape:
        raise RuntimeError(f"The images have different shapes: {first.shape} and {second.shape}.")
    channels, images = first.shape[1], torch.cat([first, second])
    forces = torch.zeros(2, 3, *first.shape[2:], dtype=first.dtype, device=first.device)
    value = accumulate_forces(
        forces,
        images,
        radius,
        _normalised(weight, first[:, :1]),
        shares or [1 / channels] * channels,
        0.0,
        window_damping(images),
    )
    return Forces(value, *forces.split(1))


def accumulate_forces(
    forces: Tensor,
    images: Tensor,
    radius: int,
    weight: Tensor,
    shares: Sequence[float],
    decay: float,
    damping: Tensor,
) -> Tensor:
    """Multiply forces by a factor and add those of local NCC, in place.

    Parameters
    ----------
    forces : Tensor (2, 3, i, j, k)
        On both images; zero where `weight` is zero.
    images : Tensor (2, channels, i, j, k)
        The two images, on the same grid; their channels are compared separately.
    radius : int
        The window has ``2 * radius + 1`` voxels along each axis.
    weight : Tensor (1, 1, i, j, k)
        Weight of the window around each voxel, at least 0, of sum 1.
    shares : sequence of float
        Weight of each channel.
    decay : float
        Factor of the forces of before.
    damping : Tensor (2, channels)
        Added to the variances of windows of each channel; see `window_damping`.

    Returns
    -------
    Tensor ()
        Weighted mean of the windows' values.
    """
    first, second = images.split(1)
    if radius in kernels.RADII and kernels.usable(first, second, weight, *forces.split(1)):
        return kernels.local_ncc_forces(forces, decay, images, radius, weight, shares, damping)
    channels, volumes = images.shape[1], images.flatten(0, 1)
    products = torch.cat([volumes, volumes.square(), (first * second)[0]])
    means = box(products[None], radius)[0]
    mean, square, product = means.split([2 * channels, 2 * channels, channels])
    mean = mean.view(images.shape)
    variances = torch.addcmul(square.view(images.shape), mean, mean, value=-1)
    covariance = torch.addcmul(product[None], mean[:1], mean[1:], value=-1)
    inverse = variances.clamp_(min=0).add_(damping[:, :, None, None, None]).reciprocal_()
    to_other = covariance.abs() * (inverse[:1] * inverse[1:])
    value = to_other * covariance
    to_own = value * inverse
    rest = torch.addcmul(to_own * mean, to_other, mean.flip(0), value=-1)
    scale = _per_channel(tuple(shares), images.dtype, images.device) * weight
    terms = (scale * torch.cat([to_other, to_own, rest])).flatten(0, 1)
    to_other, to_own, rest = (
        box_transposed(terms[None], radius)[0].view(5, *images.shape[1:]).split([1, 2, 2])
    )
    on_voxels = torch.addcmul(rest, to_other, images.flip(0)).addcmul_(to_own, images, value=-1)
    on_voxels *= weight > 0
    slopes = torch.stack([slope(images, axis) for axis in range(3)], dim=1)
    added = (on_voxels[:, None] * slopes).sum(dim=2)
    forces.mul_(decay).add_(added, alpha=2)
    return total(scale * value)


def window_damping(images: Tensor) -> Tensor:
    """Compute what is added to the variances of windows, (batch, channels), of images."""
    volumes = images.detach().flatten(0, 1)
    variances = torch.stack([variance(volume) for volume in volumes])
    squares = torch.stack([total(volume.square()) / volume.numel() for volume in volumes])
    found = (DAMPING * variances + ROUNDING * squares).clamp(min=LEAST_DAMPING)
    return found.view(images.shape[:2])


def _damped(variances: Tensor, image: Tensor) -> Tensor:
    """Add the damping of an image (batch, 1, i, j, k) to variances of its windows."""
    return variances.clamp(min=0) + window_damping(image)[:, :, None, None, None]


@lru_cache(maxsize=16)
def _per_channel(values: tuple[float, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    """Return numbers as a tensor (1, channels, 1, 1, 1)."""
    return torch.tensor(values, dtype=dtype, device=device).view(1, -1, 1, 1, 1)


class _LocalNCC(torch.autograd.Function):
    """Local NCC with its gradient in closed form."""

    @staticmethod
    def forward(
        ctx: Any, warped: Tensor, fixed: Tensor, radius: int, weight: Tensor | None
    ) -> Tensor:
        windows = FixedWindows(fixed, radius)
        comparison = windows.compare(warped)
        share = _normalised(weight, comparison.value)
        if ctx.needs_input_grad[0]:
            ctx.save_for_backward(comparison.gradient(windows, warped, share))
        return total(share * comparison.value)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None]:
        (derivative,) = ctx.saved_tensors
        return gradient * derivative, None, None, None


def _normalised(weight: Tensor | None, like: Tensor) -> Tensor:
    """Return weights of the shape of `like` and of sum 1, by default equal."""
    weight = torch.ones_like(like) if weight is None else weight.expand_as(like)
    return weight / total(weight).clamp(min=1e-6)
