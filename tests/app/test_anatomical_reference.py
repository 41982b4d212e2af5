"""`--subject-anatomical-reference` as its user calls it, and what is said of other results."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import nibabel as nib
import numpy as np
import pytest
from rich.console import Console

from bids_fcnreg.app.anatomical_reference import people_to_combine, report_mixed_references
from bids_fcnreg.bids.combined_sessions import combine_sessions
from bids_fcnreg.bids.scan import Scan
from bids_fcnreg.config import Config
from tests.app.bodies import QUICK, SPACE, body, read_table, write_study

SPACING = 4.5


def write_transform(out: Path, label: str, reference: str) -> None:
    """Write the sidecar of a transform."""
    anat = out.joinpath(*label.split("_"), "anat")
    anat.mkdir(parents=True, exist_ok=True)
    content = {"AnatomicalReference": reference} if reference else {}
    path = anat / f"{label}_acq-A_from-T1w_to-X_mode-image_xfm.json"
    path.write_text(json.dumps(content))


A, B, BOTH = "sub-01_ses-a", "sub-01_ses-b", "sub-01"
FIND_BOTH = "fMRIPrep may find both"
BIASED = "Changes since or to these sessions are biased"


@pytest.mark.parametrize(
    ("existing", "value", "sessions", "said"),
    [
        ({}, "first-lex", "ab", ""),
        ({BOTH: "first-lex"}, "first-lex", "ab", ""),
        ({A: "sessionwise", B: "sessionwise"}, "sessionwise", "ab", ""),
        ({A: "", B: ""}, "sessionwise", "ab", ""),
        ({A: "", B: ""}, "first-lex", "ab", f"{A}, {B}: results of each session exist"),
        ({BOTH: "first-lex"}, "sessionwise", "ab", f"{BOTH}: results of combined sessions exist"),
        ({BOTH: "first-lex"}, "first-lex", "a", FIND_BOTH),
        ({BOTH: "sessionwise"}, "sessionwise", "ab", ""),  # an image without a session
        ({A: "unbiased", B: "unbiased"}, "sessionwise", "b", f"{A}: registered with another"),
        ({A: "sessionwise", B: "sessionwise"}, "unbiased", "bc", BIASED),
        ({A: "unbiased", B: "unbiased"}, "sessionwise", "ab", ""),  # all are replaced
        ({A: "sessionwise"}, "unbiased", "ab", ""),
        ({A: "sessionwise"}, "unbiased", "a", ""),  # nothing to register it to
    ],
)  # fmt: skip
def test_results_with_another_reference_are_reported(tmp_path, existing, value, sessions, said):
    for label, reference in existing.items():
        write_transform(tmp_path / "out", label, reference)
    config = Config(
        bids_dir=tmp_path, output_dir=tmp_path / "out", subject_anatomical_reference=value
    )
    scans = [Scan("01", one, (Path(f"sub-01_ses-{one}_T1w.nii"),)) for one in sessions]
    scans, _ = combine_sessions(scans, people_to_combine(config, scans))
    text = io.StringIO()
    report_mixed_references(config, scans, Console(file=text, width=1000))
    assert said in text.getvalue()
    assert bool(said) == bool(text.getvalue())


@pytest.mark.parametrize(
    ("existing", "value", "combined"),
    [
        ({BOTH: "first-lex"}, "sessionwise", True),
        ({BOTH: "first-lex", A: "sessionwise"}, "sessionwise", False),
        ({A: "sessionwise"}, "sessionwise", False),
        ({A: "sessionwise"}, "first-lex", True),
    ],
)
@pytest.mark.parametrize(
    ("options", "reads"),
    [
        ({"analysis_level": "group"}, True),
        ({"analysis_level": "participant", "reports_only": True}, True),
        ({"analysis_level": "participant"}, False),
    ],
)
def test_group_level_and_reports_only_read_the_results_that_exist(
    tmp_path, existing, value, combined, options, reads
):
    for label, reference in existing.items():
        write_transform(tmp_path, label, reference)
    config = Config(
        bids_dir=tmp_path,
        output_dir=tmp_path,
        **options,
        subject_anatomical_reference=value,
    )
    wanted = combined if reads else value == "first-lex"
    assert bool(people_to_combine(config, [Scan("01", "a", (Path("x"),))])) == wanted


def call(study: SimpleNamespace, level: str, *words: object) -> str:
    """Run the app; return what it prints."""
    given = [study.bids, study.out, level, "-w", study.folder / "work", *QUICK, *words]
    given += ["--template", study.template]
    command = [sys.executable, "-m", "bids_fcnreg", *map(str, given)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def study(tmp_path_factory) -> SimpleNamespace:
    """Two participants with two sessions, one with a single session."""
    scans = {
        "sub-01_ses-a": body(SPACING, 1.04, 0.1, seed=1),
        "sub-01_ses-b": body(SPACING, 1.04, -0.1, seed=2),
        "sub-02_ses-a": body(SPACING, 1.1, 0.2, seed=3),
        "sub-03_ses-a": body(SPACING, 0.97, 0, seed=4),
        "sub-03_ses-b": body(SPACING, 0.97, 0.2, seed=5),
    }
    study = write_study(tmp_path_factory.mktemp("first_lex"), "Bodies", SPACING, scans)
    words = ["--subject-anatomical-reference", "first-lex"]
    study.printed = call(study, "participant", *words)
    return study


@pytest.mark.slow
def test_sessions_are_averaged_in_the_space_of_the_first(study):
    assert "sub-01, sub-03: the images of ses-a, ses-b are averaged" in study.printed
    names = {path.relative_to(study.out).as_posix() for path in study.out.glob("sub-*/**/*.h5")}
    ends = [f"from-T1w_to-{SPACE}", f"from-{SPACE}_to-T1w"]
    labels = {"sub-01": "sub-01", "sub-02/ses-a": "sub-02_ses-a", "sub-03": "sub-03"}
    assert names == {
        f"{folder}/anat/{label}_{end}_mode-image_xfm.h5"
        for folder, label in labels.items()
        for end in ends
    }
    assert not list(study.out.glob("sub-0[13]/ses-*"))
    assert not list(study.out.glob("sub-0[13]/**/*_ses-*"))
    anat = study.out / "sub-01/anat"
    found = nib.load(anat / "sub-01_desc-preproc_T1w.nii.gz")
    first = nib.load(study.bids / "sub-01/ses-a/anat/sub-01_ses-a_T1w.nii.gz")
    assert np.allclose(found.affine, first.affine)
    values, raw = found.get_fdata(), first.get_fdata()
    assert np.corrcoef(values[raw > 0], raw[raw > 0])[0, 1] > 0.97
    sidecar = json.loads((anat / "sub-01_desc-preproc_T1w.json").read_text())
    assert [one.rpartition("/")[2] for one in sidecar["Sources"]] == [
        "sub-01_ses-a_T1w.nii.gz",
        "sub-01_ses-b_T1w.nii.gz",
    ]
    assert sidecar["RunSimilarity"]["sub-01_ses-b_T1w.nii.gz"] > 0.8
    assert "averaged over sessions in the space of ses-a" in sidecar["Description"]


@pytest.mark.slow
def test_report_methods_and_group_name_the_sessions(study):
    page = (study.out / "sub-01.html").read_text()
    assert "ses-a, ses-b, averaged in the space of the first of them" in page
    methods = (study.out / "logs/CITATION.md").read_text()
    assert "The images of 2 sessions were averaged in the space of the first one" in methods
    call(study, "group")
    rows = read_table(study.out / "group" / f"space-{SPACE}_quality.tsv")
    assert [(row["participant_id"], row["session_id"]) for row in rows] == [
        ("sub-01", "n/a"),
        ("sub-02", "ses-a"),
        ("sub-03", "n/a"),
    ]


@pytest.mark.slow
def test_other_values_report_the_existing_results(study):
    printed = call(study, "participant", "--dry-run", "--longitudinal")
    assert "warning: sub-01: results of combined sessions exist" in printed
    assert "sub-02:" not in "".join(one for one in printed.splitlines() if "warning" in one)
