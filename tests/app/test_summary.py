"""Failures become one sentence, results one row."""

from __future__ import annotations

import io
import json
import os

import nibabel as nib
import numpy as np
import pytest
from rich.cells import cell_len
from rich.console import Console

from bids_fcnreg.app.summary import (
    Failure,
    lesion_warnings,
    print_summary,
    quality_warnings,
    read_crash_files,
    read_quality_by_space,
    summary_rows,
)
from bids_fcnreg.app.summary_table import print_table
from bids_fcnreg.bids.scan import Scan
from bids_fcnreg.qc.verdict import UNUSABLE

WORKFLOWS = {"sub_01_wf": "sub-01", "sub_02_wf": "sub-02"}
CRASH = """\
Node: fcnreg_wf.{part}.{node}
Working directory: /w/fcnreg_wf/{part}/x

Node inputs:
in_file = a.nii.gz
Traceback (most recent call last):
  File "execution.py", line 1, in _run_node
nipype.pipeline.engine.nodes.NodeExecutionError: Exception raised while executing Node x.

Traceback:
\tTraceback (most recent call last):
\t  File "base.py", line 1, in run
\t{error}

"""


def crash(folder, when, part, node, error):
    path = folder / f"crash-{part}-{when}.txt"
    path.write_text(CRASH.format(part=part, node=node, error=error))
    os.utime(path, (when, when))
    return path


def quality_file(folder, label, space, **numbers):
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{label}_from-T1w_to-{space}_mode-image_desc-quality_xfm.json"
    usual = {"mode": "refine", "verdict": "good", "verdict_reason": None, "seconds": {}}
    path.write_text(json.dumps(usual | numbers))


def test_input_errors_are_reported_with_their_message(tmp_path):
    sentence = "/in/a.nii.gz cannot be read (truncated): get it again."
    crash(tmp_path, 10, "sub_01_wf", "preprocess_wf.conform",
          f"bids_fcnreg.errors.InputError: {sentence}")  # fmt: skip
    assert read_crash_files(tmp_path, WORKFLOWS) == {"sub-01": Failure(sentence)}


def test_other_errors_name_stage_reason_and_crash_file(tmp_path):
    path = crash(tmp_path, 10, "sub_02_wf", "register_M_wf.estimate", "ValueError: no good.")
    failure = read_crash_files(tmp_path, WORKFLOWS)["sub-02"]
    assert failure.crash_file == path
    assert failure.message == (
        f"The stage 'registration' failed (ValueError: no good). See {path} for details."
    )


def test_the_first_failure_of_each_subject_counts(tmp_path):
    crash(tmp_path, 20, "sub_01_wf", "preprocess_wf.b", "bids_fcnreg.errors.InputError: second")
    crash(tmp_path, 10, "sub_01_wf", "preprocess_wf.a", "bids_fcnreg.errors.InputError: first")
    crash(tmp_path, 10, "sub_99_wf", "preprocess_wf.a", "ValueError: of nobody")
    assert read_crash_files(tmp_path, WORKFLOWS) == {"sub-01": Failure("first")}


@pytest.mark.parametrize("text", ["", "Node", "Nod\x00", "Traceback: no node"])
def test_a_truncated_crash_file_does_not_stop_the_summary(tmp_path, text):
    (tmp_path / "crash-1.txt").write_text(text)
    assert read_crash_files(tmp_path, {"sub_01_wf": "sub-01"}) == {}


def test_quality_is_found_by_session_and_space(tmp_path):
    anat = tmp_path / "sub-01" / "ses-x" / "anat"
    quality_file(anat, "sub-01_ses-x", "A", similarity=0.5)
    quality_file(anat, "sub-01_ses-x_acq-b", "B+2", similarity=0.6)
    found = read_quality_by_space(tmp_path, "sub-01_ses-x")
    numbers = {space: quality["similarity"] for space, quality in found.items()}
    assert numbers == {"A": 0.5, "B+2": 0.6}
    assert read_quality_by_space(tmp_path, "sub-01") == {}


@pytest.mark.parametrize(
    "damage",
    [{"mode": ["a"]}, {"verdict": 5}, {"similarity": "0.5"}, {"similarity": None}, {"seconds": 1}],
)
def test_damaged_quality_is_ignored(tmp_path, damage):
    quality_file(tmp_path / "sub-01" / "anat", "sub-01", "A", **damage)
    assert read_quality_by_space(tmp_path, "sub-01") == {}


def test_doubtful_and_failed_registrations_are_reported(tmp_path):
    for space, verdict in (("A", "good"), ("B", "failed"), ("C", "doubtful")):
        reason = None if verdict == "good" else "Why."
        quality_file(tmp_path / "sub-01" / "anat", "sub-01", space,
                     verdict=verdict, verdict_reason=reason)  # fmt: skip
    both = ["sub-01 to B is failed: Why.", "sub-01 to C is doubtful: Why."]
    assert quality_warnings(tmp_path, "sub-01") == both
    assert quality_warnings(tmp_path, "sub-01", ("failed",)) == both[:1]


@pytest.mark.parametrize("other", ["B", "acq-b_A", "ses"])
def test_results_of_other_runs_do_not_count(tmp_path, other):
    """Of another template, another acquisition in the same session, or another session."""
    anat = tmp_path / "sub-01" / "anat"
    quality_file(anat, "sub-01", "A", similarity=0.5)
    failed = {"similarity": 0.1, "verdict": "failed", "verdict_reason": "Why."}
    if other == "B":
        quality_file(anat, "sub-01", "B", **failed)
    elif other == "ses":
        quality_file(tmp_path / "sub-01/ses-1/anat", "sub-01_ses-1", "A", **failed)
    else:
        quality_file(anat, "sub-01_acq-b", "A", **failed)
    names = {"sub-01_from-T1w_to-A_mode-image_desc-quality_xfm.json"}
    (row,) = summary_rows(["sub-01"], {}, {}, tmp_path, names)
    assert (row.template, row.similarity, row.verdict) == ("A", "0.500", "good")
    assert quality_warnings(tmp_path, "sub-01", UNUSABLE, names) == []
    written = io.StringIO()
    console = Console(file=written, width=120)
    print_summary(console, ["sub-01"], {}, {}, tmp_path, tmp_path, names=names)
    assert "failed" not in written.getvalue() and "1 of 1 done" in written.getvalue()


def test_summary_table_shows_all_columns(tmp_path):
    quality_file(tmp_path / "sub-01" / "anat", "sub-01", "MNI",
                 similarity_initial=0.1, similarity=0.75, folds_percent=0.00041,
                 verdict="doubtful", verdict_reason="It is upside down.")  # fmt: skip
    written = io.StringIO()
    print_summary(
        Console(file=written, width=120),
        ["sub-01", "sub-02"],
        {"sub-01": 63.2},
        {"sub-02": Failure("No T1w image.")},
        tmp_path,
        tmp_path / "logs" / "run",
    )
    text = written.getvalue()
    narrow = io.StringIO()
    print_summary(Console(file=narrow, width=70), ["sub-01"], {}, {}, tmp_path, tmp_path)
    assert "sub-01/anat" not in narrow.getvalue() and "doubtful" in narrow.getvalue()
    assert "0.100 → 0.750" in narrow.getvalue()
    for words in ("sub-01", "MNI", "63", "0.100 → 0.750", "0.0004", "sub-01/anat"):
        assert words in text
    assert "sub-02 failed: No T1w image." in text
    assert "sub-01 to MNI is doubtful: It is upside down." in text
    assert f"1 of 2 done. Results and reports: {tmp_path}" in text


def test_partial_quality_is_shown_as_far_as_it_goes(tmp_path):
    quality_file(tmp_path / "sub-01" / "anat", "sub-01", "MNI", similarity=0.75,
                 similarity_initial=float("nan"), verdict="unknown",
                 verdict_reason="metrics are missing: folds_percent")  # fmt: skip
    written = io.StringIO()
    print_summary(Console(file=written, width=120), ["sub-01"], {}, {}, tmp_path, tmp_path)
    assert "– → 0.750" in written.getvalue()
    assert "sub-01 to MNI is unknown: metrics are missing" in written.getvalue()
    assert quality_warnings(tmp_path, "sub-01", UNUSABLE)


TEMPLATES = ("MNI152NLin2009cAsym", "MNIPediatricAsym+3", "MyOwnStudyTemplateOfTheYear2026Part2")


@pytest.mark.parametrize("width", [200, 100, 80, 60, 40])
@pytest.mark.parametrize("spaces", [TEMPLATES[:1], TEMPLATES[:2], TEMPLATES])
@pytest.mark.parametrize(
    "label",
    [
        "sub-01",
        "sub-01_ses-baseline",
        "sub-NDARINV0A1B2C3D_ses-baselineYear1Arm1",
        "sub-患者一_ses-första",
    ],
)
def test_summary_table_fits_and_keeps_names_whole(tmp_path, label, spaces, width):
    for space in spaces:
        quality_file(tmp_path.joinpath(*label.split("_"), "anat"), label, space,
                     similarity_initial=0.1, similarity=0.75, folds_percent=0.00041)  # fmt: skip
    written = io.StringIO()
    rows = summary_rows(["sub-02", label], {label: 63.2}, {"sub-02": Failure("No.")}, tmp_path)
    assert len(rows) == len(spaces) + 1
    print_table(Console(file=written, width=width, soft_wrap=True, markup=False), rows)
    lines = written.getvalue().splitlines()
    assert sum(label in line.split() for line in lines) == len(spaces)
    for space in spaces:
        assert sum(space in line.replace(",", "").split() for line in lines) == 1
    for words in ("0.750", "good", "no result", "sub-02"):
        assert words in written.getvalue()
    for line in lines:  # what cannot be broken stands alone where it is longer than a line
        assert cell_len(line.rstrip()) <= width or len(line.split()) == 1


def test_summary_table_drops_columns_that_do_not_fit(tmp_path):
    label = "sub-01_ses-baseline"
    quality_file(tmp_path.joinpath(*label.split("_"), "anat"), label, TEMPLATES[0],
                 similarity_initial=0.1, similarity=0.75, folds_percent=0.00041)  # fmt: skip

    def printed(width):
        written = io.StringIO()
        rows = summary_rows([label], {label: 63.2}, {}, tmp_path)
        print_table(Console(file=written, width=width), rows)
        return written.getvalue()

    assert "sub-01/ses-baseline/anat" in printed(130)
    assert "0.100 → 0.750" in printed(100) and "anat" not in printed(100)
    assert "0.100 → 0.750" in printed(80) and "0.0004" in printed(80)
    assert "Seconds" not in printed(80) and "63" not in printed(80)
    assert "0.100 → 0.750" in printed(40) and "0.0004 %" in printed(40)
    written = io.StringIO()
    print_table(Console(file=written, width=80), [])
    assert written.getvalue().strip() == ""


@pytest.mark.parametrize(
    ("lesions", "excluded", "warned"),
    [
        ([1], 0.0, True),
        ([0, 1], 0.0, True),
        ([1, 1], 0.0, True),
        ([0], 0.0, False),
        ([0, 0], 0.0, False),
        ([1], 0.5, False),
        ([1], None, False),
        ([], None, False),
    ],
)
def test_a_lesion_outside_of_the_brain_is_reported(tmp_path, lesions, excluded, warned):
    quality_file(tmp_path / "sub-01/anat", "sub-01", "M", excluded_percent=excluded)
    paths = []
    for number, value in enumerate(lesions):
        paths.append(tmp_path / f"sub-01_label-lesion{number}_roi.nii.gz")
        nib.Nifti1Image(np.full((2, 2, 2), value, "u1"), np.eye(4)).to_filename(paths[-1])
    found = lesion_warnings(tmp_path, Scan("01", None, (), tuple(paths)))
    assert len(found) == warned
    assert not warned or "sub-01: no voxel of sub-01_label-lesion0_roi.nii.gz" in found[0]
