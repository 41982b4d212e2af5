"""Spatial normalization: an image, its mask and the log-Jacobian on the grid of a template."""

from __future__ import annotations

from bids_fcnreg.fcn.spatial.displacement import jacobian_determinant
from bids_fcnreg.fcn.spatial.grid import Grid, Image
from bids_fcnreg.fcn.spatial.transform import MIN_JACOBIAN, Transform


def normalize(
    image: Image, mask: Image, transform: Transform, grid: Grid
) -> tuple[Image, Image, Image]:
    """Resample an image and its mask onto a template, and compute the log-Jacobian.

    Parameters
    ----------
    image, mask : Image (1, 1, i, j, k)
        In the space of the subject.
    transform : Transform
        Maps points of the template to points of the subject.
    grid : Grid
        Grid of the template.

    Returns
    -------
    image, mask, log_jacobian : Image
        On the grid.
    """
    displacement = transform.displacement(grid)
    whole = Transform((displacement,))
    log_jacobian = jacobian_determinant(displacement.field).clamp(min=MIN_JACOBIAN).log()
    return (
        whole.resample(image, grid),
        whole.resample(mask, grid, interpolation="label"),
        Image(log_jacobian, grid),
    )
