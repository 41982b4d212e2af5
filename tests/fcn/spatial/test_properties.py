"""Properties of deformations that hold for all of them: group laws, adjoints, exact cases."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from bids_fcnreg.fcn.cpu import kernels
from bids_fcnreg.fcn.spatial.displacement import (
    compose,
    exponentiate,
    identity,
    jacobian_determinant,
    sample,
    warp,
)
from bids_fcnreg.fcn.spatial.filters import box, box_transposed
from bids_fcnreg.fcn.spatial.grid import Grid, Image, apply_affine, voxel_to_voxel
from bids_fcnreg.fcn.spatial.inverse import invert
from bids_fcnreg.fcn.spatial.transform import Affine, Displacement, Transform, change_grid

SHAPE = (20, 23, 19)
CENTRE = (torch.tensor(SHAPE).reshape(1, 3, 1, 1, 1) - 1) / 2
#: What linear interpolation loses of a field of 1 voxel, in voxels: an eighth of the second
#: derivatives, (2 pi / size)² along each axis for the shorter waves.
INTERPOLATION = 0.1

few = settings(max_examples=20, deadline=None, derandomize=True)


def numbers(shape: tuple[int, ...] | int, largest: float = 1.0) -> st.SearchStrategy[np.ndarray]:
    return arrays(np.float64, shape, elements=st.floats(-largest, largest))


def smooth_field(amplitudes: np.ndarray, largest: float) -> torch.Tensor:
    """Sum of half waves, up to `largest` voxels, zero at the border."""
    waves = [
        torch.stack([torch.sin(torch.pi * n * torch.linspace(0, 1, size)) for n in (1, 2)])
        for size in SHAPE
    ]
    weights = torch.from_numpy(amplitudes).float()
    field = torch.einsum("cpqr,pi,qj,rk->cijk", weights, *waves)[None]
    return largest * field / field.abs().max().clamp(min=1e-3)


def smooth_fields(largest: float = 1.0) -> st.SearchStrategy[torch.Tensor]:
    return st.builds(smooth_field, numbers((3, 2, 2, 2)), st.just(largest))


def linear_maps(largest: float = 0.2) -> st.SearchStrategy[torch.Tensor]:
    """Matrices (3, 3) near the identity."""
    return (
        numbers((3, 3), largest)
        .map(lambda by: (np.eye(3) + by).astype(np.float32))
        .map(torch.from_numpy)
    )


@st.composite
def affines(draw) -> Affine:
    """Transforms by rotation, stretch, shear and shift."""
    matrix = np.eye(4)
    matrix[:3, :3] += draw(numbers((3, 3), 0.25))
    matrix[:3, 3] = draw(numbers(3, 20.0))
    return Affine(matrix)


@st.composite
def grids(draw, shape: tuple[int, int, int] = SHAPE) -> Grid:
    """Grids of any voxel size, orientation and origin."""
    affine = np.eye(4)
    axes = np.eye(3)[:, draw(st.permutations(range(3)))]
    spacing = draw(arrays(np.float64, 3, elements=st.floats(0.5, 3)))
    signs = draw(arrays(np.float64, 3, elements=st.sampled_from([-1.0, 1.0])))
    affine[:3, :3] = (axes + draw(numbers((3, 3), 0.2))) * spacing * signs
    affine[:3, 3] = draw(numbers(3, 50.0))
    return Grid(shape, affine)


def noise(channels: int, seed: int, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(1, channels, *SHAPE, generator=generator, dtype=dtype)


def linear_displacement(matrix: torch.Tensor) -> torch.Tensor:
    """Displacement of a linear map about the centre of the grid."""
    from_centre = identity(SHAPE, torch.zeros(1)) - CENTRE
    return torch.einsum("cd,ndijk->ncijk", matrix - torch.eye(3), from_centre)


def inner(data: torch.Tensor, margin: int = 6) -> torch.Tensor:
    return data[(..., *3 * [slice(margin, -margin)])]


def close(first: torch.Tensor, second: torch.Tensor, atol: float) -> None:
    torch.testing.assert_close(first, second, atol=atol, rtol=0)


@few
@given(smooth_fields(), smooth_fields(), smooth_fields())
def test_composition_is_associative(first, second, third):
    close(
        compose(compose(first, second), third),
        compose(first, compose(second, third)),
        atol=INTERPOLATION,
    )


@few
@given(smooth_fields())
def test_the_identity_is_neutral(field):
    nothing = torch.zeros_like(field)
    close(compose(nothing, field), field, atol=1e-5)
    close(compose(field, nothing), field, atol=1e-5)


@few
@given(linear_maps(), linear_maps())
def test_linear_maps_compose_as_matrices(first, second):
    composed = compose(linear_displacement(first), linear_displacement(second))
    close(inner(composed), inner(linear_displacement(second @ first)), atol=1e-4)


@few
@given(smooth_fields(), st.sampled_from([0.1, 0.01, 0.001]))
def test_inverse_and_forward_cancel(field, tolerance):
    inverse = invert(field, tolerance)
    assert compose(inverse, field).norm(dim=1).max() <= tolerance + 1e-5
    assert compose(field, inverse).norm(dim=1).max() <= 2 * tolerance + INTERPOLATION


@few
@given(smooth_fields(largest=2.0))
def test_exponentials_of_opposite_velocities_are_inverse(velocity):
    there, back = exponentiate(velocity), exponentiate(-velocity)
    assert compose(there, back).abs().max() < 2 * INTERPOLATION
    assert jacobian_determinant(there).min() > 0


@few
@given(smooth_fields(largest=2.0), st.floats(0, 1), st.floats(0, 1))
def test_exponentials_of_one_velocity_add_up(velocity, before, after):
    close(
        compose(exponentiate(before * velocity), exponentiate(after * velocity)),
        exponentiate((before + after) * velocity),
        atol=2 * INTERPOLATION,
    )


@few
@given(numbers(3, 8.0))
def test_exponential_of_a_constant_is_a_translation(shift):
    velocity = torch.from_numpy(shift).float().reshape(1, 3, 1, 1, 1).expand(1, 3, *SHAPE)
    close(exponentiate(velocity.contiguous()), velocity, atol=1e-5)


@few
@given(linear_maps(largest=0.1))
def test_exponential_of_a_linear_velocity_is_that_of_its_matrix(matrix):
    rate = matrix - torch.eye(3)
    expected = linear_displacement(torch.linalg.matrix_exp(rate))
    found = exponentiate(linear_displacement(torch.eye(3) + rate), steps=10)
    close(inner(found), inner(expected), atol=0.01)


@few
@given(smooth_fields(), smooth_fields())
def test_jacobian_of_a_composition_is_the_product(first, second):
    chain = sample(
        jacobian_determinant(second), identity(SHAPE, first) + first, padding="border"
    ) * jacobian_determinant(first)
    close(inner(jacobian_determinant(compose(first, second)), 1), inner(chain, 1), atol=0.05)


@few
@given(linear_maps(), linear_maps())
def test_jacobian_of_linear_maps_is_the_product_of_determinants(first, second):
    composed = compose(linear_displacement(first), linear_displacement(second))
    product = torch.linalg.det(first) * torch.linalg.det(second)
    found = inner(jacobian_determinant(composed), 7)
    close(found, product.expand_as(found), atol=1e-3)


@few
@given(smooth_fields(largest=3.0), st.integers(0, 2**31))
def test_warp_and_its_vector_jacobian_product_are_adjoint(field, seed):
    """The compiled warp in single precision, against PyTorch's gradient in double."""
    image, cotangent = noise(2, seed), noise(2, seed + 1)
    variable = image.clone().requires_grad_()
    (back,) = torch.autograd.grad(warp(variable, field.double()), variable, cotangent)
    exact = (back * image).sum()
    size = (cotangent.norm() * image.norm()).item()
    assert float((warp(image, field.double()) * cotangent).sum() - exact) / size < 1e-12
    assert kernels.usable(image.float(), field)
    single = (warp(image.float(), field) * cotangent).sum()
    assert abs(float(single - exact)) < 1e-5 * size


@few
@given(smooth_fields(largest=3.0), st.integers(0, 2**31))
def test_gradient_of_a_warp_by_its_displacement_is_that_of_differences(field, seed):
    # Away from voxel centres, where the derivative jumps.
    field = torch.where((field - field.round()).abs() < 1e-3, field + 0.01, field).double()
    image, direction, cotangent = noise(1, seed), noise(3, seed + 1), noise(1, seed + 2)
    variable = field.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(warp(image, variable), variable, cotangent)
    step = 1e-5
    ahead, behind = (warp(image, field + sign * step * direction) for sign in (1, -1))
    expected = ((ahead - behind) / (2 * step) * cotangent).sum()
    size = float(gradient.norm() * direction.norm())
    assert abs(float((gradient * direction).sum() - expected)) < 1e-5 * size


@few
@given(smooth_fields(largest=2.0), smooth_fields(largest=2.0))
def test_kernels_agree_with_double_precision(first, second):
    assert kernels.usable(first, second)
    assert not kernels.usable(first.double())
    exact = compose(first.double(), second.double()).float()
    close(compose(first, second), exact, atol=1e-4)
    exact = jacobian_determinant(first.double()).float()
    close(jacobian_determinant(first), exact, atol=1e-4)
    exact = exponentiate(first.double(), steps=4).float()
    close(exponentiate(first, steps=4), exact, atol=1e-4)


@few
@given(st.integers(1, 4), st.integers(0, 2**31))
def test_box_filter_and_its_transpose_are_adjoint(radius, seed):
    data, other = noise(1, seed), noise(1, seed + 1)
    torch.testing.assert_close(
        (box(data, radius) * other).sum(), (data * box_transposed(other, radius)).sum()
    )


@few
@given(affines(), affines(), affines(), numbers((7, 3), 100.0))
def test_affines_are_a_group(first, second, third, points):
    points = torch.from_numpy(points)
    one, two, three = (Transform((step,)) for step in (first, second, third))
    close(one.then(two).then(three).map(points), one.then(two.then(three)).map(points), atol=1e-9)
    product = Transform((Affine(second.matrix @ first.matrix),))
    close(one.then(two).map(points), product.map(points), atol=1e-9)
    close(one.then(one.inverse()).map(points), points, atol=1e-9)
    close(one.inverse().then(one).map(points), points, atol=1e-9)
    inverse = one.then(two).inverse()
    close(inverse.map(points), two.inverse().then(one.inverse()).map(points), atol=1e-9)


@few
@given(affines(), grids(), smooth_fields(), st.integers(0, 2**31))
def test_a_chain_and_its_inverse_cancel(affine, grid, field, seed):
    chain = Transform((affine, Displacement(grid, field)))
    coordinates = np.random.default_rng(seed).uniform(0, np.array(SHAPE) - 1, (50, 3))
    points = torch.from_numpy(
        apply_affine(np.linalg.inv(affine.matrix) @ grid.affine, coordinates)
    )
    there_and_back = chain.then(chain.inverse()).map(points)
    to_grid = np.linalg.inv(grid.affine) @ affine.matrix
    error = (there_and_back - points).numpy() @ to_grid[:3, :3].T  # in voxels
    assert np.linalg.norm(error, axis=1).max() < INTERPOLATION + 0.02


@few
@given(affines(), grids((9, 8, 10)), grids(), smooth_fields(), numbers(3))
def test_resampling_of_linear_ramps_is_exact_inside(affine, onto, grid, field, slope):
    chain = Transform((affine, Displacement(grid, field)))
    moving = Grid(SHAPE, affine.matrix @ onto.affine)  # so that most of it lies inside
    slope = torch.from_numpy(slope)
    image = Image((moving.points() @ slope).float()[None, None], moving)
    resampled = chain.resample(image, onto, fill=np.nan).data[0, 0].double()
    mapped = chain.map(onto.points())
    voxels = apply_affine(np.linalg.inv(moving.affine), mapped.numpy())
    inside = torch.from_numpy(((voxels > 0) & (voxels < np.array(SHAPE) - 1)).all(-1))
    close(resampled[inside], (mapped @ slope)[inside], atol=0.01)


@few
@given(grids(), grids(), numbers((5, 3), 30.0))
def test_voxels_of_two_grids_map_to_each_other(first, second, voxels):
    there, back = voxel_to_voxel(first, second), voxel_to_voxel(second, first)
    np.testing.assert_allclose(there @ back, np.eye(4), atol=1e-9)
    world = apply_affine(second.affine, apply_affine(there, voxels))
    np.testing.assert_allclose(world, apply_affine(first.affine, voxels), atol=1e-9)


@few
@given(grids(), linear_maps(), st.floats(0.8, 1.5))
def test_change_of_grid_keeps_linear_displacements(grid, matrix, factor):
    displacement = Displacement(grid, linear_displacement(matrix))
    changed = change_grid(displacement, grid.with_spacing(grid.spacing * factor))
    points = changed.grid.points()[2:-2, 2:-2, 2:-2]
    close(changed.map(points), displacement.map(points), atol=1e-3)
