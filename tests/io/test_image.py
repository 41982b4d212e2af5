"""NIfTI in and out: what is read, what is refused, what is written."""

from __future__ import annotations

import gzip

import nibabel as nib
import numpy as np
import pytest

from bids_fcnreg.atomic import replacing
from bids_fcnreg.errors import InputError
from bids_fcnreg.io import image

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
    again = nib.load(image.write(tmp_path / "out.nii.gz", read, space=image.TEMPLATE))
    np.testing.assert_allclose(again.get_fdata(), stored)
    np.testing.assert_allclose(again.affine, AFFINE, atol=1e-6)
    assert again.header["sform_code"] == again.header["qform_code"] == image.TEMPLATE


def test_a_trailing_axis_of_one_volume_is_dropped(tmp_path):
    assert image.load(save(tmp_path / "x.nii", VALUES[..., None])).shape == (3, 4, 5)


def test_the_same_image_gives_the_same_bytes(tmp_path):
    read = image.read(save(tmp_path / "x.nii.gz", VALUES))
    first, second = (image.write(tmp_path / name, read) for name in ("a.nii.gz", "b.nii.gz"))
    assert first.read_bytes() == second.read_bytes()


def test_labels_are_rounded_not_cut(tmp_path):
    read = image.read(save(tmp_path / "x.nii", VALUES.astype(np.float32) - 0.01))
    written = nib.load(image.write(tmp_path / "y.nii", read, dtype="int16"))
    assert written.get_data_dtype() == np.int16
    np.testing.assert_array_equal(np.asarray(written.dataobj), VALUES)


def test_non_finite_values_become_zero(tmp_path):
    data = VALUES.astype(np.float32)
    data[0, 0] = np.nan, np.inf, -np.inf, 1, 2
    loaded = image.load(save(tmp_path / "x.nii", data)).get_fdata()
    assert loaded[0, 0].tolist() == [0, 0, 0, 1, 2]


def damaged(tmp_path):
    """Files that cannot be used, with words of the sentence that says why."""
    good = gzip.compress(nib.Nifti1Image(np.random.rand(20, 20, 20), AFFINE).to_bytes())
    flat = np.diag([1.0, 1, 1, 1])
    flat[2, 2] = 0
    header = nib.Nifti1Image(VALUES, np.eye(4))
    header.set_sform(flat, code=1)
    colours = np.zeros((3, 4, 5), dtype=[("R", "u1"), ("G", "u1"), ("B", "u1")])
    cases = {
        "missing": (lambda p: None, "does not exist"),
        "link": (lambda p: p.symlink_to("nowhere"), "broken link to nowhere"),
        "empty": (lambda p: p.touch(), "cannot be read"),
        "text": (lambda p: p.write_text("no image"), "cannot be read"),
        "cut": (lambda p: p.write_bytes(good[: len(good) // 2]), "cannot be read"),
        "series": (lambda p: save(p, np.stack([VALUES] * 3, -1)), "not that of a 3D volume"),
        "slice": (lambda p: save(p, VALUES[..., :1]), "not that of a 3D volume"),
        "zero": (lambda p: save(p, 0 * VALUES), "contains only zeros"),
        "complex": (lambda p: save(p, VALUES * 1j), "one real number"),
        "colour": (lambda p: save(p, colours), "one real number"),
        "flat": (lambda p: header.to_filename(p), "affine"),
    }
    for name, (make, words) in cases.items():
        path = tmp_path / f"{name}.nii.gz"
        make(path)
        yield path, words


def test_bad_files_raise_one_line_errors(tmp_path):
    for path, words in damaged(tmp_path):
        with pytest.raises(InputError) as refusal:
            image.load(path)
        sentence = str(refusal.value)
        assert str(path) in sentence and words in sentence and "\n" not in sentence, path


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
