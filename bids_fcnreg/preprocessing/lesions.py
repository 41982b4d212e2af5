"""Lesion masks: threshold and plausibility."""

from __future__ import annotations

import os
import zlib
from collections.abc import Sequence
from pathlib import Path

import nibabel as nib
import numpy as np

from bids_fcnreg.errors import InputError
from bids_fcnreg.fcn.spatial.grid import Grid
from bids_fcnreg.io.labels import are_integers
from bids_fcnreg.io.nifti import ImageSource, canonical_grid, load, open_source, read_grid
from bids_fcnreg.io.spatial_image import open_image

#: Integers up to this are labels of lesions.
MAX_LABELS = 20

#: Larger integers are labels if at least this fraction of the numbers up to the maximum occurs,
#: and this fraction of neighbours, not counting those of the maximum, are equal.
MIN_USED, MIN_EQUAL = 0.5, 0.5

#: Largest negative value of interpolation, as a fraction of the maximum.
OVERSHOOT = 0.25

#: Largest fraction of the brain that may be excluded from the similarity.
MAX_BRAIN_FRACTION = 0.5


def read_lesion(source: ImageSource) -> nib.Nifti1Image | None:
    """Read a lesion mask, a file or an image in memory.

    Returns
    -------
    nibabel.Nifti1Image or None
        1 in the lesion, 0 elsewhere; None if the mask is empty (no lesion).

    Raises
    ------
    InputError
        If it cannot be read, or contains negative values that interpolation does not explain.
    """
    if is_empty(source):
        return None
    loaded = load(source, role="lesion mask")
    data = np.asarray(loaded.dataobj)
    if data.min() < -OVERSHOOT * data.max():
        raise InputError(
            f"The lesion mask {_name(source)} contains negative values. Save it with 1 in the "
            "lesion and 0 elsewhere."
        )
    return nib.Nifti1Image((data >= threshold(data)).astype("uint8"), loaded.affine)


def is_empty(source: ImageSource) -> bool:
    """Return whether a mask is zero everywhere."""
    mask, _ = open_source(source, "lesion mask")
    try:
        return not np.nan_to_num(np.asanyarray(mask.dataobj)).any()
    except (OSError, EOFError, ValueError, zlib.error):
        return False  # `load` reports it


def _name(source: ImageSource) -> str:
    """Return the file of an image, for messages."""
    if isinstance(source, nib.spatialimages.SpatialImage):
        return source.get_filename() or "in memory"
    return os.fspath(source)


def threshold(data: np.ndarray) -> float:
    """Return the threshold of a lesion mask.

    Half of the maximum, or 0.5 for labels (small integers), each of which is a lesion.

    Examples
    --------
    >>> threshold(np.array([0, 0.02, 0.9])), threshold(np.array([0, 100, 255]))
    (0.45, 127.5)
    >>> threshold(np.array([0, 1, 2, 3]))
    0.5
    """
    return 0.5 if _are_labels(data) else float(data.max()) / 2


def _are_labels(data: np.ndarray) -> bool:
    """Return whether each positive value is the label of a lesion."""
    if data.min() < 0 or not are_integers(data):
        return False
    labels = np.rint(data)
    highest = labels.max()
    if np.count_nonzero(labels) != np.count_nonzero(data):
        return False  # traces of an interpolation
    if highest <= MAX_LABELS:
        return True
    if len(np.unique(labels)) - 1 < MIN_USED * highest:
        return False
    # A probability differs at each voxel of the rim of a lesion; labels are constant.
    equal = pairs = 0
    for axis in range(3):
        here, following = np.swapaxes(labels, 0, axis)[:-1], np.swapaxes(labels, 0, axis)[1:]
        both = (here > 0) & (following > 0) & (np.minimum(here, following) < highest)
        pairs += int(both.sum())
        equal += int((both & (here == following)).sum())
    return equal >= MIN_EQUAL * pairs


def lesion_value_warning(path: str | os.PathLike[str]) -> str | None:
    """Return a warning about the values of a lesion mask, or None if it is binary.

    None for a file that cannot be read, which `read_lesion` reports.
    """
    try:
        data = np.asarray(load(path).dataobj)
    except InputError:
        return None
    if _are_labels(data) or len(np.unique(data[data != 0])) < 2:
        return None
    return (
        f"The lesion mask {path} is not binary: its values range from {data.min():.2g} to "
        f"{data.max():.3g}. Values from {threshold(data):.3g} are used as lesion. Check the mask."
    )


def lesion_position_warning(
    path: str | os.PathLike[str], t1w: Sequence[str | os.PathLike[str]]
) -> str | None:
    """Return a warning about a lesion mask of the shape of its T1w image that lies elsewhere.

    The header of one of the two may have been changed after the mask was drawn. None for a file
    that cannot be read, which `read_lesion` reports.

    Parameters
    ----------
    path : path
        Lesion mask.
    t1w : sequence of path
        Runs of its T1w image.
    """
    try:
        mask, runs = read_grid(path), [read_grid(run) for run in t1w]
    except InputError:
        return None
    matching = [n for n, run in enumerate(runs) if run.shape == mask.shape]
    known = [canonical_grid(run).distance(canonical_grid(mask)) for run in runs]
    if not matching or min(known) <= mask.spacing.max():
        return None
    return (
        f"The lesion mask {path} has the shape of {t1w[matching[0]]}, but its header gives "
        "another position or orientation. Check that it is that of the image the mask was drawn "
        "on."
    )


def unite_lesions(
    sources: Sequence[ImageSource], grid: Grid, brain: np.ndarray | None
) -> np.ndarray:
    """Unite lesion masks on the grid of an image.

    Parameters
    ----------
    sources : sequence of path or nibabel image
        Lesion masks, on any grid; they are resampled by world coordinates.
    grid : Grid
        Grid of the image.
    brain : ndarray (i, j, k), bool, or None
        Brain mask on that grid, if known.

    Returns
    -------
    ndarray (i, j, k), bool

    Raises
    ------
    InputError
        If a lesion is outside the image, or lesions cover more than half of the brain.
    """
    from bids_fcnreg.io.resampling import resample_mask  # imports PyTorch

    united = np.zeros(grid.shape, bool)
    if brain is None:
        brain = np.zeros(grid.shape, bool)
    names = [_name(source) for source in sources]
    for source, name in zip(sources, names, strict=True):
        mask = read_lesion(source)
        if mask is None:
            continue
        lesion = resample_mask(mask, grid)
        if not lesion.any():
            raise InputError(
                f"The lesion mask {name} is outside its T1w image. Check that its affine is that "
                "of the image it was drawn on."
            )
        check_lesion_size(lesion, brain, [name])
        united |= lesion
    check_lesion_size(united, brain, names)
    return united


def excluded_percent(lesion: str, brain: str | None) -> float | None:
    """Compute the lesion percentage of a brain.

    Parameters
    ----------
    lesion : str
        File of the lesion mask.
    brain : str or None
        File of the brain mask, on the same grid.

    Returns
    -------
    float or None
        None without a brain mask, unless there is no lesion.
    """
    if is_empty(lesion):
        return 0.0
    if brain is None:
        return None
    masks = (np.asanyarray(open_image(path).dataobj) > 0.5 for path in (lesion, brain))
    return 100 * lesion_fraction(*masks)


def check_lesion_size(lesion: np.ndarray, brain: np.ndarray, paths: Sequence[str]) -> None:
    """Reject lesions that cover too much of a brain.

    Parameters
    ----------
    lesion, brain : ndarray (i, j, k), bool
        On one grid.
    paths : sequence of str
        Files of the lesion masks.

    Raises
    ------
    InputError
        If more than `MAX_BRAIN_FRACTION` of the brain is lesion.
    """
    fraction = lesion_fraction(lesion, brain)
    if fraction > MAX_BRAIN_FRACTION:
        masks = "The lesion mask" + (f" {paths[0]} covers" if len(paths) == 1 else "s cover")
        names = "" if len(paths) == 1 else f" ({', '.join(Path(path).name for path in paths)})"
        raise InputError(
            f"{masks} {100 * fraction:.0f} % of the brain{names}, so it may be inverted "
            "(1 = healthy). Save it with 1 in the lesion and 0 elsewhere."
        )


def lesion_fraction(lesion: np.ndarray, brain: np.ndarray) -> float:
    """Compute the fraction of a brain that is lesion, 0 to 1."""
    return float((lesion & brain).sum() / max(1, brain.sum()))
