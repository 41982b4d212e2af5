"""Good, doubtful, failed or unknown: what the quality metrics of a registration say.

Each metric has two bounds, fitted on successful registrations and on others that were broken on
purpose, and the range in which most of the successful ones lie. They come with the package.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

from bids_fcnreg.fcn.modes import MODES
from bids_fcnreg.qc.metrics import METRICS, Metric, as_number

#: From best to worst. A registration whose metrics are not all there cannot be good.
LEVELS = ("good", "unknown", "doubtful", "failed")

#: Verdicts with which ``--fail-on-qc`` makes a run fail.
UNFIT = ("failed", "unknown")

#: What the ranges and bounds come from.
MEASURED_ON = "T1w brains of adults registered to the built-in template"

#: What is said beneath numbers with their range.
NOTE = (
    f"Usually: where 90 % of right registrations of {MEASURED_ON} lie. A number outside of it is "
    "no fault: the verdict goes by the bound called doubtful, and by a farther one for failed."
)


@dataclass(frozen=True)
class Bounds:
    """What is usual of a number, and from where on it is not.

    Attributes
    ----------
    low, high : float
        Between them lie 90 % of right registrations.
    doubtful, failed : float or None
        Beyond them it is no longer good. Below, if `doubtful` is below `low`; else above.
    """

    low: float
    high: float
    doubtful: float | None = None
    failed: float | None = None

    def describe(self, metric: Metric) -> str:
        """Return the range and the bound of a metric as text."""
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
    """What quality numbers say.

    Attributes
    ----------
    level : {"good", "unknown", "doubtful", "failed"}
        That of the worst metric; unknown if none is beyond its bounds and some are missing.
    reasons : tuple of str
        A phrase for each metric that is not good, the worst first, and for missing ones.
    """

    level: str
    reasons: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, str | None]:
        """What is written beside the quality numbers."""
        return {"verdict": self.level, "verdict_reason": "; ".join(self.reasons) or None}

    def __str__(self) -> str:
        return f"{self.level}: {'; '.join(self.reasons)}" if self.reasons else self.level


@cache
def reference(mode: str) -> dict[str, Bounds]:
    """Bounds of the quality numbers, by their key, for a mode of registration."""
    source = files("bids_fcnreg").joinpath("data", "quality_reference.json")
    bounds = json.loads(source.read_text(encoding="utf-8"))["bounds"]
    return {key: Bounds(**values) for key, values in bounds[mode].items()}


def judge(quality: Mapping[str, Any], fixed: str = "the template") -> Verdict:
    """Judge whether a registration can be trusted.

    Parameters
    ----------
    quality : mapping
        The mode and the quality metrics by name.
    fixed : str
        What was registered to, in words.

    Returns
    -------
    Verdict
        A metric that is missing, or is not a finite number, is unknown. So is everything if the
        mode is.

    Examples
    --------
    >>> str(judge({"mode": "refine", "similarity": 0.9, "folds_percent": 0}))
    'unknown: metrics are missing: similarity_lowest, brain_overlap, sd_log_jacobian, \
inverse_consistency_p95_mm'
    >>> judge({"mode": "refine", "similarity": 0.01}).level
    'failed'
    """
    mode = quality.get("mode")
    if not isinstance(mode, str) or mode not in MODES:
        return Verdict("unknown", (f"its mode, {mode!r}, is none of {', '.join(MODES)}",))
    found, missing = [], []
    for key, bounds in reference(mode).items():
        value = as_number(quality.get(key))
        if value is None:
            if not METRICS[key].optional or quality.get(key) is not None:
                missing.append(key)
            continue
        level = bounds.judge(value)
        if level != "good":
            usual = f"{bounds.low:.3g} to {bounds.high:.3g}"
            meaning = METRICS[key].concern.format(fixed=fixed)
            found.append((level, f"{meaning} ({key} {value:.3g}, usually {usual})"))
    if missing:
        found.append(("unknown", f"metrics are missing: {', '.join(missing)}"))
    found.sort(key=lambda one: -LEVELS.index(one[0]))
    return Verdict(found[0][0] if found else "good", tuple(phrase for _, phrase in found))
