"""What makes a GPU fast, shown without one: no waiting for it, few launches, one device.

Tensors on the device ``meta`` have no values: an operation that mixes devices or reads a value
raises an error. An operation counts as a launch unless it only makes a view.
"""

from __future__ import annotations

from collections import Counter
from contextlib import nullcontext

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

import bids_fcnreg.fcn.refine as refinement
from bids_fcnreg.fcn.losses.similarity import local_ncc_forces, window_damping
from bids_fcnreg.fcn.nets import mdregnet
from bids_fcnreg.fcn.nets.mdregnet import DiffeomorphicFCN
from bids_fcnreg.fcn.pair import Pair
from bids_fcnreg.fcn.refine import Refinement
from bids_fcnreg.fcn.spatial.displacement import (
    compose,
    exponentiate,
    gradient_of_divergence,
    jacobian_determinant,
    sample,
    warp,
)
from bids_fcnreg.fcn.spatial.filters import box, dilate, gaussian
from bids_fcnreg.fcn.spatial.grid import Grid, Image
from bids_fcnreg.fcn.spatial.midpoint import MidpointDeformation, border_taper
from bids_fcnreg.fcn.spatial.region import Region
from bids_fcnreg.fcn.spatial.transform import Affine, Displacement, Transform, change_grid

SHAPE = (24, 28, 26)

#: Operations that launch nothing on a GPU.
VIEWS = {
    "_reshape_alias", "_unsafe_view", "alias", "as_strided", "detach", "empty", "empty_like",
    "empty_strided", "expand", "lift_fresh", "new_empty", "permute", "scalar_tensor", "select", "slice", "split",
    "split_with_sizes", "squeeze", "t", "transpose", "unbind", "unsqueeze", "view",
}  # fmt: skip


class Launches(TorchDispatchMode):
    """Count the operations in a context that would launch a kernel on a GPU."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.name().removeprefix("aten::").partition(".")[0]
        if name not in VIEWS:
            self.counts[name] += 1
        return func(*args, **(kwargs or {}))


def volume(channels: int = 1, batch: int = 1) -> Tensor:
    return torch.empty(batch, channels, *SHAPE, device="meta")


def meta_pair(channels: int = 1) -> Pair:
    grid = Grid(SHAPE, np.diag([1.0, 1, 1, 1]))
    return Pair(volume(channels, 2), volume(), volume(), grid, volume(), volume())


def meta_deformation() -> MidpointDeformation:
    return MidpointDeformation(meta_pair().grid, volume(3), volume(3))


def coarse() -> Grid:
    return meta_pair().grid.with_spacing(2.0)


def oblique() -> Transform:
    matrix = np.array([[0.9, 0.1, 0, 3], [-0.1, 1, 0, 0], [0, 0.2, 1, 1], [0, 0, 0, 1.0]])
    return Transform((Affine(matrix), Displacement(meta_pair().grid, volume(3))))


@pytest.mark.parametrize(
    ("function", "shape"),
    [
        (lambda: gaussian(volume(2), (1.0, 0.0, 2.0)), (1, 2, *SHAPE)),
        (lambda: box(volume(2), 3), (1, 2, *SHAPE)),
        (lambda: dilate(volume(), 2), (1, 1, *SHAPE)),
        (lambda: sample(volume(2), volume(3)), (1, 2, *SHAPE)),
        (lambda: warp(volume(2), volume(3)), (1, 2, *SHAPE)),
        (lambda: compose(volume(3), volume(3)), (1, 3, *SHAPE)),
        (lambda: exponentiate(volume(3), 4), (1, 3, *SHAPE)),
        (lambda: jacobian_determinant(volume(3)), (1, 1, *SHAPE)),
        (lambda: gradient_of_divergence(volume(3)), (1, 3, *(n - 2 for n in SHAPE))),
        (lambda: border_taper(volume(), 3), (1, 1, *SHAPE)),
        (lambda: window_damping(volume(3)), (1, 3)),
        (lambda: local_ncc_forces(volume(3), volume(3), 3, volume()).on_first, (1, 3, *SHAPE)),
        (lambda: meta_pair().coarser(2.0).fixed, (1, 1, *coarse().shape)),
        (lambda: meta_deformation().on_grid(coarse()).to_fixed, (1, 3, *coarse().shape)),
        (
            lambda: change_grid(Displacement(meta_pair().grid, volume(3)), coarse()).field,
            (1, 3, *coarse().shape),
        ),
        (
            lambda: oblique().resample(Image(volume(), meta_pair().grid), coarse()).data,
            (1, 1, *coarse().shape),
        ),
        (lambda: oblique().displacement(coarse()).field, (1, 3, *coarse().shape)),
        (lambda: Region.around(volume(), 3).mask, (1, 1, *SHAPE)),
    ],
)
def test_everything_stays_on_the_device_without_waiting(function, shape):
    result = function()
    assert result.device.type == "meta"
    assert tuple(result.shape) == shape


def test_convolution_of_displacements_is_exact_and_by_cudnn(monkeypatch):
    used = []
    convolve = torch.nn.functional.conv3d

    def observed(*arguments):
        cudnn = torch.backends.cudnn
        used.append((cudnn.enabled, cudnn.deterministic, cudnn.allow_tf32))
        return convolve(*arguments)

    monkeypatch.setattr(torch.nn.functional, "conv3d", observed)
    gradient_of_divergence(torch.zeros(1, 3, *SHAPE))
    assert used == [(True, True, False)]


def test_network_stays_on_the_device_without_waiting(monkeypatch):
    # `meta` has no autocast.
    monkeypatch.setattr(mdregnet, "convolution_dtype", lambda *_: torch.float32)
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: nullcontext())
    network = DiffeomorphicFCN(spacings=(2.0, 1.0), passes=(1, 1), widths=(4, 8)).to("meta")
    found = network.deform(meta_pair())
    assert found.to_fixed.device.type == "meta"
    assert tuple(found.to_moving.shape) == (1, 3, *SHAPE)


@pytest.mark.parametrize(("excluded", "most"), [(False, 72), (True, 95)])
def test_step_of_refinement_launches_few_kernels(excluded, most):
    pair = meta_pair(3)
    if not excluded:
        pair = Pair(pair.images, pair.weight, None, pair.grid)
    ascent = refinement._Ascent(pair, volume(3, 2), 2, Refinement())
    ascent.add_forces()
    ascent.update()
    with Launches() as launches:
        ascent.add_forces()
        ascent.update()
    print(launches.counts)
    assert launches.counts.total() <= most
