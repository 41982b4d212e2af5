"""`--longitudinal` as its user calls it, on coarse bodies with two sessions."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.app.bodies import QUICK, SPACE, body, read_table, scan_path, write_study

pytestmark = pytest.mark.slow

SPACING = 4.0


@pytest.fixture(scope="module")
def study(tmp_path_factory) -> SimpleNamespace:
    """One participant with two sessions, whose core grows, and one with a single session."""
    folder = tmp_path_factory.mktemp("longitudinal")
    scans = {
        "sub-01_ses-pre": body(SPACING, 1.05, 0.2, seed=1),
        "sub-01_ses-post": body(SPACING, 1.05, -0.1, dark=1.15, seed=2),
        "sub-02_ses-pre": body(SPACING, 0.95, 0.1, seed=3),
    }
    study = write_study(folder, "Bodies", SPACING, scans)
    words = [study.bids, study.out, "participant", "-w", folder / "work", "--longitudinal"]
    words += ["--template", study.template, "--atlas", study.atlas, *QUICK]
    command = [sys.executable, "-m", "bids_fcnreg", *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    study.printed = done.stdout
    return study


def test_every_session_has_all_outputs(study):
    names = {}
    for label in ("sub-01_ses-pre", "sub-01_ses-post", "sub-02_ses-pre"):
        anat = study.out / label.replace("_", "/") / "anat"
        names[label] = {path.name.removeprefix(label) for path in anat.iterdir()}
    assert names["sub-01_ses-pre"] == names["sub-01_ses-post"] == names["sub-02_ses-pre"]
    assert f"_from-T1w_to-{SPACE}_mode-image_xfm.h5" in names["sub-01_ses-pre"]
    assert (study.out / "sub-01.html").exists()


def test_progress_of_sessions_and_base_is_printed(study):
    assert "sub-01: registration of sessions" in study.printed
    for label in ("sub-01_ses-pre", "sub-01_ses-post", "sub-02_ses-pre"):
        assert f"{label}: preprocessing" in study.printed
    assert "3 of 3 done" in study.printed


def test_the_reference_session_is_reported_in_terminal_table_sidecar_and_report(study):
    reason = "ses-pre (first by session label)"
    assert f"sub-01: changes are relative to {reason}\n" in study.printed
    table = study.out / "sub-01" / "anat" / f"sub-01_atlas-atlas_desc-{SPACE}Changes_dseg.tsv"
    assert {row["reference_session"] for row in read_table(table)} == {"ses-pre"}
    sidecar = json.loads(table.with_suffix(".json").read_text())
    assert "first by session label" in sidecar["reference_session"]["Description"]
    changes = sidecar["ses-post_change_percent"]["Description"]
    assert changes.startswith("Change since session pre")
    assert (study.out / "sub-01.html").read_text().count(reason) == 2
    assert "Reference session" not in (study.out / "sub-02.html").read_text()


@pytest.mark.parametrize(
    ("tables", "words", "told"),
    [
        ({}, [], "sub-01: changes are relative to ses-pre (first by session label)"),
        (
            {"sub-01_sessions.tsv": "session_id\tacq_time\nses-pre\t2020-01-02\npost\t2021-01-01"},
            [],
            "sub-01: changes are relative to ses-pre (earliest acq_time in sessions.tsv)",
        ),
        (
            {"sub-01_sessions.tsv": "session_id\tacq_time\nses-pre\t2020-01-02\nses-post\t2019"
            "-01-01T10:00:00"},
            [],
            "warning: sub-01: changes are relative to ses-post (earliest acq_time in sessions.tsv,"
            " although the labels suggest ses-pre)",
        ),
        (
            {},
            ["--reference-session", "ses-post"],
            "sub-01: changes are relative to ses-post (chosen with --reference-session)",
        ),
    ],
)  # fmt: skip
def test_the_reference_session_is_reported_before_the_run(study, tmp_path, tables, words, told):
    shutil.copytree(study.folder / "bids", tmp_path / "bids")
    for name, text in tables.items():
        (tmp_path / "bids" / "sub-01" / name).write_text(text)
    done = dry_run(tmp_path, "--longitudinal", *words)
    assert done.returncode == 0, done.stderr
    assert told in done.stdout


def test_unknown_reference_session_is_refused(study, tmp_path):
    shutil.copytree(study.folder / "bids", tmp_path / "bids")
    done = dry_run(tmp_path, "--longitudinal", "--reference-session", "baseline")
    assert done.returncode == 2
    assert "there is no session 'baseline'. Choose from post, pre." in done.stderr
    done = dry_run(tmp_path, "--reference-session", "pre")
    assert done.returncode == 2
    assert "requires --subject-anatomical-reference unbiased" in done.stderr


def test_participant_without_the_reference_session_gets_a_warning(study, tmp_path):
    shutil.copytree(study.folder / "bids", tmp_path / "bids")
    for session in ("6m", "9m"):
        body(SPACING).to_filename(scan_path(tmp_path / "bids", f"sub-03_ses-{session}"))
    done = dry_run(tmp_path, "--longitudinal", "--reference-session", "pre")
    assert "sub-01: changes are relative to ses-pre (chosen" in done.stdout
    assert (
        "warning: sub-03: changes are not computed; ses-pre, chosen with --reference-session, is "
        "missing" in done.stdout
    )


def dry_run(folder: Path, *words: object) -> subprocess.CompletedProcess:
    """List what would be done for the dataset ``bids`` in a folder."""
    places = [folder / "bids", folder / "out", "participant", "-w", folder / "work", "--dry-run"]
    command = [sys.executable, "-m", "bids_fcnreg", *map(str, [*places, *words])]
    return subprocess.run(command, capture_output=True, text=True)


def test_volume_changes_are_in_the_table(study):
    path = study.out / "sub-01" / "anat" / f"sub-01_atlas-atlas_desc-{SPACE}Changes_dseg.tsv"
    rows = {row["name"]: row for row in read_table(path)}
    assert float(rows["core"]["ses-pre_change_percent"]) == 0
    # It became 15 % wider.
    assert 30 < float(rows["core"]["ses-post_change_percent"]) < 60
    assert abs(float(rows["rest"]["ses-post_change_percent"])) < 5
    assert (
        json.loads(path.with_suffix(".json").read_text())["ses-post_volume_mm3"]["Units"] == "mm^3"
    )
    assert not list(study.out.glob("sub-02/anat/*Changes*"))


def test_the_validator_finds_no_error(study):
    validator = Path(sys.executable).with_name("bids-validator-deno")
    words = [str(validator), str(study.out), "--format", "json", "--ignoreWarnings"]
    done = subprocess.run(words, capture_output=True, text=True)
    issues = json.loads(done.stdout)["issues"]["issues"]
    assert [issue for issue in issues if issue.get("severity") == "error"] == []
