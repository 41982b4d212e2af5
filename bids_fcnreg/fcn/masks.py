"""Voxels inside a mask: their values, and the box around them."""

from __future__ import annotations

import numpy as np


def values_inside(data: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Return the values inside a mask, in the order in which a volume is stored.

    Like ``data[mask]``, which takes several times longer if i is counted fastest, as in NIfTI.

    Parameters
    ----------
    data : ndarray (i, j, k)
    mask : ndarray (i, j, k), bool

    Returns
    -------
    ndarray (n,)
    """
    return data.T[mask.T] if data.flags.f_contiguous else data[mask]


def bounding_box(mask: np.ndarray) -> tuple[slice, slice, slice]:
    """Return the smallest box with all voxels of a mask, which must not be empty.

    Examples
    --------
    >>> mask = np.zeros((4, 5, 6), bool)
    >>> mask[1, 2:4, 3] = True
    >>> bounding_box(mask)
    (slice(1, 2, None), slice(2, 4, None), slice(3, 4, None))
    """
    along_i, along_j, along_k = (
        np.flatnonzero(mask.any(axis=others)) for others in ((1, 2), (0, 2), (0, 1))
    )
    i, j, k = (slice(int(one[0]), int(one[-1]) + 1) for one in (along_i, along_j, along_k))
    return i, j, k
