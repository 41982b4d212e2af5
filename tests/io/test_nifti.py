"""NIfTI in and out: what is read, and what is written."""

from __future__ import annotations

import nibabel as nib
import numpy as np
import pytest

from bids_fcnreg.atomic import replacing
from bids_fcnreg.io import nifti

AFFINE = np.array([[0, -2.0, 0, 10], [1.5, 0, 0, -20], [0, 0, 3, 5], [0, 0, 0, 1]])
VALUES = np.arange(60, dtype=np.int16).reshape(3, 4, 5)


def save(path, data, affine=AFFINE):
    nib.Nifti1Image(data, affine).to_filename(path)
    return path


def test_a_trailing_axis_of_one_volume_is_dropped(tmp_path):
    assert nifti.load(save(tmp_path / "x.nii", VALUES[..., None])).shape == (3, 4, 5)


def test_non_finite_values_become_zero(tmp_path):
    data = VALUES.astype(np.float32)
    data[0, 0] = np.nan, np.inf, -np.inf, 1, 2
    loaded = nifti.load(save(tmp_path / "x.nii", data)).get_fdata()
    assert loaded[0, 0].tolist() == [0, 0, 0, 1, 2]


def test_a_file_appears_whole_or_not_at_all(tmp_path):
    target = tmp_path / "deep" / "file.txt"
    with replacing(target) as temporary:
        temporary.write_text("old")
        assert not target.exists()
    with pytest.raises(RuntimeError), replacing(target) as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert target.read_text() == "old"
    assert list(target.parent.iterdir()) == [target]


@pytest.mark.parametrize(
    ("low", "high", "dtype"),
    [
        (0, 255, np.uint8),
        (0, 256, np.int16),
        (-1, 100, np.int16),
        (0, 32767, np.int16),
        (0, 32768, np.float32),
    ],
)
def test_multiples_of_a_step_are_stored_in_as_few_bits_as_they_need(tmp_path, low, high, dtype):
    values = np.linspace(low, high, 60, dtype=np.float32).round().reshape(3, 4, 5) * 0.01
    path = nifti.write(tmp_path / "x.nii.gz", nib.Nifti1Image(values, AFFINE), 0.01)
    assert nib.load(path).get_data_dtype() == dtype
    np.testing.assert_allclose(nib.load(path).get_fdata(), values, rtol=1e-5, atol=1e-6)
