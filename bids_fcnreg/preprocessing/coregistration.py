"""Rigid alignment of images of different contrasts of one head."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy.spatial.transform import Rotation
from torch import Tensor

from bids_fcnreg.errors import InputError
from bids_fcnreg.fcn.linear.align import align
from bids_fcnreg.fcn.losses.similarity import FixedWindows
from bids_fcnreg.fcn.spatial.filters import gaussian
from bids_fcnreg.fcn.spatial.grid import Grid, Image
from bids_fcnreg.fcn.spatial.transform import Affine, Transform
from bids_fcnreg.preprocessing.any_contrast import Brain, prepare_brain
from bids_fcnreg.preprocessing.mirror import (
    SURELY_RIGHT,
    is_mirrored,
    mirrored,
    mirrored_reason,
    start_of_mirrored,
)

#: Voxel size in mm at which alignments are compared, and radius in voxels of the local windows.
SPACING_MM, RADIUS = 2.0, 2

#: Standard deviation of the smoothing by a voxel, in voxels.
VOXEL_SIGMA = 0.4

#: Similarities below the first are doubtful; images below the second are not aligned. Eight pairs
#: of one head (voxels up to 5.5 mm) have 0.83 to 0.97; mirrored 0.51 to 0.73; after an error of 5
#: mm 0.55 to 0.63, of 5 degrees 0.68 to 0.78, of 10 mm 0.26 to 0.43, of 10 degrees 0.50 to 0.56.
#: Heads of different people have up to 0.62.
DOUBTFUL, LEAST_SIMILARITY = 0.8, 0.65

#: Rotations in degrees from which a scan is segmented again, upright.
TILT = 10.0


@dataclass(frozen=True, eq=False)
class Alignment:
    """Rigid alignment of a scan with a reference.

    Attributes
    ----------
    matrix : ndarray (4, 4), float64
        Maps points of the reference to points of the scan, RAS+ mm.
    similarity : float
        Median over the brain of the local correlation (signed square, window of 10 mm) of both
        images like a T1w brain.
    coverage : float
        Fraction of the reference's brain in the scan's field of view.
    similarity_mirrored : float
        Similarity of the mirrored scan; 0 if it was not tried.
    """

    matrix: np.ndarray
    similarity: float
    coverage: float
    similarity_mirrored: float = 0.0

    @property
    def mirrored(self) -> bool:
        """Whether left and right are exchanged in one of the images."""
        return is_mirrored(self.similarity, self.similarity_mirrored, LEAST_SIMILARITY)

    @property
    def verdict(self) -> str:
        """``good``, ``doubtful`` or ``failed``."""
        if self.similarity < LEAST_SIMILARITY or self.mirrored:
            return "failed"
        return "doubtful" if self.similarity < DOUBTFUL else "good"


def align_scan(scan: Image, fixed: Image, fixed_mask: Image) -> tuple[Brain, Alignment]:
    """Align a scan of any contrast rigidly with a reference.

    The network sees a head best upright: a scan that is turned by more than `TILT` relative to the
    reference is segmented and aligned again with the orientation of the reference.

    Parameters
    ----------
    scan : Image (1, 1, i, j, k)
        Head or brain.
    fixed, fixed_mask : Image (1, 1, i, j, k)
        Brain of the reference like that of a T1w image, and its mask.

    Raises
    ------
    InputError
        If no brain is found, or the field of view is too large for a head.
    """
    brain = prepare_brain(scan)
    matrix = _align(brain, fixed, fixed_mask)
    if Rotation.from_matrix(matrix[:3, :3]).magnitude() > np.deg2rad(TILT):
        upright = Grid(scan.grid.shape, np.linalg.inv(matrix) @ scan.grid.affine)
        turned = prepare_brain(Image(scan.data, upright), brain=Image(brain.mask.data, upright))
        matrix = matrix @ _align(turned, fixed, fixed_mask)
        image, mask, t1w_like, tissues = (
            Image(part.data, scan.grid)
            for part in (turned.image, turned.mask, turned.t1w_like, turned.tissues)
        )
        brain = Brain(image, mask, t1w_like, tissues, turned.anatomy)
    similarity, coverage = compare_brains(fixed, fixed_mask, brain.t1w_like, matrix)
    of_mirrored = 0.0
    if similarity < SURELY_RIGHT:
        of_mirrored = _similarity_of_mirrored(
            brain.t1w_like, brain.mask, fixed, fixed_mask, matrix
        )
    return brain, Alignment(matrix, similarity, coverage, of_mirrored)


def check_sides(
    images: Sequence[Image],
    masks: Sequence[Image],
    matrices: Sequence[np.ndarray],
    names: Sequence[str],
) -> None:
    """Refuse images of one head if left and right are exchanged between them.

    Parameters
    ----------
    images, masks : sequence of Image (1, 1, i, j, k)
        Images of one contrast, without bias field, and their brain masks.
    matrices : sequence of ndarray (4, 4)
        Rigid, from one space to each image, RAS+ mm.
    names : sequence of str
        Names of the images in messages.

    Raises
    ------
    InputError
        If an image is more similar to the first when it is mirrored.
    """
    brains = [
        Image(image.data * (mask.data > 0.5), image.grid)
        for image, mask in zip(images, masks, strict=True)
    ]
    others = zip(brains[1:], masks[1:], matrices[1:], names[1:], strict=True)
    for brain, mask, matrix, name in others:
        from_first = matrix @ np.linalg.inv(matrices[0])
        similarity, _ = compare_brains(brains[0], masks[0], brain, from_first)
        if similarity < SURELY_RIGHT:
            of_mirrored = _similarity_of_mirrored(brain, mask, brains[0], masks[0], from_first)
            if is_mirrored(similarity, of_mirrored, LEAST_SIMILARITY):
                reason = mirrored_reason(similarity, of_mirrored, names[0])
                raise InputError(f"{name}: {reason}, or exclude one.")


def _similarity_of_mirrored(
    image: Image, mask: Image, fixed: Image, fixed_mask: Image, matrix: np.ndarray
) -> float:
    """Align the mirror image of a brain with a reference; `matrix` aligns it as it is."""
    other = mirrored(image)
    found = align(
        fixed,
        other,
        fixed_mask=fixed_mask,
        moving_mask=mirrored(mask),
        dof="rigid",
        initial=start_of_mirrored(matrix, fixed_mask),
    )
    return compare_brains(fixed, fixed_mask, other, found)[0]


def _align(brain: Brain, fixed: Image, fixed_mask: Image) -> np.ndarray:
    """Return the rigid matrix from points of the reference to points of a brain."""
    moving, mask = brain.t1w_like, brain.mask
    return align(fixed, moving, fixed_mask=fixed_mask, moving_mask=mask, dof="rigid")


def compare_brains(
    fixed: Image, fixed_mask: Image, moving: Image, matrix: np.ndarray
) -> tuple[float, float]:
    """Compare two aligned brains that are like T1w images.

    Parameters
    ----------
    fixed, fixed_mask, moving : Image (1, 1, i, j, k)
        Both brains, and the mask of the first.
    matrix : ndarray (4, 4)
        Maps points of the fixed space to points of the moving space, RAS+ mm.

    Returns
    -------
    similarity, coverage : float
        See `Alignment`; both are 0 if the images do not overlap.
    """
    grid = fixed.grid.straightened(SPACING_MM)
    brain = _resampled(fixed_mask, np.eye(4), grid) > 0.5
    seen = _resampled(Image(torch.ones_like(moving.data), moving.grid), matrix, grid) > 0.99
    both = brain & seen
    if not both.any():
        return 0.0, 0.0
    reference = _resampled(_smoothed(fixed), np.eye(4), grid)
    moved = _resampled(_smoothed(moving), matrix, grid)
    local = FixedWindows(reference, radius=RADIUS).compare(moved).value
    return float(local[both].median()), float(both.sum() / brain.sum())


def _resampled(image: Image, matrix: np.ndarray, grid: Grid) -> Tensor:
    return Transform((Affine(matrix),)).resample(image, grid).data


def _smoothed(image: Image) -> Image:
    """Smooth an image to the resolution at which alignments are compared."""
    own = VOXEL_SIGMA * image.grid.spacing
    sigma = np.sqrt(np.maximum(SPACING_MM**2 - own**2, 0)) / image.grid.spacing
    return Image(gaussian(image.data, sigma), image.grid)
