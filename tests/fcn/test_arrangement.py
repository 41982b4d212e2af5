"""Structures are compared with typical ones, whatever their position, size and rotation."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from bids_fcnreg.fcn.arrangement import (
    NO_ARRANGEMENT,
    arrangement,
    compare_positions,
    count_implausible,
    measure_structures,
    reference,
)
from bids_fcnreg.fcn.segment import MISPLACED_MM
from bids_fcnreg.fcn.structures import STRUCTURES


@pytest.fixture(scope="module")
def typical() -> np.ndarray:
    """Positions of the structures of a typical brain (structures, 3)."""
    return reference()[2]


def test_arrangement_does_not_depend_on_position_size_and_rotation(typical):
    turn = np.array([[0.0, -1, 0], [1, 0, 0], [0, 0, 1]])
    for positions in (typical + 50, 0.75 * typical, typical @ turn, typical * [-1, -1, 1]):
        assert compare_positions(positions)[1] < 0.1
    missing = typical.copy()
    missing[3:20] = np.nan
    assert compare_positions(missing)[1] < 0.1


@pytest.mark.parametrize("scale", [[1, 1, 2], [1, 1, 0.5], [1, -1, 1], [0, 1, 1]])
def test_stretched_mirrored_and_flat_brains_have_an_implausible_arrangement(typical, scale):
    assert compare_positions(typical * scale)[1] > MISPLACED_MM


def test_few_structures_have_no_arrangement(typical):
    missing = np.full_like(typical, np.nan)
    missing[:3] = typical[:3]
    rotation, error = compare_positions(missing)
    assert error == NO_ARRANGEMENT and (rotation == np.eye(3)).all()


def test_large_ventricles_are_plausible_and_missing_structures_are_not():
    low, high, _ = reference()
    middle = (low + high) / 2
    names = [name for name in STRUCTURES.values() if name != "Background"]
    ventricles = np.array(["Ventricle" in name for name in names])
    assert count_implausible(middle) == 0
    assert count_implausible(np.where(ventricles, 2.5 * high, middle)) == 0
    missing = middle.copy()
    missing[:4] = 0
    assert count_implausible(missing) == 4
    assert count_implausible(np.full(len(names), np.nan)) == len(names)


def test_volumes_and_positions_are_measured_in_world_coordinates():
    labels = np.zeros((10, 12, 14), np.uint8)
    labels[2:4, 3:5, 4:6] = 1
    labels[6:8, 3:5, 4:10] = 2
    affine = np.array([[2.0, 0, 0, -5], [0, 2, 0, 7], [0, 0, 2, 9], [0, 0, 0, 1]])
    shares, positions = measure_structures(labels, affine)
    assert shares[:3].tolist() == [0.25, 0.75, 0]
    assert positions[:2].tolist() == [[0, 14, 18], [8, 14, 22]]
    assert np.isnan(positions[2]).all()


def test_the_rotation_of_a_head_is_found(typical):
    turn = Rotation.from_euler("xyz", [20, -70, 130], degrees=True).as_matrix()
    rotation, error = compare_positions(0.9 * typical @ turn.T + [10, 20, 30])
    np.testing.assert_allclose(rotation, turn, atol=1e-6)
    assert error < 1e-3


def test_center_and_rotation_are_in_world_coordinates():
    shape = (60, 70, 50)
    _, _, positions = reference()
    labels = np.zeros(shape, np.uint8)
    for channel, place in enumerate(np.round(positions / 3 + np.array(shape) / 2), start=1):
        labels[tuple(place.astype(int))] = channel
    turn = Rotation.from_euler("x", 90, degrees=True)
    affine = np.eye(4)
    affine[:3, :3], affine[:3, 3] = 3 * turn.as_matrix(), (40, 50, 60)
    found = arrangement(labels, affine)
    assert found.turned_degrees == pytest.approx(90, abs=3)
    center = np.argwhere(labels).mean(axis=0) @ affine[:3, :3].T + affine[:3, 3]
    np.testing.assert_allclose(found.center, center)
    assert not found.is_brain  # all structures have the same volume
