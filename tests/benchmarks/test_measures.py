"""Measures of the pairwise benchmark, against truth."""

from __future__ import annotations

import mmap
from typing import TYPE_CHECKING

import measures
import numpy as np
import pytest
import torch
from scipy.spatial.distance import cdist

from bids_fcnreg.fcn.spatial.filters import gaussian
from bids_fcnreg.fcn.spatial.grid import Grid
from bids_fcnreg.fcn.spatial.transform import Affine, Transform

if TYPE_CHECKING:
    from conftest import Known

pytestmark = pytest.mark.slow


def test_point_map_is_the_transform_itself(known: Known) -> None:
    points = measures.PointMap.of(known.truth, known.fixed.grid)
    largest = known.moving.data.max()
    for kind in ("linear", "label"):
        direct = known.truth.resample(known.moving, known.fixed.grid, kind)
        apart = (points.resample(known.moving, kind).data - direct.data).abs()
        # Places differ in single precision; votes that are nearly even may turn over.
        assert (apart > 1e-4 * largest).double().mean() < 1e-3
    with pytest.raises(ValueError, match="voxels of its grid"):
        points.map(known.fixed.grid.points()[:2, :2, :2] + 1.0)


def test_deformation_of_affine_deformed_and_folded_maps(known: Known) -> None:
    grid = known.fixed.grid
    brain = known.fixed.data[0, 0] > 0
    linear = measures.PointMap.of(Transform(known.truth.steps[1:]), grid)
    assert measures.deformation(linear, brain)["sd_log_jacobian"] < 1e-4
    whole = measures.deformation(measures.PointMap.of(known.truth, grid), brain)
    # The affine part does not count; `Transform` knows the rest by code of its own.
    alone = Transform(known.truth.steps[:1]).log_jacobian(grid)[0, 0][brain].std()
    assert whole["sd_log_jacobian"] == pytest.approx(float(alone), rel=1e-3)
    assert whole["folds_percent"] == 0
    mirrored = grid.points()
    mirrored[: grid.shape[0] // 2] = mirrored[: grid.shape[0] // 2].flip(0)
    folded = measures.deformation(measures.PointMap(grid, mirrored), torch.ones_like(brain))
    assert folded["folds_percent"] == pytest.approx(50, abs=3)


def test_labels_of_several_brains() -> None:
    one, other = torch.zeros(2, 2, 2, 2).unbind()
    one[0], other[0, 0] = 1, 1  # 4 and 2 voxels: Dice 2/3; 2 of 4 voxels have two labels
    assert measures.mean_overlap([one, other]) == pytest.approx(2 / 3)
    assert measures.label_entropy([one, other]) == pytest.approx(0.5)
    other[0, 1] = 5  # of which one brain has nothing: Dice 2/3 and 0
    assert measures.mean_overlap([one, other]) == pytest.approx(1 / 3)
    assert measures.label_entropy([one, other]) == pytest.approx(0.5)
    assert measures.mean_overlap([one, one]) == 1
    assert measures.label_entropy([one, one]) == 0


def test_sharpness_is_the_slope_per_mm() -> None:
    ramp = 0.3 + 0.02 * torch.arange(20.0)[:, None, None].expand(20, 5, 6)
    grid = Grid((20, 5, 6), np.diag([2.0, 3.0, 4.0, 1.0]))
    assert measures.sharpness(ramp, grid) == pytest.approx(0.01)
    assert measures.sharpness(torch.where(ramp > 0.5, ramp, 0.0), grid) > 0.01


def test_inverse_consistency_in_mm(known: Known) -> None:
    points = measures.PointMap.of(Transform(known.truth.steps[1:]), known.fixed.grid)
    brain = known.fixed.data[0, 0] > 0
    back = np.linalg.inv(known.truth.steps[1].matrix)
    exact = measures.inverse_consistency(points, Transform((Affine(back),)), brain)
    assert exact["inverse_max_mm"] < 1e-6
    back[0, 3] += 3
    off = measures.inverse_consistency(points, Transform((Affine(back),)), brain)
    assert off["inverse_mean_mm"] == pytest.approx(3)
    assert measures.inverse_consistency(points, None, brain)["inverse_mean_mm"] is None


def test_dice_of_each_label() -> None:
    fixed = torch.tensor([0.0, 1, 1, 2, 2, 3, 0, 0])
    warped = torch.tensor([0.0, 1, 2, 2, 2, 0, 4, 0])
    found = measures.dice(fixed, warped, [1, 2, 3, 4, 5])
    assert found == {1: pytest.approx(2 / 3), 2: pytest.approx(0.8), 3: 0.0, 4: 0.0}


def test_meter_measures_time_and_what_a_block_adds() -> None:
    with measures.Meter() as meter:
        block = mmap.mmap(-1, 64 * 2**20)  # memory that no one has used before
        block.write(bytes(len(block)))
        block.close()
    assert 0.05 < meter.memory_gb < 0.3
    whole = meter.seconds
    meter.deduct(whole / 2)
    assert meter.seconds == pytest.approx(whole / 2)


@pytest.mark.parametrize(("axis", "expected"), [(0, 6.0), (1, 3.0), (2, 1.5)])
def test_hd95_of_a_shifted_cube(axis: int, expected: float) -> None:
    fixed = torch.zeros(1, 1, 20, 20, 20)
    fixed[..., 4:12, 4:12, 4:12] = 7
    warped = fixed.roll(3, 2 + axis)
    found = measures.hd95(fixed, warped, [3, 7, 9], np.array([2.0, 1.0, 0.5]))
    assert found == {7: pytest.approx(expected)}
    assert measures.hd95(fixed, fixed, [7], np.ones(3)) == {7: 0.0}


def test_hd95_equals_distances_between_all_boundary_voxels() -> None:
    spacing = np.array([1.5, 1.0, 0.7])
    noise = torch.randn(2, 1, 18, 18, 18, generator=torch.Generator().manual_seed(1))
    smooth = gaussian(noise, 2.0)
    fixed, warped = (1 + (volume > 0).float() for volume in (smooth[0], smooth[1]))
    found = measures.hd95(fixed, warped, [1, 2], spacing)

    def boundary(inside: np.ndarray) -> np.ndarray:
        padded = np.pad(inside, 1)
        neighbours = [np.roll(padded, step, axis) for axis in range(3) for step in (-1, 1)]
        return np.argwhere(padded & ~np.logical_and.reduce(neighbours)) * spacing

    for label in (1, 2):
        one, two = (boundary(volume[0].numpy() == label) for volume in (fixed, warped))
        apart = cdist(one, two)
        truth = max(np.percentile(apart.min(axis), 95) for axis in (0, 1))
        assert found[label] == pytest.approx(truth)


def test_harmonic_energy_of_a_wave_behind_an_affine(known: Known) -> None:
    brain = known.fixed.data[0, 0] > 0
    affine = known.truth.steps[1]
    linear = measures.PointMap.of(Transform((affine,)), known.fixed.grid)
    assert measures.harmonic_energy(linear, brain) < 1e-10
    # A wave of two periods along the first axis, on voxels of 2 by 1 by 1 mm.
    grid = Grid((48, 8, 8), np.diag([2.0, 1.0, 1.0, 1.0]))
    points = grid.points()
    rate, height = 2 * np.pi / 48, 3.0
    wave = points.clone()
    wave[..., 1] += height * torch.cos(rate * points[..., 0])
    inside = torch.ones(grid.shape, dtype=torch.bool)
    inside[[0, -1]] = False
    expected = pytest.approx((height * rate) ** 2 / 2, rel=0.05)
    assert measures.harmonic_energy(measures.PointMap(grid, wave), inside) == expected
    moved = measures.PointMap(grid, affine.map(wave))
    assert measures.harmonic_energy(moved, inside) == expected
