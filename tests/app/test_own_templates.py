"""A template folder of one's own with a sheared grid, and a scan without orientation."""

from __future__ import annotations

import shutil
import subprocess
import sys
from types import SimpleNamespace

import h5py
import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
from nibabel.orientations import axcodes2ornt, io_orientation, ornt_transform

from bids_fcnreg import map_points

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def study(small_study, tmp_path_factory) -> SimpleNamespace:
    """One scan without orientation, and a sheared template with an atlas whose labels are off."""
    folder = tmp_path_factory.mktemp("own")
    shutil.copytree(small_study.bids, folder / "in")
    shutil.rmtree(folder / "in/sub-02")
    scan = folder / "in/sub-01/anat/sub-01_T1w.nii.gz"
    nifti = nib.load(scan)
    turn = ornt_transform(io_orientation(nifti.affine), axcodes2ornt("LAS"))
    bare = nifti.as_reoriented(turn)
    bare.set_sform(None, 0)
    bare.set_qform(None, 0)
    bare.to_filename(scan)
    brain = nib.load(small_study.template)
    affine = brain.affine.copy()
    affine[:3, :3] = affine[:3, :3] @ (np.eye(3) + 2e-4 * np.eye(3, k=1))
    template = folder / "tpl-My_Study"
    template.mkdir()
    values = np.asarray(brain.dataobj)
    nib.Nifti1Image(values, affine).to_filename(template / "tpl-My_Study_res-2_T1w.nii.gz")
    halves = (values > 0).astype("float32")
    halves[halves.shape[0] // 2 :] *= 2
    atlas = nib.Nifti1Image(halves[..., None] * np.float32(65536 / 65535), affine)
    atlas.to_filename(template / "tpl-My_Study_atlas-Halves_dseg.nii.gz")
    # Without --skull-strip-t1w: that the image is skull-stripped is detected automatically.
    words = [folder / "in", folder / "out", "participant", "-w", folder / "work", "--mode",
             "predict", "--device", "cpu", "--skip-bids-validation", "--template",
             f"{template}:res-2", "--atlas", "Halves"]  # fmt: skip
    made = SimpleNamespace(folder=folder, scan=scan, template=template, words=words)
    made.dry, made.run = (call(words, *more) for more in (["--dry-run"], []))
    return made


def call(words: list, *more: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "bids_fcnreg", *map(str, words), *more]
    return subprocess.run(command, capture_output=True, text=True)


def test_assumptions_are_reported_before_run_and_dry_run(study):
    for done in (study.dry, study.run):
        assert done.returncode == 0, done.stdout + done.stderr
        told = f"warning: {study.scan} has no orientation"
        assert done.stdout.count(told) == 1
    assert "sub-01: to register to MyStudy (predict)" in study.dry.stdout


def test_results_have_legal_names_and_claim_no_more_than_the_scan(study):
    anat = study.folder / "out/sub-01/anat"
    names = {
        "sub-01_desc-preproc_T1w.nii.gz": (0, 0),
        "sub-01_desc-brain_mask.nii.gz": (0, 0),
        "sub-01_atlas-Halves_desc-MyStudy_dseg.nii.gz": (0, 0),
        "sub-01_space-MyStudy_res-2_desc-preproc_T1w.nii.gz": (4, 4),
    }
    scan = nib.load(study.scan)
    for name, codes in names.items():
        header = nib.load(anat / name).header
        assert (int(header["sform_code"]), int(header["qform_code"])) == codes, name
        if codes == (0, 0):
            assert nib.load(anat / name).shape == scan.shape
            np.testing.assert_allclose(nib.load(anat / name).affine, scan.affine, atol=1e-4)
    labels = nib.load(anat / "sub-01_atlas-Halves_desc-MyStudy_dseg.nii.gz")
    assert set(np.unique(labels.dataobj)) == {0, 1, 2}
    # The scan is LAS: its first half is on the right.
    right = np.argwhere(np.asarray(labels.dataobj) == 2)[:, 0].mean()
    assert right < np.argwhere(np.asarray(labels.dataobj) == 1)[:, 0].mean()


def test_itk_maps_points_of_a_sheared_template_equally(study):
    anat = study.folder / "out/sub-01/anat"
    brain = nib.load(study.template / "tpl-My_Study_res-2_T1w.nii.gz")
    points = nib.affines.apply_affine(brain.affine, np.argwhere(brain.get_fdata() > 0)[::997])
    lps = np.array([-1, -1, 1])
    for name in ("from-T1w_to-MyStudy", "from-MyStudy_to-T1w"):
        path = anat / f"sub-01_{name}_mode-image_xfm.h5"
        itk = sitk.ReadTransform(str(path))
        theirs = np.array([itk.TransformPoint(point.tolist()) for point in points * lps]) * lps
        assert np.abs(theirs - map_points(points, [path])).max() < 0.01
        with h5py.File(path, locking=False) as file:  # as fMRIPrep expects it
            kinds = [file[f"TransformGroup/{n}/TransformType"].asstr()[0] for n in (1, 2)]
            assert len(file["TransformGroup"]) == 3, kinds
