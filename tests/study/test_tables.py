"""Tables of a study: who is in them, who is flagged, and that every column is described."""

from __future__ import annotations

from dataclasses import fields

import numpy as np

from bids_fcnreg.bids.results import read_volumes
from bids_fcnreg.fcn.quality import Quality
from bids_fcnreg.qc.metrics import COMPARED_METRICS, METRICS
from bids_fcnreg.study.tables import (
    Row,
    add_metrics,
    describe_verdicts,
    flag_outliers,
    group_missing,
    quality_dictionary,
    quality_table,
    volumes_dictionary,
    volumes_table,
)


def usual(number: int) -> dict[str, float]:
    noise = np.random.default_rng(number).normal(0, 0.01, len(COMPARED_METRICS))
    return {n.key: 0.5 + x for n, x in zip(COMPARED_METRICS, noise, strict=True)}


def study() -> list[Row]:
    rows = [Row(f"{n:02d}", facts={"age": str(20 + n)}, metrics=usual(n)) for n in range(1, 11)]
    failed = Row("11", status="failed", reason="Too dark.", facts={"age": "n/a"})
    return [*rows, failed]


def test_those_without_results_are_named_with_their_reason_once():
    rows = [*study(), Row("12", status="missing", reason="Not run."),
            Row("13", status="missing", reason="Not run.")]  # fmt: skip
    assert group_missing(rows) == [
        ("failed", "Too dark.", ["sub-11"]),
        ("missing", "Not run.", ["sub-12", "sub-13"]),
    ]


def test_only_the_bad_scan_is_flagged_with_its_reason():
    rows = study()
    rows[3].metrics["similarity"] = 0.2
    flag_outliers(rows)
    assert [row.label for row in rows if row.outliers] == ["sub-04"]
    phrase = rows[3].outliers["similarity"]
    assert phrase.startswith("similarity 0.2 is ")
    assert "robust standard deviations below the median (0.49" in phrase


def test_a_scan_that_is_better_than_all_others_is_no_outlier():
    rows = study()
    rows[3].metrics["similarity"] = 0.9
    rows[4].metrics["folds_percent"] = 0.0
    flag_outliers(rows)
    assert not any(row.outliers for row in rows)


def test_no_outliers_among_few_scans():
    rows = study()[:4]
    rows[0].metrics["similarity"] = 0.1
    flag_outliers(rows)
    assert not rows[0].outliers


def test_the_quality_table_has_a_line_for_everybody():
    rows = study()
    flag_outliers(rows)
    header, lines = quality_table(rows)
    assert len(lines) == 11
    assert all(len(line) == len(header) for line in lines)
    last = dict(zip(header, lines[-1], strict=True))
    assert last["participant_id"] == "sub-11"
    assert (last["status"], last["reason"]) == ("failed", "Too dark.")
    assert last["similarity"] is None
    assert last["outlier"] is None
    assert dict(zip(header, lines[0], strict=True))["age"] == "21"


def test_all_metrics_of_registrations_are_columns_with_a_description():
    """Whatever the engine computes: a metric that is added later is not forgotten."""
    computed = {one.name for one in fields(Quality) if one.type == "float"}
    assert {"similarity_initial", "outside_percent"} < computed <= set(METRICS)
    metrics = {key: 0.1 * n for n, key in enumerate(METRICS)}
    rows = [Row("01"), Row("02")]
    quality = {"sub-01": metrics, "sub-02": metrics | {"outside_percent": None}}
    add_metrics(rows, quality, [(0.5, 0.6), (float("nan"), 0.7)])
    header, lines = quality_table(rows)
    first, second = (dict(zip(header, line, strict=True)) for line in lines)
    expected = metrics | {"mean_correlation": 0.5, "mask_overlap": 0.6}
    assert {key: first[key] for key in METRICS} == expected
    assert second["outside_percent"] is second["mean_correlation"] is None
    descriptions = quality_dictionary(rows, "MNI")
    assert {key: descriptions[key]["Description"] for key in METRICS} == {
        key: metric.title for key, metric in METRICS.items()
    }


def test_every_column_is_in_the_dictionary():
    rows = study()
    header, _ = quality_table(rows)
    assert set(header) == set(quality_dictionary(rows, "MNI"))
    volumes = {"sub-01": {"CSF": (1, 10.0)}, "sub-02": {"CSF": (1, 11.0), "GM": (2, 20.0)}}
    header, _ = volumes_table(rows, volumes, {})
    assert set(header) == set(volumes_dictionary(rows, volumes, "tissue", "MNI"))


def test_regions_called_like_other_columns_have_their_own():
    rows = [Row("01", facts={"GM": "of somebody"})]
    volumes = {"sub-01": {"brain_mask": (1, 10.0), "GM": (2, 20.0)}}
    header, lines = volumes_table(rows, volumes, {"sub-01": 5.0})
    facts = ["participant_id", "session_id", "GM", "verdict", "brain_mask"]
    assert header == [*facts, "region brain_mask", "region GM"]
    assert lines == [["sub-01", None, "of somebody", None, 5.0, 10.0, 20.0]]
    assert set(volumes_dictionary(rows, volumes, "x", "MNI")) == set(header)


def test_regions_that_share_a_name_are_kept_apart(tmp_path):
    path = tmp_path / "volumes.tsv"
    path.write_text("index\tname\tvolume_mm3\n1\tL 2\t10\n2\tL\t20\n3\tL\t30\n")
    volumes = read_volumes(path)
    assert sorted(volumes.values()) == [(1, 10.0), (2, 20.0), (3, 30.0)]
    assert volumes["L 2"] == (1, 10.0)


def test_volumes_go_to_their_scan_and_region():
    rows = [Row("02", session="a", verdict="failed"), Row("01", verdict="good")]
    volumes = {"sub-02_ses-a": {"GM": (2, 20.0), "CSF": (1, 10.00049)}}
    header, lines = volumes_table(rows, volumes, {"sub-01": 5.0})
    assert header == ["participant_id", "session_id", "verdict", "brain_mask", "CSF", "GM"]
    assert lines == [
        ["sub-02", "ses-a", "failed", None, 10.0, 20.0],
        ["sub-01", None, "good", 5.0, None, None],
    ]


def test_verdicts_are_described_with_inclusion_in_the_mean():
    rows = [Row("1", verdict="failed"), Row("2", verdict="doubtful"), Row("3", verdict="unknown")]
    rows += [Row("4", verdict="good"), Row("5", status="missing")]
    assert describe_verdicts(rows) == [
        "1 in the mean images (doubtful): sub-2",
        "1 excluded from the mean images (failed): sub-1",
        "1 in the mean images (unknown): sub-3",
    ]
    assert describe_verdicts(rows[3:]) == []
    assert describe_verdicts(rows[:1]) == [
        "1 in the mean images (verdicts of all scans are failed): sub-1"
    ]
