"""Datasets with stray, misnamed and missing files, as the user of the app meets them."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from types import SimpleNamespace

import pytest
from bids.layout import BIDSLayout

from bids_fcnreg.app.atlases import choose_atlases
from bids_fcnreg.bids.dataset import read_dataset
from bids_fcnreg.bids.output_names import output_names
from bids_fcnreg.bids.templates import resolve_template
from bids_fcnreg.cli.bids_app import main

pytestmark = pytest.mark.slow

LONG = "a" * 190


@pytest.fixture(scope="module")
def run(small_study, tmp_path_factory) -> SimpleNamespace:
    """A run over one good participant with strays around it, and others that cannot be used."""
    folder = tmp_path_factory.mktemp("messy")
    bids = folder / "in"
    shutil.copytree(small_study.bids, bids, ignore=lambda *_: ["sub-02"])
    scan = bids / "sub-01/anat/sub-01_acq-A_rec-norm_run-1_T1w.nii.gz"
    (bids / "sub-01/anat/sub-01_T1w.nii.gz").rename(scan)
    other = small_study.bids / "sub-02/anat/sub-02_T1w.nii.gz"
    for name in (
        "sub-01_bad/anat/sub-01_T1w.nii.gz",
        "sub-01/anat/old/sub-01_T1w.nii.gz",
        "sub-01/anat/sub-01_acq-A_rec-old_T1w.nii.gz",
        "sub-01/anat/sub-01_desc-preproc_T1w.nii.gz",
        "sub-02/anat/sub-01_T1w.nii.gz",
        f"sub-04/anat/sub-04_acq-{LONG}_T1w.nii.gz",
    ):
        (bids / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(other, bids / name)
    pointer = bids / "sub-03/anat/sub-03_T1w.nii.gz"
    pointer.parent.mkdir(parents=True)
    pointer.write_text("/annex/objects/SHA256E-s9--0123.nii.gz\n")
    words = [bids, folder / "out", "participant", "-w", folder / "work", *small_study.words]
    command = [sys.executable, "-m", "bids_fcnreg", *map(str, words)]
    dry, done = (
        subprocess.run([*command, *more], capture_output=True, text=True)
        for more in (["--dry-run"], [])
    )
    return SimpleNamespace(
        bids=bids, out=folder / "out", scan=scan, dry=dry, done=done, study=small_study
    )


@pytest.mark.parametrize("which", ["dry", "done"])
def test_unused_images_are_reported_before_the_run(run, which):
    lines = getattr(run, which).stdout.splitlines()
    for words in (
        "warning: sub-01_bad/anat/sub-01_T1w.nii.gz: ",
        "warning: sub-01/anat/old/sub-01_T1w.nii.gz: ",
        "warning: sub-01/anat/sub-01_desc-preproc_T1w.nii.gz: ",
        "sub-01: acq-A_rec-norm_run-1_T1w.nii.gz is used and acq-A_rec-old_T1w",
    ):
        (line,) = [line for line in lines if line.startswith(words)]
        assert "not" in line
    for label, words in (
        ("sub-02", "sub-02/anat/sub-01_T1w.nii.gz is not used: its name does not begin"),
        ("sub-03", "Run `datalad get` or `git annex get`"),
        ("sub-04", "Shorten the label of acq-"),
    ):
        failed = " failed" * (which == "done")
        (line,) = [line for line in lines if line.startswith(f"{label}{failed}: ")]
        assert words in line


def test_only_valid_images_are_registered(run):
    assert run.dry.returncode == 0
    assert run.done.returncode == 1, run.done.stdout + run.done.stderr
    assert "1 of 4 done" in run.done.stdout
    assert {path.parts[-3] for path in run.out.glob("sub-*/anat/*_xfm.h5")} == {"sub-01"}
    (sidecar,) = run.out.glob("sub-01/anat/*rec-norm_desc-preproc_T1w.json")
    source = run.scan.relative_to(run.bids).as_posix()
    assert json.loads(sidecar.read_text())["Sources"] == [f"bids:raw:{source}"]


def test_output_names_match_the_checked_names(run):
    scans = read_dataset(run.bids, others=True).scans
    (scan,) = (scan for scan in scans if scan.label == "sub-01")
    templates = [resolve_template(str(run.study.template))]
    known = set(output_names(scan, templates, choose_atlases((), templates)))
    written = {path.name for path in (run.out / "sub-01").rglob("*") if path.is_file()}
    assert len(written) > 20 and written <= known


def test_a_stale_database_changes_nothing(tmp_path, capsys):
    """A database of pybids, made before a participant was added and a file was renamed."""
    bids, database = tmp_path / "in", tmp_path / "db"
    anat = bids / "sub-01" / "anat"
    anat.mkdir(parents=True)
    (anat / "sub-01_T1w.nii").write_bytes(b"x")
    (bids / "dataset_description.json").write_text('{"Name": "x", "BIDSVersion": "1.10.0"}')
    BIDSLayout(bids, validate=False, database_path=database)
    (anat / "sub-01_T1w.nii").rename(anat / "sub-01_acq-A_T1w.nii")
    for name in ("sub-02/anat/sub-02_T1w.nii", "sub-01_bad/anat/sub-01_T1w.nii"):
        (bids / name).parent.mkdir(parents=True)
        (bids / name).write_bytes(b"x")
    words = [bids, tmp_path / "out", "participant", "--dry-run", "-w", tmp_path / "work"]
    words += ["--bids-database-dir", database]
    assert main([str(word) for word in words]) == 0
    said = capsys.readouterr().out
    assert "sub-01: to register to" in said and "sub-02: to register to" in said
    assert "sub-01_bad/anat/sub-01_T1w.nii: this image is not used" in said
    assert "--bids-database-dir has no effect" in said
    assert main([*map(str, words), "--participant-label", "01"]) == 0
    said = capsys.readouterr().out
    assert "sub-02" not in said and "sub-01_bad/anat/sub-01_T1w.nii: this" in said


@pytest.mark.parametrize("level", ["participant", "group"])
def test_the_output_of_fmriprep_is_refused_as_input(tmp_path, capsys, level):
    bids = tmp_path / "fmriprep"
    anat = bids / "sub-01" / "anat"
    anat.mkdir(parents=True)
    for name in ("desc-preproc_T1w", "space-MNI152NLin2009cAsym_desc-preproc_T1w"):
        (anat / f"sub-01_{name}.nii.gz").write_bytes(b"x")
    content = {"Name": "x", "BIDSVersion": "1.4.0", "GeneratedBy": [{"Name": "fMRIPrep"}]}
    for more in ({"DatasetType": "derivative"}, {}):
        (bids / "dataset_description.json").write_text(json.dumps(content | more))
        assert main([str(bids), str(tmp_path / "out"), level]) == 2
        assert "Provide the raw BIDS dataset that they were made from" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_verbose_lists_all_images(tmp_path, capsys):
    bids = tmp_path / "in"
    names = [
        f"sub-{n:02d}/anat/sub-{n:02d}{more}_T1w.nii" for n in range(9) for more in ("", "_x")
    ]
    for name in names:
        (bids / name).parent.mkdir(parents=True, exist_ok=True)
        (bids / name).write_bytes(b"x")
    (bids / "dataset_description.json").write_text('{"Name": "x", "BIDSVersion": "1.10.0"}')
    words = [bids, tmp_path / "out", "participant", "--dry-run", "-w", tmp_path / "work"]
    main([str(word) for word in words])
    assert "and 6 more: this image is not used" in capsys.readouterr().out
    main([*map(str, words), "-v"])
    said = capsys.readouterr().out
    assert all(name in said for name in names if "_x_" in name)
