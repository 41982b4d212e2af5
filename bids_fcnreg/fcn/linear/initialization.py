"""Initial transforms of the linear registration, evenly spread over all orientations."""

from __future__ import annotations

import numpy as np
from scipy.spatial.transform import Rotation

from bids_fcnreg.fcn.linear.pyramid import PreparedImage


def rotations(count: int) -> np.ndarray:
    """Return evenly spread rotations, the identity first.

    Parameters
    ----------
    count : int
        Number of rotations besides the identity.

    Returns
    -------
    ndarray (count + 1, 3, 3)
        Super-Fibonacci spirals of Alexa (CVPR 2022).
    """
    s = np.arange(count) + 0.5
    t = s / count
    alpha = 2 * np.pi * s / np.sqrt(2)
    beta = 2 * np.pi * s / 1.533751168755204288118041
    inner, outer = np.sqrt(t), np.sqrt(1 - t)
    x, y = inner * np.sin(alpha), inner * np.cos(alpha)
    z, w = outer * np.sin(beta), outer * np.cos(beta)
    spiral = Rotation.from_quat(np.stack([x, y, z, w], axis=1)).as_matrix()
    return np.concatenate([np.eye(3)[None], spiral])


def initial_transforms(
    fixed: PreparedImage, moving: PreparedImage, rotations: np.ndarray, scalable: bool
) -> np.ndarray:
    """Return initial transforms (b, 4, 4), fixed to moving, RAS+ mm, for given rotations.

    Each aligns the objects' centres of mass. If an object is cut off, so that its centre of mass
    is unreliable, the centres of the fields of view and the positions in the headers are tried as
    well. The scale is 1 and, if it may change and both objects are complete, that of the volumes.
    """
    scales = [1.0]
    if scalable and fixed.complete and moving.complete:
        ratio = (moving.volume / fixed.volume) ** (1 / 3)
        if abs(np.log(ratio)) > 0.05:
            scales.append(float(np.clip(ratio, 0.6, 1.7)))
    centres = [(fixed.centre, moving.centre)]
    if not (fixed.complete and moving.complete):
        centres.append((fixed.middle, moving.middle))
        centres.append((fixed.centre, fixed.centre))
    result = []
    for scale in scales:
        for about, target in centres:
            matrices = np.tile(np.eye(4), (len(rotations), 1, 1))
            matrices[:, :3, :3] = scale * rotations
            matrices[:, :3, 3] = target - scale * rotations @ about
            result.append(matrices)
    return np.concatenate(result)


def select_distinct(
    matrices: np.ndarray, scores: np.ndarray, centre: np.ndarray, count: int, apart_mm: float
) -> np.ndarray:
    """Return indices of the best transforms, best first, without near duplicates.

    Two are distinct if they map the corners of a 100 mm cube around the point `centre` (RAS+ mm)
    more than `apart_mm` apart on average.
    """
    corners = centre[:, None] + np.array(np.meshgrid(*[[-50, 50]] * 3)).reshape(3, -1)
    moved = matrices[:, :3, :3] @ corners + matrices[:, :3, 3:]
    chosen: list[int] = []
    for n in np.argsort(-scores, kind="stable"):
        gaps = np.linalg.norm(moved[chosen] - moved[n], axis=1).mean(1)
        if (gaps > apart_mm).all():
            chosen.append(int(n))
        if len(chosen) == count:
            break
    return np.array(chosen)
