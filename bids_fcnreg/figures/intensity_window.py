"""Range of intensities in which figures show a brain."""

from __future__ import annotations

import numpy as np

#: Percentiles of the brain's intensities: what vessels and single voxels have does not count.
PERCENTILES = 2, 98

#: Shown below and above these, as a share of their distance.
MARGIN = 0.15


def intensity_window(data: np.ndarray, inside: np.ndarray | None = None) -> tuple[float, float]:
    """Intensities that are black and white where a brain is to be seen well.

    Parameters
    ----------
    data : ndarray
        Intensities. The skull, vessels, outliers, and NaN have no influence.
    inside : ndarray of bool, optional
        Brain, of the same shape. Without it, or if it is empty, what is brighter than half of
        the voxels that are not zero.

    Returns
    -------
    (float, float)
        The first is smaller, whatever the image is.
    """
    finite = np.isfinite(data)
    values = data[finite & inside] if inside is not None else data[:0]
    if not values.size:
        values = data[finite & (data != 0)]
        values = values[values >= np.median(values)] if values.size else np.zeros(1)
    lower, upper = np.percentile(values.astype("float64"), PERCENTILES)
    if upper == lower:
        spread = max(abs(upper), 1.0) / 2
        return float(lower - spread), float(upper + spread)
    margin = MARGIN * (upper - lower)
    return float(lower - margin), float(upper + margin)
