"""Images of unusual intensities, by the app and by `fcnreg register`."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from scipy import ndimage

from bids_fcnreg.bids.builtin_templates import nilearn_map

pytestmark = pytest.mark.slow

CHANGES = {
    "01": lambda b: np.where(b > 0, (b - b[b > 0].mean()) / b[b > 0].std(), 0),
    "02": lambda b: np.where(b > 0, b, -1000),
    "03": lambda b: ndimage.shift(ndimage.shift(b, 0.4, order=3), -0.4, order=3),
}


def brain(step: int, turned: float = 0.0) -> nib.Nifti1Image:
    """The built-in template with fewer voxels, turned about the vertical axis by its header."""
    template = nib.load(nilearn_map("t1"))
    data = np.asarray(template.dataobj, np.float32)[::step, ::step, ::step]
    c, s = np.cos(turned), np.sin(turned)
    turn = np.array([[c, -s, 0, 4], [s, c, 0, -3], [0, 0, 1.03, 2], [0, 0, 0, 1]])
    affine = template.affine @ np.diag([step, step, step, 1.0])
    return nib.Nifti1Image(data, turn @ affine if turned else affine)


def run(*words: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True)


@pytest.fixture(scope="module")
def study(tmp_path_factory) -> Path:
    """Folder with a template, and a dataset of it in three kinds of intensities."""
    folder = tmp_path_factory.mktemp("intensities")
    brain(4).to_filename(folder / "tpl-Small_T1w.nii.gz")
    moving = brain(3, 0.1)
    for label, change in CHANGES.items():
        path = folder / f"in/sub-{label}/anat/sub-{label}_T1w.nii.gz"
        path.parent.mkdir(parents=True)
        changed = change(moving.get_fdata(dtype=np.float32)).astype(np.float32)
        nib.Nifti1Image(changed, moving.affine).to_filename(path)
    description = json.dumps({"Name": "Small", "BIDSVersion": "1.10.0"})
    (folder / "in/dataset_description.json").write_text(description)
    return folder


def test_app_registers_all_intensity_ranges(study):
    done = run(
        "bids_fcnreg", study / "in", study / "out", "participant", "-w", study / "work",
        "--template", study / "tpl-Small_T1w.nii.gz", "--mode", "predict", "--device", "cpu",
        "--skip-bids-validation", "--skull-strip-t1w", "skip", "--fail-on-qc", "--level", "minimal",
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    for label in CHANGES:
        (path,) = (study / f"out/sub-{label}/anat").glob("*desc-quality_xfm.json")
        quality = json.loads(path.read_text())
        assert quality["similarity"] > 0.75 and quality["brain_overlap"] > 0.95, label


@pytest.mark.parametrize("label", CHANGES)
def test_register_command_registers_all_intensity_ranges(study, label):
    done = run(
        "bids_fcnreg.cli.fcnreg", "register", study / "tpl-Small_T1w.nii.gz",
        study / f"in/sub-{label}/anat/sub-{label}_T1w.nii.gz", "-o", study / f"{label}_",
        "--mode", "predict", "--device", "cpu", "--fail-on-qc",
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    similarity = float(done.stdout.split("Local correlation after registration: ")[1].split()[0])
    assert similarity > 0.75
