"""Resampled labels keep their values, whatever type they are stored in."""

from __future__ import annotations

import nibabel as nib
import numpy as np
import pytest

from bids_fcnreg.errors import InputError
from bids_fcnreg.fcn.spatial.grid import Grid
from bids_fcnreg.fcn.spatial.transform import Transform
from bids_fcnreg.io.resampling import resample_labels


def write_labels(path, stored: np.ndarray, slope: float = 1, intercept: float = 0):
    values = np.broadcast_to(np.repeat(stored, 4)[:, None, None], (4 * len(stored), 6, 6))
    nifti = nib.Nifti1Image(values, np.eye(4), dtype=stored.dtype)
    nifti.header.set_slope_inter(slope, intercept)
    nifti.to_filename(path)
    return path, Grid(nifti.shape, nifti.affine)


@pytest.mark.parametrize("interpolation", ["label", "nearest"])
@pytest.mark.parametrize(
    ("stored", "dtype", "slope", "intercept", "labels", "kept"),
    [
        ([0, 1, 3], "uint8", 1, 0, [0, 1, 3], "uint8"),
        ([0, 1, 3], "uint8", 1, -1, [-1, 0, 2], "int32"),
        ([0, 1, 3], "uint16", 1, -2, [-2, -1, 1], "int32"),
        ([0, 1, 3], "uint8", -1, 0, [0, -1, -3], "int32"),
        ([0, 1, 30], "uint8", 10, 0, [0, 10, 300], "int32"),
        ([0, -1, 127], "int8", 1, 0, [0, -1, 127], "int8"),
        ([0, -100, 1], "int8", 2, 0, [0, -200, 2], "int32"),
        ([0, 1, 2**31 - 1], "uint32", 1, 0, [0, 1, 2**31 - 1], "uint32"),
        ([0, -(2**31) + 1, 5], "int64", 1, 0, [0, -(2**31) + 1, 5], "int64"),
        ([0, 1, 70000], "float32", 1, 0, [0, 1, 70000], "int32"),
    ],
)
def test_labels_are_kept(tmp_path, stored, dtype, slope, intercept, labels, kept, interpolation):
    values = np.array(stored, dtype)
    path, grid = write_labels(tmp_path / "labels.nii", values, slope, intercept)
    found = resample_labels(path, grid, Transform(()), interpolation)
    assert found.get_data_dtype() == kept
    np.testing.assert_array_equal(
        np.asarray(found.dataobj), np.repeat(labels, 4)[:, None, None] * np.ones((1, 6, 6))
    )


@pytest.mark.parametrize(
    ("largest", "dtype"), [(2**31, "uint32"), (3e9, "float64"), (-(2**33), "int64")]
)
def test_too_large_labels_are_refused(tmp_path, largest, dtype):
    path, grid = write_labels(tmp_path / "labels.nii", np.array([0, 1, largest], dtype))
    with pytest.raises(InputError, match=r"labels\.nii contains labels above 2147483647"):
        resample_labels(path, grid, Transform(()), "nearest")
