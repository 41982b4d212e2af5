"""Tables of a study: a row per scan, with the facts of its participant; data dictionaries."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from bids_fcnreg.bids.scan import scan_label
from bids_fcnreg.qc.metrics import COMPARED
from bids_fcnreg.study.statistics import robust_distances

#: Robust standard deviations beyond which a number is an outlier (Iglewicz & Hoaglin 1993).
OUTLYING = 3.5

#: Fewer scans than this say nothing about what is usual.
FEWEST_TO_JUDGE = 5


_OWN_COLUMNS = frozenset(
    (
        "participant_id",
        "session_id",
        "status",
        "reason",
        "mode",
        "verdict",
        "verdict_reason",
        "outlier",
        "outlier_reason",
        "brain_mask",
        *(metric.key for metric in COMPARED),
    )
)


#: What the column of verdicts is, for data dictionaries.
_VERDICT = {
    "Description": "What the quality numbers say of the registration, by bounds fitted "
    "on registrations that were right and on broken ones",
    "Levels": {
        "good": "as right registrations are",
        "doubtful": "look at its report",
        "failed": "as broken registrations are",
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
        What participants.tsv says.
    numbers : dict of str to float
        Empty unless it is done.
    mode : str or None
        How it was registered.
    verdict, verdict_reason : str or None
        ``good``, ``doubtful``, ``failed`` or ``unknown``, and what the metrics say against it.
    outlying : dict of str to str
        A phrase for each number that is out of the usual, by the number's key.
    """

    participant: str
    session: str | None = None
    status: str = "done"
    reason: str | None = None
    facts: dict[str, str] = field(default_factory=dict)
    numbers: dict[str, float] = field(default_factory=dict)
    mode: str | None = None
    verdict: str | None = None
    verdict_reason: str | None = None
    outlying: dict[str, str] = field(default_factory=dict)

    @property
    def label(self) -> str:
        """``sub-01`` or ``sub-01_ses-x``."""
        return scan_label(self.participant, self.session)


def absent(rows: Iterable[Row]) -> list[tuple[str, str | None, list[str]]]:
    """Status, reason and labels of the scans without results, those with the same reason once."""
    found: dict[tuple[str, str | None], list[str]] = {}
    for row in rows:
        if row.status != "done":
            found.setdefault((row.status, row.reason), []).append(row.label)
    return [(*key, labels) for key, labels in found.items()]


def counted(verdicts: Sequence[str | None]) -> list[bool]:
    """Which scans the mean images are of: all but the failed ones, unless all are.

    Parameters
    ----------
    verdicts : sequence of str or None
        Of the scans that are done.

    Examples
    --------
    >>> counted(["good", "failed", "doubtful"]), counted(["failed"])
    ([True, False, True], [True])
    """
    fit = [verdict != "failed" for verdict in verdicts]
    return fit if any(fit) else [True] * len(fit)


def tell_verdicts(rows: Iterable[Row]) -> list[str]:
    """A sentence for each verdict but good, with what it means for the mean images."""
    done = [row for row in rows if row.status == "done"]
    in_mean = dict(
        zip((row.label for row in done), counted([row.verdict for row in done]), strict=True)
    )
    found: dict[tuple[str, bool], list[str]] = {}
    for row in done:
        if row.verdict in ("failed", "unknown", "doubtful"):
            found.setdefault((row.verdict, in_mean[row.label]), []).append(row.label)
    what = {True: "in the mean images", False: "left out of the mean images"}
    told = []
    for (verdict, kept), labels in sorted(found.items()):
        of = "verdicts of all scans are failed" if verdict == "failed" and kept else verdict
        told.append(f"{len(labels)} {what[kept]} ({of}): {', '.join(labels)}")
    return told


def flag_outliers(rows: Sequence[Row]) -> None:
    """Say of each row which of its numbers are out of the usual, on the bad side.

    Parameters
    ----------
    rows : sequence of Row
        Their ``outlying`` is filled in; rows without numbers are left alone.

    References
    ----------
    Iglewicz & Hoaglin, How to detect and handle outliers, ASQC 1993.
    """
    judged = [row for row in rows if row.numbers]
    if len(judged) < FEWEST_TO_JUDGE:
        return
    for metric in COMPARED:
        values = [row.numbers.get(metric.key, math.nan) for row in judged]
        distances = robust_distances(values, metric.least_spread)
        median = float(np.nanmedian(values)) if not np.isnan(values).all() else math.nan
        for row, value, distance in zip(judged, values, distances, strict=True):
            away = -distance if metric.worse == "lower" else distance
            if away > OUTLYING:
                side = "below" if metric.worse == "lower" else "above"
                row.outlying[metric.key] = (
                    f"{metric.key} {value:.3g} is {away:.1f} robust standard deviations {side} "
                    f"the median ({median:.3g})"
                )


def quality_table(rows: Sequence[Row]) -> tuple[list[str], list[list[object]]]:
    """Header and lines of the table of registration quality."""
    facts = _fact_columns(rows)
    keys = [metric.key for metric in COMPARED]
    header = ["participant_id", "session_id", *facts, "status", "reason", "mode", *keys]
    lines: list[list[object]] = [
        [
            *_identity(row),
            *(row.facts.get(column) for column in facts),
            row.status,
            row.reason,
            row.mode,
            *(row.numbers.get(key) for key in keys),
            row.verdict,
            row.verdict_reason,
            *_outlier(row),
        ]
        for row in rows
    ]
    return [*header, "verdict", "verdict_reason", "outlier", "outlier_reason"], lines


def _outlier(row: Row) -> tuple[str | None, str | None]:
    """Whether a scan is an outlier, and why."""
    if row.status != "done":
        return None, None
    return ("yes" if row.outlying else "no"), "; ".join(row.outlying.values()) or None


def quality_dictionary(rows: Sequence[Row], space: str) -> dict[str, Any]:
    """Data dictionary of `quality_table`."""
    return {
        **_identity_dictionary(rows),
        "status": {
            "Description": f"What became of the registration to {space}",
            "Levels": {
                "done": "registered",
                "failed": "tried, without results",
                "missing": "not tried, or without a complete set of results",
            },
        },
        "reason": {"Description": "Why there are no results"},
        "mode": {"Description": "How it was registered: predict, refine or optimize"},
        **{metric.key: {"Description": metric.title} for metric in COMPARED},
        "verdict": _VERDICT,
        "verdict_reason": {"Description": "What the numbers say against it"},
        "outlier": {
            "Description": "Whether a number is out of the usual on its bad side",
            "Levels": {"yes": "look at its report", "no": "as usual"},
        },
        "outlier_reason": {
            "Description": f"The numbers more than {OUTLYING} robust standard deviations from "
            "the median of the study"
        },
    }


def volumes_table(
    rows: Sequence[Row],
    volumes: Mapping[str, Mapping[str, tuple[int, float]]],
    brains: Mapping[str, float],
) -> tuple[list[str], list[list[object]]]:
    """Header and lines of the table of regional volumes of one atlas.

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
    """Data dictionary of `volumes_table`."""
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
    """Index of every region that some scan has, by name, in the order of the indices."""
    found = {name: index for one in volumes.values() for name, (index, _) in one.items()}
    return dict(sorted(found.items(), key=lambda item: item[1]))


def _region_column(name: str, others: Sequence[str]) -> str:
    """Name of a region's column, which is not that of another column of the table."""
    return f"region {name}" if name in others else name


def _rounded(volume: float | None) -> float | None:
    return None if volume is None else round(volume, 3)


def _identity(row: Row) -> tuple[str, str | None]:
    return f"sub-{row.participant}", f"ses-{row.session}" if row.session else None


def _fact_columns(rows: Sequence[Row]) -> list[str]:
    """Columns of participants.tsv, in their order."""
    return list(dict.fromkeys(column for row in rows for column in row.facts))


def without_clashes(facts: Mapping[str, str]) -> dict[str, str]:
    """What participants.tsv says, columns that our tables have too renamed."""
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
