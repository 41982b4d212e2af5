"""Quality metrics of registrations: one table of what each is called, means, and is judged by."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import isfinite
from numbers import Real
from typing import Any, Literal


@dataclass(frozen=True)
class Metric:
    """A quality metric.

    Attributes
    ----------
    key : str
        In JSON files and as the column of tables.
    label : str
        In reports.
    decimals : int
        Digits after the point in reports.
    unit : str
        "mm", "%" or empty.
    worse : {"lower", "higher", None}
        Which values are bad; None if scans are not compared by it.
    least_spread : float
        Robust standard deviation below which differences between scans mean nothing.
    concern : str
        What a value beyond its bounds means, for the verdict; ``{fixed}`` is the fixed image.
        Empty if there are no bounds.
    optional : bool
        Whether a registration may lack it.
    of_study : bool
        Whether it is computed for a whole study, not for one registration.
    """

    key: str
    label: str
    decimals: int = 3
    unit: str = ""
    worse: Literal["lower", "higher", None] = None
    least_spread: float = 0.0
    concern: str = ""
    optional: bool = False
    of_study: bool = False

    @property
    def title(self) -> str:
        """Label and unit."""
        return f"{self.label} ({self.unit})" if self.unit else self.label

    def format(self, value: float) -> str:
        """Return a value as it is printed in reports."""
        return f"{value:.{self.decimals}f}"

    def read(self, quality: Mapping[str, Any]) -> str:
        """Return the value among quality metrics as it is printed; a dash if it is missing."""
        value = as_number(quality.get(self.key))
        return "–" if value is None else self.format(value)


_METRICS = (
    Metric("similarity_initial", "Local correlation before registration"),
    Metric(
        "similarity_affine",
        "Local correlation after the affine stage",
        worse="lower",
        least_spread=0.005,
    ),
    Metric(
        "similarity",
        "Local correlation after registration",
        worse="lower",
        least_spread=0.005,
        concern="the registered brain is not similar to {fixed}",
    ),
    Metric(
        "similarity_lowest",
        "Local correlation in the least similar cube of 4 cm",
        worse="lower",
        least_spread=0.005,
        concern="a part of the registered brain is not similar to {fixed}: it may be missing, cut "
        "off, changed, or in the wrong place",
    ),
    Metric(
        "brain_overlap",
        "Overlap of the brain masks (Dice)",
        worse="lower",
        least_spread=0.003,
        concern="the outlines of the registered brain and of that of {fixed} differ: a brain mask "
        "or a field of view may be wrong",
    ),
    Metric(
        "folds_percent",
        "Folded voxels in the brain",
        decimals=4,
        unit="%",
        worse="higher",
        least_spread=1e-3,
        concern="the deformation folds",
    ),
    Metric(
        "sd_log_jacobian",
        "Standard deviation of the log-Jacobian in the brain",
        worse="higher",
        least_spread=0.01,
        concern="the deformation is stronger than brains differ",
    ),
    Metric(
        "inverse_consistency_mm",
        "Inverse consistency error, mean",
        unit="mm",
        worse="higher",
        least_spread=0.01,
    ),
    Metric(
        "inverse_consistency_p95_mm",
        "Inverse consistency error, 95th percentile",
        unit="mm",
        worse="higher",
        least_spread=0.02,
        concern="the transform and its inverse disagree",
    ),
    Metric(
        "asymmetry",
        "Similarity to the usual asymmetry of brains",
        concern="left and right look swapped: check the header of the image",
        optional=True,  # needs the built-in template
    ),
    Metric("excluded_percent", "Excluded by lesion masks", decimals=1, unit="% of the brain"),
    Metric(
        "mean_correlation",
        "Correlation with the mean image of the study",
        worse="lower",
        least_spread=0.005,
        of_study=True,
    ),
    Metric(
        "mask_overlap",
        "Overlap of the brain mask with that of most scans (Dice)",
        worse="lower",
        least_spread=0.003,
        of_study=True,
    ),
)

#: All metrics by their key.
METRICS = {metric.key: metric for metric in _METRICS}

#: Metrics of one registration, in the order of reports.
OF_REGISTRATION = tuple(metric for metric in _METRICS if not metric.of_study)

#: Metrics by which the scans of a study are compared.
COMPARED = tuple(metric for metric in _METRICS if metric.worse)

#: Keys of the metrics that the verdict goes by.
JUDGED = tuple(metric.key for metric in _METRICS if metric.concern)


def as_number(value: Any) -> float | None:
    """Return a value as a finite number, or None if it is none."""
    if isinstance(value, bool) or not isinstance(value, Real) or not isfinite(value):
        return None
    return float(value)
