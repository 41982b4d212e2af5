"""The reference of the verdict on a segmentation, and the errors that it is tested on."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import segmentation_flag
import torch
from scipy.spatial.transform import Rotation

from bids_fcnreg.fcn.spatial.grid import Grid, Image


def test_positions_are_rotated_onto_others():
    positions = np.random.default_rng(0).normal(size=(9, 3))
    turned = positions @ Rotation.from_euler("xyz", [20, -70, 130], degrees=True).as_matrix()
    assert np.allclose(segmentation_flag.rotated(turned, positions), positions)
    mirrored = positions * [-1, 1, 1]
    assert not np.allclose(segmentation_flag.rotated(mirrored, positions), positions, atol=0.3)


def test_errors_are_distinct_and_keep_the_center():
    affine = np.diag([-2.0, 1.5, 1.0, 1.0])
    affine[:3, 3] = 40, -20, 10
    data = torch.rand(1, 1, 12, 14, 10, generator=torch.Generator().manual_seed(1))
    scan = Image(data, Grid(data.shape[2:], affine))
    found = dict(segmentation_flag.errors(scan))
    for name, image in found.items():
        assert image.data.shape == data.shape
        same = torch.equal(image.data, data) and image.grid.matches(scan.grid)
        assert same == (name == "none")
        if "flipped" in name or "turned" in name:
            middle = (np.array(data.shape[2:]) - 1) / 2
            assert np.allclose(image.grid.affine @ [*middle, 1], affine @ [*middle, 1])
            mirrored = np.linalg.det(image.grid.affine) * np.linalg.det(affine) < 0
            assert mirrored == ("flipped" in name)


@pytest.mark.slow
def test_the_reference_of_the_package_is_that_of_the_label_maps(real_data, tmp_path):
    maps = sorted((real_data / "labelmaps").glob("*.nii.gz"))
    path = shutil.copy(segmentation_flag.REFERENCE, tmp_path / "reference.json")
    stored = json.loads(path.read_text())
    path.write_text(json.dumps({"bounds": stored["bounds"]}))
    segmentation_flag.write_reference(maps, path)
    assert json.loads(path.read_text()) == stored
