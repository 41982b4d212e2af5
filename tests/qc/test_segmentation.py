"""Implausible segmentations receive a verdict, those of real heads none."""

from __future__ import annotations

import json

import nibabel as nib
import numpy as np
import pytest
import torch
from scipy import ndimage

from bids_fcnreg.fcn.arrangement import NO_ARRANGEMENT
from bids_fcnreg.fcn.masks import bounding_box
from bids_fcnreg.fcn.nets.checkpoint import load
from bids_fcnreg.fcn.nets.packaged_weights import PACKAGED_WEIGHTS
from bids_fcnreg.fcn.segment import Anatomy, segment
from bids_fcnreg.fcn.spatial.grid import Grid, Image
from bids_fcnreg.fcn.structures import STRUCTURES
from bids_fcnreg.interfaces.quality import Judge
from bids_fcnreg.io import image
from bids_fcnreg.qc.segmentation import assess_segmentation
from bids_fcnreg.qc.verdict import LEVELS, judge, reference_bounds

pytestmark = pytest.mark.slow


def test_an_image_without_brain_is_failed():
    posteriors = torch.zeros(1, len(STRUCTURES), 8, 8, 8)
    posteriors[:, 0] = 1
    found = assess_segmentation(Anatomy(posteriors, Grid((8, 8, 8), np.diag([2.0, 2, 2, 1]))))
    assert found == {"structures_implausible": 30.0, "structures_misplaced_mm": NO_ARRANGEMENT}


def test_judge_adds_the_segmentation_to_the_metrics(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    bounds = reference_bounds("refine")
    usual = {key: (one.low + one.high) / 2 for key, one in bounds.items()}
    (tmp_path / "q.json").write_text(json.dumps({"mode": "refine", **usual}))
    (tmp_path / "s.json").write_text('{"structures_misplaced_mm": 25.0}')
    unit = nib.Nifti1Image(np.ones((4, 4, 4), "float32"), np.eye(4))
    unit.to_filename(tmp_path / "one.nii")
    paths = {"log_jacobian": str(tmp_path / "one.nii"), "mask": str(tmp_path / "one.nii")}
    judge = Judge(quality=str(tmp_path / "q.json"), segmentation=str(tmp_path / "s.json"), **paths)
    found = json.loads((tmp_path / judge.run().outputs.quality).read_text())
    assert found["verdict"] == "failed"
    assert found["verdict_reason"].startswith("the segmented structures are not arranged as in")


@pytest.fixture(scope="module")
def network():
    return load(PACKAGED_WEIGHTS / "anatomy.safetensors", ["anatomy"])[0]


def level(scan: Image, network) -> str:
    """Worst level of the metrics of the segmentation of a scan."""
    return judged(assess_segmentation(segment(scan, network)))


def judged(found: dict[str, float]) -> str:
    bounds = reference_bounds("refine")
    return max((bounds[key].judge(value) for key, value in found.items()), key=LEVELS.index)


def cubic(path, spacing: float) -> Image:
    """Head with RAS+ axes and cubic voxels."""
    nifti = nib.as_closest_canonical(nib.load(path))
    sizes = np.array(nifti.header.get_zooms()[:3])
    data = ndimage.zoom(nifti.get_fdata(dtype=np.float32), sizes / spacing, order=1)
    return made(data, spacing)


def made(data: np.ndarray, spacing: float) -> Image:
    data = torch.from_numpy(np.ascontiguousarray(data, dtype=np.float32))
    return Image(data[None, None], Grid(tuple(data.shape), np.diag([spacing] * 3 + [1.0])))


REAL = (
    "sub-adult1/anat/sub-adult1_T1w",
    "sub-tumour1/anat/sub-tumour1_ce-gd_T1w",
    "sub-ms1/ses-2/anat/sub-ms1_ses-2_FLAIR",
    "sub-stroke1/anat/sub-stroke1_T2w",
)


@pytest.mark.parametrize("name", REAL)
def test_real_heads_are_good(real_data, network, name):
    assert level(image.read(real_data / "heads" / f"{name}.nii.gz"), network) == "good"


def _half(data: np.ndarray) -> np.ndarray:
    return data[: data.shape[0] // 2]


WRONG = {
    "slices in random order": (
        lambda data: data[..., np.random.default_rng(1).permutation(data.shape[2])], "failed"
    ),
    "half of the head": (_half, "failed"),
    "neck and chin": (lambda data: data[..., : data.shape[2] // 3], "failed"),
}  # fmt: skip


@pytest.fixture(scope="module")
def head(real_data) -> Image:
    return cubic(real_data / "heads/sub-adult1/anat/sub-adult1_T1w.nii.gz", 2.0)


@pytest.fixture(scope="module")
def around_brain(head, network) -> np.ndarray:
    """The head less than 2 cm from the brain."""
    brain = segment(head, network).brain_mask(head.grid).data[0, 0].numpy() > 0
    return head.data[0, 0].numpy()[bounding_box(ndimage.binary_dilation(brain, iterations=10))]


@pytest.mark.parametrize(("change", "expected"), WRONG.values(), ids=WRONG)
def test_wrong_heads_are_recognized(head, network, change, expected):
    assert level(made(change(head.data[0, 0].numpy()), 2.0), network) == expected


def test_wrong_voxel_sizes_are_recognized(around_brain, network):
    assert (
        level(made(np.repeat(around_brain[8:-8, 8:-8, 8:-8], 2, axis=2), 2.0), network) == "failed"
    )


TURNED = {
    "upside down": (lambda data: data[::-1, :, ::-1], "failed"),
    "flipped along z": (lambda data: data[..., ::-1], "failed"),
    "back to front": (lambda data: data[::-1, ::-1], "failed"),
    "turned about x": (lambda data: np.rot90(data, axes=(1, 2)), "doubtful"),
    "turned about y": (lambda data: np.rot90(data, axes=(0, 2)), "doubtful"),
    "turned about z": (lambda data: np.rot90(data, axes=(0, 1)), "doubtful"),
}


@pytest.mark.parametrize(("change", "expected"), TURNED.values(), ids=TURNED)
def test_turned_heads_are_segmented_upright_and_not_good(around_brain, network, change, expected):
    scan = made(change(around_brain), 2.0)
    anatomy = segment(scan, network)
    assert judged(assess_segmentation(anatomy)) == expected
    assert assess_segmentation(anatomy)["structures_misplaced_mm"] < 4


def _distance(*radii: float) -> np.ndarray:
    """Distance from the center of an image of 2 mm, in units of these radii in mm."""
    axes = np.meshgrid(*(np.arange(-89.0, 90, 2),) * 3, indexing="ij")
    return np.sqrt(sum((x / r) ** 2 for x, r in zip(axes, radii, strict=True)))


def _noisy(data: np.ndarray) -> np.ndarray:
    return (data + np.random.default_rng(0).normal(0, 2, data.shape)).clip(0)


OBJECTS = {
    "noise": lambda: _noisy(np.full((80, 90, 80), 100.0)),
    "sphere": lambda: _noisy(100.0 * (_distance(80, 80, 80) < 1)),
    "bottle": lambda: _noisy(100.0 * (_distance(60, 60, 1e9) < 1)),
    "leg": lambda: _noisy(
        120.0 * (_distance(62, 62, 1e9) < 1)
        - 60.0 * (_distance(50, 50, 1e9) < 1)
        + 60.0 * (_distance(18, 18, 1e9) < 1)
    ),
}


@pytest.mark.parametrize("make", OBJECTS.values(), ids=OBJECTS)
def test_objects_are_not_heads(network, make):
    assert level(made(make(), 2.0), network) == "failed"


def test_a_turned_head_has_one_reason():
    bounds = reference_bounds("refine")
    usual = {key: (one.low + one.high) / 2 for key, one in bounds.items()} | {"mode": "refine"}
    found = judge(usual | {"rotation_degrees": 95.0, "head_turned_degrees": 92.0})
    assert found.level == "doubtful" and len(found.reasons) == 1
    assert "segmented upright" in found.reasons[0]
    alone = judge(usual | {"rotation_degrees": 95.0, "head_turned_degrees": 5.0})
    assert alone.level == "doubtful" and "relative to the template" in alone.reasons[0]
    assert judge(usual | {"head_turned_degrees": 178.0}).level == "failed"
    assert judge(usual).level == "good"
