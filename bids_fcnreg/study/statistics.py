"""Statistics of a cohort: moments of images taken one at a time, and robust distances."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.stats import median_abs_deviation


class RunningMoments:
    """Mean and standard deviation of arrays of one shape that come one after another.

    Memory does not depend on how many there are.

    References
    ----------
    Welford, Note on a method for calculating corrected sums of squares and products,
    Technometrics 4(3), 1962.

    Examples
    --------
    >>> moments = RunningMoments()
    >>> for value in (1.0, 2.0, 6.0):
    ...     moments.add(np.array([value]))
    >>> moments.mean.item(), round(moments.sd.item(), 4)
    (3.0, 2.6458)
    """

    def __init__(self) -> None:
        self.count = 0
        self._mean = np.zeros(())
        self._squares = np.zeros(())

    def add(self, values: np.ndarray) -> None:
        """Take one more array into account."""
        self.count += 1
        step = values - self._mean
        self._mean = self._mean + step / self.count
        self._squares = self._squares + step * (values - self._mean)

    @property
    def mean(self) -> np.ndarray:
        """Mean so far, float64."""
        return self._mean

    @property
    def sd(self) -> np.ndarray:
        """Sample standard deviation so far, float64; 0 of a single array."""
        return np.sqrt(self._squares / max(self.count - 1, 1))


def robust_distances(values: Sequence[float], least_spread: float) -> np.ndarray:
    """How many robust standard deviations each value is above (or below, negative) the median.

    Parameters
    ----------
    values : sequence of float (n,)
        NaN where there is none; the others are judged without it.
    least_spread : float
        Spread (in units of the values) below which differences mean nothing.

    Returns
    -------
    ndarray (n,)
        NaN where the value is.

    References
    ----------
    Iglewicz & Hoaglin, How to detect and handle outliers, ASQC 1993: the modified z-score.

    Examples
    --------
    >>> robust_distances([1.0, 2.0, 3.0, 4.0, 90.0], 0.1).round(1).tolist()
    [-1.3, -0.7, 0.0, 0.7, 58.7]
    """
    given = np.asarray(values, dtype=float)
    if np.isnan(given).all():
        return given
    median = np.nanmedian(given)
    spread = median_abs_deviation(given, scale="normal", nan_policy="omit")
    return (given - median) / max(spread, least_spread)


def overlap(one: np.ndarray, other: np.ndarray) -> float:
    """Dice coefficient of two masks (bool, same shape); 1 if both are empty."""
    both = int(one.sum()) + int(other.sum())
    return 2 * int((one & other).sum()) / both if both else 1.0


def correlation(one: np.ndarray, other: np.ndarray) -> float:
    """Pearson correlation of two arrays of values (n,); 0 if one of them is constant."""
    one, other = one - one.mean(), other - other.mean()
    size = np.sqrt((one @ one) * (other @ other))
    return float(one @ other / size) if size > 0 else 0.0
