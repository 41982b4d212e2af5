"""Pictures and tables of the report."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from matplotlib import image as mpl_image
from nipype.pipeline import engine as pe

from bids_fcnreg.interfaces.quality import QualityTable
from bids_fcnreg.interfaces.reports import Slices, Summary, slice_positions, white_matter_level


@pytest.fixture
def ball(tmp_path) -> Path:
    """A ball of two intensities, and its mask, in an orientation that is not RAS."""
    affine = np.array([[0, -2.0, 0, 30], [-2, 0, 0, 30], [0, 0, 2, -30], [0, 0, 0, 1]])
    points = nib.affines.apply_affine(affine, np.argwhere(np.ones((30, 30, 30))))
    radius = np.linalg.norm(points - [6, 0, 0], axis=1).reshape(30, 30, 30)
    nib.save(nib.Nifti1Image((radius < 20).astype("uint8"), affine), tmp_path / "mask.nii.gz")
    brain = np.where(radius < 20, np.where(radius < 13, 900, 400), 0)
    nib.save(nib.Nifti1Image(brain.astype("float32"), affine), tmp_path / "brain.nii.gz")
    return tmp_path


def draw(folder: Path, name: str, **inputs: str) -> np.ndarray:
    node = pe.Node(
        Slices(
            background=str(folder / "brain.nii.gz"), mask=str(folder / "mask.nii.gz"), **inputs
        ),
        name=name,
        base_dir=str(folder),
    )
    return mpl_image.imread(node.run().outputs.out_file)[..., :3]


def redness(picture: np.ndarray) -> float:
    return float((picture[..., 0] - picture[..., 1:].max(-1)).clip(0).sum())


def test_contours_and_labels_are_visible(ball):
    plain = draw(ball, "plain")
    contours = draw(ball, "contours", contours_of=str(ball / "brain.nii.gz"))
    labels = draw(ball, "labels", labels=str(ball / "mask.nii.gz"))
    assert redness(plain) == 0
    assert redness(contours) > 500
    assert (np.abs(labels - plain).max(-1) > 0.1).mean() > 0.02


def test_cuts_go_through_the_mask(ball):
    mask = nib.load(ball / "mask.nii.gz")
    cuts = slice_positions(mask.get_fdata() > 0, mask.affine)
    assert np.mean(cuts["x"]) == pytest.approx(6, abs=1)
    assert np.mean(cuts["y"]) == pytest.approx(0, abs=1)
    for axis, centre in zip("xyz", (6, 0, 0), strict=True):
        assert np.abs(np.array(cuts[axis]) - centre).max() < 20
        assert len(cuts[axis]) == 7


def test_white_matter_level_separates_tissues():
    brain = np.repeat([0, 400, 900], [1000, 600, 400])
    noise = np.random.default_rng(0).normal(0, 30, brain.size)
    assert 400 < white_matter_level(np.where(brain > 0, brain + noise, 0)) < 900


def test_summary_escapes_and_names_everything(tmp_path):
    scan = tmp_path / "sub-01_T1w.nii.gz"
    scan.touch()
    interface = Summary(
        t1w=[str(scan)], skull_stripped=True, templates=["A&B"], mode="refine", version="1"
    )
    text = Path(
        pe.Node(interface, name="node", base_dir=str(tmp_path)).run().outputs.out_file
    ).read_text()
    assert "sub-01_T1w.nii.gz" in text and "already done" in text and "A&amp;B" in text


def test_quality_table(tmp_path):
    from bids_fcnreg.fcn.register import Quality

    quality = Quality(mode="refine", device="cpu", similarity=0.51234, seconds={"affine": 3.21})
    (tmp_path / "quality.json").write_text(json.dumps(quality.as_dict()))
    node = pe.Node(
        QualityTable(quality=str(tmp_path / "quality.json"), space="Here"),
        name="node",
        base_dir=str(tmp_path),
    )
    text = Path(node.run().outputs.out_file).read_text()
    assert "Here" in text and "0.512" in text and "affine 3.2" in text and "none" in text
