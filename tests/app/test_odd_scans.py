"""Odd scans beside each other in one dataset: what can be done is done, the rest is told."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import nibabel as nib
import numpy as np
import pytest
from nibabel.affines import apply_affine

pytestmark = pytest.mark.slow


def write(path: Path, data: np.ndarray, affine: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.Nifti1Image(data, affine).to_filename(path)


def make(folder: Path, source: Path) -> None:
    """A participant for each kind of oddity, from one good scan."""
    nifti = nib.load(source)
    data, affine = np.asarray(nifti.dataobj), nifti.affine

    def t1w(label: str, more: str = "") -> Path:
        return folder / f"sub-{label}/anat/sub-{label}{more}_T1w.nii.gz"

    # Two runs of different geometry, and a lesion mask of yet another size.
    write(t1w("runs", "_run-1"), data, affine)
    write(t1w("runs", "_run-2"), data[::-1, 4:, ::2], _moved(affine @ np.diag([-1, 1, 2, 1])))
    lesion = np.zeros((9, 9, 9), np.uint8)
    lesion[4, 4, 4] = 1
    middle = apply_affine(affine, (np.array(data.shape) - 1) / 2)
    write(
        folder / "sub-runs/anat/sub-runs_label-lesion_roi.nii.gz",
        lesion,
        nib.affines.from_matvec(np.eye(3) * 5, middle - 20),
    )
    # Slices of 6 mm, of a brain that is cut off.
    every = max(1, round(6 / np.linalg.norm(affine[:3, 2])))
    cut = data[:, : data.shape[1] * 3 // 4, ::every]
    write(t1w("thick"), cut, affine @ np.diag([1, 1, every, 1]))
    # A header turned by 90 degrees.
    turn = np.array([[0, -1, 0, 0], [1, 0, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1.0]])
    write(t1w("turned"), data, turn @ affine)
    # What cannot be done.
    write(t1w("elsewhere"), data, affine)
    far = affine.copy()
    far[:3, 3] += 5000
    write(folder / "sub-elsewhere/anat/sub-elsewhere_label-lesion_roi.nii.gz", lesion, far)
    write(t1w("later", "_run-1"), data, affine)
    write(t1w("later", "_run-2"), np.zeros_like(data), affine)
    write(t1w("blocked"), data, affine)
    t1w("half").parent.mkdir(parents=True)
    t1w("half").write_bytes(source.read_bytes()[:1000])


def _moved(affine: np.ndarray) -> np.ndarray:
    """Another position of the head."""
    small = np.eye(4)
    small[:3, 3] = 3, -2, 4
    return small @ affine


@pytest.fixture(scope="module")
def done(small_study, tmp_path_factory) -> SimpleNamespace:
    """The result of one run on all of them, on input that is read-only."""
    folder = tmp_path_factory.mktemp("odd")
    bids = folder / "in"
    make(bids, small_study.bids / "sub-01/anat/sub-01_T1w.nii.gz")
    shutil.copy(small_study.bids / "dataset_description.json", bids)
    paths = sorted(bids.rglob("*"), reverse=True)
    before = content(bids)
    for path in (*paths, bids):
        path.chmod(0o555 if path.is_dir() else 0o444)
    (folder / "out").mkdir()
    (folder / "out/sub-blocked").write_text("of somebody else")
    words = [bids, folder / "out", "participant", "-w", folder / "work", *small_study.words]
    words += ["--level", "minimal"]
    run = subprocess.run(
        [sys.executable, "-m", "bids_fcnreg", *map(str, words)], capture_output=True, text=True
    )
    for path in (*paths, bids):
        path.chmod(0o755 if path.is_dir() else 0o644)
    return SimpleNamespace(
        run=run, out=folder / "out", bids=bids, before=before, after=content(bids)
    )


def content(folder: Path) -> dict[str, str]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.mark.parametrize("label", ["runs", "thick", "turned"])
def test_an_odd_scan_is_registered(done, label):
    (path,) = done.out.glob(f"sub-{label}/anat/*_desc-quality_xfm.json")
    quality = json.loads(path.read_text())
    assert quality["similarity"] > max(quality["similarity_initial"], 0.3), quality
    assert quality["folds_percent"] < 0.01


@pytest.mark.parametrize(
    ("label", "sentence"),
    [
        ("elsewhere", "sub-elsewhere_label-lesion_roi.nii.gz is outside its T1w image. Check"),
        ("half", "sub-half_T1w.nii.gz is too small for the"),
        ("later", "sub-later_run-2_T1w.nii.gz contains only zeros. Check how it was made."),
        ("blocked", "sub-blocked conflicts with the directory of the results. Move it."),
    ],
)
def test_failed_scan_is_reported_and_has_no_transform(done, label, sentence):
    assert done.run.returncode == 1, done.run.stdout + done.run.stderr
    (told,) = (line for line in done.run.stdout.splitlines() if f"sub-{label} failed" in line)
    assert sentence in told
    assert not list(done.out.glob(f"sub-{label}/anat/*_xfm.*"))


def test_input_is_unchanged(done):
    assert done.after == done.before
