"""`--derivatives` as its user calls it: existing results in place of new ones."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk

from tests.app.bodies import QUICK, SPACE, body, write_study

pytestmark = pytest.mark.slow

SPACING = 4.5
SIZES = {"01": 1.05, "02": 1.1, "03": 0.95}


def call(study: SimpleNamespace, *words: object) -> subprocess.CompletedProcess[str]:
    given = [study.bids, study.out, "participant", "-w", study.folder / "work", *QUICK, *words]
    given += ["--template", study.template]
    given += ["-d", f"fmriprep={study.other}"]
    command = [sys.executable, "-m", "bids_fcnreg", *map(str, given)]
    return subprocess.run(command, capture_output=True, text=True)


def write_existing(study: SimpleNamespace, label: str, suffixes: tuple[str, ...]) -> None:
    """Write existing results: a mask and tissues in three slabs, an affine, a scaled image."""
    scan = nib.load(study.bids / f"sub-{label}/anat/sub-{label}_T1w.nii.gz")
    data = scan.get_fdata()
    mask = data > 20
    slabs = (1 + np.indices(data.shape)[2] * 3 // data.shape[2]) * mask
    anat = study.other / f"sub-{label}" / "anat"
    anat.mkdir(parents=True)
    for suffix, values in {
        "desc-brain_mask": mask.astype("uint8"),
        "dseg": slabs.astype("uint8"),
        "desc-preproc_T1w": (7 * data).astype("float32"),
    }.items():
        if suffix in suffixes:
            image = nib.Nifti1Image(values, scan.affine)
            image.to_filename(anat / f"sub-{label}_{suffix}.nii.gz")
    affine = sitk.AffineTransform(3)
    affine.Scale(SIZES[label])
    name = f"sub-{label}_from-T1w_to-{SPACE}_mode-image_xfm.txt"
    sitk.WriteTransform(affine, str(anat / name))


@pytest.fixture(scope="module")
def study(tmp_path_factory) -> SimpleNamespace:
    """One participant with all existing results, one with mask and affine, one with none."""
    scans = {
        f"sub-{label}": body(SPACING, size, 0, seed=n) for n, (label, size) in enumerate(SIZES.items())
    }  # fmt: skip
    study = write_study(tmp_path_factory.mktemp("precomputed"), "Bodies", SPACING, scans)
    study.other = study.folder / "other"
    write_existing(study, "01", ("desc-brain_mask", "dseg", "desc-preproc_T1w"))
    write_existing(study, "02", ("desc-brain_mask",))
    done = call(study)
    assert done.returncode == 0, done.stdout + done.stderr
    study.printed = done.stdout
    return study


def read(path: Path) -> np.ndarray:
    return np.asanyarray(nib.load(path).dataobj)


def test_existing_results_are_those_in_the_output(study):
    for label in ("01", "02"):
        name = f"sub-{label}/anat/sub-{label}_desc-brain_mask.nii.gz"
        assert np.array_equal(read(study.out / name), read(study.other / name))
    name = "sub-01/anat/sub-01_dseg.nii.gz"
    assert np.array_equal(read(study.out / name), read(study.other / name))
    grey = study.out / "sub-01/anat/sub-01_label-GM_probseg.nii.gz"
    assert np.allclose(read(grey), read(study.other / name) == 1)
    name = "sub-01/anat/sub-01_desc-preproc_T1w.nii.gz"
    made, existing = read(study.out / name), read(study.other / name)
    assert np.allclose(made, existing * made.max() / existing.max(), atol=0.05)


def test_terminal_report_methods_and_sidecars_name_them(study):
    assert (
        "sub-01: existing image, brain mask, tissue segmentation, affine of fmriprep is used"
        in study.printed
    )
    assert "warning: sub-03: no existing results in fmriprep (--derivatives)" in study.printed
    page = (study.out / "sub-01.html").read_text()
    assert "Existing brain mask" in page
    assert "sub-01_desc-brain_mask.nii.gz (fmriprep)" in page
    methods = (study.out / "logs/CITATION.md").read_text()
    for text in ("mask was taken from fmriprep", "tissue was taken from fmriprep",
                 "image was taken from fmriprep", "initialized with that of fmriprep"):  # fmt: skip
        assert text in methods
    anat = study.other / "sub-01" / "anat"
    expected = {
        "desc-brain_mask": "desc-brain_mask.nii.gz",
        "desc-preproc_T1w": "desc-preproc_T1w.nii.gz",
        "dseg": "dseg.nii.gz",
        f"from-T1w_to-{SPACE}_mode-image_xfm": f"from-T1w_to-{SPACE}_mode-image_xfm.txt",
    }
    for stem, source in expected.items():
        sidecar = json.loads((study.out / f"sub-01/anat/sub-01_{stem}.json").read_text())
        assert (anat / f"sub-01_{source}").as_uri() in sidecar["Sources"]
        assert set(sidecar["Sources"]) == set(sidecar["SourcesSHA256"])


def test_rerun_resumes_and_reports_other_existing_results(study):
    assert "sources have changed" not in call(study, "--dry-run").stdout
    path = study.other / "sub-02/anat/sub-02_desc-brain_mask.nii.gz"
    before, affine = path.read_bytes(), nib.load(path).affine
    values = read(path).copy()
    values[:, :, ::2] = 0
    try:
        nib.Nifti1Image(values, affine).to_filename(path)
        printed = call(study, "--dry-run").stdout
        assert "made from another sub-02_desc-brain_mask.nii.gz; to register again" in printed
        path.unlink()
        printed = call(study, "--dry-run").stdout
        assert "made from another sub-02_desc-brain_mask.nii.gz; to register again" in printed
    finally:
        path.write_bytes(before)


def test_unusable_results_are_errors_of_their_scan(study):
    empty = study.other / "sub-03/anat/sub-03_desc-brain_mask.nii.gz"
    empty.parent.mkdir(parents=True)
    scan = nib.load(study.bids / "sub-03/anat/sub-03_T1w.nii.gz")
    nib.Nifti1Image(np.zeros(scan.shape, "uint8"), scan.affine).to_filename(empty)
    printed = call(study, "--dry-run").stdout
    assert f"sub-03: {empty} contains only zeros" in printed
    assert "sub-01: results in" in printed
