"""The mean space of many images: the shape that lies in their middle, and their mean image.

Each image i is registered to a template by phi_i, which takes points of the template to points of
the image. The template has the mean shape when, on average, nothing is left to do: when the
stretches of the affine parts and the velocities of the deformations have the mean zero. What they
have instead is removed by an update h, and phi_i after h takes points of the next template to the
image. Part of what is removed is no shape: registering the sharp image of one to the blurred mean
of many moves all of them alike near every border. As it is removed each time, it does not add up,
and the next template has the mean shape nevertheless: how nearly is measured on phi_i after h (see
`bias`). Turns and shifts of the affine parts say how a head lay in the scanner; the template keeps
those of the image it began with.

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

#: Voxel size in mm at which velocities are averaged: they are smooth.
VELOCITY_MM = 2.0

#: Left and right exchanged, in RAS+ mm.
MIRROR = np.diag([-1.0, 1.0, 1.0, 1.0])

#: Values farther than so many robust standard deviations from the median are moved there.
WINSOR = 2.5

#: A median absolute deviation times this is the standard deviation of a normal distribution.
MAD_TO_SD = 1.4826


@dataclass(frozen=True, eq=False)
class Shape:
    """How the mean of many images differs from the template they were registered to.

    Parameters
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
        """Points of the template of mean shape to points of the template."""
        flow = Displacement(self.velocity.grid, exponentiate(-self.velocity.field))
        return Transform((Affine(np.linalg.inv(self.stretch)), flow))

    @property
    def inverse_update(self) -> Transform:
        """Points of the template to points of the template of mean shape."""
        flow = Displacement(self.velocity.grid, exponentiate(self.velocity.field))
        return Transform((flow, Affine(self.stretch)))

    def size(self, mask: Image) -> float:
        """Root mean square in a mask (1, 1, i, j, k) of how far the update moves points, in mm."""
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
) -> Shape:
    """Mean stretch and mean velocity of registrations, of which one is in memory at a time.

    Parameters
    ----------
    transforms : iterable of Transform
        Template to each image; affine steps, and displacements in the template's space before
        them.
    weights : sequence of float
        How much each image counts.
    mask : Image (1, 1, i, j, k)
        Brain mask of the template; its middle stays where it is.
    anchored : bool
        Keep the template's scale: the mean stretch is left out.
    symmetric : bool
        Make both equal on the left and the right of the plane x = 0.
    """
    coarse = mask.grid.with_spacing(np.maximum(VELOCITY_MM, mask.grid.spacing))
    logs, velocity = np.zeros((3, 3)), torch.zeros(1, 3, *coarse.shape)
    share = np.asarray(weights, dtype=float) / np.sum(weights)
    for part, transform in zip(share, transforms, strict=True):
        matrix = np.eye(4)
        for step in transform.steps:
            if isinstance(step, Affine):
                matrix = step.matrix @ matrix
            else:
                velocity += part * logarithm(change_grid(step, coarse).field)
        logs += part * _log_stretch(matrix)
    if symmetric:
        logs = (logs + MIRROR[:3, :3] @ logs @ MIRROR[:3, :3]) / 2
        velocity = (velocity + _mirrored(velocity, coarse)) / 2
    stretch = np.eye(4)
    if not anchored:
        centre = _middle(mask) * ([0.0, 1.0, 1.0] if symmetric else 1.0)
        stretch[:3, :3] = linalg.expm(logs)
        stretch[:3, 3] = centre - stretch[:3, :3] @ centre
    return Shape(stretch, Displacement(coarse, velocity))


def bias(
    transforms: Iterable[Transform],
    shape: Shape,
    weights: Sequence[float],
    mask: Image,
    *,
    anchored: bool = False,
    symmetric: bool = False,
) -> float:
    """How far a template is from the mean shape after its update.

    Parameters
    ----------
    transforms, weights, mask, anchored, symmetric
        As those of `mean_shape`, before the update.
    shape : Shape
        What `mean_shape` found.

    Returns
    -------
    float
        Root mean square in the brain, in mm.
    """
    grid = shape.velocity.grid
    chains = (Transform((*shape.update.steps, *one.steps)) for one in transforms)
    updated = (fold(chain, linear_part(chain), grid) for chain in chains)
    return mean_shape(updated, weights, mask, anchored=anchored, symmetric=symmetric).size(mask)


def _middle(mask: Image) -> np.ndarray:
    """Centre of a mask, RAS+ mm, (3,)."""
    voxels = (mask.data[0, 0] > 0.5).nonzero().double().mean(dim=0)
    return apply_affine(mask.grid.affine, voxels.numpy())


def _log_stretch(matrix: np.ndarray) -> np.ndarray:
    """Logarithm (3, 3) of the stretch that an affine (4, 4) makes before it turns."""
    _, lengths, axes = np.linalg.svd(matrix[:3, :3])
    return axes.T @ np.diag(np.log(lengths)) @ axes


def _mirrored(field: Tensor, grid: Grid) -> Tensor:
    """A displacement or velocity (1, 3, i, j, k), in voxels, with left and right exchanged."""
    exchanged = mirror(Image(field, grid)).data
    voxels = np.linalg.inv(grid.affine[:3, :3]) @ MIRROR[:3, :3] @ grid.affine[:3, :3]
    return torch.einsum("cd,ndijk->ncijk", torch.as_tensor(voxels).to(field), exchanged)


def mirror(image: Image) -> Image:
    """An image (1, channels, i, j, k) with left and right of the plane x = 0 exchanged."""
    return Transform((Affine(MIRROR),)).resample(image, image.grid)


def room_for(grid: Grid, mask: Image, stretch: np.ndarray, margin: float) -> Grid:
    """A grid with room for a stretched brain and a margin around it.

    Parameters
    ----------
    grid : Grid
        Its voxels stay; as many are added on either side of an axis.
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


def fold(chain: Transform, matrix: np.ndarray, grid: Grid) -> Transform:
    """A chain from a template to an image as one displacement and one affine.

    Parameters
    ----------
    chain : Transform
        Any steps.
    matrix : ndarray (4, 4)
        What the chain does far from the brain.
    grid : Grid
        Of the template: there the displacement is known.
    """
    rest = Transform((*chain.steps, Affine(np.linalg.inv(matrix))))
    return Transform((rest.displacement(grid), Affine(matrix)))


def fold_inverse(chain: Transform, matrix: np.ndarray, grid: Grid) -> Transform:
    """A chain from an image to a template as one affine and one displacement; see `fold`.

    `matrix` is that of the other direction, template to image.
    """
    rest = Transform((Affine(matrix), *chain.steps))
    return Transform((Affine(np.linalg.inv(matrix)), rest.displacement(grid)))


def linear_part(chain: Transform) -> np.ndarray:
    """Matrix (4, 4) of what a chain does where none of its displacements moves anything."""
    matrix = np.eye(4)
    for step in chain.steps:
        if isinstance(step, Affine):
            matrix = step.matrix @ matrix
    return matrix


def robust_mean(
    values: np.ndarray, weights: Sequence[float], counts: np.ndarray | None = None
) -> np.ndarray:
    """Weighted mean of values of which those far from the median are moved nearer.

    Parameters
    ----------
    values : ndarray (n, ...)
        Of n images.
    weights : sequence of float
        How much each image counts.
    counts : ndarray (n, ...), bool, optional
        Which values count at all; by default all do.

    Returns
    -------
    ndarray (...)
        0 where none counts.
    """
    mean = _robust_mean(values, np.asarray(weights, float)[:, None])
    if counts is not None:
        some = ~counts.all(axis=0)
        share = np.asarray(weights, float)[:, None] * counts[:, some]
        mean[some] = _robust_mean(np.where(counts[:, some], values[:, some], np.nan), share)
    return mean


def _robust_mean(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Mean (...) of values (n, ...), NaN left out, of weights (n, 1) or those of flat values."""
    flat = values.reshape(len(values), -1)
    middle = np.nanmedian if np.isnan(flat).any() else np.median
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of places where there is nothing but NaN
        median = middle(flat, axis=0)
        spread = MAD_TO_SD * middle(np.abs(flat - median), axis=0)
    near = np.clip(flat, median - WINSOR * spread, median + WINSOR * spread)
    total = (np.nan_to_num(near) * weights).sum(axis=0)
    size = np.broadcast_to(weights, flat.shape).sum(axis=0)
    return np.divide(total, size, out=np.zeros_like(total), where=size > 0).reshape(
        values.shape[1:]
    )


def sharpen(image: Tensor, mask: Tensor, amount: float) -> Tensor:
    """An image with the finest detail inside a mask made stronger: unsharp masking.

    Parameters
    ----------
    image, mask : Tensor (1, 1, i, j, k)
        The mask's border is no detail: what is outside does not count.
    amount : float
        How much of the detail is added.
    """
    smooth = gaussian(image * mask, 1.0) / gaussian(mask, 1.0).clamp(min=1e-3)
    return (image + amount * (image - smooth) * mask).clamp(min=0)


def sharpness(image: Image, mask: Tensor) -> float:
    """Mean length of the gradient in a mask (1, 1, i, j, k) over the mean intensity, per mm."""
    inside = mask[0, 0] > 0.5
    spacing = [float(size) for size in image.grid.spacing]
    slopes = torch.gradient(image.data[0, 0], spacing=spacing)
    length = torch.stack(slopes).square().sum(dim=0).sqrt()
    return float(length[inside].mean() / image.data[0, 0][inside].mean())
