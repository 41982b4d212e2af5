"""Linear alignment: rigid, similarity or affine, from any orientation.

Coarse to fine. At 8 mm evenly spread rotations are tried about the objects' centres, the best
are improved, and of those the best go on to 4 mm and the winner to 2 mm. Nothing is random.
"""

from __future__ import annotations

from typing import Literal

import numpy as np

from bids_fcnreg.fcn.linear.gauss_newton import DOF, Match, improve
from bids_fcnreg.fcn.linear.initialization import distinct, rotations, starts
from bids_fcnreg.fcn.linear.pyramid import Source, level, prepare
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
    """Find the linear transform that lays the moving image on the fixed one.

    Parameters
    ----------
    fixed, moving : Image
        Data (1, channel, i, j, k) of which the first channel is used; any orientation, voxel
        size, field of view and intensity scale, but of like contrast (both T1-weighted, say).
    dof : {"rigid", "similarity", "affine"}
        6, 7 or 12 degrees of freedom.
    fixed_mask, moving_mask : Image, optional
        The brain (above 0.5), on the image's own grid. With both given, what is outside counts as
        background; with one, the similarity looks inside that mask only. Images that are
        brain-extracted with a background of zero need none.
    moving_exclude : Image, optional
        Voxels of the moving image that are not looked at (a lesion), above 0.5.
    thorough : bool
        Try all orientations. False trusts the headers to about 30 degrees.

    Returns
    -------
    ndarray (4, 4), float64
        Takes points of the fixed world to points of the moving world, RAS mm; what resampling
        the moving image onto the fixed grid needs. The determinant is positive: left and right
        are never exchanged.

    Raises
    ------
    InputError
        An image or a mask is empty or shows less than 20 ml, or a mask lies on another grid
        than its image.
    """
    if dof not in DOF:
        raise ValueError(f"dof is {dof!r}, not one of {', '.join(DOF)}")
    silhouette = (fixed_mask is None) == (moving_mask is None)
    pair = (
        prepare(fixed, "fixed", fixed_mask, None, silhouette),
        prepare(moving, "moving", moving_mask, moving_exclude, silhouette),
    )
    # A part is found in the whole more easily than the whole in a part.
    if silhouette:
        whole = pair[0].complete and pair[1].complete
        turned = not whole and pair[1].volume < pair[0].volume
    else:
        turned = moving_mask is not None
    if turned:
        return np.linalg.inv(_search((pair[1], pair[0]), dof, thorough))
    return _search(pair, dof, thorough)


def _search(pair: tuple[Source, Source], dof: Dof, thorough: bool) -> np.ndarray:
    """From the first source's world to the second's: coarse, medium, fine."""
    rough: Dof = "rigid" if dof == "rigid" else "similarity"
    found = starts(*pair, rotations(1200 if thorough else 0), dof != "rigid")
    about = pair[0].centre
    given = np.concatenate([np.eye(4)[None], found[:1]])

    coarse = _match(pair, 1.0, 8.0, 5.0, (1.0,), 4_000)
    scores = coarse.limited(1500).score(found)
    found = np.concatenate([given, found[distinct(found, scores, about, 40, 20.0)]])
    found, scores = improve(coarse, found, rough, 12, 0.5)
    found = found[distinct(found, scores, about, 6, 15.0)]

    medium = _match(pair, _zoom(found[0]), 4.0, 2.5, (0.5, 0.5), 15_000)
    found, scores = improve(medium, found, rough, 8, 0.2)
    found = found[distinct(found, scores, about, 2, 5.0)]
    found, scores = improve(medium, found, dof, 12, 0.1)
    found = found[scores.argmax()][None]

    fine = _match(pair, _zoom(found[0]), 2.0, 1.2, (0.2, 0.8), 60_000)
    found, scores = improve(fine, found, dof, 10, 0.02)
    found = np.concatenate([found, given])
    return found[np.concatenate([scores, fine.score(given)]).argmax()]


def _match(
    pair: tuple[Source, Source],
    zoom: float,
    spacing: float,
    sigma: float,
    shares: tuple[float, ...],
    points: int,
) -> Match:
    """Both images at one level; the moving one, `zoom` times as large, smoothed as much more."""
    fixed = level(pair[0], spacing, sigma, len(shares) > 1)
    moving = level(pair[1], zoom * spacing, zoom * sigma, len(shares) > 1)
    volumes = pair[0].volume, pair[1].volume / zoom**3
    return Match.between(fixed, moving, volumes, shares).limited(points)


def _zoom(matrix: np.ndarray) -> float:
    return float(np.cbrt(np.linalg.det(matrix[:3, :3])))
