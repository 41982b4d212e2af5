"""The engine on a GPU gives what it gives on the CPU."""

from __future__ import annotations

from collections.abc import Callable

import nibabel as nib
import numpy as np
import pytest
import torch
from torch import Tensor

from bids_fcnreg.fcn.losses.similarity import local_ncc, local_ncc_forces, ncc
from bids_fcnreg.fcn.nets.checkpoint import load
from bids_fcnreg.fcn.nets.packaged_weights import packaged_weights
from bids_fcnreg.fcn.pair import Pair
from bids_fcnreg.fcn.refine import refine
from bids_fcnreg.fcn.register import register
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
from bids_fcnreg.fcn.spatial.inverse import invert, round_trip
from bids_fcnreg.fcn.spatial.midpoint import limit_compression
from bids_fcnreg.fcn.spatial.transform import Transform
from bids_fcnreg.fcn.train import Trainer, Training
from bids_fcnreg.training.anatomy import train

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="PyTorch sees no CUDA GPU")

SHAPE = (44, 52, 48)
GPU = torch.device("cuda")


def _noise(channels: int, sigma: float, seed: int) -> Tensor:
    """Smooth noise (1, channels, *SHAPE) of unit variance."""
    noise = torch.randn(1, channels, *SHAPE, generator=torch.Generator().manual_seed(seed))
    smooth = gaussian(noise, sigma)
    return smooth / smooth.std()


@pytest.fixture(scope="module")
def volumes() -> tuple[Tensor, Tensor, Tensor]:
    """Two images (1, 1, i, j, k) of 0 to 1, and a diffeomorphic displacement."""
    first, second = (_noise(1, 2.0, seed).sigmoid() for seed in (0, 1))
    return first, second, exponentiate(0.8 * _noise(3, 5.0, 2), steps=5)


OPERATIONS: dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    "warp": lambda first, second, shift: warp(first, shift),
    "sample": lambda first, second, shift: sample(first, 8 * shift + 20, padding="border"),
    "nearest": lambda first, second, shift: sample(first, 8.03 * shift + 20, mode="nearest"),
    "compose": lambda first, second, shift: compose(shift, 0.5 * shift),
    "exponentiate": lambda first, second, shift: exponentiate(shift),
    "invert": lambda first, second, shift: invert(shift, 1e-4),
    "round trip": lambda first, second, shift: round_trip(shift, -0.8 * shift),
    "jacobian": lambda first, second, shift: jacobian_determinant(shift),
    "divergence": lambda first, second, shift: gradient_of_divergence(shift),
    "limit": lambda first, second, shift: limit_compression(3 * shift),
    "gaussian": lambda first, second, shift: gaussian(shift, [1.0, 0.0, 2.5]),
    "box": lambda first, second, shift: box(shift, 2),
    "dilate": lambda first, second, shift: dilate((first > 0.7).float(), 2),
    "ncc": lambda first, second, shift: ncc(first, second),
    "local ncc": lambda first, second, shift: local_ncc(first, second, 2),
    "forces": lambda first, second, shift: 1e5 * local_ncc_forces(first, second, 3).on_first,
}


@pytest.mark.parametrize("name", OPERATIONS)
def test_an_operation(name: str, volumes) -> None:
    expected = OPERATIONS[name](*volumes)
    found = OPERATIONS[name](*(volume.to(GPU) for volume in volumes))
    assert found.device.type == "cuda"
    torch.testing.assert_close(found.cpu(), expected, rtol=1e-3, atol=2e-3)


@pytest.fixture(scope="module")
def pair() -> tuple[Image, Image, Tensor]:
    """Two textured ellipsoids of 3 mm voxels, one deformed, and where the brain is."""
    axes = [torch.linspace(-1, 1, n) for n in SHAPE]
    radius = sum(part**2 for part in torch.meshgrid(*axes, indexing="ij")).sqrt()
    brain = (radius < 0.75)[None, None].float()
    texture = 0.6 + 0.1 * _noise(1, 1.5, 3) + 0.15 * _noise(1, 4.0, 4)
    shift = exponentiate(0.6 * _noise(3, 5.0, 5) * gaussian(brain, 3.0), steps=5)
    affine = np.diag([3.0, 3.0, 3.0, 1.0])
    affine[:3, 3] = -66, -78, -72
    grid = Grid(SHAPE, affine)
    head = texture.clamp(0.1, 1.2) * brain
    return Image(head, grid), Image(warp(head, shift), grid), brain[0, 0] > 0


@pytest.mark.parametrize("mode", ["predict", "refine"])
def test_a_registration(mode: str, pair) -> None:
    fixed, moving, brain = pair
    on_cpu, on_gpu = (
        register(fixed, moving, mode=mode, device=device) for device in ("cpu", "cuda")
    )
    assert on_gpu.quality.device == "cuda"
    points = fixed.grid.points()[brain]
    for way in ("forward", "inverse"):
        ours, theirs = (getattr(result, way).map(points) for result in (on_gpu, on_cpu))
        distance = (ours - theirs).norm(dim=1)
        assert distance.median() < 0.3  # of voxels of 3 mm without structure
        assert distance.quantile(0.99) < 1.5
    assert on_gpu.quality.similarity == pytest.approx(on_cpu.quality.similarity, abs=0.005)
    assert on_gpu.quality.folds_percent == 0
    warped = on_gpu.forward.resample(moving, fixed.grid).data
    assert local_ncc(fixed.data, warped, 2) > local_ncc(fixed.data, moving.data, 2)


def test_a_refinement_is_the_same_each_time(pair) -> None:
    fixed, moving, brain = pair
    images = Pair(
        torch.cat([fixed.data, moving.data]), brain[None, None].float(), None, fixed.grid
    ).to(GPU)
    first, second = (refine(images) for _ in range(2))
    assert torch.equal(first.to_moving, second.to_moving)


def test_training_of_the_registration_network(pair) -> None:
    fixed, moving, brain = pair
    images = Pair(
        torch.cat([fixed.data, moving.data]), brain[None, None].float(), None, fixed.grid
    ).to(GPU)
    network = load(packaged_weights("diffeomorphic"))[0].to(GPU)
    settings = Training(steps=(0, 0, 12), learning_rate=1e-3, check_every=12)
    before = float(network.cost(images, settings.objective, 2).detach())
    Trainer(network, settings, lambda stage, _: images, reinitialize=False).run()
    assert float(network.cost(images, settings.objective, 2).detach()) < before


def test_training_of_the_anatomy_network(tmp_path) -> None:
    """Images are simulated on the GPU, too."""
    i, j, k = np.indices((96, 112, 96)) - np.array([48, 56, 48])[:, None, None, None]
    radius = np.sqrt(i**2 + j**2 + k**2)
    labels = np.select([radius < 20, radius < 36, radius < 40], [np.where(i < 0, 2, 41), 3, 24])
    nib.save(nib.Nifti1Image(labels.astype(np.int16), np.eye(4)), tmp_path / "map.nii.gz")
    train(tmp_path, tmp_path / "out", steps=100, device=GPU)
    _, losses, _ = np.loadtxt(tmp_path / "out" / "learning_curve.tsv").T
    assert losses[-1] < 0.9 * losses[0]


def test_resampling_stays_on_the_device(pair) -> None:
    fixed, moving, _ = pair
    found = Transform(()).resample(Image(moving.data.to(GPU), moving.grid), fixed.grid)
    assert found.data.device.type == "cuda"
    torch.testing.assert_close(found.data.cpu(), moving.data)
