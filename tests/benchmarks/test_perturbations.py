"""Disturbed images show the same brain, where the benchmark says that it is."""

from __future__ import annotations

import numpy as np
import perturbations
import pytest
import torch
from perturbations import DISTURBANCES

from bids_fcnreg.fcn.spatial.grid import Grid, Image, apply_affine


@pytest.fixture(scope="module")
def ball() -> Image:
    """A bright ball with a dark core, off the center of an oblique grid with voxels of 1 mm."""
    affine = np.eye(4)
    affine[:3, :3] = [[0, -0.8, -0.6], [1, 0, 0], [0, -0.6, 0.8]]
    affine[:3, 3] = 20, -40, 15
    grid = Grid((61, 72, 55), affine)
    distance = (grid.points() - grid.points()[34, 30, 25]).norm(dim=-1)
    intensity = torch.where(distance < 10, 40.0, 100.0) * (distance < 20)
    return Image(intensity[None, None], grid)


def center(image: Image) -> np.ndarray:
    """Center of mass in the world, of everything that is not 0."""
    weight = image.data[0, 0] > 0
    return image.grid.points()[weight].mean(dim=0).numpy()


@pytest.mark.parametrize("name", DISTURBANCES)
def test_a_point_is_where_the_matrix_puts_it(ball, name):
    disturbed, back = DISTURBANCES[name](ball)
    assert apply_affine(back, center(disturbed)) == pytest.approx(center(ball), abs=0.3)
    assert disturbed.data[disturbed.data > 0].mean() == pytest.approx(90, rel=0.4)
    changed = disturbed.grid.shape != ball.grid.shape or not torch.equal(disturbed.data, ball.data)
    assert changed or not np.allclose(back, np.eye(4))


def test_slices_and_voxels_have_their_size(ball):
    for axis in range(3):
        spacing = perturbations.thick_slices(ball, axis, 5)[0].grid.spacing
        assert sorted(spacing) == pytest.approx([1, 1, 5])
    assert perturbations.large_voxels(ball, 3)[0].grid.spacing == pytest.approx([3, 3, 3])


def test_rotation_is_about_the_center_of_the_field_of_view(ball):
    disturbed, back = perturbations.moved(ball, (45, 0, 0), (0, 0, 0))
    middle = (np.array(ball.grid.shape) - 1) / 2
    assert apply_affine(disturbed.grid.affine, middle) == pytest.approx(
        apply_affine(ball.grid.affine, middle)
    )
    angle = np.degrees(np.arccos((np.trace(back[:3, :3]) - 1) / 2))
    assert angle == pytest.approx(45)
