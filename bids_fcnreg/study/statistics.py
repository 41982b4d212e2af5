"""Statistics of a cohort: running moments of images, and robust z-scores."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import scipy


class RunningMoments:
    """Running mean and standard deviation of arrays of one shape.

    Memory does not depend on their number.

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
        """Add an array."""
        self.count += 1
        step = np.asarray(values, dtype=np.float64) - self._mean
        self._mean = self._mean + step / self.count
        self._squares = self._squares + step * (values - self._mean)

    @property
    def mean(self) -> np.ndarray:
        """Mean so far, float64."""
        return self._mean

    @property
    def sd(self) -> np.ndarray:
        """Sample standard deviation so far, float64; 0 for a single array."""
        return np.sqrt(self._squares / max(self.count - 1, 1))


def robust_distances(values: Sequence[float], min_spread: float) -> np.ndarray:
    """Compute robust z-scores: signed distances from the median in robust standard deviations.

    Parameters
    ----------
    values : sequence of float (n,)
        NaN values are ignored.
    min_spread : float
        Lower bound of the robust standard deviation.

    Returns
    -------
    ndarray (n,)
        NaN where the value is NaN.

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
    spread = scipy.stats.median_abs_deviation(given, scale="normal", nan_policy="omit")
    return (given - median) / max(spread, min_spread)


def overlap(one: np.ndarray, other: np.ndarray) -> float:
    """Compute the Dice coefficient of two masks (bool, same shape); 1 if both are empty."""
    both = int(one.sum()) + int(other.sum())
    return 2 * int((one & other).sum()) / both if both else 1.0


def correlation(one: np.ndarray, other: np.ndarray) -> float:
    """Compute the Pearson correlation of two arrays (n,); 0 if one of them is constant."""
    one, other = one - one.mean(), other - other.mean()
    # Not products of BLAS, whose last digits depend on the number of threads.
    size = np.sqrt(np.sum(one**2) * np.sum(other**2))
    return float(np.sum(one * other) / size) if size > 0 else 0.0
