"""Linear registration: rigid, similarity or affine, from any orientation.

Coarse to fine. At 8 mm evenly spread rotations about the objects' centres are scored and the best
are optimized. The best of those are optimized at 4 mm, and the best one at 2 mm. Deterministic.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from scipy.linalg import polar

from bids_fcnreg.errors import InputError
from bids_fcnreg.fcn.linear.gauss_newton import DOF, LevelPair, levenberg_marquardt
from bids_fcnreg.fcn.linear.initialization import initial_transforms, rotations, select_distinct
from bids_fcnreg.fcn.linear.pyramid import PreparedImage, make_level, prepare_image
from bids_fcnreg.fcn.parallel import for_both
from bids_fcnreg.fcn.spatial.grid import Image, apply_affine

Dof = Literal["rigid", "similarity", "affine"]


def align(
    fixed: Image,
    moving: Image,
    *,
    dof: Dof = "affine",
    fixed_mask: Image | None = None,
    moving_mask: Image | None = None,
    moving_exclude: Image | None = None,
    fixed_exclude: Image | None = None,
    initial: np.ndarray | None = None,
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
    moving_exclude, fixed_exclude : Image, optional
        Voxels of the moving and of the fixed image to ignore (a lesion), above 0.5.
    initial : ndarray (4, 4), optional
        Initial transform, which replaces the search over orientations: fixed to moving points,
        RAS+ mm. The nearest rigid or similarity transform is used if `dof` requires one.
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
        (fixed_exclude, moving_exclude),
        (silhouette, silhouette),
    )
    pair = first, second
    # Searching a part in the whole is easier than the whole in a part.
    if silhouette:
        whole = pair[0].complete and pair[1].complete
        swapped = not whole and pair[1].volume < pair[0].volume
    else:
        swapped = moving_mask is not None
    if initial is not None:
        initial = nearest_in_group(initial, dof, first.centre)
    if swapped:
        start = None if initial is None else np.linalg.inv(initial)
        return np.linalg.inv(_search((pair[1], pair[0]), dof, thorough, start))
    return _search(pair, dof, thorough, initial)


def _search(
    pair: tuple[PreparedImage, PreparedImage],
    dof: Dof,
    thorough: bool,
    initial: np.ndarray | None = None,
) -> np.ndarray:
    """Search the transform from the first to the second image: coarse, medium, fine."""
    rough: Dof = "rigid" if dof == "rigid" else "similarity"
    centre = pair[0].centre
    if initial is None:
        found = initial_transforms(*pair, rotations(1200 if thorough else 0), dof != "rigid")
        candidates = np.concatenate([np.eye(4)[None], found[:1]])
    else:
        found, candidates = np.empty((0, 4, 4)), initial[None]

    coarse = _level_pair(pair, _zoom(candidates[0]), 8.0, 5.0, (1.0,), 4_000)
    if len(found):
        scores = coarse.subsampled(1500).score(found)
        found = found[select_distinct(found, scores, centre, 40, 20.0)]
    found = np.concatenate([candidates, found])
    found, scores = levenberg_marquardt(coarse, found, rough, 12, 0.5)
    found = found[select_distinct(found, scores, centre, 6, 15.0)]

    medium = _level_pair(pair, _zoom(found[0]), 4.0, 2.5, (0.5, 0.5), 15_000)
    found, scores = levenberg_marquardt(medium, found, rough, 8, 0.2)
    found = found[select_distinct(found, scores, centre, 2, 5.0)]
    found, scores = levenberg_marquardt(medium, found, dof, 12, 0.1)
    found = found[scores.argmax()][None]

    fine = _level_pair(pair, _zoom(found[0]), 2.0, 1.2, (0.2, 0.8), 60_000)
    found, scores = levenberg_marquardt(fine, found, dof, 10, 0.02)
    found = np.concatenate([found, candidates])
    return found[np.concatenate([scores, fine.score(candidates)]).argmax()]


def nearest_in_group(matrix: np.ndarray, dof: Dof, point: np.ndarray) -> np.ndarray:
    """Return the rigid, similarity or affine transform nearest to a linear transform.

    Parameters
    ----------
    matrix : ndarray (4, 4)
        Fixed to moving points, RAS+ mm, with a positive determinant.
    dof : {"rigid", "similarity", "affine"}
        The kind of transform.
    point : ndarray (3,)
        Point of the fixed space, RAS+ mm, that both map to the same point.

    Returns
    -------
    ndarray (4, 4)

    Raises
    ------
    InputError
        If the determinant is not positive.

    Examples
    --------
    >>> nearest_in_group(np.diag([2.0, 2.0, 2.0, 1.0]), "rigid", np.ones(3))[:3].tolist()
    [[1.0, 0.0, 0.0, 1.0], [0.0, 1.0, 0.0, 1.0], [0.0, 0.0, 1.0, 1.0]]
    """
    determinant = np.linalg.det(matrix[:3, :3])
    if determinant <= 0:
        raise InputError(
            "The initial transform exchanges left and right (negative determinant), or is "
            "singular. Check how it was made."
        )
    if dof == "affine":
        return matrix
    rotation, _ = polar(matrix[:3, :3])
    nearest = np.eye(4)
    nearest[:3, :3] = rotation * (np.cbrt(determinant) if dof == "similarity" else 1.0)
    nearest[:3, 3] = apply_affine(matrix, point) - nearest[:3, :3] @ point
    return nearest


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
