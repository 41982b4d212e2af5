"""Spatial normalization: an image, its mask and the log-Jacobian on the grid of a template."""

from __future__ import annotations

import torch

from bids_fcnreg.fcn.spatial.coordinates import map_points
from bids_fcnreg.fcn.spatial.displacement import identity, jacobian_determinant
from bids_fcnreg.fcn.spatial.filters import dilate
from bids_fcnreg.fcn.spatial.grid import Grid, Image, voxel_to_voxel
from bids_fcnreg.fcn.spatial.transform import MIN_JACOBIAN, Transform, sample_as_itk, slabs

#: Up to about this distance in mm from the brain, the log-Jacobian is given. Farther away, where
#: deformations of brains only continue, it is 0.
JACOBIAN_MARGIN_MM = 3.0


def normalize(
    image: Image, mask: Image, transform: Transform, grid: Grid
) -> tuple[Image, Image, Image]:
    """Resample an image and its mask onto a template, and compute the log-Jacobian.

    The transform is evaluated once for all three.

    Parameters
    ----------
    image, mask : Image (1, 1, i, j, k)
        In the space of the subject, on one grid.
    transform : Transform
        Maps points of the template to points of the subject.
    grid : Grid
        Grid of the template.

    Returns
    -------
    image, mask, log_jacobian : Image
        On the grid. The log-Jacobian is 0 farther than `JACOBIAN_MARGIN_MM` from the brain.
    """
    device, to_image = image.data.device, voxel_to_voxel(grid, image.grid)
    moved, images, masks = [], [], []
    for slab in slabs(grid):
        moved.append(transform.coordinates_in(slab, grid, device))
        coordinates = map_points(moved[-1], to_image)
        images.append(sample_as_itk(image.data, coordinates, "linear"))
        masks.append(sample_as_itk(mask.data, coordinates, "label"))
    displaced = torch.cat(moved, dim=2)
    displacement = displaced.sub_(identity(grid.shape, displaced))
    log_jacobian = jacobian_determinant(displacement).clamp_(min=MIN_JACOBIAN).log_()
    brain = Image(torch.cat(masks, dim=2), grid)
    log_jacobian *= dilate(brain.data > 0, round(JACOBIAN_MARGIN_MM / float(grid.spacing.max())))
    return Image(torch.cat(images, dim=2), grid), brain, Image(log_jacobian, grid)
