"""Lesion masks: which of their values mean lesion, and how much of the brain they leave."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import torch

from bids_fcnreg.errors import InputError
from bids_fcnreg.fcn.spatial.grid import Image
from bids_fcnreg.io import image
from bids_fcnreg.io.spatial_image import open_image

#: Whole numbers up to this are labels, each of a lesion.
MOST_LABELS = 20

#: Interpolation leaves negative values, of at most this share of the maximum.
OVERSHOOT = 0.25

#: Largest share of the brain that may be left out of the similarity.
LARGEST_SHARE = 0.5


def read_lesion(path: str | os.PathLike[str]) -> Image | None:
    """Read a lesion mask.

    Returns
    -------
    Image (1, 1, i, j, k) or None
        1 in the lesion, 0 elsewhere; None if the mask is empty, which says there is no lesion.

    Raises
    ------
    InputError
        If it cannot be read, or holds values below zero that interpolation does not explain.
    """
    if not np.nan_to_num(np.asanyarray(open_image(path).dataobj)).any():
        return None
    loaded = image.load(path)
    data = np.asarray(loaded.dataobj)
    if data.min() < -OVERSHOOT * data.max():
        raise InputError(
            f"The lesion mask {path} holds values below zero: save it with 1 in the lesion and 0 "
            "elsewhere."
        )
    inside = torch.from_numpy(data >= threshold(data)).float()
    return Image(inside[None, None], image.grid_of(loaded))


def threshold(data: np.ndarray) -> float:
    """Return the least value of a lesion mask that means lesion.

    That is half of the maximum. Small whole numbers are labels, each of which is a lesion.

    Examples
    --------
    >>> threshold(np.array([0, 0.02, 0.9])), threshold(np.array([0, 100, 255]))
    (0.45, 127.5)
    >>> threshold(np.array([0, 1, 2, 3]))
    0.5
    """
    return 0.5 if _are_labels(data) else float(data.max()) / 2


def _are_labels(data: np.ndarray) -> bool:
    """Whether each value above zero stands for a lesion."""
    return bool(data.max() <= MOST_LABELS and not (data % 1).any())


def lesion_value_warning(path: str | os.PathLike[str]) -> str | None:
    """Return what a user must know of the values of a lesion mask, or None if it is binary.

    A file that cannot be read has nothing said of it: `read_lesion` refuses it.
    """
    try:
        data = np.asarray(image.load(path).dataobj)
    except InputError:
        return None
    if _are_labels(data) or len(np.unique(data[data != 0])) < 2:
        return None
    return (
        f"The lesion mask {path} is not binary: its values reach from {data.min():.2g} to "
        f"{data.max():.3g}, and those from {threshold(data):.3g} are taken as lesion. Check it."
    )


def check_share(lesion: np.ndarray, brain: np.ndarray, paths: list[str]) -> None:
    """Refuse lesions that leave too little of a brain.

    Parameters
    ----------
    lesion, brain : ndarray (i, j, k), bool
        On one grid.
    paths : list of str
        Lesion masks that `lesion` comes from.

    Raises
    ------
    InputError
        If more than `LARGEST_SHARE` of the brain is lesion.
    """
    share = share_of(lesion, brain)
    if share > LARGEST_SHARE:
        masks = "The lesion mask" + (f" {paths[0]} covers" if len(paths) == 1 else "s cover")
        names = "" if len(paths) == 1 else f" ({', '.join(Path(path).name for path in paths)})"
        raise InputError(
            f"{masks} {100 * share:.0f} % of the brain{names}: is the mask inverted "
            "(1 = healthy)? Save it with 1 in the lesion and 0 elsewhere."
        )


def share_of(lesion: np.ndarray, brain: np.ndarray) -> float:
    """Compute how much of a brain, 0 to 1, is lesion."""
    return float((lesion & brain).sum() / max(1, brain.sum()))
