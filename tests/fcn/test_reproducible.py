"""The number of threads changes no bit of a result."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from bids_fcnreg.bids.builtin_templates import nilearn_map
from bids_fcnreg.fcn.register import register
from bids_fcnreg.fcn.reproducible import mean, one_thread, total, variance
from bids_fcnreg.fcn.spatial.grid import Grid, Image
from bids_fcnreg.fcn.spatial.transform import Affine, Transform
from bids_fcnreg.io import image
from bids_fcnreg.preprocessing.intensity import bias_field

pytestmark = pytest.mark.slow

THREADS = (1, 2, 3, 4, 5)


@pytest.fixture(autouse=True)
def _threads_as_before():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def test_sums_are_right_and_have_gradients():
    values = torch.randn(3, 41, 57, 29, generator=torch.Generator().manual_seed(0)) + 2
    values.requires_grad_()
    for ours, theirs in ((total, torch.sum), (mean, torch.mean), (variance, torch.var)):
        assert ours(values).item() == pytest.approx(theirs(values.double()).item(), rel=1e-6)
    (slope,) = torch.autograd.grad(total(values**2), values)
    torch.testing.assert_close(slope, 2 * values.detach())
    assert float(total(torch.tensor(3.0))) == 3 and float(total(torch.zeros(0))) == 0


def test_sums_are_the_same_by_any_number_of_threads():
    values = torch.randn(1, 3, 91, 109, 91, generator=torch.Generator().manual_seed(0))
    found = set()
    for threads in THREADS:
        torch.set_num_threads(threads)
        found.add((float(total(values)), float(mean(values)), float(variance(values))))
    assert len(found) == 1


def test_one_thread_is_for_a_block_only():
    torch.set_num_threads(3)
    with pytest.raises(RuntimeError, match="inside"), one_thread():
        assert torch.get_num_threads() == 1
        raise RuntimeError("inside")
    assert torch.get_num_threads() == 3


@pytest.fixture(scope="module")
def pair() -> tuple[Image, Image]:
    """The built-in template with voxels of 3 mm, and itself turned, on an odd grid."""
    template = image.read(nilearn_map("t1"))
    fixed = Transform(()).resample(template, template.grid.with_spacing(3.0))
    matrix = np.eye(4)
    matrix[:3] = [[1.06, 0.08, 0, 9], [-0.08, 0.97, 0.1, -5], [0, -0.1, 1.03, 4]]
    grid = Grid((67, 79, 71), fixed.grid.affine)
    return fixed, Transform((Affine(matrix),)).resample(template, grid)


def test_a_registration_is_the_same_by_any_number_of_threads(pair):
    lesion = Image(torch.zeros_like(pair[1].data), pair[1].grid)
    lesion.data[..., 20:30, 40:50, 30:40] = 1
    found = [
        register(*pair, moving_exclude=lesion, device="cpu", threads=threads) for threads in (1, 3)
    ]
    first = found[0]
    for other in found[1:]:
        for one, two in ((first.forward, other.forward), (first.inverse, other.inverse)):
            steps = {type(step).__name__: step for step in one.steps}
            again = {type(step).__name__: step for step in two.steps}
            assert np.array_equal(steps["Affine"].matrix, again["Affine"].matrix)
            assert torch.equal(steps["Displacement"].field, again["Displacement"].field)
        numbers = first.quality.as_dict() | {"seconds": None}
        assert numbers == other.quality.as_dict() | {"seconds": None}


def test_a_bias_field_is_the_same_by_any_number_of_threads(pair):
    import SimpleITK as sitk

    data = pair[0].data[0, 0].numpy()
    before = sitk.ProcessObject.GetGlobalDefaultNumberOfThreads()
    found = []
    try:
        for threads in THREADS:
            sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(threads)
            found.append(bias_field(data, data > 0, (3.0, 3.0, 3.0)))
            assert sitk.ProcessObject.GetGlobalDefaultNumberOfThreads() == threads
    finally:
        sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(before)
    assert all(np.array_equal(found[0], other) for other in found[1:])
