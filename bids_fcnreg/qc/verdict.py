"""Verdict on a registration from its quality metrics: good, doubtful, failed or unknown.

Each metric has two bounds, fitted on successful and on deliberately failed registrations and
segmentations, and the range of most successful ones. They come with the package.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

from bids_fcnreg.fcn.modes import LINEAR, MODES
from bids_fcnreg.qc.metrics import METRICS, Metric, as_number

#: From best to worst. A registration with missing metrics cannot be good.
LEVELS = ("good", "unknown", "doubtful", "failed")

#: Verdicts with which ``--fail-on-qc`` fails a run.
UNUSABLE = ("failed", "unknown")

#: Data of the ranges and bounds.
MEASURED_ON = "T1w brains of adults registered to MNI152NLin2009cAsym"

#: Explanation of the ranges in reports.
EXPLANATION = (
    f"Usual range: 90 % of successful registrations of {MEASURED_ON}. A metric outside it is not "
    "an error: the verdict depends on the bound for doubtful, and a farther one for failed."
)


@dataclass(frozen=True)
class Bounds:
    """Usual range and bounds of a quality metric.

    Attributes
    ----------
    low, high : float
        Range of 90 % of successful registrations.
    doubtful, failed : float or None
        Bounds of these levels: lower bounds if `doubtful` is below `low`, else upper bounds.
    """

    low: float
    high: float
    doubtful: float | None = None
    failed: float | None = None

    def describe(self, metric: Metric) -> str:
        """Describe the range and the bound of a metric."""
        ends = dict.fromkeys(map(metric.format, (self.low, self.high)))
        usual = f"usually {' to '.join(ends)}"
        if self.doubtful is None:
            return usual
        side = "below" if self.doubtful < self.low else "above"
        return f"{usual}, doubtful {side} {metric.format(self.doubtful)}"

    def judge(self, value: float) -> str:
        """Return the level of a finite value: good, doubtful or failed."""
        for level, bound in (("failed", self.failed), ("doubtful", self.doubtful)):
            if bound is not None and (value < bound if bound < self.low else value > bound):
                return level
        return "good"


@dataclass(frozen=True)
class Verdict:
    """Verdict on a registration.

    Attributes
    ----------
    level : {"good", "unknown", "doubtful", "failed"}
        That of the worst metric; unknown if none is beyond its bounds and some are missing, or
        bounds do not apply.
    reasons : tuple of str
        A phrase for each metric that is not good, the worst first, and for what is unknown.
    """

    level: str
    reasons: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, str | None]:
        """Return the fields that are written with the quality metrics."""
        return {"verdict": self.level, "verdict_reason": "; ".join(self.reasons) or None}

    def __str__(self) -> str:
        return f"{self.level}: {'; '.join(self.reasons)}" if self.reasons else self.level


#: By judgement, not fitted: percentage of the brain outside the field of view, and rotations. A
#: flipped head that is turned upright is mirrored: it looks as if it were turned by 180°.
_BY_JUDGEMENT = {
    "outside_percent": Bounds(0.0, 0.0, doubtful=0.5, failed=25.0),
    "rotation_degrees": Bounds(0.0, 30.0, doubtful=60.0),
    "head_turned_degrees": Bounds(0.0, 30.0, doubtful=60.0, failed=150.0),
}


#: Why images that are not T1w have other metrics.
_NOT_T1W = (
    "white matter is not brighter than gray matter: the image is of another contrast than T1w, or "
    "of a young infant. State its contrast, as _T2w or _FLAIR at the end of its name"
)


@cache
def reference_bounds(mode: str) -> dict[str, Bounds]:
    """Return the bounds of the quality metrics, by key, for a registration mode."""
    source = files("bids_fcnreg").joinpath("data", "quality_reference.json")
    bounds = json.loads(source.read_text(encoding="utf-8"))["bounds"]
    fitted = bounds[mode] | bounds["segmentation"]
    return {key: Bounds(**values) for key, values in fitted.items()} | _BY_JUDGEMENT


def judge(quality: Mapping[str, Any], fixed: str = "the template") -> Verdict:
    """Judge whether a registration can be trusted.

    Parameters
    ----------
    quality : mapping
        The mode and the quality metrics by name; ``t1w_like`` is not empty if T1w-like images
        were registered, for which bounds were not fitted; ``white_matter_darker`` explains what
        is not good in other images.
    fixed : str
        Name of the fixed image, for messages.

    Returns
    -------
    Verdict
        Unknown if a metric is missing or not finite, the mode is unknown, the transform is linear,
        or metrics that would be good are those of T1w-like images.

    Examples
    --------
    >>> str(judge({"mode": "refine", "similarity": 0.9, "folds_percent": 0}))
    'unknown: metrics are missing: similarity_lowest, brain_overlap, sd_log_jacobian, \
inverse_consistency_p95_mm'
    >>> judge({"mode": "refine", "similarity": 0.01}).level
    'failed'
    """
    mode = quality.get("mode")
    if mode in LINEAR:
        return Verdict("unknown", ("the bounds are those of deformable registrations",))
    if not isinstance(mode, str) or mode not in MODES:
        return Verdict("unknown", (f"mode {mode!r} is not one of {', '.join(MODES)}",))
    found, missing = [], []
    all_bounds = dict(reference_bounds(mode))
    turned = as_number(quality.get("head_turned_degrees"))
    if turned is not None and all_bounds["head_turned_degrees"].judge(turned) != "good":
        del all_bounds["rotation_degrees"]  # for the same reason
    for key, bounds in all_bounds.items():
        value = as_number(quality.get(key))
        if value is None:
            if not METRICS[key].optional or quality.get(key) is not None:
                missing.append(key)
            continue
        level = bounds.judge(value)
        if level != "good":
            usual = " to ".join(dict.fromkeys(f"{end:.3g}" for end in (bounds.low, bounds.high)))
            meaning = METRICS[key].concern.format(fixed=fixed)
            found.append((level, f"{meaning} ({key} {value:.3g}, usually {usual})"))
    if missing:
        found.append(("unknown", f"metrics are missing: {', '.join(missing)}"))
    if quality.get("t1w_like"):
        found.append(("unknown", "the metrics are those of T1w-like images, which have no bounds"))
    found.sort(key=lambda one: -LEVELS.index(one[0]))
    out_of_bounds = bool(found) and found[0][0] in ("doubtful", "failed")
    if out_of_bounds and quality.get("white_matter_darker") and not quality.get("t1w_like"):
        found.insert(0, (found[0][0], _NOT_T1W))
    return Verdict(found[0][0] if found else "good", tuple(phrase for _, phrase in found))
