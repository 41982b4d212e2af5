"""Files and headers that are refused."""

from __future__ import annotations

import gzip

import nibabel as nib
import numpy as np
import pytest

from bids_fcnreg.errors import InputError
from bids_fcnreg.io import nifti

AFFINE = np.array([[0, -2.0, 0, 10], [1.5, 0, 0, -20], [0, 0, 3, 5], [0, 0, 0, 1]])
VALUES = np.arange(60, dtype=np.int16).reshape(3, 4, 5)


def save(path, data, affine=AFFINE):
    nib.Nifti1Image(data, affine).to_filename(path)
    return path


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
            nifti.load(path)
        sentence = str(refusal.value)
        assert str(path) in sentence and words in sentence and "\n" not in sentence, path
