"""Deformations on a grid against what they must be."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch.nn import functional as nnf

from bids_fcnreg.fcn.spatial.displacement import (
    compose,
    exponentiate,
    geometric_determinant,
    identity,
    jacobian_determinant,
    logarithm,
    sample,
    warp,
)
from bids_fcnreg.fcn.spatial.filters import gaussian

SHAPE = (44, 48, 40)
INNER = (..., slice(5, -5), slice(5, -5), slice(5, -5))


@pytest.fixture(scope="module")
def velocity() -> torch.Tensor:
    """Smooth, zero towards the border, up to 2.5 voxels."""
    noise = torch.randn(1, 3, *SHAPE, generator=torch.Generator().manual_seed(1))
    window = torch.zeros(1, 1, *SHAPE)
    window[..., 12:-12, 12:-12, 12:-12] = 1
    smooth = gaussian(noise, 8.0) * gaussian(window, 3.0)
    return 2.5 * smooth / smooth.abs().max()


def test_sampling_is_exact_for_a_linear_image():
    slope = torch.tensor([0.3, -1.0, 2.0]).reshape(1, 3, 1, 1, 1)
    image = (identity((9, 8, 7), torch.zeros(1)) * slope).sum(1, keepdim=True)
    coordinates = torch.rand(1, 3, 4, 5, 6) * 6
    torch.testing.assert_close(
        sample(image, coordinates), (coordinates * slope).sum(1, keepdim=True)
    )


def test_a_shift_pulls_back():
    image = torch.rand(1, 1, 10, 10, 10)
    shift = torch.zeros(1, 3, 10, 10, 10)
    shift[:, 1] = 2
    torch.testing.assert_close(warp(image, shift)[..., :8, :], image[..., 2:, :])
    assert not warp(image, shift)[..., 8:, :].any()


def test_compose_acts_in_order():
    first, second = torch.zeros(2, 1, 3, 8, 8, 8)
    first[:, 0] = 1.0
    second[:, 2] = identity((8, 8, 8), first)[:, 0]  # depends on i: the order shows
    both = compose(first, second)
    assert both[0, 0, 3, 3, 3] == 1
    assert both[0, 2, 3, 3, 3] == 4


def test_exponential_solves_the_flow(velocity):
    place = identity(SHAPE, velocity)
    flow = torch.zeros_like(velocity)
    for _ in range(200):
        flow = flow + sample(velocity, place + flow, padding="border") / 200
    assert (exponentiate(velocity) - flow).abs().max() < 0.05
    assert velocity.abs().max() > 2.4


def test_exponential_of_the_opposite_is_the_inverse(velocity):
    there, back = exponentiate(velocity), exponentiate(-velocity)
    assert compose(there, back)[INNER].abs().max() < 0.1
    assert jacobian_determinant(there).min() > 0


def test_jacobian_of_a_linear_map():
    linear = torch.tensor([[0.2, 0.1, 0.0], [-0.1, -0.3, 0.05], [0.0, 0.2, 0.4]])
    place = identity((6, 7, 8), torch.zeros(1))
    field = torch.einsum("cd,ndijk->ncijk", linear, place)
    expected = torch.linalg.det(torch.eye(3) + linear)
    torch.testing.assert_close(
        jacobian_determinant(field), expected.expand(1, 1, 6, 7, 8), atol=1e-4, rtol=0
    )


BOTH = pytest.mark.parametrize("determinant", [jacobian_determinant, geometric_determinant])


@BOTH
def test_jacobian_of_linear_maps_also_at_the_border(determinant):
    """A rotation, a shear and a reflection."""
    rotation = torch.linalg.matrix_exp(torch.tensor([[0, 0.5, 0], [-0.5, 0, 0.3], [0, -0.3, 0]]))
    shear = torch.tensor([[1.2, 0.3, 0.0], [0.0, 0.7, -0.4], [0.1, 0.0, 1.1]])
    for matrix in (rotation, shear, torch.diag(torch.tensor([-1.0, 1.0, 1.0]))):
        voxels = identity((40, 7, 8), torch.empty(0))
        field = torch.einsum("cd,ndijk->ncijk", matrix, voxels) - voxels
        expected = torch.linalg.det(matrix).expand(1, 1, 40, 7, 8)
        torch.testing.assert_close(determinant(field), expected, atol=1e-3, rtol=0)


@BOTH
def test_determinants_of_a_wave(determinant):
    """x + a sin(kx) along i, sampled: both compute its mean slope over two voxels."""
    a, k = 1.5, 2 * torch.pi / 12
    x = torch.arange(48.0)
    field = torch.zeros(1, 3, 48, 5, 6)
    field[:, 0] = (a * torch.sin(k * x))[:, None, None]
    found = determinant(field)[0, 0, 2:-2, 2, 3]
    mean_slope = (torch.sin(k * (x + 1)) - torch.sin(k * (x - 1))) / 2
    torch.testing.assert_close(found, (1 + a * mean_slope)[2:-2])
    torch.testing.assert_close(found, (1 + a * k * torch.cos(k * x))[2:-2], atol=0.04, rtol=0)


def test_geometric_determinants_are_means_of_the_determinant_over_a_voxel(velocity):
    """Of the trilinear map between corners; by Gauss–Legendre quadrature, which is exact here."""
    field = 3 * velocity.double()
    corners = nnf.avg_pool3d(field, 2, stride=1)
    corners = (corners + identity(corners.shape[2:], corners))[0]
    cells = {
        index: corners[(slice(None), *(slice(n, n - 1 or None) for n in index))]
        for index in itertools.product((0, 1), repeat=3)
    }
    total = 0
    for point in itertools.product((0.5 - 12**-0.5, 0.5 + 12**-0.5), repeat=3):
        columns = []
        for axis in range(3):
            column = 0
            for index, cell in cells.items():
                weights = [
                    2.0 * n - 1 if d == axis else (p if n else 1 - p)
                    for d, (n, p) in enumerate(zip(index, point, strict=True))
                ]
                column = column + weights[0] * weights[1] * weights[2] * cell
            columns.append(column)
        a, b, c = columns
        total = total + (a * torch.linalg.cross(b, c, dim=0)).sum(dim=0) / 8
    found = geometric_determinant(field)[0, 0, 1:-1, 1:-1, 1:-1]
    torch.testing.assert_close(found, total)
    assert total.std() > 0.05


def test_the_sum_of_geometric_determinants_is_the_volume_of_the_deformed_box():
    """Also of a rough field, within a box that grows linearly."""
    generator = torch.Generator().manual_seed(0)
    field = torch.zeros(1, 3, 20, 22, 24)
    field[..., 4:-4, 4:-4, 4:-4] = 0.4 * torch.randn(1, 3, 12, 14, 16, generator=generator)
    growth = torch.tensor([1.3, 1.04, 1.43])
    field += (growth[:, None, None, None] - 1) * identity(field.shape[2:], field)
    volume = 20 * 22 * 24 * float(growth.prod())
    assert float(geometric_determinant(field).sum()) == pytest.approx(volume, rel=1e-5)
    assert float(jacobian_determinant(field).sum()) != pytest.approx(volume, rel=1e-4)


@BOTH
def test_a_turned_voxel_is_seen(determinant):
    field = torch.zeros(1, 3, 9, 9, 9)
    field[:, 0, 3:6] = -3 * torch.arange(-1.0, 2.0)[:, None, None]
    assert determinant(field)[0, 0, 4].max() < 0


def test_a_fold_is_seen():
    field = torch.zeros(1, 3, 12, 5, 5)
    field[:, 0, 5] = 3
    assert jacobian_determinant(field).min() < 0


def test_the_logarithm_of_a_flow_is_its_velocity(velocity):
    found = logarithm(exponentiate(velocity), tolerance=1e-3)
    # Up to what linear interpolation loses while flows are composed; the velocity reaches 2.5.
    error = (found - velocity)[INNER]
    assert error.abs().max() < 0.1
    assert error.square().mean().sqrt() < 0.01
