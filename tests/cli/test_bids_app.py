"""The BIDS App as its user calls it: processes, exit codes, sentences, files."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import nibabel as nib
import numpy as np
import pytest

from bids_fcnreg.bids.builtin_templates import nilearn_map
from bids_fcnreg.config import Config
from bids_fcnreg.config_file import read_settings

pytestmark = pytest.mark.slow

COMMAND = [sys.executable, "-m", "bids_fcnreg"]


def call(*words: object, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *map(str, words)],
        capture_output=True,
        text=True,
        env={**os.environ, **environment},
    )


@pytest.fixture
def dataset(tmp_path) -> Path:
    """A dataset of one participant whose T1w, an empty file, is not read before nodes run."""
    return make_dataset(tmp_path / "in", "01")


def make_dataset(folder: Path, *participants: str) -> Path:
    for participant in participants:
        anat = folder / f"sub-{participant}" / "anat"
        anat.mkdir(parents=True)
        (anat / f"sub-{participant}_T1w.nii.gz").touch()
    describe(folder)
    return folder


def describe(folder: Path) -> None:
    text = json.dumps({"Name": "Test", "BIDSVersion": "1.10.0"})
    (folder / "dataset_description.json").write_text(text)


def refused(done: subprocess.CompletedProcess[str], *words: str) -> None:
    """Assert one sentence and exit code 2."""
    assert done.returncode == 2, done.stdout + done.stderr
    assert done.stderr.startswith("bids_fcnreg: error: ")
    assert done.stderr.count("\n") == 1, done.stderr
    for word in words:
        assert word in done.stderr


def test_missing_dataset_is_refused(tmp_path):
    done = call(tmp_path / "nowhere", tmp_path / "out", "participant")
    refused(done, str(tmp_path / "nowhere"))
    assert not (tmp_path / "out").exists()


def test_unknown_participant_is_refused(dataset, tmp_path):
    done = call(dataset, tmp_path / "out", "participant", "--participant-label", "sub-07", "01")
    refused(done, "07", "01")
    assert not (tmp_path / "out").exists()


def test_dataset_without_t1w_is_refused(tmp_path):
    folder = tmp_path / "in"
    (folder / "sub-01" / "func").mkdir(parents=True)
    describe(folder)
    refused(call(folder, tmp_path / "out", "participant"), "no T1w image")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("template", "words"),
    [
        ("nothing.nii.gz", ["nothing.nii.gz"]),
        ("NoSuchTemplate", ["NoSuchTemplate", "MNI152NLin2009aSym"]),
    ],
)
def test_missing_template_is_refused(dataset, tmp_path, template, words):
    done = call(
        dataset, tmp_path / "out", "participant", "--template", template,
        TEMPLATEFLOW_HOME=str(tmp_path / "empty"), https_proxy="http://127.0.0.1:9",
    )  # fmt: skip
    refused(done, *words)
    assert not (tmp_path / "out").exists()


def test_missing_atlas_is_refused(dataset, tmp_path):
    done = call(dataset, tmp_path / "out", "participant", "--atlas", "none.nii.gz")
    refused(done, "none.nii.gz")


def test_missing_device_is_refused(dataset, tmp_path):
    refused(call(dataset, tmp_path / "out", "participant", "--device", "cuda:99"), "cuda:99")


def test_network_without_weights_is_refused(dataset, tmp_path):
    words = [dataset, tmp_path / "out", "participant", "--network", "2017"]
    refused(call(*words), "no trained weights", "2017")
    assert not (tmp_path / "out").exists()


def test_invalid_config_file_is_refused(dataset, tmp_path):
    settings = tmp_path / "settings.toml"
    settings.write_text("templat = 'x'\n")
    words = [dataset, tmp_path / "out", "participant"]
    refused(call(*words, "--config-file", settings), "settings.toml", "'templat'", "templates")


def test_invalid_output_directory_is_refused(dataset, tmp_path):
    refused(call(dataset, dataset, "participant"), "output directory")
    (tmp_path / "file").touch()
    refused(call(dataset, tmp_path / "file", "participant"), str(tmp_path / "file"))


@pytest.fixture(scope="module")
def mixed(phantom_dataset, tmp_path_factory) -> SimpleNamespace:
    """A run over one good participant, one whose T1w is cut off, and one without T1w."""
    folder = tmp_path_factory.mktemp("mixed")
    bids = folder / "in"
    make_dataset(bids, "01", "02", "03")
    name = "sub-01/anat/sub-01_T1w.nii.gz"
    thin_out(phantom_dataset / name, bids / name)
    broken = bids / "sub-02/anat/sub-02_T1w.nii.gz"
    broken.write_bytes((bids / name).read_bytes()[:100_000])
    (bids / "sub-03/anat/sub-03_T1w.nii.gz").unlink()
    template = thin_out(nilearn_map("t1"), folder / "tpl-Small_T1w.nii.gz", step=3)
    words = [bids, folder / "out", "participant", "-w", folder / "work", "--device", "cpu"]
    words += ["--template", template, "--nprocs", "2", "--skip-bids-validation"]
    return SimpleNamespace(
        folder=folder, out=folder / "out", broken=broken, words=words, done=call(*words)
    )


def thin_out(source: Path, target: Path, step: int = 2) -> Path:
    """Copy every other voxel of an image: faster, and fine enough to be a brain."""
    image = nib.load(source)
    affine = image.affine @ np.diag([step, step, step, 1.0])
    data = np.asarray(image.dataobj)[::step, ::step, ::step]
    nib.Nifti1Image(data, affine).to_filename(target)
    return target


def test_one_broken_participant_does_not_stop_the_others(mixed):
    assert mixed.done.returncode == 1, mixed.done.stdout + mixed.done.stderr
    assert mixed.done.stderr == ""
    lines = mixed.done.stdout.splitlines()
    assert any(line.startswith("sub-01: done in ") for line in lines)
    assert "sub-02: failed in preprocessing" in lines
    (sentence,) = [line for line in lines if line.startswith("sub-02 failed: ")]
    assert str(mixed.broken) in sentence
    (sentence,) = [line for line in lines if line.startswith("sub-03 failed: ")]
    assert "No T1w image" in sentence
    assert lines[-1].startswith("1 of 3 done.")
    anat = mixed.out / "sub-01" / "anat"
    (quality,) = anat.glob("sub-01_*to-Small*desc-quality_xfm.json")
    after = json.loads(quality.read_text())["similarity"]
    (row,) = [line for line in lines if "Small" in line and "→" in line]
    assert f"→ {after:.3f}" in row
    assert not (mixed.out / "sub-02" / "anat").exists()


def test_run_writes_settings_log_crash_file_and_methods(mixed):
    (settings,) = mixed.out.glob("logs/*/config.toml")
    config = Config(**read_settings(settings))
    assert config.bids_dir == mixed.folder / "in"
    assert config.nprocs == 2
    (crash,) = settings.parent.glob("crash-*.txt")
    assert "sub_02_wf" in crash.read_text()
    assert "sub_01_wf" in (settings.parent / "run.log").read_text()
    texts = {
        kind: (mixed.out / "logs" / f"CITATION.{kind}").read_text()
        for kind in ("md", "html", "tex")
    }
    assert all("registered" in text for text in texts.values())
    assert "@nipype1" in texts["md"]
    for kind in ("html", "tex"):  # references are filled in
        assert "Gorgolewski" in texts[kind] and "@nipype1" not in texts[kind]


def test_reports_can_be_made_again(mixed):
    report = mixed.out / "sub-01.html"
    before = report.read_text()
    report.unlink()
    done = call(*mixed.words, "--reports-only", "--participant-label", "01")
    assert done.returncode == 0, done.stderr
    assert f"Report: {report}" in done.stdout
    assert report.read_text() == before
    done = call(*mixed.words, "--reports-only", "--participant-label", "02")
    assert done.returncode == 1
    assert "Skipped, no results: sub-02" in done.stdout


def test_a_dry_run_lists_and_writes_nothing(mixed, tmp_path):
    done = call(*mixed.words, "--dry-run")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert any(line.startswith("sub-01: results in ") for line in lines)
    assert any(line.startswith("sub-02: to register to ") for line in lines)
    again = call(*mixed.words, "--dry-run", "--mode", "predict")
    assert "; to register again (predict), which replaces them" in again.stdout
    fresh = call(mixed.words[0], tmp_path / "out", *mixed.words[2:], "--dry-run")
    assert fresh.returncode == 0, fresh.stderr
    assert "sub-01: to register to " in fresh.stdout
    assert not (tmp_path / "out").exists()


def test_a_dry_run_lists_the_images_of_a_session(tmp_path):
    names = ("T1w", "T2w", "FLAIR", "FLAIR_label-lesion_roi")
    bids = make_dataset(tmp_path / "in", "01", "02")
    for name in names:
        values = np.indices((40, 40, 40)).sum(axis=0) % 90
        image = nib.Nifti1Image((values > 60 if "roi" in name else values).astype("u1"), np.eye(4))
        image.to_filename(bids / f"sub-01/anat/sub-01_{name}.nii.gz")
    done = call(bids, tmp_path / "out", "participant", "--dry-run", "-w", tmp_path / "work")
    assert done.returncode == 0, done.stderr
    aligned = "sub-01: aligned to the T1w image: sub-01_FLAIR.nii.gz, sub-01_T2w.nii.gz\n"
    assert aligned in done.stdout
    assert "sub-01: lesion masks: sub-01_FLAIR_label-lesion_roi.nii.gz\n" in done.stdout
    words = ["--dry-run", "--reference-suffix", "FLAIR"]
    chosen = call(bids, tmp_path / "out", "participant", *words, "-w", tmp_path / "work")
    assert "sub-01: aligned to the FLAIR image: sub-01_T1w.nii.gz" in chosen.stdout
    assert "sub-02: no FLAIR image\n" in chosen.stdout


def test_boilerplate_only_writes_methods_and_graph(mixed, tmp_path):
    words = [
        mixed.words[0],
        tmp_path / "out",
        "participant",
        *mixed.words[5:],
        "-w",
        tmp_path / "work",
    ]
    done = call(*words, "--boilerplate-only", "--write-graph")
    assert done.returncode == 0, done.stderr
    here, there = (out / "logs" / "CITATION.md" for out in (tmp_path / "out", mixed.out))
    before, after = here.read_text(), there.read_text()
    unknown = ", unless the image was skull-stripped already"  # before it is done
    assert unknown in before
    assert after == before.replace(unknown, "")
    assert "sub_01_wf" in next(tmp_path.glob("work/*/fcnreg_wf/graph.dot")).read_text()
    assert not (tmp_path / "out" / "sub-01").exists()


def test_failed_registration_is_reported_and_fails_on_qc(mixed, tmp_path):
    """A brain whose dark parts are bright and the other way round."""
    bids = make_dataset(tmp_path / "in", "04")
    brain = nib.load(nilearn_map("t1"))
    values = brain.get_fdata()[::2, ::2, ::2]
    inverted = np.where(values > 0, 1.02 * values.max() - values, 0)
    name = bids / "sub-04/anat/sub-04_T1w.nii.gz"
    affine = brain.affine @ np.diag([2, 2, 2, 1])
    nib.Nifti1Image(inverted.astype("float32"), affine).to_filename(name)
    words = [bids, tmp_path / "out", "participant", *mixed.words[5:], "-w", tmp_path / "work"]
    words += ["--mode", "predict", "--skull-strip-t1w", "skip"]
    done = call(*words)
    assert done.returncode == 0, done.stdout + done.stderr
    (sentence,) = [one for one in done.stdout.splitlines() if one.startswith("sub-04 to Small")]
    assert "is failed: " in sentence and "not similar to the template" in sentence
    assert "class='failed'" in (tmp_path / "out" / "sub-04.html").read_text()
    assert call(*words, "--fail-on-qc").returncode == 1


@pytest.mark.parametrize(("sent", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_sigterm_ends_the_run(mixed, tmp_path, running_in, sent, code):
    words = [
        mixed.words[0],
        tmp_path / "out",
        "participant",
        *mixed.words[5:],
        "-w",
        tmp_path / "work",
    ]
    app = subprocess.Popen(
        [*COMMAND, *map(str, words), "--participant-label", "01"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        # As from a terminal, also where these tests run in the background of a shell.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    assert any(line.startswith("sub-01: ") for line in app.stdout)
    time.sleep(1)
    started = time.monotonic()
    os.killpg(app.pid, sent)  # as a terminal does
    _, errors = app.communicate(timeout=60)
    assert app.returncode == code
    assert time.monotonic() - started < 10
    assert errors.startswith("bids_fcnreg: ") and errors.count("\n") == 1
    assert not [path for path in running_in(tmp_path) if path != os.getpid()]
