"""The groups of linear transforms, and the steps within them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import linalg

from bids_fcnreg.fcn.linear.gauss_newton import DOF, _move, generators
from bids_fcnreg.fcn.linear.initialization import rotations

few = settings(max_examples=25, deadline=None, derandomize=True)
steps = arrays(np.float64, 12, elements=st.floats(-0.2, 0.2))
points = arrays(np.float64, 3, elements=st.floats(-100, 100))


def moved(dof: str, step: np.ndarray, centre: np.ndarray | None = None) -> np.ndarray:
    """Move the identity by a step of the group's parameters."""
    centre = np.zeros(3) if centre is None else centre
    return _move(np.eye(4)[None], dof, centre[None], step[None, : DOF[dof]])[0]


@pytest.mark.parametrize("dof", DOF)
def test_generators_are_independent_and_closed_under_commutators(dof):
    """So that exponentials and their products stay within the group."""
    basis = generators(dof)
    flat = basis.reshape(len(basis), 16)
    assert np.linalg.matrix_rank(flat) == DOF[dof] == len(basis)
    commutators = np.array([(a @ b - b @ a).ravel() for a in basis for b in basis])
    assert np.linalg.matrix_rank(np.concatenate([flat, commutators])) == DOF[dof]


@pytest.mark.parametrize("dof", DOF)
@few
@given(step=steps, centre=points)
def test_opposite_steps_cancel(dof, step, centre):
    product = moved(dof, step, centre) @ moved(dof, -step, centre)
    np.testing.assert_allclose(product, np.eye(4), atol=1e-9)


@pytest.mark.parametrize("dof", DOF)
@few
@given(step=steps)
def test_logarithm_of_a_step_is_the_step(dof, step):
    found = linalg.logm(moved(dof, step)).real
    expected = np.einsum("n,nij->ij", step[: DOF[dof]], generators(dof))
    np.testing.assert_allclose(found, expected, atol=1e-8)


@pytest.mark.parametrize("dof", DOF)
@few
@given(step=steps)
def test_steps_stay_in_the_group(dof, step):
    linear = moved(dof, step)[:3, :3]
    trace = np.einsum("n,nii->", step[: DOF[dof]], generators(dof))
    assert np.linalg.det(linear) == pytest.approx(np.exp(trace))
    scale = {"rigid": 1.0, "similarity": np.exp(2 * trace / 3)}.get(dof)
    if scale:
        np.testing.assert_allclose(linear.T @ linear, scale * np.eye(3), atol=1e-12)


@pytest.mark.parametrize("dof", DOF)
@few
@given(step=steps, centre=points)
def test_without_translation_the_centre_stays(dof, step, centre):
    step = step[: DOF[dof]].copy()
    step[-3:] = 0
    matrix = moved(dof, step, centre)
    np.testing.assert_allclose(matrix[:3, :3] @ centre + matrix[:3, 3], centre, atol=1e-9)


@few
@given(st.integers(1, 200))
def test_initial_rotations_are_rotations(count):
    found = rotations(count)
    transposed = found.swapaxes(1, 2)
    np.testing.assert_allclose(
        found @ transposed, np.eye(3)[None].repeat(count + 1, 0), atol=1e-12
    )
    np.testing.assert_allclose(np.linalg.det(found), 1)
    np.testing.assert_array_equal(found[0], np.eye(3))
