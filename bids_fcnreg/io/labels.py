"""Label images: integer values, and their consecutive indices."""

from __future__ import annotations

import os

import numpy as np

from bids_fcnreg.io.nifti import load, open_source

#: Relative and absolute tolerance of label values (scaling in single precision may be fitted to
#: 65535 instead of 65536 steps).
LABEL_TOLERANCE, MAX_LABEL_ERROR = 2e-5, 0.2

#: Labels are counted by a table of up to this size.
LARGEST_TABLE = 2**24


def are_integers(values: np.ndarray) -> bool:
    """Return whether values are integers, up to rounding of a scaling in single precision."""
    allowed = np.clip(2e-5 * np.abs(values), 1e-3, 0.2)
    return bool((np.abs(values - np.rint(values)) <= allowed).all())


def index_label_values(labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Replace labels by consecutive indices, and return the labels by index.

    An `Image` represents integers exactly up to 2^24 only, and labels may be larger. Index 0 is
    the background, 0.

    Returns
    -------
    ndarray, float32
        Of the shape of `labels`.
    ndarray
        Labels, rounded to integers, in the order of their indices.
    """
    whole = np.rint(labels)
    lowest, highest = whole.min(initial=0), whole.max(initial=0)
    if highest - lowest < LARGEST_TABLE:  # without sorting
        indices = (whole - lowest).astype(np.int32)
        values = np.arange(lowest, highest + 1)
        used = np.bincount(indices.ravel(), minlength=len(values)) > 0
    else:
        values, indices = np.unique(whole, return_inverse=True)
        used = np.ones(len(values), bool)
    used &= values != 0
    number = np.zeros(len(values), np.float32)
    number[used] = np.arange(1, np.count_nonzero(used) + 1)
    return number[indices].reshape(labels.shape), np.append(0, values[used])


def read_label_values(path: str | os.PathLike[str]) -> np.ndarray | None:
    """Return the sorted values of a label image, corrected for rounding of its scaling.

    Returns
    -------
    ndarray or None
        None if values differ from integers by more than the rounding of the file's scaling.

    Raises
    ------
    InputError
        See `bids_fcnreg.io.nifti.load`.
    """
    values = np.unique(load(path, dtype="float64").get_fdata())
    stored, _ = open_source(path, "labels")
    slope = getattr(stored.dataobj, "slope", 1)
    scaled = stored.get_data_dtype().kind in "iu" and slope != 1
    step = abs(float(slope)) if scaled else 0.0
    nearest = np.rint(values)
    allowed = np.maximum(step / 2, LABEL_TOLERANCE * np.maximum(1, np.abs(values)))
    if (np.abs(values - nearest) > np.minimum(allowed, MAX_LABEL_ERROR)).any():
        return None
    return np.unique(nearest)
