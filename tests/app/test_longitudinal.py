"""`--longitudinal` as its user calls it, on coarse bodies with two sessions."""

from __future__ import annotations

import csv
import json
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import nibabel as nib
import numpy as np
import pytest

pytestmark = pytest.mark.slow

SHAPE, SPACING = (68, 80, 64), 3.0
SPACE = "body"


def body(size: float = 1.0, turn: float = 0.0, dark: float = 1.0, seed: int = 0):
    """A coarse lobed body with texture and a dark core of a known size, turned about z."""
    affine = np.diag([SPACING] * 3 + [1.0])
    affine[:3, 3] = [-SPACING * (n - 1) / 2 for n in SHAPE]
    points = np.moveaxis(np.indices(SHAPE), 0, -1) * SPACING + affine[:3, 3]
    cos, sin = np.cos(turn), np.sin(turn)
    x, y, z = np.moveaxis(points @ np.array([[cos, -sin, 0], [sin, cos, 0], [0, 0, 1]]), -1, 0)
    x, y, z = x / size, y / size, z / size
    lobes = 1 + 0.15 * np.cos(3 * np.arctan2(y, x)) + 0.1 * z / 60
    radius = np.sqrt((x / 62) ** 2 + (y / 78) ** 2 + (z / 55) ** 2) / lobes
    inside = np.clip((1 - radius) * 8, 0, 1)
    core = np.clip(1.5 - np.sqrt((x - 10) ** 2 + y**2 + z**2) / (20 * dark), 0, 1)
    texture = 6 * np.sin(x / 9) * np.cos(y / 11) * np.sin(z / 10)
    noise = np.random.default_rng(seed).normal(0, 0.5, SHAPE)
    values = (100 * inside - 70 * core + texture * inside + noise) * (inside > 0.05)
    return nib.Nifti1Image(values.clip(0).astype("float32"), affine)


@pytest.fixture(scope="module")
def study(tmp_path_factory) -> SimpleNamespace:
    """One participant with two sessions, whose core grows, and one with a single session."""
    folder = tmp_path_factory.mktemp("longitudinal")
    bids, out = folder / "bids", folder / "out"
    scans = {
        ("01", "pre"): body(1.05, 0.2, seed=1),
        ("01", "post"): body(1.05, -0.1, dark=1.15, seed=2),
        ("02", "pre"): body(0.95, 0.1, seed=3),
    }
    for (participant, session), scan in scans.items():
        name = f"sub-{participant}_ses-{session}"
        path = bids / name.replace("_", "/") / "anat" / f"{name}_T1w.nii.gz"
        path.parent.mkdir(parents=True)
        scan.to_filename(path)
    (bids / "dataset_description.json").write_text(
        json.dumps({"Name": "Bodies", "BIDSVersion": "1.10.0"})
    )
    body().to_filename(folder / f"{SPACE}.nii.gz")
    shown = body().get_fdata()
    points = nib.affines.apply_affine(body().affine, np.moveaxis(np.indices(SHAPE), 0, -1))
    core = np.linalg.norm(points - [10, 0, 0], axis=-1) < 20
    labels = (shown > 0).astype("int16") + core
    nib.Nifti1Image(labels.astype("int16"), body().affine).to_filename(folder / "atlas.nii.gz")
    (folder / "atlas.tsv").write_text("index\tname\n1\trest\n2\tcore\n")
    words = [bids, out, "participant", "-w", folder / "work", "--longitudinal", "--device", "cpu"]
    words += ["--template", folder / f"{SPACE}.nii.gz", "--atlas", folder / "atlas.nii.gz"]
    words += ["--nprocs", 2, "--omp-nthreads", 1, "--skip-bids-validation", "--mode", "predict"]
    command = [sys.executable, "-m", "bids_fcnreg", *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return SimpleNamespace(folder=folder, out=out, printed=done.stdout)


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
    table = study.out / "sub-01" / "anat" / f"sub-01_seg-atlas_desc-{SPACE}Changes_dseg.tsv"
    assert {row["reference_session"] for row in read_rows(table)} == {"ses-pre"}
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
    assert "requires --longitudinal" in done.stderr


def test_participant_without_the_reference_session_gets_a_warning(study, tmp_path):
    shutil.copytree(study.folder / "bids", tmp_path / "bids")
    for session in ("6m", "9m"):
        name = f"sub-03_ses-{session}"
        target = tmp_path / "bids" / name.replace("_", "/") / "anat" / f"{name}_T1w.nii.gz"
        target.parent.mkdir(parents=True)
        body().to_filename(target)
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


def read_rows(path: Path) -> list[dict[str, str]]:
    with open(path, newline="") as stream:
        return list(csv.DictReader(stream, delimiter="\t"))


def test_volume_changes_are_in_the_table(study):
    path = study.out / "sub-01" / "anat" / f"sub-01_seg-atlas_desc-{SPACE}Changes_dseg.tsv"
    rows = {row["name"]: row for row in read_rows(path)}
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
