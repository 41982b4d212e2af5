"""Linear registration: rigid, similarity or affine, from any orientation.

Coarse to fine. At 8 mm evenly spread rotations about the objects' centres are scored and the best
are optimized. The best of those are optimized at 4 mm, and the best one at 2 mm. Deterministic.
"""

from __future__ import annotations

from typing import Literal

import numpy as np

from bids_fcnreg.fcn.linear.gauss_newton import DOF, LevelPair, levenberg_marquardt
from bids_fcnreg.fcn.linear.initialization import initial_transforms, rotations, select_distinct
from bids_fcnreg.fcn.linear.pyramid import PreparedImage, make_level, prepare_image
from bids_fcnreg.fcn.parallel import for_both
from bids_fcnreg.fcn.spatial.grid import Image

Dof = Literal["rigid", "similarity", "affine"]


def align(
    fixed: Image,
    moving: Image,
    *,
    dof: Dof = "affine",
    fixed_mask: Image | None = None,
    moving_mask: Image | None = None,
    moving_exclude: Image | None = None,
    thorough: bool = True,
) -> np.ndarray:
    """Find the linear transform that aligns the moving image with the fixed one.

    Parameters
    ----------
    fixed, moving : Image
        Data (1, channel, i, j, k) of which the first channel is used; any orientation, voxel
        size, field of view and intensity scale, but of the same contrast (such as T1-weighted).
    dof : {"rigid", "similarity", "affine"}
        6, 7 or 12 degrees of freedom.
    fixed_mask, moving_mask : Image, optional
        The brain (above 0.5), on the image's own grid. With both, voxels outside are background;
        with one, the similarity is computed inside that mask only. Skull-stripped images with a
        background of zero need none.
    moving_exclude : Image, optional
        Voxels of the moving image to ignore (a lesion), above 0.5.
    thorough : bool
        Try all orientations. False trusts the headers to about 30 degrees.

    Returns
    -------
    ndarray (4, 4), float64
        Maps points of the fixed space to points of the moving space, RAS+ mm, as needed to
        resample the moving image onto the fixed grid. The determinant is positive: no reflections.

    Raises
    ------
    InputError
        An image or a mask is empty or covers less than 20 ml, or a mask is on another grid than
        its image.
    """
    if dof not in DOF:
        raise ValueError(f"dof is {dof!r}, not one of {', '.join(DOF)}")
    silhouette = (fixed_mask is None) == (moving_mask is None)
    first, second = for_both(
        prepare_image,
        (fixed, moving),
        ("fixed", "moving"),
        (fixed_mask, moving_mask),
        (None, moving_exclude),
        (silhouette, silhouette),
    )
    pair = first, second
    # Searching a part in the whole is easier than the whole in a part.
    if silhouette:
        whole = pair[0].complete and pair[1].complete
        swapped = not whole and pair[1].volume < pair[0].volume
    else:
        swapped = moving_mask is not None
    if swapped:
        return np.linalg.inv(_search((pair[1], pair[0]), dof, thorough))
    return _search(pair, dof, thorough)


def _search(pair: tuple[PreparedImage, PreparedImage], dof: Dof, thorough: bool) -> np.ndarray:
    """Search the transform from the first to the second image: coarse, medium, fine."""
    rough: Dof = "rigid" if dof == "rigid" else "similarity"
    found = initial_transforms(*pair, rotations(1200 if thorough else 0), dof != "rigid")
    centre = pair[0].centre
    headers = np.concatenate([np.eye(4)[None], found[:1]])

    coarse = _level_pair(pair, 1.0, 8.0, 5.0, (1.0,), 4_000)
    scores = coarse.subsampled(1500).score(found)
    found = np.concatenate([headers, found[select_distinct(found, scores, centre, 40, 20.0)]])
    found, scores = levenberg_marquardt(coarse, found, rough, 12, 0.5)
    found = found[select_distinct(found, scores, centre, 6, 15.0)]

    medium = _level_pair(pair, _zoom(found[0]), 4.0, 2.5, (0.5, 0.5), 15_000)
    found, scores = levenberg_marquardt(medium, found, rough, 8, 0.2)
    found = found[select_distinct(found, scores, centre, 2, 5.0)]
    found, scores = levenberg_marquardt(medium, found, dof, 12, 0.1)
    found = found[scores.argmax()][None]

    fine = _level_pair(pair, _zoom(found[0]), 2.0, 1.2, (0.2, 0.8), 60_000)
    found, scores = levenberg_marquardt(fine, found, dof, 10, 0.02)
    found = np.concatenate([found, headers])
    return found[np.concatenate([scores, fine.score(headers)]).argmax()]


def _level_pair(
    pair: tuple[PreparedImage, PreparedImage],
    zoom: float,
    spacing: float,
    sigma: float,
    shares: tuple[float, ...],
    points: int,
) -> LevelPair:
    """Prepare both images at one level; spacing and smoothing of the moving one times `zoom`."""
    edges = len(shares) > 1
    fixed, moving = for_both(
        make_level, pair, (spacing, zoom * spacing), (sigma, zoom * sigma), (edges, edges)
    )
    volumes = pair[0].volume, pair[1].volume / zoom**3
    return LevelPair.from_levels(fixed, moving, volumes, shares, points)


def _zoom(matrix: np.ndarray) -> float:
    return float(np.cbrt(np.linalg.det(matrix[:3, :3])))
