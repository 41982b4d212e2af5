"""Interfaces of registration, against a known transform and against ITK."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
import torch
from nipype.pipeline import engine as pe
from scipy import ndimage

from bids_fcnreg import api
from bids_fcnreg.fcn.spatial.grid import Grid, Image
from bids_fcnreg.fcn.spatial.normalization import JACOBIAN_MARGIN_MM
from bids_fcnreg.fcn.spatial.transform import Affine, Displacement, Transform
from bids_fcnreg.interfaces.registration import Register, Resample, ToTemplate
from bids_fcnreg.io import image
from bids_fcnreg.io.itk import read_transform, write_transform
from bids_fcnreg.io.orientation import TEMPLATE

pytestmark = pytest.mark.slow

FIXED = Grid(
    (40, 36, 32), np.array([[2.0, 0, 0, -40], [0, 2, 0, -36], [0, 0, 2, -30], [0] * 3 + [1]])
)
#: Another orientation (LPI axes in another order) and other voxel sizes.
MOVING = Grid(
    (50, 60, 44), np.array([[0, -1.5, 0, 44], [-1.8, 0, 0, 42], [0, 0, 2.0, -42], [0] * 3 + [1]])
)
MATRIX = np.array(
    [[1.08, 0.1, 0, 3], [-0.1, 0.95, 0.04, -2], [0.02, 0, 1.05, 1.5], [0, 0, 0, 1.0]]
)


def smooth(grid: Grid, seed: int, sigma: float) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return ndimage.gaussian_filter(rng.normal(size=grid.shape), sigma)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Two images, labels, and a transform of an affine and a displacement."""
    folder = tmp_path_factory.mktemp("registration")
    blobs = smooth(MOVING, 0, 3)
    blobs = torch.from_numpy(100 + 400 * blobs / blobs.std()).float()[None, None]
    image.write(folder / "moving.nii.gz", Image(blobs, MOVING))
    labels = torch.from_numpy(np.digitize(smooth(MOVING, 1, 3), [-0.02, 0.0, 0.02]))
    labels = torch.tensor([0, 7, 1001, 40000])[labels].float()[None, None]
    image.write(folder / "labels.nii.gz", Image(labels, MOVING), dtype="int32")
    image.write(folder / "fixed.nii.gz", Image(torch.ones(1, 1, *FIXED.shape), FIXED))
    field = np.stack([smooth(FIXED, seed, 4) for seed in (2, 3, 4)])
    field = torch.from_numpy(1.5 * field / np.abs(field).max()).float()[None]
    transform = Transform((Displacement(FIXED, field), Affine(MATRIX)))
    write_transform(folder / "forward.h5", transform)
    return folder


def run(interface, tmp_path: Path, name: str = "node"):
    return pe.Node(interface, name=name, base_dir=str(tmp_path)).run().outputs


def by_itk(folder: Path, name: str, interpolator: int) -> np.ndarray:
    """The same resampling by ITK, axes as nibabel has them."""
    resampled = sitk.Resample(
        sitk.ReadImage(str(folder / name)),
        sitk.ReadImage(str(folder / "fixed.nii.gz")),
        sitk.ReadTransform(str(folder / "forward.h5")),
        interpolator,
        0.0,
    )
    return sitk.GetArrayFromImage(resampled).transpose(2, 1, 0)


def test_resample_agrees_with_itk(folder, tmp_path):
    outputs = run(
        Resample(
            in_file=str(folder / "moving.nii.gz"),
            reference=str(folder / "fixed.nii.gz"),
            transform=str(folder / "forward.h5"),
            onto_template=True,
        ),
        tmp_path,
    )
    ours = nib.load(outputs.out_file)
    truth = by_itk(folder, "moving.nii.gz", sitk.sitkLinear)
    inside = ndimage.binary_erosion(truth != 0, iterations=2)
    assert inside.mean() > 0.3
    assert np.abs(ours.get_fdata() - truth)[inside].max() < 0.5  # of a contrast of ±400
    np.testing.assert_allclose(ours.affine, FIXED.affine, atol=1e-5)
    assert int(ours.header["sform_code"]) == TEMPLATE
    assert ours.get_data_dtype() == np.float32


def test_resample_labels_keeps_values_and_type(folder, tmp_path):
    outputs = run(
        Resample(
            in_file=str(folder / "labels.nii.gz"),
            reference=str(folder / "fixed.nii.gz"),
            transform=str(folder / "forward.h5"),
            interpolation="label",
        ),
        tmp_path,
    )
    ours = nib.load(outputs.out_file)
    assert ours.get_data_dtype() == np.int32
    values = np.asarray(ours.dataobj)
    assert set(np.unique(values)) == {0, 7, 1001, 40000}
    # Nearest neighbour differs at the borders of labels only.
    assert (values == by_itk(folder, "labels.nii.gz", sitk.sitkNearestNeighbor)).mean() > 0.9


@pytest.mark.parametrize(
    ("labels", "dtype", "slope"),
    [
        ((0, 312782571, 312782572, 2**31 - 1), "int32", 1),
        ((0, 200, 400, 600), "uint8", 10),
        ((0, 16777217, 16777218, 16777219), "float64", 1),
    ],
)
def test_large_and_scaled_labels_are_preserved(folder, tmp_path, labels, dtype, slope):
    numbers = np.digitize(smooth(MOVING, 1, 3), [-0.02, 0.0, 0.02])
    stored = (np.array(labels) / slope).astype(dtype)[numbers]
    nifti = nib.Nifti1Image(stored, MOVING.affine)
    nifti.header.set_slope_inter(slope, 0)
    path = tmp_path / "labels.nii.gz"
    nifti.to_filename(path)
    transform = str(folder / "forward.h5")
    made = run(
        Resample(in_file=str(path), reference=str(folder / "fixed.nii.gz"),
                 transform=transform, interpolation="label"),
        tmp_path,
    )  # fmt: skip
    found = np.asanyarray(nib.load(made.out_file).dataobj)
    assert set(np.unique(found)) == set(labels)
    same = api.apply(path, folder / "fixed.nii.gz", [transform], interpolation="label")
    np.testing.assert_array_equal(np.asanyarray(same.dataobj), found)


def test_everything_is_brought_to_the_template_as_by_itk(folder, tmp_path):
    mask = nib.load(folder / "labels.nii.gz")
    inside = (np.asarray(mask.dataobj) > 0).astype("uint8")
    nib.Nifti1Image(inside, mask.affine).to_filename(folder / "mask.nii.gz")
    outputs = run(
        ToTemplate(
            preproc=str(folder / "moving.nii.gz"),
            mask=str(folder / "mask.nii.gz"),
            reference=str(folder / "fixed.nii.gz"),
            template_mask=str(folder / "fixed.nii.gz"),
            transform=str(folder / "forward.h5"),
        ),
        tmp_path,
    )
    truth = by_itk(folder, "moving.nii.gz", sitk.sitkLinear)
    ours = nib.load(outputs.preproc_std)
    within = ndimage.binary_erosion(truth != 0, iterations=2)
    assert np.abs(ours.get_fdata() - truth)[within].max() < 0.5  # of a contrast of ±400
    masked = np.asarray(nib.load(outputs.mask_std).dataobj)
    assert masked.dtype == np.uint8 and set(np.unique(masked)) == {0, 1}
    assert (masked == by_itk(folder, "mask.nii.gz", sitk.sitkNearestNeighbor)).mean() > 0.9
    for path in (outputs.preproc_std, outputs.mask_std, outputs.log_jacobian):
        assert int(nib.load(path).header["sform_code"]) == TEMPLATE
        np.testing.assert_allclose(nib.load(path).affine, FIXED.affine, atol=1e-5)


def test_log_jacobian_of_an_affine_is_constant_in_the_brain_and_0_away_from_it(folder, tmp_path):
    transform = write_transform(tmp_path / "affine.h5", Transform((Affine(MATRIX),)))
    points = FIXED.points()
    distance = (points - points.mean(dim=(0, 1, 2))).norm(dim=-1) - 15  # from a ball
    ball = Image((distance <= 0).float()[None, None], FIXED)
    outputs = run(
        ToTemplate(
            preproc=str(folder / "moving.nii.gz"),
            mask=str(folder / "moving.nii.gz"),
            transform=str(transform),
            reference=str(folder / "fixed.nii.gz"),
            template_mask=str(image.write(tmp_path / "ball.nii.gz", ball)),
        ),
        tmp_path,
    )
    values = nib.load(outputs.log_jacobian).get_fdata()
    assert values.shape == FIXED.shape
    growth = np.log(np.linalg.det(MATRIX[:3, :3]))
    np.testing.assert_allclose(values[distance <= JACOBIAN_MARGIN_MM], growth, atol=1e-3)
    assert (distance > 12).any() and (values[distance > 12] == 0).all()


def test_register_finds_a_known_affine(tmp_path):
    """A brain-like pair: both directions are written and undo the known map."""
    points = FIXED.points().numpy()
    blobs = smooth(FIXED, 5, 2)
    brain = 100 * (((points / [32, 30, 26]) ** 2).sum(-1) < 1) * (1 + 0.3 * blobs / blobs.std())
    fixed = Image(torch.from_numpy(brain.clip(0)).float()[None, None], FIXED)
    truth = np.array([[1, 0.05, 0, 4], [-0.05, 1, 0, -3], [0, 0, 1.04, 2], [0, 0, 0, 1.0]])
    moving = Transform((Affine(np.linalg.inv(truth)),)).resample(fixed, MOVING)
    image.write(tmp_path / "fixed.nii.gz", fixed)
    image.write(tmp_path / "moving.nii.gz", moving)
    outputs = run(
        Register(
            fixed=str(tmp_path / "fixed.nii.gz"),
            moving=str(tmp_path / "moving.nii.gz"),
            device="cpu",
            num_threads=2,
        ),
        tmp_path,
    )
    inside = torch.from_numpy(points[ndimage.binary_erosion(brain > 0, iterations=2)])
    there = read_transform(outputs.transform).map(inside)
    expected = inside.numpy() @ truth[:3, :3].T + truth[:3, 3]
    error = np.linalg.norm(there.numpy() - expected, axis=1)
    assert np.median(error) < 1
    back = read_transform(outputs.inverse).map(there)
    assert np.percentile((back - inside).norm(dim=1), 95) < 0.5
    quality = json.loads(Path(outputs.quality).read_text())
    assert quality["similarity"] > quality["similarity_initial"]
    assert quality["mode"] == "refine" and quality["device"] == "cpu"


def test_threads_and_gpu_slot_do_not_change_the_hash(folder):
    common = {"fixed": str(folder / "fixed.nii.gz"), "moving": str(folder / "moving.nii.gz")}
    one = Register(num_threads=1, use_gpu=False, **common)
    two = Register(num_threads=2, use_gpu=True, **common)
    other = Register(num_threads=1, seed=1, **common)
    hashes = [interface.inputs.get_hashval()[1] for interface in (one, two, other)]
    assert hashes[0] == hashes[1] != hashes[2]
