"""Conformation, averages, bias field, intensity scale and lesions against what is known."""

from __future__ import annotations

import itertools
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from nibabel.affines import apply_affine
from nilearn.datasets import load_mni152_template
from scipy import ndimage
from scipy.spatial.transform import Rotation

from bids_fcnreg.errors import InputError
from bids_fcnreg.fcn.foreground import foreground
from bids_fcnreg.interfaces.preprocess import (
    AverageRuns,
    BiasCorrection,
    Conform,
    NormalizeIntensity,
    UniteLesions,
)
from bids_fcnreg.io import image
from bids_fcnreg.preprocessing.intensity import INTENSITY_STEP

OBLIQUE = np.eye(4)
OBLIQUE[:3, :3] = Rotation.from_euler("xyz", [8, -5, 12], degrees=True).as_matrix() * [1, 1.5, 2]
OBLIQUE[:3, 3] = [-20, 15, 7]


def _save(path: Path, data: np.ndarray, affine: np.ndarray) -> str:
    nifti = nib.Nifti1Image(data, affine)
    nifti.set_sform(affine, 1)
    nifti.set_qform(affine, 1)
    nifti.to_filename(path)
    return str(path)


def _data(path: str) -> np.ndarray:
    return np.asanyarray(nib.load(path).dataobj)


@pytest.fixture(scope="module")
def brain() -> nib.Nifti1Image:
    """Brain of the template, 3 mm voxels, white matter about 1."""
    template = load_mni152_template(resolution=3)
    data = template.get_fdata(dtype=np.float32)
    return nib.Nifti1Image(np.where(foreground(data), data, 0), template.affine)


def test_every_orientation_becomes_ras_and_no_voxel_moves_in_the_world(tmp_path):
    shape = (5, 6, 7)
    values = np.arange(np.prod(shape), dtype=np.int16).reshape(shape) + 1
    original = nib.Nifti1Image(values, OBLIQUE)
    positions = apply_affine(OBLIQUE, np.argwhere(values))  # in the order of the values
    seen = set()
    for order in itertools.permutations(range(3)):
        for flips in itertools.product((1, -1), repeat=3):
            scan = original.as_reoriented(np.column_stack([order, flips]))
            seen.add(nib.aff2axcodes(scan.affine))
            path = _save(tmp_path / "scan.nii.gz", np.asanyarray(scan.dataobj), scan.affine)
            conformed = nib.load(Conform(in_file=path).run(cwd=tmp_path).outputs.out_file)
            data = np.asanyarray(conformed.dataobj)
            assert nib.aff2axcodes(conformed.affine) == ("R", "A", "S")
            assert data.dtype == np.float32
            voxels = np.argwhere(data > 0)
            expected = positions[data[tuple(voxels.T)].astype(int) - 1]
            assert len(voxels) == len(positions)
            np.testing.assert_allclose(apply_affine(conformed.affine, voxels), expected, atol=1e-3)
            np.testing.assert_allclose(conformed.get_qform(), conformed.get_sform(), atol=1e-3)
            assert conformed.header["sform_code"] == conformed.header["qform_code"] == 1
    assert len(seen) == 48


def test_trailing_axes_of_one_are_dropped_and_series_refused(tmp_path):
    volume = np.random.default_rng(0).random((5, 6, 7, 1)).astype(np.float32)
    one = _save(tmp_path / "one.nii.gz", volume, OBLIQUE)
    assert _data(Conform(in_file=one).run(cwd=tmp_path).outputs.out_file).shape == (5, 6, 7)
    many = _save(tmp_path / "many.nii.gz", np.repeat(volume, 3, axis=3), OBLIQUE)
    with pytest.raises(InputError, match=r"many\.nii\.gz.*not that of a 3D volume"):
        Conform(in_file=many).run(cwd=tmp_path)


def test_one_run_is_passed_on(tmp_path, brain):
    path = _save(tmp_path / "run.nii.gz", brain.get_fdata(dtype=np.float32), brain.affine)
    assert AverageRuns(in_files=[path]).run(cwd=tmp_path).outputs.out_file == path


def test_average_of_moved_runs_has_less_noise(tmp_path, brain):
    rng = np.random.default_rng(0)
    clean = brain.get_fdata(dtype=np.float32)
    inside = ndimage.binary_erosion(clean > 0, iterations=2)
    runs = []
    places = [((0, 0, 0), (0, 0, 0), 1.0), ((6, -4, 5), (4, -7, 3), 1.7)]
    for n, (angles, shift, gain) in enumerate(places):
        # The head lies elsewhere in the scanner: the same voxels under another affine.
        move = np.eye(4)
        move[:3, :3] = Rotation.from_euler("xyz", angles, degrees=True).as_matrix()
        move[:3, 3] = shift
        noisy = gain * (clean + rng.normal(0, 0.1, clean.shape)).astype(np.float32)
        runs.append(_save(tmp_path / f"run-{n}.nii.gz", noisy, move @ brain.affine))
    mean = _data(AverageRuns(in_files=runs, num_threads=2).run(cwd=tmp_path).outputs.out_file)
    assert mean.shape == clean.shape
    error = np.std((mean - clean)[inside])
    # Misalignment, or a gain left in, would be worse than the noise of one run.
    assert error < 0.8 * np.std((_data(runs[0]) - clean)[inside])


def test_known_bias_field_is_recovered(tmp_path):
    template = load_mni152_template(resolution=2)
    clean = template.get_fdata(dtype=np.float32)
    mask = foreground(clean)
    skull = ndimage.binary_dilation(mask, iterations=3)
    clean[ndimage.binary_dilation(skull, iterations=3) & ~skull] = 1.5  # the scalp
    clean = np.where(clean > 0.02, clean, 0)
    seen = clean > 0
    x, y, z = np.meshgrid(*[np.linspace(-1, 1, n) for n in clean.shape], indexing="ij")
    log_field = 0.3 * x - 0.4 * y * z + 0.2 * np.sin(3 * y + 1) + 0.2 * z**2
    mask_file = _save(tmp_path / "mask.nii.gz", mask.astype(np.uint8), template.affine)

    def estimate(data: np.ndarray) -> np.ndarray:
        in_file = _save(tmp_path / "t1w.nii.gz", data.astype(np.float32), template.affine)
        correct = BiasCorrection(in_file=in_file, mask=mask_file)
        corrected = _data(correct.run(cwd=tmp_path).outputs.out_file)
        return np.log(data, where=seen, out=np.zeros_like(data)) - np.log(
            corrected, where=seen, out=np.zeros_like(data)
        )

    biased = 500 * clean * np.exp(log_field).astype(np.float32)
    field = estimate(biased)
    # What the template has of its own is not part of the truth.
    added = (field - estimate(500 * clean))[mask]
    truth = log_field[mask]
    assert np.corrcoef(added, truth)[0, 1] > 0.99
    assert np.std(added - truth) < 0.15 * np.std(truth)
    assert field[seen].min() >= field[mask].min() - 1e-3
    assert field[seen].max() <= field[mask].max() + 1e-3
    np.testing.assert_array_equal(estimate(biased), field)


def test_standardised_intensities_can_be_corrected(tmp_path, brain):
    data = brain.get_fdata(dtype=np.float32)
    mask = data > 0
    data = np.where(mask, (data - data[mask].mean()) / data[mask].std(), 0).astype(np.float32)
    in_file = _save(tmp_path / "t1w.nii.gz", data, brain.affine)
    mask_file = _save(tmp_path / "mask.nii.gz", mask.astype(np.uint8), brain.affine)
    done = BiasCorrection(in_file=in_file, mask=mask_file).run(cwd=tmp_path)
    corrected = _data(done.outputs.out_file)
    assert np.isfinite(corrected).all()
    assert corrected.min() >= 0
    assert not corrected[~mask].any()
    assert np.corrcoef(corrected[mask], data[mask])[0, 1] > 0.9


def test_scale_does_not_depend_on_units_and_keeps_all_data(tmp_path, brain):
    data = brain.get_fdata(dtype=np.float32)
    mask = data > 0
    data[0, 0, 0] = 40.0  # a bright spot of fat outside the brain
    mask_file = _save(tmp_path / "mask.nii.gz", mask.astype(np.uint8), brain.affine)
    results = []
    for n, gain in enumerate((1.0, 723.0)):
        in_file = _save(tmp_path / f"t1w-{n}.nii.gz", gain * data, brain.affine)
        results.append(NormalizeIntensity(in_file=in_file, mask=mask_file).run(cwd=tmp_path))
        preproc, only = _data(results[-1].outputs.out_file), _data(results[-1].outputs.brain)
        assert np.percentile(preproc[mask], 98) == pytest.approx(100, abs=0.01)
        scale = preproc[mask].mean() / data[mask].mean()
        np.testing.assert_allclose(preproc, scale * data, rtol=1e-4, atol=0.6 * INTENSITY_STEP)
        np.testing.assert_allclose(only, np.where(mask, preproc, 0), atol=INTENSITY_STEP)


def test_dark_brain_is_an_error(tmp_path, brain):
    data = brain.get_fdata(dtype=np.float32)
    mask_file = _save(tmp_path / "mask.nii.gz", (data == 0).astype(np.uint8), brain.affine)
    in_file = _save(tmp_path / "t1w.nii.gz", data, brain.affine)
    with pytest.raises(InputError, match="positive intensities"):
        NormalizeIntensity(in_file=in_file, mask=mask_file).run(cwd=tmp_path)


def _ball(grid_affine: np.ndarray, shape: tuple, centre, radius: float) -> np.ndarray:
    places = apply_affine(grid_affine, np.moveaxis(np.indices(shape), 0, -1))
    return (np.linalg.norm(places - centre, axis=-1) <= radius).astype(np.uint8)


def test_lesions_on_other_grids_are_united_where_they_are_in_the_world(tmp_path, brain):
    reference = _save(tmp_path / "t1w.nii.gz", brain.get_fdata(dtype="f4"), brain.affine)
    fine = np.diag([-1.0, 1.0, 1.0, 1.0])  # smaller voxels, other orientation, cropped
    fine[:3, 3] = [60, -40, -10]
    coarse = np.diag([6.0, 6.0, 6.0, 1.0])
    coarse[:3, 3] = [-60, -90, -60]
    first, second = ([30, 0, 20], 12.0), ([-30, -20, 10], 18.0)
    lesions = [
        _save(tmp_path / "a.nii.gz", _ball(fine, (60, 80, 60), *first), fine),
        _save(tmp_path / "b.nii.gz", 7 * _ball(coarse, (21, 25, 25), *second), coarse),
    ]
    result = UniteLesions(in_files=lesions, reference=reference).run(cwd=tmp_path)
    exclude = _data(result.outputs.out_file)
    truth = [_ball(brain.affine, brain.shape, *ball) for ball in (first, second)]
    assert set(np.unique(exclude)) == {0, 1}
    overlap = exclude & (truth[0] | truth[1])
    assert 2 * overlap.sum() / (exclude.sum() + truth[0].sum() + truth[1].sum()) > 0.85
    assert all((exclude & ball).sum() > 0.8 * ball.sum() for ball in truth)


def test_a_lesion_of_one_small_voxel_is_not_lost(tmp_path, brain):
    reference = _save(tmp_path / "t1w.nii.gz", brain.get_fdata(dtype="f4"), brain.affine)
    affine = np.eye(4)
    affine[:3, 3] = [-31.4, -20.6, 5.3]
    dot = np.zeros((9, 9, 9), np.uint8)
    dot[4, 4, 4] = 1
    lesion = _save(tmp_path / "dot.nii.gz", dot, affine)
    result = UniteLesions(in_files=[lesion], reference=reference).run(cwd=tmp_path)
    found = np.argwhere(_data(result.outputs.out_file))
    assert len(found) == 1
    distance = apply_affine(brain.affine, found[0]) - apply_affine(affine, [4, 4, 4])
    assert np.abs(distance).max() <= 1.5


def test_empty_lesion_mask_means_no_lesion(tmp_path, brain):
    reference = _save(tmp_path / "t1w.nii.gz", brain.get_fdata(dtype="f4"), brain.affine)
    nothing = np.zeros(brain.shape, np.uint8)
    empty = _save(tmp_path / "empty_roi.nii.gz", nothing, brain.affine)
    result = UniteLesions(in_files=[empty], reference=reference).run(cwd=tmp_path)
    assert not _data(result.outputs.out_file).any()


def test_a_lesion_elsewhere_is_an_error(tmp_path, brain):
    reference = _save(tmp_path / "t1w.nii.gz", brain.get_fdata(dtype="f4"), brain.affine)
    affine = np.eye(4)
    affine[:3, 3] = 500
    lesion = _save(tmp_path / "far_roi.nii.gz", np.ones((9, 9, 9), np.uint8), affine)
    with pytest.raises(InputError, match=r"far_roi\.nii\.gz is outside"):
        UniteLesions(in_files=[lesion], reference=reference).run(cwd=tmp_path)


def test_a_lesion_below_zero_is_an_error(tmp_path, brain):
    reference = _save(tmp_path / "t1w.nii.gz", brain.get_fdata(dtype="f4"), brain.affine)
    lesion = _save(tmp_path / "odd_roi.nii.gz", -np.ones(brain.shape, np.int8), brain.affine)
    with pytest.raises(InputError, match=r"odd_roi\.nii\.gz contains negative values"):
        UniteLesions(in_files=[lesion], reference=reference).run(cwd=tmp_path)


def test_results_are_read_back_with_the_geometry_of_the_input(tmp_path, brain):
    data = brain.get_fdata(dtype=np.float32)
    affine = OBLIQUE @ np.diag([3, 2, 1.5, 1])
    mask_file = _save(tmp_path / "mask.nii.gz", (data > 0).astype(np.uint8), affine)
    in_file = _save(tmp_path / "t1w.nii.gz", data, affine)
    outputs = NormalizeIntensity(in_file=in_file, mask=mask_file).run(cwd=tmp_path).outputs
    assert image.read(outputs.brain).grid.matches(image.read(in_file).grid)
