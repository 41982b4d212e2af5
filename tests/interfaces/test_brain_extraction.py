"""Brain masks against truth, and whether an image was brain-extracted before."""

from __future__ import annotations

import os
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from nilearn.datasets import load_mni152_brain_mask, load_mni152_template
from scipy import ndimage

from bids_fcnreg.errors import InputError
from bids_fcnreg.fcn.foreground import foreground
from bids_fcnreg.fcn.spatial.transform import Transform
from bids_fcnreg.interfaces.brain_extraction import BrainExtraction
from bids_fcnreg.io import image, nifti
from bids_fcnreg.preprocessing.brain import fraction_outside

pytestmark = pytest.mark.slow


def _extract(path: str | Path, folder: Path, **options) -> tuple[np.ndarray, bool]:
    run = BrainExtraction(in_file=str(path), num_threads=2, **options).run(cwd=folder)
    return np.asanyarray(nib.load(run.outputs.mask).dataobj) > 0, run.outputs.skull_stripped


def _dice(a: np.ndarray, b: np.ndarray) -> float:
    return 2 * (a & b).sum() / (a.sum() + b.sum())


@pytest.fixture(scope="module")
def template() -> tuple[np.ndarray, np.ndarray]:
    """Brain of the template, 2 mm voxels, and its affine."""
    nifti = load_mni152_template(resolution=2)
    return nifti.get_fdata(dtype=np.float32), nifti.affine


def _head(brain: np.ndarray) -> np.ndarray:
    """A skull 4 mm thick and a scalp of 8 mm around a brain of 2 mm voxels."""
    closed = foreground(brain)
    head = np.where(closed, brain, 0)
    head[ndimage.binary_dilation(closed, iterations=6) & ~closed] = 1.1
    head[ndimage.binary_dilation(closed, iterations=2) & ~closed] = 0
    return head


def test_phantom_head_against_its_truth(tmp_path, phantom_dataset):
    truth = next((phantom_dataset / "derivatives/truth").rglob("sub-01*_desc-brain_mask.nii.gz"))
    (scan,) = (phantom_dataset / "sub-01").rglob("*_T1w.nii.gz")
    mask, stripped = _extract(scan, tmp_path)
    assert not stripped
    assert _dice(mask, np.asanyarray(nib.load(truth).dataobj) > 0) > 0.96


@pytest.mark.parametrize("change", ["standardised", "cropped"])
def test_an_extracted_brain_is_recognised_and_not_cut(tmp_path, template, change):
    data, affine = template
    expected = foreground(data)
    if change == "standardised":
        inside = data[expected]
        data = np.where(expected, (data - inside.mean()) / inside.std(), -9).astype(np.float32)
    if change == "cropped":
        box = ndimage.find_objects(expected.astype(np.uint8))[0]
        data, expected = data[box], expected[box]
    path = tmp_path / "t1w.nii.gz"
    nifti.write(path, nib.Nifti1Image(data, affine))
    mask, stripped = _extract(path, tmp_path)
    assert stripped is True
    np.testing.assert_array_equal(mask, expected)


def test_skip_makes_the_mask_and_force_extracts(tmp_path, template):
    data, affine = template
    data = data.copy()
    data[45:48, 50:53, 40:43] = 0  # a hole deep inside
    data[2:4, 2:4, 2:4] = 1.0  # something else in a corner
    path = tmp_path / "t1w.nii.gz"
    nifti.write(path, nib.Nifti1Image(data, affine))
    mask, stripped = _extract(path, tmp_path, mode="skip")
    assert stripped
    assert mask[45:48, 50:53, 40:43].all()
    assert not mask[2:4, 2:4, 2:4].any()
    assert ndimage.label(mask)[1] == 1
    mask, stripped = _extract(path, tmp_path, mode="force")
    assert stripped is False
    assert _dice(mask, foreground(data)) > 0.95


@pytest.mark.parametrize("change", ["whole", "defaced", "neckless", "noisy air", "infant"])
def test_fraction_outside_separates_heads_from_brains(template, change):
    brain, _ = template
    truth = foreground(brain)
    head = _head(brain)
    spacing = np.full(3, 2.0)
    if change == "defaced":
        head[:, int(0.6 * head.shape[1]) :, : int(0.4 * head.shape[2])] = 0
    if change == "neckless":
        head[:, :, : int(0.35 * head.shape[2])] = 0
    if change == "noisy air":
        head = head + np.abs(np.random.default_rng(0).normal(0, 0.02, head.shape))
    if change == "infant":
        spacing *= 0.65
    assert fraction_outside(head, truth & (head != 0), spacing) > 0.12
    loose = ndimage.binary_dilation(truth, iterations=2)
    generous = np.where(loose, _head(brain) + 0.2, 0)
    assert fraction_outside(generous, truth, spacing) < 0.02


def test_noise_around_an_extracted_brain_is_no_brain(tmp_path, template):
    data, affine = template
    noise = np.random.default_rng(0).normal(0, 0.02, data.shape).astype(np.float32)
    path = tmp_path / "t1w.nii.gz"
    nifti.write(path, nib.Nifti1Image(data + noise, affine))
    mask, _ = _extract(path, tmp_path, mode="skip")
    assert _dice(mask, foreground(data)) > 0.97


@pytest.mark.parametrize("kind", ["mask", "constant"])
def test_masks_are_refused(tmp_path, template, kind):
    data, affine = template
    values = foreground(data) if kind == "mask" else np.ones(data.shape)
    path = tmp_path / "t1w.nii.gz"
    nifti.write(path, nib.Nifti1Image(values.astype(np.float32), affine))
    with pytest.raises(InputError, match=r"sub-01_T1w.nii.gz has one value only, like a mask"):
        _extract(path, tmp_path, source="sub-01_T1w.nii.gz")


def test_missing_synthstrip_raises(tmp_path, template, monkeypatch):
    data, affine = template
    path = tmp_path / "t1w.nii.gz"
    nifti.write(path, nib.Nifti1Image(data, affine))
    monkeypatch.setenv("PATH", str(tmp_path) + os.pathsep + "/bin")
    with pytest.raises(InputError, match=r"mri_synthstrip is not on the PATH"):
        _extract(path, tmp_path, mode="force", extractor="synthstrip")


def test_the_same_image_gives_the_same_mask(tmp_path, template):
    data, affine = template
    path = tmp_path / "t1w.nii.gz"
    nifti.write(path, nib.Nifti1Image(_head(data), affine))
    masks = [_extract(path, tmp_path, mode="force")[0] for _ in range(2)]
    np.testing.assert_array_equal(*masks)


def test_colin_against_the_brain_of_the_template(tmp_path, real_data):
    """Colin27 lies in MNI space: the template's mask is where his brain is, but for anatomy."""
    path = real_data / "wholehead/sub-colin/anat/sub-colin_T1w.nii.gz"
    mask, stripped = _extract(path, tmp_path)
    assert not stripped
    reference = image.to_image(load_mni152_brain_mask(resolution=1))
    grid = image.read(path).grid
    there = Transform(()).resample(reference, grid, "nearest").data[0, 0].numpy() > 0
    assert _dice(mask, there) > 0.94


def test_chris_has_a_brain_of_the_size_of_a_brain(tmp_path, real_data):
    path = real_data / "wholehead/sub-chris/anat/sub-chris_T1w.nii.gz"
    mask, stripped = _extract(path, tmp_path)
    assert not stripped
    millilitres = mask.sum() * np.prod(image.read(path).grid.spacing) / 1000
    assert 1300 < millilitres < 1700


@pytest.mark.parametrize("scan", ["ds002748/sub-27", "oasis-malf/sub-1000"])
def test_real_extracted_brains_are_recognised(tmp_path, real_data, scan):
    (path,) = (real_data / scan / "anat").glob("*_T1w.nii.gz")
    mask, stripped = _extract(path, tmp_path)
    data = np.asanyarray(nib.load(path).dataobj)
    assert stripped
    assert (data[mask] > 0).mean() > 0.99
    assert mask.sum() > 0.99 * (data > 0).sum()
