"""Within-subject registration: an unbiased midpoint space and the transforms to each image.

Images of one person differ by head position and, slightly, by anatomical change. All are treated
equally: none is the reference, and each is resampled once. The rigid transforms between them are
halved; then each image is registered with a smooth deformation to their mean image, whose shape
becomes the mean of theirs (see `groupwise`).

References
----------
Reuter et al., Within-subject template estimation for unbiased longitudinal image analysis,
NeuroImage 61(4), 2012.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from scipy import linalg

from bids_fcnreg.fcn.device import resolve_device
from bids_fcnreg.fcn.groupwise import (
    collapse,
    collapse_inverse,
    linear_part,
    mean_shape,
    robust_mean,
)
from bids_fcnreg.fcn.linear.align import align
from bids_fcnreg.fcn.pair import MARGIN_MM, make_pair
from bids_fcnreg.fcn.quality import Quality, assess, rotation_degrees
from bids_fcnreg.fcn.refine import Refinement, refine
from bids_fcnreg.fcn.register import Registration
from bids_fcnreg.fcn.spatial.grid import Grid, Image, apply_affine
from bids_fcnreg.fcn.spatial.transform import Affine, Transform

#: Changes within a person are small and smooth. Small, smooth steps follow them and little of the
#: noise; smoothing the field itself as strongly would suppress the changes, too.
WITHIN_SUBJECT_REFINEMENT = Refinement(
    steps=(50, 50, 20),
    update_sigma=(2.0, 4.0, 8.0),
    field_sigma=(0.7, 0.7, 0.7),
    divergence_rate=(0.0, 0.0, 0.0),
    largest_step=(0.5, 0.5, 0.5),
    last_step=0.02,
)

#: Number of registrations of the images to their mean.
ROUNDS = 2

#: Smallest voxel size of the mean image, in mm.
FINEST_MM = 0.8


@dataclass(frozen=True, eq=False)
class WithinSubject:
    """Images of one person, registered to each other.

    Attributes
    ----------
    base, mask : Image (1, 1, i, j, k)
        Mean image and its brain mask.
    forward : tuple of Transform
        Points of the base to points of each image: an affine after a displacement.
    inverse : tuple of Transform
        Points of each image to points of the base.
    """

    base: Image
    mask: Image
    forward: tuple[Transform, ...]
    inverse: tuple[Transform, ...]


def register_within_subject(
    images: Sequence[Image],
    masks: Sequence[Image],
    rigid: Sequence[np.ndarray],
    *,
    device: str = "cpu",
) -> WithinSubject:
    """Register images of one person to a space in their middle.

    Parameters
    ----------
    images : sequence of Image (1, 1, i, j, k)
        At least two, of like intensities.
    masks : sequence of Image
        Brain masks on the grids of their images.
    rigid : sequence of ndarray (4, 4)
        From `rigid_to_midpoint`.
    device : str
        Name; see `resolve_device`.

    Returns
    -------
    WithinSubject

    Raises
    ------
    InputError
        If an image or a mask is empty.
    """
    torch_device = resolve_device(device)
    grid = common_grid(masks, rigid)
    current = WithinSubject(
        *_average(images, masks, [Transform((Affine(matrix),)) for matrix in rigid], grid),
        tuple(Transform((Affine(matrix),)) for matrix in rigid),
        tuple(Transform((Affine(np.linalg.inv(matrix)),)) for matrix in rigid),
    )
    # The first mean image is blurred: its finest detail is not worth following.
    fine = WITHIN_SUBJECT_REFINEMENT
    rough = replace(fine, spacings=fine.spacings[:-1])
    for number in range(ROUNDS):
        chosen = fine if number == ROUNDS - 1 else rough
        current = _update(current, images, masks, rigid, chosen, torch_device)
    return current


def rigid_to_midpoint(images: Sequence[Image], masks: Sequence[Image]) -> list[np.ndarray]:
    """Compute rigid transforms from the midpoint space to each image, (4, 4), RAS+ mm.

    The transform from the first image to the midpoint is the log-Euclidean mean of the transforms
    from the first image to each of them.
    """
    first, rest = (images[0], masks[0]), zip(images[1:], masks[1:], strict=True)
    matrices = [np.eye(4)] + [
        align(first[0], image, dof="rigid", fixed_mask=first[1], moving_mask=mask)
        for image, mask in rest
    ]
    logs = [linalg.logm(matrix).real for matrix in matrices]
    to_middle = linalg.expm(-np.mean(logs, axis=0))
    return [matrix @ to_middle for matrix in matrices]


def common_grid(masks: Sequence[Image], matrices: Sequence[np.ndarray]) -> Grid:
    """Return a grid of isotropic voxels, aligned with the world axes, around all brains.

    Parameters
    ----------
    masks : sequence of Image (1, 1, i, j, k)
        Brains.
    matrices : sequence of ndarray (4, 4)
        From the space of the grid to each of them.
    """
    spacing = max(FINEST_MM, min(float(mask.grid.spacing.min()) for mask in masks))
    points = np.concatenate([
        apply_affine(
            np.linalg.inv(matrix) @ mask.grid.affine, (mask.data[0, 0] > 0.5).nonzero().numpy()
        )
        for mask, matrix in zip(masks, matrices, strict=True)
    ])  # fmt: skip
    lower, upper = points.min(axis=0) - MARGIN_MM, points.max(axis=0) + MARGIN_MM
    affine = np.diag([spacing] * 3 + [1.0])
    affine[:3, 3] = lower
    return Grid(tuple(np.ceil((upper - lower) / spacing).astype(int) + 1), affine)


def _update(
    current: WithinSubject,
    images: Sequence[Image],
    masks: Sequence[Image],
    rigid: Sequence[np.ndarray],
    settings: Refinement,
    device: torch.device | str,
) -> WithinSubject:
    """Register each image to the mean image, and give that the mean of their shapes."""
    grid, forward, inverse = current.base.grid, [], []
    for image, mask, matrix in zip(images, masks, rigid, strict=True):
        pair = make_pair(current.base, image, matrix, current.mask, mask).to(torch.device(device))
        there, back = refine(pair, settings=settings).on_grid(pair.grid).tapered().compose()
        forward.append(Transform((there.cpu(), Affine(matrix))))
        inverse.append(Transform((Affine(np.linalg.inv(matrix)), back.cpu())))
    shape = mean_shape(forward, [1.0] * len(images), current.mask, anchored=True)
    update, undo = shape.update.steps, shape.inverse_update.steps
    forward = [
        collapse(Transform((*update, *one.steps)), matrix, grid)
        for one, matrix in zip(forward, rigid, strict=True)
    ]
    inverse = [
        collapse_inverse(Transform((*one.steps, *undo)), matrix, grid)
        for one, matrix in zip(inverse, rigid, strict=True)
    ]
    return WithinSubject(*_average(images, masks, forward, grid), tuple(forward), tuple(inverse))


def _average(
    images: Sequence[Image], masks: Sequence[Image], transforms: Sequence[Transform], grid: Grid
) -> tuple[Image, Image]:
    """Compute the mean image in midpoint space, and the mask that most brains share there."""
    seen = [t.resample(image, grid).data for image, t in zip(images, transforms, strict=True)]
    inside = [t.resample(mask, grid).data for mask, t in zip(masks, transforms, strict=True)]
    brains, values = torch.cat(inside).numpy() > 0.5, torch.cat(seen).numpy()
    most = brains.mean(axis=0) >= 0.5
    mean = robust_mean(values, [1.0] * len(images), brains == most)
    base, mask = (
        Image(torch.from_numpy(data.astype(np.float32))[None], grid) for data in (mean, most)
    )
    return base, mask


def register_through_base(
    fixed: Image,
    fixed_mask: Image,
    moving: Image,
    moving_mask: Image,
    base: Registration,
    within: tuple[Transform, Transform],
) -> Registration:
    """Register one image of a person to a template by way of the person's base.

    Parameters
    ----------
    fixed, fixed_mask : Image (1, 1, i, j, k)
        The template and its brain mask.
    moving, moving_mask : Image (1, 1, i, j, k)
        The image and its brain mask.
    base : Registration
        Of the base to the template.
    within : pair of Transform
        Transforms from base to image and from image to base.

    Returns
    -------
    Registration
        One displacement and one affine; the quality is that of the composition.
    """
    quality = Quality(base.quality.mode, base.quality.device, base.quality.weights)
    quality.seconds = dict(base.quality.seconds)
    with quality.timed("compose"):
        chain = base.forward.then(within[0])
        back = within[1].then(base.inverse)
        matrix = linear_part(chain)
        # The grid that a direct registration of these images would have.
        pair = make_pair(fixed, moving, matrix, fixed_mask, moving_mask)
        forward = collapse(chain, matrix, pair.grid)
        inverse = collapse_inverse(back, matrix, pair.grid)
    with quality.timed("quality"):
        quality.similarity_initial = base.quality.similarity_initial
        quality.rotation_degrees = rotation_degrees(matrix)
        assess(quality, pair, forward.displacements[0], inverse.displacements[0])
    return Registration(forward, inverse, quality)


def warped_volumes(labels: Image, transform: Transform, indices: Sequence[int]) -> list[float]:
    """Compute the volumes of regions after a transform.

    Parameters
    ----------
    labels : Image (1, 1, i, j, k)
        Regions in the space that the transform takes points from.
    transform : Transform
        From that space to any other.
    indices : sequence of int
        Labels of the regions.

    Returns
    -------
    list of float
        In mm³: the integral of the Jacobian determinant over each region.
    """
    voxel = abs(np.linalg.det(labels.grid.affine[:3, :3]))
    growth = transform.log_jacobian(labels.grid).exp()
    return [float(growth[labels.data == index].double().sum() * voxel) for index in indices]
