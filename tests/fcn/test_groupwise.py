"""The mean space of many images, against shapes whose mean is known."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import linalg

from bids_fcnreg.fcn.groupwise import (
    collapse,
    collapse_inverse,
    enlarge_grid,
    linear_part,
    mean_shape,
    mirror,
    robust_mean,
    shape_bias,
    sharpen,
    sharpness,
)
from bids_fcnreg.fcn.spatial.displacement import exponentiate
from bids_fcnreg.fcn.spatial.filters import gaussian
from bids_fcnreg.fcn.spatial.grid import Grid, Image, apply_affine
from bids_fcnreg.fcn.spatial.transform import Affine, Displacement, Transform

pytestmark = pytest.mark.slow

GRID = Grid(
    (36, 40, 32), np.array([[-2, 0, 0, 35], [0, 2, 0, -40], [0, 0, 2, -30], [0, 0, 0, 1.0]])
)


def velocity(seed: int, largest: float = 1.0) -> torch.Tensor:
    """Smooth, zero at the border; in voxels."""
    noise = torch.randn(1, 3, *GRID.shape, generator=torch.Generator().manual_seed(seed))
    window = torch.zeros(1, 1, *GRID.shape)
    window[..., 9:-9, 9:-9, 9:-9] = 1
    smooth = gaussian(noise, 5.0) * gaussian(window, 2.5)
    return largest * smooth / smooth.abs().max()


def turned(angle: float) -> np.ndarray:
    """A turn about an oblique axis, and a shift."""
    matrix = np.eye(4)
    skew = np.cross(np.eye(3), [0.6, 0.0, 0.8])
    matrix[:3, :3] = linalg.expm(angle * skew)
    matrix[:3, 3] = 10 * angle
    return matrix


def scaled(x: float, y: float, z: float) -> np.ndarray:
    return np.diag([x, y, z, 1.0])


def registration(field: torch.Tensor, matrix: np.ndarray) -> Transform:
    return Transform((Displacement(GRID, exponentiate(field)), Affine(matrix)))


def brain() -> Image:
    data = torch.zeros(1, 1, *GRID.shape)
    data[..., 9:-9, 9:-9, 9:-9] = 1
    return Image(data, GRID)


def test_mean_of_stretches_and_velocities_whatever_the_turns():
    velocities = [velocity(1), velocity(2), -velocity(1) - velocity(2) + velocity(3, 0.5)]
    stretches = [scaled(1.1, 1, 1), scaled(1.1, 1.3, 1), scaled(1, 1, 0.8)]
    turns = [turned(0.1), turned(2.9), turned(-1.0)]
    transforms = [
        registration(v, turn @ stretch)
        for v, stretch, turn in zip(velocities, stretches, turns, strict=True)
    ]
    shape = mean_shape(transforms, [1, 1, 1], brain())
    expected = np.exp([2 * np.log(1.1) / 3, np.log(1.3) / 3, np.log(0.8) / 3])
    np.testing.assert_allclose(shape.stretch[:3, :3], np.diag(expected), atol=1e-12)
    np.testing.assert_allclose(apply_affine(shape.stretch, GRID.centre), GRID.centre, atol=1e-9)
    assert (shape.velocity.field - velocity(3, 0.5) / 3).abs().max() < 0.03


def test_weights_and_anchor():
    transforms = [
        registration(velocity(1), scaled(1.2, 1.2, 1.2)),
        registration(0 * velocity(1), np.eye(4)),
    ]
    shape = mean_shape(transforms, [1, 3], brain(), anchored=True)
    np.testing.assert_array_equal(shape.stretch, np.eye(4))
    assert (shape.velocity.field - velocity(1) / 4).abs().max() < 0.02


def test_update_and_inverse_update():
    transforms = [registration(velocity(1), scaled(1.1, 1.0, 0.9))]
    shape = mean_shape(transforms, [1], brain())
    points = GRID.points()[10:-10:3, 10:-10:3, 10:-10:3]
    there = shape.update.map(points)
    assert (shape.inverse_update.map(there) - points).abs().max() < 0.1
    size = (there - points).square().sum(-1).mean().sqrt()
    assert shape.rms_mm(brain()) == pytest.approx(float(size), rel=0.2)


def test_after_the_update_nothing_is_left_to_do():
    velocities = [velocity(1), velocity(2)]
    stretches = [scaled(1.1, 1, 1), scaled(1, 1.2, 1)]
    transforms = [registration(v, s) for v, s in zip(velocities, stretches, strict=True)]
    shape = mean_shape(transforms, [1, 1], brain())
    assert shape_bias(transforms, shape, [1, 1], brain()) < 0.1 * shape.rms_mm(brain())
    # With another update than theirs something is left.
    other = mean_shape(transforms[:1], [1], brain())
    assert shape_bias(transforms, other, [1, 1], brain()) > 0.3 * shape.rms_mm(brain())


def test_a_symmetric_mean_does_the_same_on_both_sides():
    grid = Grid((37, 40, 32), GRID.affine @ np.array(np.eye(4)))
    grid.affine[0, 3] = 36  # x = 0 in the middle
    field = torch.zeros(1, 3, *grid.shape)
    field[:, :, 1:] = velocity(1)
    transform = Transform((Displacement(grid, exponentiate(field)), Affine(scaled(1, 1.1, 1))))
    inside = torch.zeros(1, 1, *grid.shape)
    inside[..., 9:-12, 9:-9, 9:-9] = 1
    shape = mean_shape([transform], [1], Image(inside, grid), symmetric=True)
    points = grid.points()[3:-3:2, 3:-3:2, 3:-3:2]
    across = points * torch.tensor([-1.0, 1, 1])
    mirrored = shape.update.map(across) * torch.tensor([-1.0, 1, 1])
    assert (shape.update.map(points) - mirrored).abs().max() < 1e-3


def test_collapsed_chain_equals_the_chain():
    update = Displacement(GRID, exponentiate(velocity(4, 0.8)))
    undone = Displacement(GRID, exponentiate(-velocity(4, 0.8)))
    field, matrix = velocity(1, 2.0), turned(0.2) @ scaled(1.1, 1, 0.9)
    chain = Transform((Affine(scaled(1.02, 1, 1)), update, *registration(field, matrix).steps))
    back = (Affine(np.linalg.inv(matrix)), Displacement(GRID, exponentiate(-field)), undone)
    chain_back = Transform((*back, Affine(np.linalg.inv(scaled(1.02, 1, 1)))))
    points = GRID.points()[8:-8:3, 8:-8:3, 8:-8:3]
    folded = collapse(chain, linear_part(chain), GRID)
    assert [type(step) for step in folded.steps] == [Displacement, Affine]
    assert (folded.map(points) - chain.map(points)).abs().max() < 0.1
    there = chain.map(points)
    inverse = collapse_inverse(chain_back, linear_part(chain), GRID)
    assert [type(step) for step in inverse.steps] == [Affine, Displacement]
    assert (inverse.map(there) - chain_back.map(there)).abs().max() < 0.1


def test_mirror_exchanges_left_and_right():
    place = Image(GRID.points()[..., 0][None, None].float(), GRID)
    shown = mirror(place).data[..., 2:-2, :, :]
    torch.testing.assert_close(shown, -place.data[..., 2:-2, :, :])


def test_room_for_a_larger_brain():
    larger = enlarge_grid(GRID, brain(), scaled(1.6, 1, 1), 10.0)
    points = apply_affine(scaled(1.6, 1, 1) @ GRID.affine, brain().data[0, 0].nonzero().numpy())
    inside = apply_affine(np.linalg.inv(larger.affine), points)
    assert (inside >= 5 - 1e-6).all()
    assert (inside <= np.array(larger.shape) - 6 + 1e-6).all()
    assert enlarge_grid(GRID, brain(), np.eye(4), 10.0).matches(GRID)
    # Equally much on both sides: a grid that is symmetric stays so.
    np.testing.assert_allclose(larger.centre, GRID.centre)


def test_one_odd_image_hardly_moves_the_robust_mean():
    values = 1 + 0.01 * np.random.default_rng(0).standard_normal((9, 500))
    values[4] = 50
    assert np.abs(robust_mean(values, [1] * 9) - 1).max() < 0.03
    plain = np.random.default_rng(1).standard_normal((3, 500))
    weights = [1.0, 1.0, 4.0]
    expected = np.average(plain, axis=0, weights=weights)
    close = np.abs(robust_mean(plain, weights) - expected) < 1e-9
    assert close.mean() > 0.4  # with three values, most lie near enough to their median


def test_values_that_do_not_count_do_not_move_the_mean():
    values = np.stack([np.full(6, 1.0), np.full(6, 1.2), np.full(6, 90.0)])
    counts = np.ones((3, 6), bool)
    counts[2, :4] = False
    counts[:, 0] = False
    mean = robust_mean(values, [1, 3, 5], counts)
    np.testing.assert_allclose(mean[1:4], 1.15)
    assert mean[0] == 0


def test_sharpening_sharpens():
    noise = torch.rand(1, 1, *GRID.shape, generator=torch.Generator().manual_seed(0))
    image = Image(gaussian(noise, 1.5), GRID)
    sharp = Image(sharpen(image.data, brain().data, 0.5), GRID)
    assert sharpness(sharp, brain().data) > 1.1 * sharpness(image, brain().data)
    # The border of the mask is no detail.
    torch.testing.assert_close(sharpen(brain().data, brain().data, 2.0), brain().data)
