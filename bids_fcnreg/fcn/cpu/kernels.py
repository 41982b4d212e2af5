"""Compiled inner loops of registration and resampling, for one pair on a CPU.

The functions below compute what those of the same name in `filters`, `displacement`, `transform`
and `similarity` compute, many times faster: numba compiles their loops for this processor, and
each reads and writes a volume once. Those functions call these where `usable` is true. Otherwise
(no numba, data on a GPU, a gradient required) PyTorch computes the same.

A kernel is a function ``kernel(first, stop, ...)`` of a slab of planes, on arrays that share the
tensors' memory. Slabs depend on the data's shape only and go to as many threads as PyTorch uses,
so that results are the same to the last bit whatever their number.

Kernels are compiled on first use, in some seconds, and cached on disk for later processes in
``__pycache__`` or the user's cache folder (or ``NUMBA_CACHE_DIR``). Where neither is writable,
each process compiles its own.

``BIDS_FCNREG_COMPILED=0`` in the environment disables them.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bids_fcnreg.fcn.reproducible import variance

#: Environment variable that disables the kernels when it is "0".
SWITCH = "BIDS_FCNREG_COMPILED"

#: Planes in a slab: many more slabs than threads, each large enough to outweigh the overhead.
PLANES = 4

#: Points in a slab of points that lie on no grid.
POINTS = 2**16


def usable(volume: Tensor, *others: Tensor) -> bool:
    """Return whether the kernels support these tensors.

    Parameters
    ----------
    volume : Tensor
        At least two voxels along each axis.
    *others : Tensor
        Further arguments.

    Returns
    -------
    bool
        True if all are single precision on the CPU, with five axes, a batch of one and no
        gradient required, and numba is installed and not disabled.
    """
    return (
        os.environ.get(SWITCH) != "0"
        and all(map(_is_plain, (volume, *others)))
        and min(volume.shape[2:]) > 1
        and _has_numba()
    )


def _is_plain(tensor: Tensor) -> bool:
    """Return whether a tensor is one volume (1, channels, i, j, k) that numpy can share."""
    return (
        tensor.device.type == "cpu"
        and tensor.dtype == torch.float32
        and tensor.ndim == 5
        and tensor.shape[0] == 1
        and not (tensor.requires_grad and torch.is_grad_enabled())
    )


@lru_cache(maxsize=1)
def _has_numba() -> bool:
    try:
        import numba  # noqa: F401  # takes half a second: only where something is computed
    except ImportError:  # also where it does not know this version of numpy
        return False
    return True


@lru_cache(maxsize=1)
def _kernels() -> dict[str, Callable[..., Any]]:
    """Import the kernels; numba takes half a second, so only where something is computed."""
    from bids_fcnreg.fcn.cpu.filter import gaussian
    from bids_fcnreg.fcn.cpu.gradient import jacobian_determinant, local_ncc_forces
    from bids_fcnreg.fcn.cpu.warp import compose, invert, sample, vote, warp

    kernels = gaussian, jacobian_determinant, local_ncc_forces, compose, invert, sample, vote, warp
    return {kernel.__name__: kernel for kernel in kernels}


def gaussian(data: Tensor, sigma: Sequence[float]) -> Tensor:
    """Compute `filters.gaussian`, for data (1, channels, i, j, k) and 3 standard deviations."""
    smooth = _empty(*data.shape)
    weights, scales = zip(*map(_gaussian_weights, data.shape[2:], sigma), strict=True)
    _in_slabs("gaussian", data.shape[2], _array(data), weights, scales, _array(smooth))
    return smooth


def _gaussian_weights(size: int, sigma: float) -> tuple[np.ndarray, np.ndarray]:
    """Return a Gaussian from its centre outwards, and 1 / its sum within the axis by voxel."""
    radius = min(int(3 * sigma + 0.5), size - 1) if sigma > 0 else 0
    weights = np.exp(-0.5 * (np.arange(radius + 1) / max(sigma, 1e-6)) ** 2)
    both_sides = np.concatenate([weights[:0:-1], weights])
    sums = np.convolve(np.ones(size), both_sides)[radius : radius + size]
    return weights.astype(np.float32), (1 / sums).astype(np.float32)


def sample(image: Tensor, coordinates: Tensor, padding: str) -> Tensor:
    """Compute `displacement.sample` with linear interpolation, for coordinates (1, 3, *shape)."""
    channels, shape = image.shape[1], coordinates.shape[2:]
    sampled = _empty(1, channels, *shape)
    _in_slabs(
        "sample",
        shape.numel(),
        _array(image),
        _array(coordinates).reshape(3, -1),
        padding == "border",
        _array(sampled).reshape(channels, -1),
        size=POINTS,
    )
    return sampled


def vote(labels: Tensor, coordinates: Tensor) -> Tensor:
    """Compute `transform.vote`."""
    shape = coordinates.shape[2:]
    winners = _empty(1, 1, *shape)
    _in_slabs(
        "vote",
        shape.numel(),
        _array(labels)[0],
        _array(coordinates).reshape(3, -1),
        _array(winners).reshape(-1),
        size=POINTS,
    )
    return winners


def warp(image: Tensor, displacement: Tensor) -> Tensor:
    """Compute `displacement.warp` with linear interpolation."""
    warped = _empty(1, image.shape[1], *displacement.shape[2:])
    _in_slabs("warp", warped.shape[2], _array(image), _array(displacement), _array(warped))
    return warped


def compose(first: Tensor, second: Tensor) -> Tensor:
    """Compute `displacement.compose`."""
    both = _empty(*first.shape)
    _in_slabs("compose", first.shape[2], _array(first), _array(second), _array(both))
    return both


def invert(displacement: Tensor, tolerance: float, iterations: int, start: Tensor) -> Tensor:
    """Compute `displacement.invert`."""
    inverse = _empty(*displacement.shape).copy_(start)
    arrays = _array(displacement), _array(inverse)
    _in_slabs("invert", displacement.shape[2], *arrays, np.float32(tolerance), iterations)
    return inverse


def jacobian_determinant(displacement: Tensor) -> Tensor:
    """Compute `displacement.jacobian_determinant`."""
    determinant = _empty(1, 1, *displacement.shape[2:])
    _in_slabs(
        "jacobian_determinant",
        displacement.shape[2],
        _array(displacement),
        _array(determinant)[0],
    )
    return determinant


def local_ncc_forces(
    first: Tensor,
    second: Tensor,
    radius: int,
    weight: Tensor,
    shares: Sequence[float],
    flat: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """Compute `similarity.local_ncc_forces` for a `weight` that sums to one.

    Windows count whose variance exceeds `flat` times their image's. Rows of voxels without
    weight cost nothing.
    """
    on_first, on_second = _empty(2, 3, *first.shape[2:]).zero_().unsqueeze(1)
    forces = _array(on_first), _array(on_second)
    value = 0.0
    for one, other, share in zip(first.split(1, 1), second.split(1, 1), shares, strict=True):
        value += _local_ncc(one, other, radius, weight, share, flat, forces)
    return torch.tensor(value, dtype=torch.float32), on_first, on_second


def local_ncc(first: Tensor, second: Tensor, radius: int, weight: Tensor, flat: float) -> Tensor:
    """Compute `similarity.local_ncc` for one channel; see `local_ncc_forces`."""
    nothing = np.empty((3, 0, 0, 0), np.float32)
    value = _local_ncc(first, second, radius, weight, 1.0, flat, (nothing, nothing))
    return torch.tensor(value, dtype=torch.float32)


def _local_ncc(
    first: Tensor,
    second: Tensor,
    radius: int,
    weight: Tensor,
    share: float,
    flat: float,
    forces: tuple[np.ndarray, np.ndarray],
) -> float:
    """Return the weighted sum of a channel's windows times `share`; add forces unless empty."""
    parts = _in_slabs(
        "local_ncc_forces",
        first.shape[2],
        *(_array(volume)[0] for volume in (first, second, weight)),
        radius,
        *(np.float32(flat * float(variance(image))) for image in (first, second)),
        np.float32(share),
        *forces,
    )
    return sum(parts)


def _empty(*shape: int) -> Tensor:
    """Allocate a result with numpy, which uses huge pages: their first use costs much less."""
    return torch.from_numpy(np.empty(shape, np.float32))


def _array(tensor: Tensor) -> np.ndarray:
    """Return the one sample of a batch: a view if the tensor is contiguous, else a copy."""
    return tensor.detach().contiguous().numpy()[0]


def _in_slabs(name: str, count: int, *arguments: Any, size: int = PLANES) -> list[Any]:
    """Call a kernel for each slab of `size` out of `count` planes; return results in order."""
    kernel = _kernels()[name]

    def run(first: int) -> Any:
        return kernel(first, min(first + size, count), *arguments)

    threads = torch.get_num_threads()
    # A forked process inherits the pool, but not the pool's threads: each process has its own.
    apply = map if threads == 1 else _pool(threads, os.getpid()).map
    return list(apply(run, range(0, count, size)))


@lru_cache(maxsize=1)
def _pool(threads: int, process: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, thread_name_prefix="kernels")
