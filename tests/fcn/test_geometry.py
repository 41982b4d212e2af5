"""Grids: where voxels are."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from bids_fcnreg.fcn.geometry import Grid, Image, apply_affine, voxel_to_voxel

OBLIQUE = np.array(
    [[0.0, -1.9, 0.2, 30.0], [0.9, 0.0, 0.4, -40.0], [0.1, 0.3, 2.4, 5.0], [0, 0, 0, 1]]
)


def test_points_are_the_affine_applied_to_indices():
    grid = Grid((3, 4, 5), OBLIQUE)
    points = grid.points()
    assert points.shape == (3, 4, 5, 3)
    for index in [(0, 0, 0), (2, 0, 4), (1, 3, 2)]:
        np.testing.assert_allclose(points[index], apply_affine(OBLIQUE, np.array(index)))


@pytest.mark.parametrize("spacing", [0.7, 2.0, 4.0])
def test_another_spacing_keeps_the_field_of_view(spacing):
    grid = Grid((30, 41, 22), np.diag([1.0, -1.2, 0.9, 1.0]))
    other = grid.with_spacing(spacing)
    np.testing.assert_allclose(other.spacing, spacing)
    # The outer corner of the first voxel stays, the far one is covered by less than a voxel.
    np.testing.assert_allclose(
        apply_affine(other.affine, [-0.5] * 3), apply_affine(grid.affine, [-0.5] * 3)
    )
    excess = np.array(other.shape) * other.spacing - np.array(grid.shape) * grid.spacing
    assert (excess > -1e-9).all() and (excess < spacing).all()


def test_crop_keeps_places():
    grid = Grid((10, 11, 12), OBLIQUE)
    part = grid.crop((2, 3, 4), (7, 9, 12))
    assert part.shape == (5, 6, 8)
    torch.testing.assert_close(part.points(), grid.points()[2:7, 3:9, 4:12])


def test_voxel_to_voxel_goes_through_the_world():
    source, target = Grid((5, 5, 5), OBLIQUE), Grid((5, 5, 5), np.diag([2.0, 2.0, 2.0, 1.0]))
    world = np.eye(4)
    world[:3, 3] = 1, 2, 3
    index = np.array([1.0, 2.0, 3.0])
    expected = (apply_affine(OBLIQUE, index) + world[:3, 3]) / 2
    np.testing.assert_allclose(
        apply_affine(voxel_to_voxel(source, target, world), index), expected
    )


def test_an_image_fits_its_grid():
    with pytest.raises(ValueError, match="do not fit"):
        Image(torch.zeros(1, 1, 3, 4, 5), Grid((3, 4, 6), np.eye(4)))
