"""Grids: where voxels are."""

from __future__ import annotations

import nibabel as nib
import numpy as np
import pytest
import torch

from bids_fcnreg.errors import InputError
from bids_fcnreg.fcn.intensity import standardize
from bids_fcnreg.fcn.linear.align import align
from bids_fcnreg.fcn.spatial.grid import Grid, Image, apply_affine, voxel_to_voxel

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


def test_crop_keeps_world_coordinates():
    grid = Grid((10, 11, 12), OBLIQUE)
    part = grid.crop((2, 3, 4), (7, 9, 12))
    assert part.shape == (5, 6, 8)
    torch.testing.assert_close(part.points(), grid.points()[2:7, 3:9, 4:12])


def test_voxel_to_voxel_goes_through_the_world():
    source, target = Grid((5, 5, 5), OBLIQUE), Grid((5, 5, 5), np.diag([2.0, 2.0, 2.0, 1.0]))
    index = np.array([1.0, 2.0, 3.0])
    expected = apply_affine(OBLIQUE, index) / 2
    np.testing.assert_allclose(apply_affine(voxel_to_voxel(source, target), index), expected)


def test_an_image_fits_its_grid():
    with pytest.raises(ValueError, match="do not fit"):
        Image(torch.zeros(1, 1, 3, 4, 5), Grid((3, 4, 6), np.eye(4)))


def turned(degrees: float) -> np.ndarray:
    angle = np.deg2rad(degrees)
    matrix = np.eye(4)
    matrix[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    return matrix


def shifted(mm: float) -> np.ndarray:
    matrix = np.eye(4)
    matrix[1, 3] = mm
    return matrix


def stretched(share: float) -> np.ndarray:
    return np.diag([1 + share, 1, 1, 1])


def entry(size: float) -> np.ndarray:
    matrix = np.eye(4)
    matrix[0, 1] = size
    return matrix


def as_qform(affine: np.ndarray) -> np.ndarray:
    """As it comes back from single precision and a quaternion."""
    header = nib.Nifti1Header()
    header.set_qform(affine, 1)
    return header.get_qform()


def truth(one: Grid, other: Grid) -> float:
    """Largest distance of any two voxels of the same index."""
    return float((one.points() - other.points()).norm(dim=-1).max())


BALL = Grid(
    (40, 44, 36),
    turned(20) @ turned(12)[[2, 0, 1, 3]][:, [2, 0, 1, 3]] @ np.diag([-3.0, 4.0, 3.5, 1.0]),
)


def ball(grid: Grid = BALL) -> Image:
    away = torch.from_numpy(np.moveaxis(np.indices(grid.shape), 0, -1) - np.divide(grid.shape, 2))
    radius = away.norm(dim=-1)
    values = (16 - radius).clamp(0, 1) * (100 + 20 * torch.sin(away[..., 0] / 3))
    return Image(values.float()[None, None], grid)


@pytest.mark.parametrize(
    "change", [turned(0.02), shifted(0.02), stretched(1e-3), entry(5e-4), shifted(1e-3)]
)
def test_distance_is_the_largest_of_all_voxels(change):
    other = Grid(BALL.shape, change @ BALL.affine)
    assert BALL.distance(other) == pytest.approx(truth(BALL, other), rel=1e-6)
    assert BALL.distance(Grid((40, 44, 35), BALL.affine)) == np.inf


@pytest.mark.parametrize(
    "change", [np.eye(4), shifted(1e-3), shifted(0.1), turned(0.05), stretched(5e-4)]
)
def test_masks_on_nearly_the_same_grid_are_taken(change):
    image, mask_grid = ball(), Grid(BALL.shape, as_qform(change @ BALL.affine))
    assert truth(BALL, mask_grid) < 0.1 * BALL.spacing.min()
    mask = Image((image.data > 0).float(), mask_grid)
    scaled, inside = standardize(image, mask, "moving")
    assert inside.grid is scaled.grid is BALL
    assert torch.equal(inside.data, mask.data)
    align(
        image, image, fixed_mask=mask, moving_exclude=Image(torch.zeros_like(mask.data), mask_grid)
    )


@pytest.mark.parametrize("change", [shifted(0.5), turned(0.5), stretched(0.01), entry(0.01)])
def test_masks_on_other_grids_are_refused_with_their_distance(change):
    image, mask_grid = ball(), Grid(BALL.shape, change @ BALL.affine)
    far = f"lie up to {truth(BALL, mask_grid):.3g} mm apart"
    mask = Image((image.data > 0).float(), mask_grid)
    with pytest.raises(InputError, match=f"The moving image and its mask {far}"):
        standardize(image, mask, "moving")
    with pytest.raises(InputError, match=f"The image and the mask of the fixed image {far}"):
        align(image, image, fixed_mask=mask)


def test_small_entries_of_the_matrix_add_up_over_a_large_grid():
    large = Grid((256, 256, 256), np.eye(4))
    assert large.mismatch(Grid(large.shape, entry(5e-4))) == "lie up to 0.128 mm apart"
    assert large.mismatch(Grid(large.shape, entry(3e-4))) is None


def test_masks_of_other_shapes_are_refused_with_both():
    small = Grid((40, 44, 35), BALL.affine)
    mask = Image(torch.ones(1, 1, *small.shape), small)
    message = r"have different shapes \(40×44×36 and 40×44×35\)"
    with pytest.raises(InputError, match=message):
        standardize(ball(), mask, "fixed")
