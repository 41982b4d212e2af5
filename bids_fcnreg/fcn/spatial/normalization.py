"""Spatial normalization: an image, its mask and the log-Jacobian on the grid of a template."""

from __future__ import annotations

import torch

from bids_fcnreg.fcn.spatial.coordinates import map_points
from bids_fcnreg.fcn.spatial.displacement import identity, jacobian_determinant
from bids_fcnreg.fcn.spatial.grid import Grid, Image, voxel_to_voxel
from bids_fcnreg.fcn.spatial.margin import with_margin
from bids_fcnreg.fcn.spatial.transform import MIN_JACOBIAN, Transform, sample_as_itk, slabs

#: Margin in mm around the template's brain, in which the log-Jacobian is given. Some millimetres
#: farther away, where deformations of brains only continue and are rounded more, it is 0.
JACOBIAN_MARGIN_MM = 0.0


def normalize(
    image: Image, mask: Image, transform: Transform, grid: Grid, template_mask: Image
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
    template_mask : Image (1, 1, i, j, k)
        Brain mask of the template, on any grid.

    Returns
    -------
    image, mask, log_jacobian : Image
        On the grid. The log-Jacobian is 0 outside the template's brain mask and a margin of at
        least `JACOBIAN_MARGIN_MM`, the same for all scans.
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
    log_jacobian *= with_margin(template_mask, JACOBIAN_MARGIN_MM, grid)
    return (
        Image(torch.cat(images, dim=2), grid),
        Image(torch.cat(masks, dim=2), grid),
        Image(log_jacobian, grid),
    )
