"""Tables of a study, with a row per scan, and their data dictionaries."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from bids_fcnreg.bids.scan import scan_label
from bids_fcnreg.qc.metrics import COMPARED_METRICS, METRICS, as_number
from bids_fcnreg.study.statistics import robust_distances

#: Robust z-score beyond which a metric is an outlier (Iglewicz & Hoaglin 1993).
OUTLIER_THRESHOLD = 3.5

#: Smallest number of scans for the detection of outliers.
MIN_SCANS = 5

#: Columns of the tables besides those of participants.tsv and of regions.
_OWN_COLUMNS = {
    "participant_id", "session_id", "status", "reason", "mode", "verdict", "verdict_reason",
    "outlier", "outlier_reason", "brain_mask", *METRICS,
}  # fmt: skip

#: Data dictionary of the column of verdicts.
_VERDICT = {
    "Description": "Verdict on the registration from its quality metrics, by bounds fitted "
    "on successful and on failed registrations",
    "Levels": {
        "good": "as successful registrations",
        "doubtful": "look at its report",
        "failed": "as failed registrations",
        "unknown": "metrics are missing: look at its report",
    },
}


@dataclass
class Row:
    """One scan of a study.

    Attributes
    ----------
    participant : str
        Label without ``sub-``.
    session : str or None
        Label without ``ses-``.
    status : str
        ``done``, ``failed`` or ``missing``.
    reason : str or None
        Why it failed or is missing.
    facts : dict of str to str
        Columns of participants.tsv.
    metrics : dict of str to float
        Quality metrics by key; empty unless the status is ``done``.
    mode : str or None
        Registration mode.
    verdict, verdict_reason : str or None
        ``good``, ``doubtful``, ``failed`` or ``unknown``, and what the metrics say against it.
    outliers : dict of str to str
        Description of each outlier, by key of the metric.
    """

    participant: str
    session: str | None = None
    status: str = "done"
    reason: str | None = None
    facts: dict[str, str] = field(default_factory=dict)
    metrics: dict[str, float] = field(default_factory=dict)
    mode: str | None = None
    verdict: str | None = None
    verdict_reason: str | None = None
    outliers: dict[str, str] = field(default_factory=dict)

    @property
    def label(self) -> str:
        """``sub-01`` or ``sub-01_ses-x``."""
        return scan_label(self.participant, self.session)


def group_missing(rows: Iterable[Row]) -> list[tuple[str, str | None, list[str]]]:
    """Group scans without results by status and reason; return these with their labels."""
    found: dict[tuple[str, str | None], list[str]] = {}
    for row in rows:
        if row.status != "done":
            found.setdefault((row.status, row.reason), []).append(row.label)
    return [(*key, labels) for key, labels in found.items()]


def included_in_mean(verdicts: Sequence[str | None]) -> list[bool]:
    """Return which scans to include in mean images: all but failed ones, unless all failed.

    Parameters
    ----------
    verdicts : sequence of str or None
        Verdicts of the scans with results.

    Examples
    --------
    >>> included_in_mean(["good", "failed", "doubtful"]), included_in_mean(["failed"])
    ([True, False, True], [True])
    """
    fit = [verdict != "failed" for verdict in verdicts]
    return fit if any(fit) else [True] * len(fit)


def describe_verdicts(rows: Iterable[Row]) -> list[str]:
    """Describe the scans of each verdict but good, and whether mean images include them."""
    done = [row for row in rows if row.status == "done"]
    in_mean = dict(
        zip(
            (row.label for row in done),
            included_in_mean([row.verdict for row in done]),
            strict=True,
        )
    )
    found: dict[tuple[str, bool], list[str]] = {}
    for row in done:
        if row.verdict in ("failed", "unknown", "doubtful"):
            found.setdefault((row.verdict, in_mean[row.label]), []).append(row.label)
    what = {True: "in the mean images", False: "excluded from the mean images"}
    descriptions = []
    for (verdict, kept), labels in sorted(found.items()):
        of = "verdicts of all scans are failed" if verdict == "failed" and kept else verdict
        descriptions.append(f"{len(labels)} {what[kept]} ({of}): {', '.join(labels)}")
    return descriptions


def add_metrics(
    rows: Iterable[Row],
    quality: Mapping[str, Mapping[str, Any]],
    similarity: Iterable[tuple[float, float]],
) -> None:
    """Set the quality metrics, the mode and the verdict of rows.

    Parameters
    ----------
    rows : iterable of Row
        All scans.
    quality : mapping of str to mapping
        Contents of the JSON files by the label of the scan; other rows are kept.
    similarity : iterable of (float, float)
        For each of these scans its correlation with the mean image, and its mask overlap.
    """
    by_label = {row.label: row for row in rows}
    for (label, known), (correlation, overlap) in zip(quality.items(), similarity, strict=True):
        metrics = {**known, "mean_correlation": correlation, "mask_overlap": overlap}
        row = by_label[label]
        numbers = {key: as_number(metrics.get(key)) for key in METRICS}
        row.metrics = {key: value for key, value in numbers.items() if value is not None}
        row.mode, row.verdict = metrics.get("mode"), metrics.get("verdict")
        row.verdict_reason = metrics.get("verdict_reason")


def flag_outliers(rows: Sequence[Row]) -> None:
    """Flag outliers among the metrics of each row, in the bad direction.

    Parameters
    ----------
    rows : sequence of Row
        Their ``outliers`` are filled in; rows without metrics are skipped.

    References
    ----------
    Iglewicz & Hoaglin, How to detect and handle outliers, ASQC 1993.
    """
    judged = [row for row in rows if row.metrics]
    if len(judged) < MIN_SCANS:
        return
    for metric in COMPARED_METRICS:
        values = [row.metrics.get(metric.key, math.nan) for row in judged]
        distances = robust_distances(values, metric.min_spread)
        median = float(np.nanmedian(values)) if not np.isnan(values).all() else math.nan
        for row, value, distance in zip(judged, values, distances, strict=True):
            away = -distance if metric.worse == "lower" else distance
            if away > OUTLIER_THRESHOLD:
                side = "below" if metric.worse == "lower" else "above"
                row.outliers[metric.key] = (
                    f"{metric.key} {value:.3g} is {away:.1f} robust standard deviations {side} "
                    f"the median ({median:.3g})"
                )


def quality_table(rows: Sequence[Row]) -> tuple[list[str], list[list[object]]]:
    """Return header and rows of the table of registration quality."""
    facts = _fact_columns(rows)
    header = ["participant_id", "session_id", *facts, "status", "reason", "mode", *METRICS]
    lines: list[list[object]] = [
        [
            *_identity(row),
            *(row.facts.get(column) for column in facts),
            row.status,
            row.reason,
            row.mode,
            *(row.metrics.get(key) for key in METRICS),
            row.verdict,
            row.verdict_reason,
            *_outlier(row),
        ]
        for row in rows
    ]
    return [*header, "verdict", "verdict_reason", "outlier", "outlier_reason"], lines


def _outlier(row: Row) -> tuple[str | None, str | None]:
    """Return whether a scan is an outlier, and why."""
    if row.status != "done":
        return None, None
    return ("yes" if row.outliers else "no"), "; ".join(row.outliers.values()) or None


def quality_dictionary(rows: Sequence[Row], space: str) -> dict[str, Any]:
    """Return the data dictionary of `quality_table`."""
    return {
        **_identity_dictionary(rows),
        "status": {
            "Description": f"Status of the registration to {space}",
            "Levels": {
                "done": "registered",
                "failed": "failed, without results",
                "missing": "not run, or results incomplete",
            },
        },
        "reason": {"Description": "Why there are no results"},
        "mode": {"Description": "Registration mode: predict, refine or optimize"},
        **{metric.key: {"Description": metric.title} for metric in METRICS.values()},
        "verdict": _VERDICT,
        "verdict_reason": {"Description": "Reasons of the verdict"},
        "outlier": {
            "Description": "Whether a metric is an outlier in its bad direction",
            "Levels": {"yes": "look at its report", "no": "no outlier"},
        },
        "outlier_reason": {
            "Description": f"Metrics more than {OUTLIER_THRESHOLD} robust standard deviations "
            "from the median of the study"
        },
    }


def volumes_table(
    rows: Sequence[Row],
    volumes: Mapping[str, Mapping[str, tuple[int, float]]],
    brains: Mapping[str, float],
) -> tuple[list[str], list[list[object]]]:
    """Return header and rows of the table of regional volumes of one atlas.

    Parameters
    ----------
    rows : sequence of Row
        The scans.
    volumes : mapping of str to mapping of str to (int, float)
        Index and volume (mm³) by region, by the label of the scan.
    brains : mapping of str to float
        Volume of the brain mask in mm³ by the label of the scan.
    """
    facts, regions = _fact_columns(rows), _regions(volumes)
    header = ["participant_id", "session_id", *facts, "verdict", "brain_mask"]
    header += [_region_column(name, header) for name in regions]
    lines: list[list[object]] = [
        [
            *_identity(row),
            *(row.facts.get(column) for column in facts),
            row.verdict,
            _rounded(brains.get(row.label)),
            *(_rounded(volumes.get(row.label, {}).get(name, (0, None))[1]) for name in regions),
        ]
        for row in rows
    ]
    return header, lines


def volumes_dictionary(
    rows: Sequence[Row],
    volumes: Mapping[str, Mapping[str, tuple[int, float]]],
    atlas: str,
    space: str,
) -> dict[str, Any]:
    """Return the data dictionary of `volumes_table`."""
    others = ["participant_id", "session_id", *_fact_columns(rows), "verdict", "brain_mask"]
    carried = f"of the atlas {atlas} of {space}, in the scan's own space"
    return {
        **_identity_dictionary(rows),
        "verdict": _VERDICT,
        "brain_mask": {"Description": "Volume of the brain mask", "Units": "mm^3"},
        **{
            _region_column(name, others): {
                "Description": f"Volume of region {index} {carried}",
                "Units": "mm^3",
            }
            for name, index in _regions(volumes).items()
        },
    }


def _regions(volumes: Mapping[str, Mapping[str, tuple[int, float]]]) -> dict[str, int]:
    """Return the index of every region, by name, in the order of the indices."""
    found = {name: index for one in volumes.values() for name, (index, _) in one.items()}
    return dict(sorted(found.items(), key=lambda item: item[1]))


def _region_column(name: str, others: Sequence[str]) -> str:
    """Return the column name of a region, distinct from other columns of the table."""
    return f"region {name}" if name in others else name


def _rounded(volume: float | None) -> float | None:
    return None if volume is None else round(volume, 3)


def _identity(row: Row) -> tuple[str, str | None]:
    return f"sub-{row.participant}", f"ses-{row.session}" if row.session else None


def _fact_columns(rows: Sequence[Row]) -> list[str]:
    """Return the columns of participants.tsv, in order."""
    return list(dict.fromkeys(column for row in rows for column in row.facts))


def rename_clashing_columns(facts: Mapping[str, str]) -> dict[str, str]:
    """Rename columns of participants.tsv that clash with columns of our tables."""
    return {f"participants_{k}" if k in _OWN_COLUMNS else k: v for k, v in facts.items()}


def _identity_dictionary(rows: Sequence[Row]) -> dict[str, Any]:
    return {
        "participant_id": {"Description": "Participant"},
        "session_id": {"Description": "Session, where the dataset has some"},
        **{
            column: {"Description": f"{column} as in participants.tsv"}
            for column in _fact_columns(rows)
        },
    }
