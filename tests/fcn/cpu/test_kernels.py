"""Compiled kernels against PyTorch's way to the same results."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest
import torch

from bids_fcnreg.fcn.cpu import kernels
from bids_fcnreg.fcn.cpu.compiler import compiled
from bids_fcnreg.fcn.losses.similarity import local_ncc_forces
from bids_fcnreg.fcn.spatial.coordinates import map_points, map_voxels
from bids_fcnreg.fcn.spatial.displacement import (
    compose,
    exponentiate,
    identity,
    jacobian_determinant,
    sample,
    warp,
)
from bids_fcnreg.fcn.spatial.filters import gaussian
from bids_fcnreg.fcn.spatial.grid import apply_affine
from bids_fcnreg.fcn.spatial.inverse import invert, round_trip
from bids_fcnreg.fcn.spatial.transform import sample_as_itk, vote

pytest.importorskip("numba")

#: More and fewer planes than a slab, rows longer than a chunk, axes shorter than filters.
SHAPES = [(41, 43, 39), (7, 12, 19), (2, 3, 300), (30, 2, 2)]


@pytest.fixture
def both_ways(monkeypatch):
    """Call a function with the kernels, and without them."""

    def call(function, *arguments, **options):
        results = []
        for switch in ("1", "0"):
            monkeypatch.setenv(kernels.SWITCH, switch)
            results.append(function(*arguments, **options))
        return results

    assert kernels.usable(torch.zeros(1, 1, 2, 2, 2))
    return call


@pytest.fixture(autouse=True)
def threads():
    """Leave PyTorch the number of threads that it had."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def noise(shape: tuple[int, ...], channels: int = 1, seed: int = 0) -> torch.Tensor:
    return torch.randn(1, channels, *shape, generator=torch.Generator().manual_seed(seed))


def smooth(shape: tuple[int, ...], channels: int = 1, seed: int = 0) -> torch.Tensor:
    """Noise of a few voxels' width, in double precision first: not the kernel's own work."""
    return gaussian(noise(shape, channels, seed).double(), 2.0).float()


@pytest.mark.parametrize("sigma", [0.7, 1.7, (3.0, 0.0, 1.2), 40.0])
@pytest.mark.parametrize("shape", SHAPES)
def test_gaussian(both_ways, shape, sigma):
    fast, plain = both_ways(gaussian, noise(shape, 2), sigma)
    torch.testing.assert_close(fast, plain, atol=1e-5, rtol=0)


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("shape", SHAPES)
def test_warp(both_ways, shape, channels):
    field = 3 * noise(shape, 3)
    fast, plain = both_ways(warp, noise(shape, channels, seed=1), field)
    torch.testing.assert_close(fast, plain, atol=2e-4, rtol=0)


def test_warp_fades_out_beyond_the_border(both_ways):
    shift = torch.zeros(1, 3, 5, 6, 7)
    for by in (-7.0, -1.0, -0.75, 0.25, 1.0, 7.0):
        fast, plain = both_ways(warp, torch.ones(1, 1, 5, 6, 7), shift + by)
        torch.testing.assert_close(fast, plain, atol=1e-5, rtol=0)


@pytest.mark.parametrize("padding", ["zeros", "border"])
@pytest.mark.parametrize("places", [(41, 43, 39), (4, 1, 3), (1, 1, 1000)])
def test_sample(both_ways, places, padding):
    image = noise((9, 11, 13), 2)
    coordinates = 5 + 8 * noise(places, 3, seed=1)
    fast, plain = both_ways(sample, image, coordinates, padding=padding)
    torch.testing.assert_close(fast, plain, atol=2e-4, rtol=0)


@pytest.mark.parametrize("padding", ["zeros", "border"])
def test_nan_coordinates_are_safe(padding):
    coordinates = torch.full((1, 3, 1, 2, 3), 2.0)
    coordinates[0, :, 0, 0] = torch.tensor([float("nan"), float("inf"), -1e30])
    sampled = sample(torch.ones(1, 1, 5, 6, 7), coordinates, padding=padding)
    assert (sampled[..., 1, :] == 1).all()


@pytest.mark.parametrize("interpolation", ["linear", "nearest", "label"])
def test_sample_fills_beyond_half_a_voxel(both_ways, interpolation):
    image = torch.full((1, 1, 3, 4, 5), 2.0)
    coordinates = torch.full((1, 3, 1, 1, 6), 1.0)
    coordinates[0, 2] = torch.tensor([-0.51, -0.49, 4.49, 4.51, float("nan"), 1e30])
    for values in both_ways(sample_as_itk, image, coordinates, interpolation, fill=-1.0):
        assert values.flatten().tolist() == [-1, 2, 2, -1, -1, -1]
    coordinates = 4 + 6 * noise((9, 10, 11), 3, seed=1)
    image = smooth((9, 11, 13), seed=2)
    fast, plain = both_ways(sample_as_itk, image, coordinates, interpolation, fill=-1.0)
    assert ((fast - plain).abs() > 1e-4).double().mean() < 1e-3  # label: equal sums of weights


@pytest.mark.parametrize("shape", [*SHAPES, (1, 1, 700)])
def test_linear_maps(both_ways, shape):
    matrix = np.eye(4)
    matrix[:3] += np.random.default_rng(0).normal(size=(3, 4)) * (1, 1, 1, 30)
    for mapped in both_ways(map_voxels, shape, matrix):
        indices = np.stack(np.indices(shape), axis=-1)
        expected = torch.from_numpy(np.moveaxis(apply_affine(matrix, indices), -1, 0)).float()
        torch.testing.assert_close(mapped[0], expected, atol=1e-6, rtol=2e-7)
    there, back = map_voxels(shape, matrix), np.linalg.inv(matrix)
    for returned in both_ways(map_points, there, back):
        torch.testing.assert_close(returned, identity(shape, returned), atol=2e-3, rtol=0)


@pytest.mark.parametrize("shape", SHAPES)
def test_vote(both_ways, shape):
    labels = (3 * smooth(shape)).round()
    places = identity(shape, labels) + 2 * noise(shape, 3)
    fast, plain = both_ways(vote, labels, places)
    # Sums of weights that are equal may differ in the last bit.
    assert (fast != plain).double().mean() < 1e-3
    assert set(fast.unique().tolist()) <= set(labels.unique().tolist())


@pytest.mark.parametrize("make", [noise, smooth])
@pytest.mark.parametrize("shape", SHAPES)
def test_compose(both_ways, shape, make):
    fast, plain = both_ways(compose, 3 * make(shape, 3), make(shape, 3, seed=1))
    torch.testing.assert_close(fast, plain, atol=2e-4, rtol=0)


@pytest.mark.parametrize("switch", ["1", "0"])
@pytest.mark.parametrize("radius", [2, 3])
def test_exchanging_images_exchanges_forces_to_the_last_bit(monkeypatch, radius, switch):
    monkeypatch.setenv(kernels.SWITCH, switch)
    first, second = noise((25, 30, 27), 2), smooth((25, 30, 27), 2, seed=1)
    one, other = (
        local_ncc_forces(*images, radius) for images in ((first, second), (second, first))
    )
    assert one.value == other.value
    assert torch.equal(one.on_first, other.on_second)
    assert torch.equal(one.on_second, other.on_first)


@pytest.mark.parametrize("shape", SHAPES)
def test_invert_and_round_trip(both_ways, shape):
    velocity = smooth(shape, 3)
    there = exponentiate(2 * velocity / velocity.abs().max())
    fast, plain = both_ways(invert, there, 1e-3)
    torch.testing.assert_close(fast, plain, atol=4e-3, rtol=0)
    torch.testing.assert_close(*both_ways(round_trip, there, fast), atol=2e-4, rtol=0)


@pytest.mark.parametrize("make", [noise, smooth])
@pytest.mark.parametrize("shape", SHAPES)
def test_jacobian(both_ways, shape, make):
    fast, plain = both_ways(jacobian_determinant, make(shape, 3))
    torch.testing.assert_close(fast, plain, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("radius", [2, 3])
@pytest.mark.parametrize("make", [noise, smooth])
@pytest.mark.parametrize("shape", SHAPES)
def test_local_ncc_forces(both_ways, shape, make, radius):
    first = make(shape)
    second = first + 0.5 * make(shape, seed=1)
    second[:, :, : shape[0] // 3] = 0  # flat windows
    weight = noise(shape, seed=2).clamp(min=0)
    weight[..., : shape[1] // 2, :] = 0  # rows to be skipped
    fast, plain = both_ways(local_ncc_forces, first, second, radius, weight)
    assert float(fast.value) == pytest.approx(float(plain.value), abs=1e-4)
    for name in ("on_first", "on_second"):
        expected = getattr(plain, name)
        error = (getattr(fast, name) - expected).abs().max()
        assert error <= 1e-3 * expected.abs().max()
        assert not getattr(fast, name)[(weight == 0).expand_as(expected)].any()


@pytest.mark.parametrize("radius", [2, 3])
def test_local_ncc_forces_of_channels(both_ways, radius):
    images = smooth((20, 21, 22), 3), smooth((20, 21, 22), 3, seed=1)
    weight = torch.ones(1, 1, 20, 21, 22)
    fast, plain = both_ways(local_ncc_forces, *images, radius, weight, (0.5, 0.3, 0.2))
    assert float(fast.value) == pytest.approx(float(plain.value), abs=1e-4)
    error = (fast.on_first - plain.on_first).abs().max()
    assert error <= 1e-3 * plain.on_first.abs().max()


def test_local_ncc_forces_without_weight(both_ways):
    images = smooth((20, 21, 22)), smooth((20, 21, 22), seed=1)
    fast, plain = both_ways(local_ncc_forces, *images, 2)
    assert float(fast.value) == pytest.approx(float(plain.value), abs=1e-4)
    nothing = local_ncc_forces(*images, 2, torch.zeros_like(images[0]))
    assert nothing.value == 0 and not nothing.on_first.any()


def test_images_of_different_shapes_are_refused():
    with pytest.raises(RuntimeError):
        local_ncc_forces(noise((5, 6, 7)), noise((5, 6, 8)), 1)


def test_memory_in_any_order_is_read(both_ways):
    image = noise((12, 13, 14), 4)[:, ::2].transpose(2, 4)
    field = noise((14, 13, 12), 3).flip(1)
    torch.testing.assert_close(*both_ways(warp, image, field), atol=2e-4, rtol=0)
    torch.testing.assert_close(*both_ways(gaussian, image, 1.0), atol=1e-5, rtol=0)
    everywhere = torch.ones(1, 3, 1, 1, 1).expand(1, 3, 14, 13, 12)
    torch.testing.assert_close(*both_ways(warp, image, everywhere), atol=2e-4, rtol=0)


def test_results_do_not_depend_on_the_number_of_threads():
    shape = SHAPES[0]
    image, other, field = smooth(shape), smooth(shape, seed=1), smooth(shape, 3, seed=2)
    results = []
    for count in (1, 2, 3):
        torch.set_num_threads(count)
        forces = local_ncc_forces(image, other, 2)
        results.append(
            [
                gaussian(field, 1.7),
                warp(image, field),
                sample(image, identity(shape, field) + field),
                compose(field, field),
                invert(field),
                jacobian_determinant(field),
                forces.value,
                forces.on_first,
                forces.on_second,
            ]
        )
    for other_count in results[1:]:
        assert all(map(torch.equal, results[0], other_count))


@pytest.mark.parametrize(
    "tensor",
    [
        torch.zeros(1, 3, 4, 4, 4, dtype=torch.float64),
        torch.zeros(2, 3, 4, 4, 4),
        torch.zeros(1, 3, 4, 4, 4, requires_grad=True),
        torch.zeros(1, 3, 4, 4, 4, device="meta"),
        torch.zeros(1, 3, 4, 4),
        torch.zeros(1, 3, 4, 1, 4),
    ],
    ids=["double", "batch", "gradient", "device", "axes", "one voxel"],
)
def test_unsupported_tensors_fall_back_to_pytorch(tensor):
    assert kernels.usable(torch.zeros(1, 3, 4, 4, 4))
    assert not kernels.usable(tensor)
    with torch.no_grad():
        assert kernels.usable(tensor) == tensor.requires_grad


def test_gradients_pass_as_before():
    field = torch.zeros(1, 3, 6, 6, 6, requires_grad=True)
    warp(noise((6, 6, 6)), compose(field, field)).sum().backward()
    assert field.grad.any()


def test_without_a_folder_for_the_cache(monkeypatch):
    # What a read-only container amounts to: numba finds no place to write to.
    monkeypatch.setattr("numba.core.caching.CacheImpl._locator_classes", [])

    def double(value):
        return value * 2

    assert compiled(double)(2.5) == 5


BLOCK_NUMBA = "sys.modules['numba'] = None"  # importing it fails


@pytest.mark.parametrize("first", [BLOCK_NUMBA, f"os.environ['{kernels.SWITCH}'] = '0'"])
def test_without_numba(first):
    program = f"""
import os, sys
{first}
import torch
from bids_fcnreg.fcn.spatial.displacement import warp
from bids_fcnreg.fcn.spatial.inverse import invert
shift = torch.ones(1, 3, 6, 6, 6)
assert warp(shift, shift)[..., :5, :5, :5].eq(1).all()
assert invert(shift).eq(-1).all()
assert sys.modules.get("numba") is None
"""
    environment = {name: value for name, value in os.environ.items() if name != kernels.SWITCH}
    subprocess.run([sys.executable, "-c", program], check=True, env=environment)


def test_import_does_not_wait_for_numba():
    program = "import sys, bids_fcnreg.fcn.register; assert 'numba' not in sys.modules"
    subprocess.run([sys.executable, "-c", program], check=True)


#: Prints the checksum of the results of each kernel.
CHECKSUMS = """
import hashlib, sys
import numpy as np
import torch
from bids_fcnreg.fcn.cpu import kernels as k

generator = torch.Generator().manual_seed(0)
shape = (21, 33, 27)
images = [torch.rand(1, 3, *shape, generator=generator) for _ in range(2)]
weight = (torch.rand(1, 1, *shape, generator=generator) > 0.2).float()
field = k.gaussian(torch.randn(1, 3, *shape, generator=generator), [3.0] * 3) * 3
points = torch.rand(1, 3, 9, 9, 9, generator=generator) * 30
rows, flat = k._all_rows(*shape), torch.full((2, 3), 1e-4)
forces = {radius: torch.zeros(2, 3, *shape) for radius in (2, 3)}
results = {
    "gaussian": field,
    "blend": k.blend(field, [1.0] * 3, k.halve(field), weight, rows, torch.zeros_like(field)),
    "halve": k.halve(field),
    "double": k.double(field, [2 * size - 1 for size in shape]),
    "damp_divergence": k.damp_divergence(field, 0.2),
    "warp": k.warp(images[0], field),
    "compose": k.compose(field, field, scale=0.3),
    "sample": k.sample(images[0], points, "zeros"),
    "invert": k.invert(field, 0.01, 50),
    "update_inverse": torch.zeros_like(field),
    "round_trip": k.round_trip(field, -field),
    "vote": k.vote((5 * weight).round(), points),
    "sample, filled": k.sample(images[0], points, "border", -1.0),
    "map_voxels": k.map_voxels(shape, np.linspace(-1, 1, 16).reshape(4, 4)),
    "map_points": k.map_points(points, np.linspace(-1, 1, 16).reshape(4, 4)),
    "jacobian_determinant": k.jacobian_determinant(field),
    "largest_length": torch.tensor(k.largest_length(field, rows)),
}
k.update_inverse(field, results["update_inverse"], weight > 0, 0.01, 50)
for radius, both in forces.items():
    results[f"local_ncc_forces {radius}"] = k.local_ncc_forces(
        both, 0.5, torch.cat(images), radius, weight, (0.5, 0.3, 0.2), flat
    )
    results[f"forces {radius}"] = both
prior = torch.rand(11, 17, 14, 5, generator=generator).softmax(dim=-1)
numbers = torch.rand(5, 5, generator=generator)
matrix = torch.eye(4).double()[:3] / 2
results["classify"], results["sums of classify"] = map(torch.from_numpy, k.classify(
    images[0][0, 0].numpy(), prior.numpy(), (prior[..., 0] < 0.9).numpy(), matrix.numpy(),
    numbers[:3, :4].numpy(), torch.tensor([0, 0, 1, 2, 3]).numpy(),
    np.float32(3), np.float32(0.02), numbers.numpy(), sums=5,
))
for name, result in results.items():
    print(name, hashlib.sha256(result.numpy().tobytes()).hexdigest())
"""


@pytest.mark.slow
def test_cached_kernels_compute_the_same_bits_as_new_ones(tmp_path):
    """The first process of an installation compiles the kernels; the next ones load them."""
    outputs = [
        subprocess.run(
            [sys.executable, "-c", CHECKSUMS],
            env={**os.environ, "NUMBA_CACHE_DIR": str(tmp_path), kernels.SWITCH: "1"},
            capture_output=True,
            text=True,
            check=True,
        ).stdout.splitlines()
        for _ in range(2)
    ]
    assert any(tmp_path.rglob("*.nbc")) and len(outputs[0]) == 23
    assert outputs[0] == outputs[1]
