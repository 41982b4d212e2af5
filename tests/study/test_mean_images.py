"""Mean images of a study against NumPy on all of them, and whose brain is unlike the others."""

from __future__ import annotations

import nibabel as nib
import numpy as np
import pytest

from bids_fcnreg.errors import InputError
from bids_fcnreg.study.mean_images import image_moments, mask_volume, similarity_to_mean

AFFINE = np.diag([-2.0, 2.0, 2.0, 1.0])


def written(folder, name, values):
    path = folder / f"{name}.nii.gz"
    nib.Nifti1Image(values.astype("float32"), AFFINE).to_filename(path)
    return path


@pytest.fixture
def cohort(tmp_path):
    """Nine similar brains (a ball of texture), the last one cut in half."""
    rng = np.random.default_rng(0)
    place = np.stack(np.meshgrid(*[np.arange(16)] * 3, indexing="ij")) - 7.5
    ball = np.linalg.norm(place, axis=0) < 6
    texture = 10 + rng.standard_normal(ball.shape)
    masks = [ball.copy() for _ in range(9)]
    masks[-1][8:] = False
    brains = [mask * (texture + 0.2 * rng.standard_normal(ball.shape)) for mask in masks]
    names = [f"{n}" for n in range(9)]
    t1w = [written(tmp_path, f"t1w{n}", one) for n, one in zip(names, brains, strict=True)]
    files = [written(tmp_path, f"mask{n}", one) for n, one in zip(names, masks, strict=True)]
    return np.stack(brains), t1w, files, ball


def test_moments(cohort):
    brains, t1w, *_ = cohort
    moments = image_moments(t1w)
    np.testing.assert_allclose(moments.mean.get_fdata(), brains.mean(axis=0), atol=1e-5)
    np.testing.assert_allclose(moments.sd.get_fdata(), brains.std(axis=0, ddof=1), atol=1e-5)
    np.testing.assert_array_equal(moments.mean.affine, AFFINE)


def test_the_brain_that_is_cut_is_the_least_like_the_mean(cohort):
    _, t1w, masks, ball = cohort
    majority, scans = similarity_to_mean(t1w, masks, image_moments(t1w).mean)
    np.testing.assert_array_equal(np.asanyarray(majority.dataobj) > 0, ball)
    correlations, overlaps = np.transpose(scans)
    assert correlations[:8].min() > correlations[8] + 0.1
    assert overlaps[:8].tolist() == [1] * 8
    assert overlaps[8] == pytest.approx(2 / 3, abs=0.01)


def test_another_grid_is_refused(cohort, tmp_path):
    other = tmp_path / "other.nii.gz"
    nib.Nifti1Image(np.ones((16, 16, 16), "float32"), np.eye(4)).to_filename(other)
    with pytest.raises(InputError, match=r"other\.nii\.gz is not on the grid of"):
        image_moments([cohort[1][0], other])


def test_volume_of_a_mask(cohort):
    assert mask_volume(cohort[2][0]) == pytest.approx(cohort[3].sum() * 8)
