"""Find out whether left and right are exchanged in one of two images of a head."""

from __future__ import annotations

import numpy as np

from bids_fcnreg.fcn.groupwise import MIRROR
from bids_fcnreg.fcn.spatial.grid import Grid, Image

#: Below this similarity of aligned images, the mirrored one is tried.
SURELY_RIGHT = 0.9

#: An image is mirrored if that makes it more similar by more than this. Without an error, it makes
#: images of one head less similar by 0.2 and more.
MIRRORED_GAIN = 0.05


def is_mirrored(similarity: float, of_mirrored: float, least: float) -> bool:
    """Return whether an image is mirrored, by its similarities as it is and mirrored.

    `least` is the least similarity of images of one head.
    """
    return of_mirrored >= max(least, similarity + MIRRORED_GAIN)


def mirrored(image: Image) -> Image:
    """Return the mirror image: the same voxels in another place."""
    return Image(image.data, Grid(image.grid.shape, MIRROR @ image.grid.affine))


def start_of_mirrored(matrix: np.ndarray, inside: Image) -> np.ndarray:
    """Return the start of a rigid alignment with the mirrored moving image.

    Parameters
    ----------
    matrix : ndarray (4, 4)
        Rigid alignment with the moving image as it is: fixed to moving points, RAS+ mm.
    inside : Image (1, 1, i, j, k)
        Nonzero in the fixed object, which is assumed to be nearly symmetric left–right.

    Returns
    -------
    ndarray (4, 4)
        Fixed points to points of the mirrored image; a rotation.
    """
    across = MIRROR.copy()
    across[0, 3] = 2 * float(inside.grid.points()[inside.data[0, 0] > 0.5][:, 0].mean())
    return MIRROR @ matrix @ across


def mirrored_reason(similarity: float, of_mirrored: float, reference: str) -> str:
    """Say that left and right are exchanged in an image or in the reference."""
    return (
        f"left and right are exchanged in it or in {reference} (similarity {similarity:.2f}, "
        f"mirrored {of_mirrored:.2f}). Convert both again"
    )
