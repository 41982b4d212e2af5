"""Other images of a real session, from the raw dataset to the templates."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk

pytestmark = pytest.mark.slow

SPACE = "Small"


@pytest.fixture(scope="module")
def derivatives(real_data, small_study, tmp_path_factory) -> SimpleNamespace:
    """T1w, T2w and FLAIR of a patient with a tumour, a mask on the FLAIR, and no head."""
    folder = tmp_path_factory.mktemp("other_images")
    anat = folder / "bids/sub-tumour1/anat"
    anat.mkdir(parents=True)
    for suffix in ("T1w", "T2w", "FLAIR"):
        name = f"sub-tumour1/anat/sub-tumour1_{suffix}.nii.gz"
        shutil.copy(real_data / "heads" / name, anat)
    flair = nib.load(anat / "sub-tumour1_FLAIR.nii.gz")
    lesion = np.zeros(flair.shape, "uint8")
    lesion[60:80, 130:150, 13:17] = 1
    nib.Nifti1Image(lesion, flair.affine).to_filename(
        anat / "sub-tumour1_FLAIR_label-lesion_roi.nii.gz"
    )
    noise = np.random.default_rng(0).uniform(0, 100, (24, 24, 20)).astype("float32")
    nib.Nifti1Image(noise, np.diag([4.0, 4, 5, 1])).to_filename(
        anat / "sub-tumour1_acq-noise_T2w.nii.gz"
    )
    (anat.parents[1] / "dataset_description.json").write_text(
        json.dumps({"Name": "x", "BIDSVersion": "1.10.0"})
    )
    words = [str(folder / "bids"), str(folder / "out"), "participant", "-w", str(folder / "work")]
    words += ["--mode", "predict", "--device", "cpu", "--nprocs", "2", "--skip-bids-validation"]
    words += ["--template", str(small_study.template)]
    done = subprocess.run(
        [sys.executable, "-m", "bids_fcnreg", *words], capture_output=True, text=True, timeout=1500
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return SimpleNamespace(raw=anat, anat=folder / "out/sub-tumour1/anat", said=done.stdout)


def read_json(path: Path) -> dict:
    return json.loads(path.read_text())


@pytest.mark.parametrize("suffix", ["T2w", "FLAIR"])
def test_itk_resamples_the_raw_image_in_the_same_way(derivatives, suffix):
    begin = derivatives.anat / "sub-tumour1_"
    rigid = sitk.ReadTransform(f"{begin}from-{suffix}_to-T1w_mode-image_xfm.txt")
    to_template = sitk.ReadTransform(f"{begin}from-T1w_to-{SPACE}_mode-image_xfm.h5")
    raw = sitk.ReadImage(f"{derivatives.raw}/sub-tumour1_{suffix}.nii.gz", sitk.sitkFloat32)
    for space, chain in (("T1w", [rigid]), (SPACE, [rigid, to_template])):
        stored = sitk.ReadImage(f"{begin}space-{space}_desc-preproc_{suffix}.nii.gz")
        whole = sitk.CompositeTransform(3)
        for one in chain:
            whole.AddTransform(one)
        moved = sitk.GetArrayFromImage(sitk.Resample(raw, stored, whole, sitk.sitkLinear))
        found = sitk.GetArrayFromImage(stored)
        inside = (moved > 0) & (found > 0)
        assert np.corrcoef(moved[inside], found[inside])[0, 1] > 0.98  # but for the bias field
    quality = f"{begin}from-{suffix}_to-T1w_mode-image_desc-alignment_xfm.json"
    assert read_json(Path(quality))["verdict"] == "good"


def test_the_lesion_on_the_flair_is_excluded(derivatives):
    name = f"sub-tumour1_from-T1w_to-{SPACE}_mode-image_desc-quality_xfm.json"
    quality = read_json(derivatives.anat / name)
    assert 0.1 < quality["excluded_percent"] < 2
    assert any("FLAIR_label-lesion_roi" in uri for uri in quality["Sources"])


def test_an_image_of_nothing_is_left_out_with_a_warning(derivatives):
    assert "sub-tumour1_acq-noise_T2w.nii.gz is not aligned: " in derivatives.said
    left = [path.name for path in derivatives.anat.glob("*acq-noise*")]
    assert left == ["sub-tumour1_acq-noise_from-T2w_to-T1w_mode-image_desc-alignment_xfm.json"]


def test_the_report_shows_the_images(derivatives):
    figures = derivatives.anat.parent / "figures"
    assert (figures / "sub-tumour1_space-T1w_desc-aligned_FLAIR.png").exists()
    page = (derivatives.anat.parents[1] / "sub-tumour1.html").read_text()
    assert "FLAIR to T1w: aligned" in page and "acq-noise_T2w to T1w: not aligned" in page
