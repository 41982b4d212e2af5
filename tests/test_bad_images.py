"""Images broken in every way, each with its sentence: which file, what is wrong, what to do."""

from __future__ import annotations

import gzip
import os
import struct
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from bids_fcnreg import image
from bids_fcnreg.errors import InputError

AFFINE = np.diag([2.0, 2.0, 2.0, 1.0])
DATA = np.random.default_rng(0).integers(1, 900, (24, 26, 22)).astype(np.int16)

Make = Callable[[Path], object]


def saved(data: np.ndarray = DATA, affine: np.ndarray = AFFINE) -> Make:
    return lambda path: nib.Nifti1Image(data, affine).to_filename(path)


def patched(*changes: tuple[int, str, tuple]) -> Make:
    """A good image with bytes of its header replaced: offset, format, values."""

    def make(path: Path) -> None:
        saved()(path)
        content = bytearray(gzip.decompress(path.read_bytes()))
        for offset, form, values in changes:
            struct.pack_into(form, content, offset, *values)
        path.write_bytes(gzip.compress(bytes(content)))

    return make


def large(*dim: int) -> Make:
    """A header that claims much, in a file that is large enough to be such an image."""

    def make(path: Path) -> None:
        patched((DIM, f"<{len(dim)}h", dim))(path)
        os.truncate(path, 2**27)  # without content: it takes no place on the disk

    return make


def half(path: Path) -> None:
    saved()(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def scrambled(path: Path) -> None:
    saved()(path)
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 500] = bytes(500)
    path.write_bytes(content)


#: Offsets in the header of a NIfTI-1 file.
DIM, SLOPE, QFORM, SFORM, ROWS, MAGIC = 40, 112, 252, 254, 280, 344
SFORM_ONLY = ((QFORM, "<h", (0,)), (SFORM, "<h", (1,)))

BAD: dict[str, tuple[Make, str]] = {
    "missing": (lambda path: None, "does not exist: check the path"),
    "broken link": (lambda path: path.symlink_to("nowhere"), "broken link .* get the file first"),
    "folder": (lambda path: path.mkdir(), "is a folder: give a NIfTI file"),
    "pipe": (os.mkfifo, "is not a file: give a NIfTI file"),
    "empty": (lambda path: path.write_bytes(b""), "cannot be read as a NIfTI image .*Empty file"),
    "text": (lambda path: path.write_text("hello"), "cannot be read as a NIfTI image"),
    "compressed text": (lambda p: p.write_bytes(gzip.compress(b"hi")), "cannot be read as a NIf"),
    "half": (half, "cannot be read as a NIfTI image .*is it complete"),
    "scrambled": (scrambled, "cannot be read as a NIfTI image"),
    "wrong magic": (patched((MAGIC, "4s", (b"xxxx",))), "cannot be read as a NIfTI image"),
    "10^13 voxels": (
        patched((DIM, "<4h", (3, 30000, 30000, 30000))),
        "too small for the 30000×30000×30000 voxels that its header claims",
    ),
    "more than memory": (large(3, 4000, 4000, 4000), "64000 million voxels, which take .* GB"),
    "10,000 volumes": (large(4, 99, 99, 99, 10_000), "extract or average its volumes first"),
    "no voxels": (patched((DIM, "<4h", (3, 0, 26, 22))), "has the shape|cannot be read"),
    "two axes": (saved(DATA[:, :, 3]), "one three-dimensional volume is needed; give the whole"),
    "one slice": (saved(DATA[:, :, 3:4]), "has the shape"),
    "several volumes": (saved(np.stack([DATA] * 3, -1)), "extract or average its volumes first"),
    "colours": (
        saved(np.zeros(DATA.shape, [("R", "u1"), ("G", "u1"), ("B", "u1")])),
        "one real number a voxel is needed",
    ),
    "complex numbers": (saved(DATA.astype(np.complex64)), "one real number a voxel is needed"),
    "zeros": (saved(np.zeros_like(DATA)), "holds nothing but zeros"),
    "not a number": (
        saved(np.full(DATA.shape, np.nan, np.float32)),
        "nothing but zeros, .* no number",
    ),
    "infinite": (
        saved(np.full(DATA.shape, np.inf, np.float32)),
        "nothing but zeros, infinite values",
    ),
    "too large values": (saved(DATA * 1e300), "holds values up to .*e.302.*: scale it"),
    "zero affine": (
        patched(*SFORM_ONLY, (ROWS, "<12f", (0.0,) * 12)),
        "has an affine that cannot be inverted",
    ),
    "flat affine": (
        patched(*SFORM_ONLY, (ROWS, "<12f", (2, 0, 0, 0, 2, 0, 0, 0, 0, 0, 2, 0))),
        "has an affine that cannot be inverted",
    ),
    "affine without numbers": (
        patched(*SFORM_ONLY, (ROWS, "<12f", (float("nan"),) * 12)),
        "has an affine that cannot be inverted",
    ),
    "in metres": (saved(DATA, AFFINE * [[1e-3], [1e-3], [1e-3], [1]]), "voxels of 0.002 × 0.002"),
    "voxels of a metre": (
        saved(DATA, np.diag([1000.0, 1000, 1000, 1])),
        "voxels of 1000 × 1000 × 1000",
    ),
}

#: Odd, but good enough.
GOOD: dict[str, Make] = {
    "one volume on four axes": saved(DATA[..., None]),
    "mirrored": saved(DATA, AFFINE @ np.diag([-1, 1, 1, 1])),
    "no form of affine": patched((QFORM, "<h", (0,)), (SFORM, "<h", (0,))),
    "slope of zero": patched((SLOPE, "<2f", (0.0, 0.0))),
    "slope without number": patched((SLOPE, "<2f", (float("nan"), 0.0))),
    "thick slices": saved(DATA[:, :, ::3], np.diag([2.0, 2, 6, 1])),
    "below zero": saved((DATA - 2000).astype(np.int16)),
    "a hole without numbers": saved(np.where(DATA > 800, np.nan, DATA.astype(np.float32))),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_image_gets_one_sentence_that_names_it(name, tmp_path):
    make, sentence = BAD[name]
    path = tmp_path / "sub-01_T1w.nii.gz"
    make(path)
    with pytest.raises(InputError, match=sentence) as caught:
        image.load(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", GOOD)
def test_an_odd_image_is_read(name, tmp_path):
    path = tmp_path / "sub-01_T1w.nii.gz"
    GOOD[name](path)
    read = image.load(path)
    assert read.ndim == 3 and np.isfinite(read.get_fdata()).all() and read.get_fdata().any()
