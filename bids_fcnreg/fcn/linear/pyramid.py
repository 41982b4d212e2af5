"""Image pyramid of the linear registration, with a weight for unknown voxels.

A level is an image smoothed and resampled to an isotropic grid along the image's own axes, with a
weight that is the known fraction of each voxel. Beyond the field of view, an image that ends in
background is background; one that is cut off (a neck, a slab) is unknown.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from bids_fcnreg.errors import InputError
from bids_fcnreg.fcn.field_of_view import OpenSides, open_sides
from bids_fcnreg.fcn.foreground import MIN_VOLUME_MM3
from bids_fcnreg.fcn.reproducible import one_thread
from bids_fcnreg.fcn.spatial.grid import Image

MARGIN_MM = 20.0  # background added around the field of view
MIN_SIGMA = 0.6  # smallest standard deviation of the smoothing, in voxels of the image
LOCAL_WINDOW = 2.0  # standard deviation of the local normalisation, in voxels of the level
VARIANCE_FLOOR = 0.0015  # added to the local variance, of intensities scaled to 0..1


@dataclass(frozen=True)
class PreparedImage:
    """An image prepared for linear registration.

    Attributes
    ----------
    values : Tensor (i, j, k) float32
        Intensities scaled to about 0..1, background 0.
    excluded : Tensor (i, j, k) float32 or None
        1 at voxels to ignore.
    affine : ndarray (4, 4) float64
        Voxel to RAS mm.
    open_sides : tuple of 3 pairs of bool
        Per axis, whether the object is cut off at the (low, high) end of the field of view.
    centre : ndarray (3,)
        Centre of mass of the object, RAS mm.
    middle : ndarray (3,)
        Centre of the field of view, RAS mm.
    volume : float
        Volume of the object in mm³.
    """

    values: Tensor
    excluded: Tensor | None
    affine: np.ndarray
    open_sides: OpenSides
    centre: np.ndarray
    middle: np.ndarray
    volume: float

    @property
    def complete(self) -> bool:
        """Whether the whole object lies inside the field of view."""
        return not any(side for pair in self.open_sides for side in pair)


@dataclass(frozen=True)
class Level:
    """An image at one resolution of the pyramid.

    Attributes
    ----------
    features : Tensor (channel, i, j, k) float32
        Channel 0 the intensities, channel 1 (if asked for) the locally normalised intensities.
    weight : Tensor (i, j, k) float32
        0 unknown … 1 known.
    affine : ndarray (4, 4) float64
        Voxel to RAS mm of this level's grid.
    """

    features: Tensor
    weight: Tensor
    affine: np.ndarray


def prepare_image(
    image: Image, name: str, mask: Image | None, exclude: Image | None, silhouette: bool
) -> PreparedImage:
    """Scale the intensities of an image and find its object and unknown voxels.

    Parameters
    ----------
    image, mask, exclude : Image
        On one grid; mask and exclude are true above 0.5.
    name : {"fixed", "moving"}
        Name of the image in error messages.
    silhouette : bool
        Whether voxels outside the mask are background; otherwise they are ignored.

    Raises
    ------
    InputError
        The image or its mask is empty or tiny, or a mask has another grid than its image.
    """
    values = image.data[0, 0].to(torch.float32).contiguous()
    inside = _as_mask(mask, image, f"mask of the {name} image")
    if not torch.isfinite(values).all() or values.min() == values.max():
        raise InputError(
            f"The {name} image is empty (all voxels are equal or not finite). Choose an image "
            "of a brain."
        )
    if inside is None:
        floor = _quantile(values.flatten(), 0.005)
        inside = values - floor > _otsu(values - floor)
    else:
        floor = min(0.0, float(values[inside].min()))
    values = values - floor
    ceiling = _quantile(values[inside], 0.99)
    if ceiling <= 0:
        raise InputError(
            f"The {name} image is zero everywhere inside its mask. Check the image and the mask."
        )
    values = (values / ceiling).clamp(0, 1.2)

    excluded = _as_mask(exclude, image, f"exclusion mask of the {name} image", may_be_empty=True)
    if mask is not None:
        values = values * inside
        if not silhouette:
            excluded = ~inside if excluded is None else excluded | ~inside
    if excluded is not None and bool(excluded.all()):
        raise InputError(f"The exclusion mask covers the whole {name} image. Check the mask.")

    counts = inside.sum()
    volume = float(counts) * abs(np.linalg.det(image.grid.affine[:3, :3]))
    if volume < MIN_VOLUME_MM3:
        raise InputError(
            f"The object in the {name} image has {volume / 1000:.1f} ml, too small for a brain. "
            "Check the voxel size and the mask."
        )
    moments = [
        (inside.sum(dim=[a for a in range(3) if a != axis]) * _arange(n, values)).sum() / counts
        for axis, n in enumerate(values.shape)
    ]
    centre = image.grid.affine @ np.array([*(float(m) for m in moments), 1.0])
    return PreparedImage(
        values=values,
        excluded=None if excluded is None else excluded.to(torch.float32),
        affine=np.asarray(image.grid.affine, dtype=np.float64),
        open_sides=open_sides(inside) if mask is None or silhouette else ((True, True),) * 3,
        centre=centre[:3],
        middle=image.grid.centre,
        volume=volume,
    )


def make_level(source: PreparedImage, spacing: float, sigma: float, local: bool) -> Level:
    """Smooth with a Gaussian of `sigma` mm and resample every `spacing` mm.

    Smoothing and resampling are one matrix per axis. Averages are over known voxels only
    (normalized convolution, Knutsson & Westin 1993). With `local` the level also has the locally
    normalized intensities.
    """
    matrices, masses, affine = [], [], source.affine.copy()
    for axis in range(3):
        step = float(np.linalg.norm(source.affine[:3, axis]))
        matrix, mass, origin = _resampler(
            source.values.shape[axis], step, spacing, sigma, source.open_sides[axis]
        )
        matrices.append(matrix.to(source.values.device))
        masses.append(mass.to(source.values.device))
        direction = source.affine[:3, axis] / step
        affine[:3, axis] = direction * spacing
        affine[:3, 3] += direction * origin
    weight = torch.einsum("i,j,k->ijk", *masses)
    values = source.values
    if source.excluded is not None:
        values = values * (1 - source.excluded)
        weight = weight - _apply(matrices, source.excluded)
    weight = weight.clamp(0, 1)
    weight = torch.where(weight > 0.05, weight, 0.0)
    values = _apply(matrices, values) * (weight > 0) / weight.clamp(min=0.05)
    features = values[None]
    if local:
        normalised, surroundings = _normalise_locally(values, weight)
        features = torch.stack([values, normalised])
        # the local mean of an incompletely known window is biased
        weight = weight * (10 * surroundings - 9).clamp(min=0.02)
    return Level(features=features, weight=weight, affine=affine)


def _normalise_locally(values: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """Normalize mean and variance in Gaussian windows; also return their known share."""
    indices = [_arange(n, values) for n in values.shape]
    windows = [_gaussian(index, index, LOCAL_WINDOW) for index in indices]
    mass = _apply(windows, weight)
    known = mass.clamp(min=1e-3)
    mean = _apply(windows, values * weight) / known
    variance = (_apply(windows, values.square() * weight) / known - mean.square()).clamp(min=0)
    # the floor keeps noise in flat regions (air) small
    return (values - mean) / (variance + VARIANCE_FLOOR).sqrt() * (weight > 0), mass.clamp(max=1)


def _resampler(
    size: int, step: float, spacing: float, sigma: float, open_sides: tuple[bool, bool]
) -> tuple[Tensor, Tensor, float]:
    """Return for an axis the matrix (out, in), known mass (out,), and mm between first voxels."""
    low, high = (0.0 if side else MARGIN_MM for side in open_sides)
    length = size * step + low + high
    count = max(int(np.ceil(length / spacing)), 2)
    origin = -0.5 * step - low + 0.5 * (length - count * spacing) + 0.5 * spacing
    target = origin + spacing * torch.arange(count, dtype=torch.float32)
    # voxels that are far apart (thick slices) need a kernel wide enough to bridge them
    width = max(sigma, MIN_SIGMA * step)
    reach = int(np.ceil((4 * width + low + high) / step)) + 1
    padded = step * torch.arange(-reach, size + reach, dtype=torch.float32)
    kernel = _gaussian(target, padded, width)
    matrix = kernel[:, reach : reach + size]
    known = matrix.sum(1)
    for is_open, part in zip(
        open_sides, (kernel[:, :reach], kernel[:, reach + size :]), strict=True
    ):
        if not is_open:
            known = known + part.sum(1)
    return matrix, known, origin


def _gaussian(targets: Tensor, sources: Tensor, sigma: float) -> Tensor:
    """Return Gaussian weights (targets, sources), each row of sum 1."""
    weights = torch.exp(-0.5 * ((targets[:, None] - sources[None]) / sigma).square())
    # Denormal numbers make matrix products up to 30 times slower.
    weights = torch.where(weights > 1e-10, weights, 0.0)
    return weights / weights.sum(1, keepdim=True)


def _apply(matrices: list[Tensor], volume: Tensor) -> Tensor:
    """Multiply each axis of a volume (i, j, k) by its matrix."""
    first, second, third = matrices
    # The last axis first: it is contiguous, and what follows is smaller by then. Plane by plane,
    # or by one thread: in a large product rounding depends on the number of threads.
    volume = torch.bmm(volume, third.T.expand(len(volume), -1, -1))
    volume = torch.bmm(second.expand(len(volume), -1, -1), volume)
    with one_thread():
        return torch.tensordot(first, volume, dims=1)


def _as_mask(
    mask: Image | None, image: Image, what: str, may_be_empty: bool = False
) -> Tensor | None:
    if mask is None:
        return None
    if difference := image.grid.mismatch(mask.grid):
        raise InputError(
            f"The image and the {what} {difference}. Use a mask on the grid of the image."
        )
    inside = (mask.data[0, 0] > 0.5).contiguous()
    if not may_be_empty and not inside.any():
        raise InputError(f"The {what} is empty (no voxel is above 0.5). Check the mask.")
    return inside


def _otsu(values: Tensor) -> float:
    """Return the threshold between background and object (Otsu 1979); values start near 0."""
    top = _quantile(values.flatten(), 0.998)
    histogram = torch.histc(values.clamp(0, top).cpu(), 128, 0, max(top, 1e-6)).double()
    centres = (torch.arange(128, dtype=torch.float64) + 0.5) * top / 128
    below, moment = histogram.cumsum(0), (histogram * centres).cumsum(0)
    above = below[-1] - below
    between = (moment[-1] * below / below[-1] - moment).square() / (below * above).clamp(min=1)
    return 0.5 * float(centres[between.argmax()])  # half: the dark half of a head belongs to it


def _quantile(values: Tensor, fraction: float) -> float:
    """Return the quantile of a sample of about a million values."""
    values = values[:: max(1, values.numel() // 1_000_000)]
    return float(values.kthvalue(max(1, round(fraction * values.numel()))).values)


def _arange(count: int, like: Tensor) -> Tensor:
    return torch.arange(count, dtype=torch.float32, device=like.device)
