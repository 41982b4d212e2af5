"""Similarity and regularity: known values, and gradients against differences."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from bids_fcnreg.fcn.losses import similarity as module
from bids_fcnreg.fcn.losses.objective import Objective
from bids_fcnreg.fcn.losses.regularization import diffusion, total_variation
from bids_fcnreg.fcn.losses.similarity import (
    DAMPING,
    ROUNDING,
    FixedWindows,
    local_ncc,
    local_ncc_forces,
    ncc,
)
from bids_fcnreg.fcn.spatial.displacement import identity
from bids_fcnreg.fcn.spatial.filters import gaussian


@pytest.fixture
def images() -> tuple[torch.Tensor, torch.Tensor]:
    noise = torch.randn(2, 1, 1, 12, 13, 11, generator=torch.Generator().manual_seed(0)).double()
    first, second = gaussian(noise[0], 1.0), gaussian(noise[1], 1.0)
    return first, first + 0.7 * second


@pytest.mark.parametrize("measure", [ncc, local_ncc])
def test_linear_changes_of_intensity_do_not_count(images, measure):
    fixed, warped = images
    expected = float(measure(fixed, warped))
    assert measure(fixed, 3 * warped + 5) == pytest.approx(expected, abs=1e-4)
    assert measure(fixed, -2 * warped + 1) == pytest.approx(-expected, abs=1e-4)
    assert measure(fixed, fixed) == pytest.approx(1, abs=1e-3)


def test_ncc_is_the_correlation(images):
    fixed, warped = images
    expected = np.corrcoef(fixed.ravel(), warped.ravel())[0, 1]
    assert float(ncc(fixed, warped)) == pytest.approx(expected)


def test_ncc_ignores_voxels_without_weight(images):
    fixed, warped = images
    weight = torch.ones_like(fixed)
    weight[..., :6] = 0
    assert float(ncc(fixed, warped, weight)) == pytest.approx(
        float(ncc(fixed[..., 6:], warped[..., 6:]))
    )


def test_local_ncc_is_the_signed_squared_correlation_of_windows_with_damping(images):
    fixed, warped = images
    value = FixedWindows(fixed, 2).compare(warped).value
    damping = np.array(
        [float(DAMPING * image.var() + ROUNDING * image.square().mean()) for image in images]
    )
    for i, j, k in [(2, 2, 2), (6, 7, 5), (9, 10, 8)]:
        window = (0, 0, slice(i - 2, i + 3), slice(j - 2, j + 3), slice(k - 2, k + 3))
        covariances = np.cov(fixed[window].ravel(), warped[window].ravel(), bias=True)
        c = covariances[0, 1]
        expected = c * abs(c) / np.prod(np.diag(covariances) + damping)
        assert float(value[0, 0, i, j, k]) == pytest.approx(expected, rel=1e-6)


def test_flat_windows_count_little():
    noise = torch.randn(1, 1, 12, 12, 12, generator=torch.Generator().manual_seed(0)).double()
    strengths = (0, 1e-4, 1e-3, 1e-2, 1e-1, 1)
    values = []
    for strength in strengths:
        image = noise.clone()
        image[..., 4:] *= strength
        values.append(float(FixedWindows(image, 1).compare(image).value[..., 6:].mean()))
    assert values[0] == 0 and values == sorted(values)
    assert values[2] < 1e-3 and values[-1] > 0.99


def test_forces_appear_gradually_where_windows_become_less_flat(images):
    # With a least variance, all of a window's force appears where that is reached.
    forces = []
    for strength in np.geomspace(1e-4, 1e-1, 61):  # each 12 % stronger
        pair = [image.clone() for image in images]
        for image in pair:
            image[..., 4:] *= strength
        forces.append(local_ncc_forces(*pair, 2).on_first[..., 8:])
    changes = torch.stack(forces).diff(dim=0).abs().max()
    assert changes < 0.15 * max(one.abs().max() for one in forces)


@pytest.mark.parametrize("intensity", [0.0, 0.3, 1000.0])
def test_constant_images_exert_no_forces(intensity):
    forces = local_ncc_forces(*torch.full((2, 1, 1, 8, 9, 10), intensity), 2)
    assert forces.value.abs() < 0.05
    assert not forces.on_first.any() and not forces.on_second.any()


@pytest.mark.parametrize("weighted", [False, True])
def test_gradients_are_those_of_differences(images, weighted, monkeypatch):
    fixed, warped = images
    weight = torch.rand_like(fixed) if weighted else None
    constant = module.window_damping(warped)  # gradients do not include that of the damping
    monkeypatch.setattr(module, "window_damping", lambda _: constant)
    warped.requires_grad_()
    for measure in (ncc, lambda a, b, w: local_ncc(a, b, 2, w)):
        assert torch.autograd.gradcheck(
            lambda w, m=measure: m(fixed, w, weight), warped, atol=1e-6
        )


@pytest.mark.parametrize("radius", [2, 3])
def test_forces_are_derivatives_of_local_ncc(images, radius):
    first, second = images
    weight = torch.rand(first.shape, generator=torch.Generator().manual_seed(1)).double()
    weight[..., 3:5] = 0
    forces = local_ncc_forces(first, second, radius, weight)
    for fixed, warped, force in (
        (first, second, forces.on_second),
        (second, first, forces.on_first),
    ):
        warped = warped.clone().requires_grad_()
        value = local_ncc(fixed, warped, radius, weight)
        assert float(forces.value) == pytest.approx(float(value.detach()))
        (derivative,) = torch.autograd.grad(value, warped)
        gradient = torch.cat(torch.gradient(warped.detach(), dim=(2, 3, 4)), dim=1)
        expected = derivative * gradient * (weight > 0)
        torch.testing.assert_close(force, expected)


def test_forces_of_channels_add_up(images):
    first, second = images
    other = torch.rand(first.shape, generator=torch.Generator().manual_seed(2)).double()
    shares = (0.75, 0.25)
    both = local_ncc_forces(
        torch.cat([first, other], dim=1), torch.cat([second, first], dim=1), 2, shares=shares
    )
    parts = [local_ncc_forces(first, second, 2), local_ncc_forces(other, first, 2)]
    for name in ("value", "on_first", "on_second"):
        expected = sum(
            share * getattr(part, name) for share, part in zip(shares, parts, strict=True)
        )
        torch.testing.assert_close(getattr(both, name), expected)


def test_regularities_of_known_displacements():
    place = identity((9, 10, 11), torch.zeros(1).double())
    field = torch.zeros_like(place)
    field[:, 0] = 0.5 * place[:, 1]  # a shear: one first difference of 0.5
    assert float(total_variation(field)) == pytest.approx(0.5)
    assert float(diffusion(field)) == pytest.approx(0.25)


@pytest.mark.parametrize("regularity", ["tv", "diffusion"])
@pytest.mark.parametrize("similarity", ["ncc", "local_ncc"])
def test_objective_prefers_the_truth(similarity, regularity):
    noise = torch.randn(1, 1, 24, 24, 24, generator=torch.Generator().manual_seed(3))
    fixed = gaussian(noise, 2.0)
    moving = fixed.roll(2, dims=2)
    truth = torch.zeros(1, 3, 24, 24, 24)
    truth[:, 0] = 2
    objective = Objective(similarity, regularity=regularity)
    rough = truth + 0.5 * torch.randn(truth.shape, generator=torch.Generator().manual_seed(4))
    right = objective(fixed, moving, truth)
    assert right < objective(fixed, moving, torch.zeros_like(truth))
    assert right < objective(fixed, moving, rough)
