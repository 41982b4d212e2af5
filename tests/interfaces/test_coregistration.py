"""Interfaces of the alignment of other images: an image that cannot be aligned is skipped."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from nipype.interfaces.base import isdefined
from nipype.pipeline import engine as pe

from bids_fcnreg.interfaces.coregistration import (
    AlignImage,
    AlignmentVerdict,
    DrawAligned,
    MoveLesions,
    ResampleAligned,
    StoreAligned,
)
from bids_fcnreg.io.formats.itk import write_affine


@pytest.fixture
def volume(tmp_path) -> str:
    """A small image without a brain."""
    data = np.random.default_rng(0).uniform(0, 100, (20, 20, 20)).astype("float32")
    nib.save(nib.Nifti1Image(data, np.diag([3.0, 3, 3, 1])), tmp_path / "volume.nii.gz")
    return str(tmp_path / "volume.nii.gz")


def run(interface, folder: Path):
    return pe.Node(interface, name="node", base_dir=str(folder)).run().outputs


def test_an_image_without_a_brain_has_a_verdict_only(volume, tmp_path):
    outputs = run(AlignImage(in_file=volume, reference=volume, mask=volume), tmp_path)
    quality = json.loads(Path(outputs.quality).read_text())
    assert quality["verdict"] == "failed" and quality["verdict_reason"]
    assert not any(isdefined(getattr(outputs, name)) for name in ("preproc", "transform"))


def test_what_depends_on_it_is_skipped(volume, tmp_path):
    for interface in (
        ResampleAligned(reference=volume),
        DrawAligned(mask=volume),
        StoreAligned(base_directory=str(tmp_path), source_file=[volume], desc="preproc"),
    ):
        assert not isdefined(run(interface, tmp_path / type(interface).__name__).out_file)


def test_lesion_masks_move_without_interpolation(tmp_path):
    mask = np.zeros((8, 9, 10), "uint8")
    mask[2:4, 3:6, 5] = 1
    nib.save(nib.Nifti1Image(mask, np.diag([2.0, 2, 3, 1])), tmp_path / "lesion.nii.gz")
    matrix = np.array([[0, -1, 0, 5], [1, 0, 0, -7], [0, 0, 1, 2], [0, 0, 0, 1.0]])
    write_affine(tmp_path / "inverse.txt", matrix)
    inputs = {"in_files": [str(tmp_path / "lesion.nii.gz")]}
    (moved,) = run(
        MoveLesions(inverse=str(tmp_path / "inverse.txt"), **inputs), tmp_path / "a"
    ).out_files  # fmt: skip
    loaded = nib.load(moved)
    assert np.array_equal(loaded.dataobj, mask)
    assert np.allclose(loaded.affine, matrix @ np.diag([2.0, 2, 3, 1]), atol=1e-5)
    (empty,) = run(MoveLesions(**inputs), tmp_path / "b").out_files
    assert not np.asanyarray(nib.load(empty).dataobj).any()


@pytest.mark.parametrize(
    ("verdict", "text"),
    [
        ("good", "T2w to T1w: aligned"),
        ("doubtful", "doubtful alignment, please check the figure: so"),
        ("failed", "not aligned: so"),
    ],
)
def test_verdict_in_the_report(tmp_path, verdict, text):
    reason = None if verdict == "good" else "so"
    path = tmp_path / "quality.json"
    path.write_text(json.dumps({"verdict": verdict, "verdict_reason": reason}))
    made = run(AlignmentVerdict(quality=str(path), name="T2w to T1w"), tmp_path).out_file
    assert text in Path(made).read_text() and f"class='{verdict}'" in Path(made).read_text()
