"""Images of the engine: read from NIfTI, and written to it."""

from __future__ import annotations

import nibabel as nib
import numpy as np
import pytest
import torch

from bids_fcnreg.fcn.spatial.grid import Grid, Image
from bids_fcnreg.io import image
from bids_fcnreg.io.orientation import TEMPLATE

AFFINE = np.array([[0, -2.0, 0, 10], [1.5, 0, 0, -20], [0, 0, 3, 5], [0, 0, 0, 1]])
VALUES = np.arange(60, dtype=np.int16).reshape(3, 4, 5)


def save(path, data, affine=AFFINE):
    nib.Nifti1Image(data, affine).to_filename(path)
    return path


def test_values_and_geometry_survive(tmp_path):
    source = nib.Nifti1Image(VALUES, AFFINE)
    source.header.set_slope_inter(2.0, 1.0)
    source.to_filename(tmp_path / "in.nii.gz")
    read = image.read(tmp_path / "in.nii.gz")
    stored = nib.load(tmp_path / "in.nii.gz").get_fdata()
    np.testing.assert_allclose(read.data[0, 0], stored)
    np.testing.assert_allclose(read.grid.affine, AFFINE)
    again = nib.load(image.write(tmp_path / "out.nii.gz", read, space=TEMPLATE))
    np.testing.assert_allclose(again.get_fdata(), stored)
    np.testing.assert_allclose(again.affine, AFFINE, atol=1e-6)
    assert again.header["sform_code"] == again.header["qform_code"] == TEMPLATE


def test_the_same_image_gives_the_same_bytes(tmp_path):
    read = image.read(save(tmp_path / "x.nii.gz", VALUES))
    first, second = (image.write(tmp_path / name, read) for name in ("a.nii.gz", "b.nii.gz"))
    assert first.read_bytes() == second.read_bytes()


def test_labels_are_rounded_not_cut(tmp_path):
    read = image.read(save(tmp_path / "x.nii", VALUES.astype(np.float32) - 0.01))
    written = nib.load(image.write(tmp_path / "y.nii", read, dtype="int16"))
    assert written.get_data_dtype() == np.int16
    np.testing.assert_array_equal(np.asarray(written.dataobj), VALUES)


@pytest.mark.parametrize(
    ("step", "dtype"), [(0.001, np.int16), (0.25, np.int16), (0.0001, np.float32)]
)
def test_values_are_stored_as_integers_that_are_large_enough(tmp_path, step, dtype):
    values = 3 * torch.randn(1, 1, 5, 6, 7, generator=torch.Generator().manual_seed(0))
    values[0, 0, 0, 0, 0] = -20
    whole = Image(values, Grid((5, 6, 7), np.eye(4)))
    path = image.write(tmp_path / "x.nii.gz", whole, step=step)
    read = nib.load(path)
    assert read.get_data_dtype() == dtype
    np.testing.assert_allclose(read.get_fdata(), values[0, 0], atol=0.501 * step)
    np.testing.assert_allclose(image.read(path).data, values, atol=0.501 * step)
