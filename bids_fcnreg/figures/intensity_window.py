"""Intensity window of a brain in figures."""

from __future__ import annotations

import numpy as np

from bids_fcnreg.fcn.masks import values_inside

#: Percentiles of the brain's intensities, robust to vessels and single voxels.
PERCENTILES = 2, 98

#: Margin below and above these, as a fraction of their distance.
MARGIN = 0.15


def intensity_window(data: np.ndarray, inside: np.ndarray | None = None) -> tuple[float, float]:
    """Return the intensities shown as black and white for a well visible brain.

    Parameters
    ----------
    data : ndarray
        Intensities. The skull, vessels, outliers, and NaN have no influence.
    inside : ndarray of bool, optional
        Brain, of the same shape. By default, or if empty, voxels brighter than half of the nonzero
        ones.

    Returns
    -------
    (float, float)
        In increasing order.
    """
    values = values_inside(data, inside) if inside is not None else data[:0]
    values = values[np.isfinite(values)]
    if not values.size:
        values = data[np.isfinite(data) & (data != 0)]
        values = values[values >= np.median(values)] if values.size else np.zeros(1)
    lower, upper = np.percentile(values.astype("float64"), PERCENTILES)
    if upper == lower:
        spread = max(abs(upper), 1.0) / 2
        return float(lower - spread), float(upper + spread)
    margin = MARGIN * (upper - lower)
    return float(lower - margin), float(upper + margin)
