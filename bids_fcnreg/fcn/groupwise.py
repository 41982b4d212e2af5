"""Groupwise registration: mean shape and mean image of a cohort.

Each image i is registered to a template by phi_i, which maps points of the template to points of
the image. The template has the mean shape when the stretches of the affine parts and the
velocities of the deformations have zero mean. A nonzero mean is removed by an update h, and phi_i
after h maps points of the next template to the image. Part of the update is not shape:
registration of a sharp image to a blurred mean moves every border in the same way. As it is
removed at each iteration, it does not accumulate; the remaining distance to the mean shape is that
of phi_i after h (see `shape_bias`). Rotations and translations of the affine parts reflect head
position; the template keeps those of the image it started from.

References
----------
Avants et al., The optimal template effect in hippocampus studies of diseased populations,
NeuroImage 49(3), 2010.
Arsigny et al., A log-Euclidean framework for statistics on diffeomorphisms, MICCAI 2006.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy import linalg
from torch import Tensor

from bids_fcnreg.fcn.spatial.displacement import exponentiate, logarithm
from bids_fcnreg.fcn.spatial.filters import gaussian
from bids_fcnreg.fcn.spatial.grid import Grid, Image, apply_affine
from bids_fcnreg.fcn.spatial.transform import Affine, Displacement, Transform, change_grid

#: Voxel size in mm at which the (smooth) velocities are averaged.
VELOCITY_MM = 2.0

#: Left–right reflection, in RAS+ mm.
MIRROR = np.diag([-1.0, 1.0, 1.0, 1.0])

#: Values are winsorized at this number of robust standard deviations from the median.
WINSOR = 2.5

#: A median absolute deviation times this is the standard deviation of a normal distribution.
MAD_TO_SD = 1.4826


@dataclass(frozen=True, eq=False)
class ShapeDifference:
    """Difference between the mean shape of a cohort and the template it was registered to.

    Attributes
    ----------
    stretch : ndarray (4, 4)
        Mean stretch, template to images, RAS+ mm, about the template's centre.
    velocity : Displacement
        Mean velocity, template to images, on a grid of the template's space.
    """

    stretch: np.ndarray
    velocity: Displacement

    @property
    def update(self) -> Transform:
        """Transform from the template of mean shape to the template."""
        flow = Displacement(self.velocity.grid, exponentiate(-self.velocity.field))
        return Transform((Affine(np.linalg.inv(self.stretch)), flow))

    @property
    def inverse_update(self) -> Transform:
        """Transform from the template to the template of mean shape."""
        flow = Displacement(self.velocity.grid, exponentiate(self.velocity.field))
        return Transform((flow, Affine(self.stretch)))

    def rms_mm(self, mask: Image) -> float:
        """Compute the RMS displacement of the update in a mask (1, 1, i, j, k), in mm."""
        points = mask.grid.points()[mask.data[0, 0] > 0.5]
        points = points[:: max(1, len(points) // 100_000)]
        return float((self.update.map(points) - points).square().sum(dim=-1).mean().sqrt())


def mean_shape(
    transforms: Iterable[Transform],
    weights: Sequence[float],
    mask: Image,
    *,
    anchored: bool = False,
    symmetric: bool = False,
) -> ShapeDifference:
    """Compute the mean stretch and mean velocity of registrations, one in memory at a time.

    Parameters
    ----------
    transforms : iterable of Transform
        Template to each image: displacements in the template's space, then affine steps.
    weights : sequence of float
        Weight of each image.
    mask : Image (1, 1, i, j, k)
        Brain mask of the template; its centre stays fixed.
    anchored : bool
        Keep the template's scale: ignore the mean stretch.
    symmetric : bool
        Make both symmetric about the plane x = 0.
    """
    coarse = mask.grid.with_spacing(np.maximum(VELOCITY_MM, mask.grid.spacing))
    logs, velocity = np.zeros((3, 3)), torch.zeros(1, 3, *coarse.shape)
    share = np.asarray(weights, dtype=float) / np.sum(weights)
    for part, transform in zip(share, transforms, strict=True):
        for step in transform.displacements:
            velocity += part * logarithm(change_grid(step, coarse).field)
        logs += part * _log_stretch(linear_part(transform))
    if symmetric:
        logs = (logs + MIRROR[:3, :3] @ logs @ MIRROR[:3, :3]) / 2
        velocity = (velocity + _mirrored(velocity, coarse)) / 2
    stretch = np.eye(4)
    if not anchored:
        centre = _mask_centre(mask) * ([0.0, 1.0, 1.0] if symmetric else 1.0)
        stretch[:3, :3] = linalg.expm(logs)
        stretch[:3, 3] = centre - stretch[:3, :3] @ centre
    return ShapeDifference(stretch, Displacement(coarse, velocity))


def shape_bias(
    transforms: Iterable[Transform],
    shape: ShapeDifference,
    weights: Sequence[float],
    mask: Image,
    *,
    anchored: bool = False,
    symmetric: bool = False,
) -> float:
    """Compute the distance of a template from the mean shape after its update.

    Parameters
    ----------
    transforms, weights, mask, anchored, symmetric
        As in `mean_shape`, before the update.
    shape : ShapeDifference
        Result of `mean_shape`.

    Returns
    -------
    float
        Root mean square in the brain, in mm.
    """
    grid = shape.velocity.grid
    chains = (Transform((*shape.update.steps, *one.steps)) for one in transforms)
    updated = (collapse(chain, linear_part(chain), grid) for chain in chains)
    return mean_shape(updated, weights, mask, anchored=anchored, symmetric=symmetric).rms_mm(mask)


def _mask_centre(mask: Image) -> np.ndarray:
    """Return the centre of a mask, RAS+ mm, (3,)."""
    voxels = (mask.data[0, 0] > 0.5).nonzero().double().mean(dim=0)
    return apply_affine(mask.grid.affine, voxels.numpy())


def _log_stretch(matrix: np.ndarray) -> np.ndarray:
    """Compute the logarithm (3, 3) of the right stretch tensor of an affine (4, 4)."""
    _, lengths, axes = np.linalg.svd(matrix[:3, :3])
    return axes.T @ np.diag(np.log(lengths)) @ axes


def _mirrored(field: Tensor, grid: Grid) -> Tensor:
    """Reflect a displacement or velocity (1, 3, i, j, k), in voxels, left–right."""
    exchanged = mirror(Image(field, grid)).data
    voxels = np.linalg.inv(grid.affine[:3, :3]) @ MIRROR[:3, :3] @ grid.affine[:3, :3]
    return torch.einsum("cd,ndijk->ncijk", torch.as_tensor(voxels).to(field), exchanged)


def mirror(image: Image) -> Image:
    """Reflect an image (1, channels, i, j, k) about the plane x = 0."""
    return Transform((Affine(MIRROR),)).resample(image, image.grid)


def enlarge_grid(grid: Grid, mask: Image, stretch: np.ndarray, margin: float) -> Grid:
    """Enlarge a grid to cover a stretched brain and a margin.

    Parameters
    ----------
    grid : Grid
        Its voxels are kept; equally many are added on either side of an axis.
    mask : Image (1, 1, i, j, k)
        The brain.
    stretch : ndarray (4, 4)
        RAS+ mm to RAS+ mm.
    margin : float
        In mm.
    """
    brain = apply_affine(mask.grid.affine, (mask.data[0, 0] > 0.5).nonzero().numpy())
    voxels = apply_affine(np.linalg.inv(grid.affine) @ stretch, brain)
    lower = np.floor(voxels.min(0) - margin / grid.spacing)
    upper = np.ceil(voxels.max(0) + margin / grid.spacing) + 1
    more = np.maximum(0, np.maximum(-lower, upper - np.array(grid.shape))).astype(int)
    return grid.crop(-more, np.array(grid.shape) + more)


def collapse(chain: Transform, matrix: np.ndarray, grid: Grid) -> Transform:
    """Collapse a chain from a template to an image into one displacement and one affine.

    Parameters
    ----------
    chain : Transform
        Any steps.
    matrix : ndarray (4, 4)
        Affine of the chain far from the brain.
    grid : Grid
        Grid of the template and of the displacement.
    """
    rest = Transform((*chain.steps, Affine(np.linalg.inv(matrix))))
    return Transform((rest.displacement(grid), Affine(matrix)))


def collapse_inverse(chain: Transform, matrix: np.ndarray, grid: Grid) -> Transform:
    """Collapse a chain from an image to a template into one affine and one displacement.

    See `collapse`; `matrix` is that of the other direction, template to image.
    """
    rest = Transform((Affine(matrix), *chain.steps))
    return Transform((Affine(np.linalg.inv(matrix)), rest.displacement(grid)))


def linear_part(chain: Transform) -> np.ndarray:
    """Compute the matrix (4, 4) of the affine steps of a chain."""
    matrix = np.eye(4)
    for step in chain.steps:
        if isinstance(step, Affine):
            matrix = step.matrix @ matrix
    return matrix


def robust_mean(
    values: np.ndarray, weights: Sequence[float], counts: np.ndarray | None = None
) -> np.ndarray:
    """Compute the weighted winsorized mean.

    Parameters
    ----------
    values : ndarray (n, ...)
        Values of n images.
    weights : sequence of float
        Weight of each image.
    counts : ndarray (n, ...), bool, optional
        Valid values; by default all.

    Returns
    -------
    ndarray (...)
        0 where none is valid.
    """
    mean = _robust_mean(values, np.asarray(weights, float)[:, None])
    if counts is not None:
        some = ~counts.all(axis=0)
        share = np.asarray(weights, float)[:, None] * counts[:, some]
        mean[some] = _robust_mean(np.where(counts[:, some], values[:, some], np.nan), share)
    return mean


def _robust_mean(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Compute the mean (...) of values (n, ...) without NaN, weights (n, 1) or of flat values."""
    flat = values.reshape(len(values), -1)
    middle = np.nanmedian if np.isnan(flat).any() else np.median
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # all-NaN voxels
        median = middle(flat, axis=0)
        spread = MAD_TO_SD * middle(np.abs(flat - median), axis=0)
    near = np.clip(flat, median - WINSOR * spread, median + WINSOR * spread)
    total = (np.nan_to_num(near) * weights).sum(axis=0)
    size = np.broadcast_to(weights, flat.shape).sum(axis=0)
    return np.divide(total, size, out=np.zeros_like(total), where=size > 0).reshape(
        values.shape[1:]
    )


def sharpen(image: Tensor, mask: Tensor, amount: float) -> Tensor:
    """Sharpen an image inside a mask by unsharp masking.

    Parameters
    ----------
    image, mask : Tensor (1, 1, i, j, k)
        Voxels outside the mask are ignored, so that its border is not sharpened.
    amount : float
        Factor of the added detail.
    """
    smooth = gaussian(image * mask, 1.0) / gaussian(mask, 1.0).clamp(min=1e-3)
    return (image + amount * (image - smooth) * mask).clamp(min=0)


def sharpness(image: Image, mask: Tensor) -> float:
    """Compute the mean gradient magnitude over the mean intensity in a mask, per mm."""
    inside = mask[0, 0] > 0.5
    spacing = [float(size) for size in image.grid.spacing]
    slopes = torch.gradient(image.data[0, 0], spacing=spacing)
    length = torch.stack(slopes).square().sum(dim=0).sqrt()
    return float(length[inside].mean() / image.data[0, 0][inside].mean())
