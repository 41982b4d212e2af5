"""Quality metrics of registrations: key, label, unit, direction and meaning of each.

`bids_fcnreg.fcn.quality` computes them, and `bids_fcnreg.qc.segmentation` those of segmentations.
"""

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
        Key in JSON files and column in tables.
    label : str
        Name in reports.
    decimals : int
        Decimal places in reports.
    unit : str
        "mm", "%" or empty.
    worse : {"lower", "higher", None}
        Direction of bad values; None if scans are not compared by it.
    min_spread : float
        Lower bound of the robust standard deviation, below which differences are negligible.
    concern : str
        Meaning of a value beyond its bounds, for the verdict; ``{fixed}`` is the fixed image.
        Empty without bounds.
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
    min_spread: float = 0.0
    concern: str = ""
    optional: bool = False
    of_study: bool = False

    @property
    def title(self) -> str:
        """Label and unit."""
        return f"{self.label} ({self.unit})" if self.unit else self.label

    def format(self, value: float) -> str:
        """Format a value for reports."""
        return f"{value:.{self.decimals}f}"

    def read(self, quality: Mapping[str, Any]) -> str:
        """Format the value among quality metrics; a dash if it is missing."""
        value = as_number(quality.get(self.key))
        return "–" if value is None else self.format(value)


_METRICS = (
    Metric("similarity_initial", "Local correlation before registration"),
    Metric(
        "similarity_affine",
        "Local correlation after the affine stage",
        worse="lower",
        min_spread=0.005,
    ),
    Metric(
        "similarity",
        "Local correlation after registration",
        worse="lower",
        min_spread=0.005,
        concern="the registered brain is not similar to {fixed}",
    ),
    Metric(
        "similarity_lowest",
        "Local correlation in the least similar cube of 4 cm",
        worse="lower",
        min_spread=0.005,
        concern="a part of the registered brain is not similar to {fixed}: it may be missing, cut "
        "off, changed, or misplaced",
    ),
    Metric(
        "outside_percent",
        "Outside the field of view of the registered image",
        decimals=1,
        unit="% of the brain",
        concern="a part of the brain of {fixed} is outside the field of view of the image: there, "
        "the transform is extrapolated",
        optional=True,  # not in older results
    ),
    Metric(
        "brain_overlap",
        "Overlap of the brain masks (Dice)",
        worse="lower",
        min_spread=0.003,
        concern="the outlines of the registered brain and of that of {fixed} differ: a brain mask "
        "or a field of view may be wrong",
    ),
    Metric(
        "folds_percent",
        "Folded voxels in the brain",
        decimals=4,
        unit="%",
        worse="higher",
        min_spread=1e-3,
        concern="the deformation folds",
    ),
    Metric(
        "sd_log_jacobian",
        "Standard deviation of the log-Jacobian in the brain",
        worse="higher",
        min_spread=0.01,
        concern="the deformation is larger than differences between brains",
    ),
    Metric(
        "inverse_consistency_mm",
        "Inverse consistency error, mean",
        unit="mm",
        worse="higher",
        min_spread=0.01,
    ),
    Metric(
        "inverse_consistency_p95_mm",
        "Inverse consistency error, 95th percentile",
        unit="mm",
        worse="higher",
        min_spread=0.02,
        concern="the transform and its inverse disagree",
    ),
    Metric(
        "asymmetry",
        "Similarity to the typical asymmetry of brains",
        concern="left and right appear swapped: check the header of the image",
        optional=True,  # needs a built-in template
    ),
    Metric(
        "rotation_degrees",
        "Rotation between the headers and the registration",
        decimals=0,
        unit="°",
        concern="the head is turned in its header, by more than heads are tilted, relative to "
        "{fixed}. Check the orientation in the header, and whether left and right are swapped",
        optional=True,  # not in older results
    ),
    Metric(
        "structures_misplaced_mm",
        "Distance of structures from their typical arrangement",
        decimals=1,
        unit="mm",
        concern="the segmented structures are not arranged as in a brain: the image does not show "
        "a whole head, or its header has a wrong orientation (upside down, flipped axes) or voxel "
        "size. View the image with its header",
        optional=True,  # needs a segmentation
    ),
    Metric(
        "structures_implausible",
        "Structures that are missing or have an implausible volume, of 30",
        decimals=0,
        concern="structures of the brain are missing or have an implausible volume: a part of the "
        "brain is missing, or the image does not show a head. View the image",
        optional=True,
    ),
    Metric(
        "head_turned_degrees",
        "Rotation of the head in the header of its image",
        decimals=0,
        unit="°",
        concern="the head is turned in its header, and was segmented upright. Check the "
        "orientation: if an axis is flipped, left and right are exchanged",
        optional=True,  # needs a segmentation that shows a brain
    ),
    Metric(
        "mask_agreement",
        "Overlap of the brain mask with the segmented brain (Dice)",
        concern="the brain mask differs from the segmented brain: one of them is wrong. View the "
        "mask in the report and try another --skull-strip-method",
        optional=True,
    ),
    Metric("excluded_percent", "Excluded by lesion masks", decimals=1, unit="% of the brain"),
    Metric(
        "mean_correlation",
        "Correlation with the mean image of the study",
        worse="lower",
        min_spread=0.005,
        of_study=True,
    ),
    Metric(
        "mask_overlap",
        "Overlap of the brain mask with that of most scans (Dice)",
        worse="lower",
        min_spread=0.003,
        of_study=True,
    ),
)

#: All metrics by key.
METRICS = {metric.key: metric for metric in _METRICS}

#: Metrics of one registration, in the order of reports.
REGISTRATION_METRICS = tuple(metric for metric in _METRICS if not metric.of_study)

#: Metrics by which the scans of a study are compared.
COMPARED_METRICS = tuple(metric for metric in _METRICS if metric.worse)

#: Keys of the metrics that determine the verdict.
JUDGED = tuple(metric.key for metric in _METRICS if metric.concern)


def as_number(value: Any) -> float | None:
    """Return a value as a finite number, or None if it is not one."""
    if isinstance(value, bool) or not isinstance(value, Real) or not isfinite(value):
        return None
    return float(value)
