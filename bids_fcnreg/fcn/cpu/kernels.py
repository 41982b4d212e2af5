"""Compiled inner loops of registration and resampling, for one pair on a CPU.

The functions below compute what those of the same name in `filters`, `displacement`, `inverse`,
`transform` and `similarity` compute, many times faster: numba compiles their loops for this
processor, and each reads and writes a volume once. Those functions call these where `usable` is
true. Otherwise (no numba, data on a GPU, a gradient required) PyTorch computes the same.

A kernel is a function ``kernel(first, stop, ...)`` of a slab of planes, on arrays that share the
tensors' memory. Slabs depend on the data's shape only and go to as many threads as PyTorch uses,
so that results are the same to the last bit whatever their number.

Kernels are compiled on first use, in some seconds, and cached on disk for later processes in
``__pycache__`` or the user's cache directory (or ``NUMBA_CACHE_DIR``). Where neither is writable,
each process compiles its own.

``BIDS_FCNREG_COMPILED=0`` in the environment disables them.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bids_fcnreg.fcn.parallel import parallel_map

#: Environment variable that disables the kernels when it is "0".
SWITCH = "BIDS_FCNREG_COMPILED"

#: Planes in a slab: many more slabs than threads, each large enough to outweigh the overhead.
PLANES = 4

#: The same for local NCC: a slab begins with the windows' sums and, for forces, includes the
#: windows around the planes on either side.
FORCE_PLANES = 16

#: Half-widths of windows for which local NCC is compiled.
RADII = (2, 3)

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
    return all(map(_is_plain, (volume, *others))) and min(volume.shape[2:]) > 1 and enabled()


def enabled() -> bool:
    """Return whether numba is installed and the kernels are not disabled."""
    return os.environ.get(SWITCH) != "0" and _has_numba()


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
    from bids_fcnreg.fcn.cpu.classify import classify
    from bids_fcnreg.fcn.cpu.divergence import damp_divergence
    from bids_fcnreg.fcn.cpu.filter import blend, double, gaussian, halve
    from bids_fcnreg.fcn.cpu.forces import local_ncc_forces
    from bids_fcnreg.fcn.cpu.inverse import invert, update_inverse
    from bids_fcnreg.fcn.cpu.jacobian import jacobian_determinant
    from bids_fcnreg.fcn.cpu.points import map_points, map_voxels
    from bids_fcnreg.fcn.cpu.region import largest_square
    from bids_fcnreg.fcn.cpu.warp import compose, round_trip, sample, vote, warp

    kernels = (
        blend,
        classify,
        compose,
        damp_divergence,
        double,
        gaussian,
        halve,
        invert,
        jacobian_determinant,
        largest_square,
        local_ncc_forces,
        map_points,
        map_voxels,
        round_trip,
        sample,
        update_inverse,
        vote,
        warp,
    )
    return {kernel.__name__: kernel for kernel in kernels}


def gaussian(
    data: Tensor,
    sigma: Sequence[float],
    rows: np.ndarray | None = None,
    out: Tensor | None = None,
) -> Tensor:
    """Compute `filters.gaussian`, for data (1, channels, i, j, k) and 3 standard deviations.

    With `rows` (see `region.Region`) and `out`, compute only these voxels of `out`.
    """
    smooth = _empty(*data.shape) if out is None else out
    filters = _gaussian_filters(data, sigma)
    rows = _all_rows(*data.shape[2:]) if rows is None else rows
    _in_slabs("gaussian", data.shape[2], _array(data), *filters, rows, _output(smooth))
    return smooth


def blend(
    data: Tensor,
    sigma: Sequence[float],
    coarse: Tensor,
    share: Tensor,
    rows: np.ndarray,
    out: Tensor,
) -> Tensor:
    """Compute `region.Region.smooth_adaptively`, with the wider smoothing in `coarse`."""
    filters = _gaussian_filters(data, sigma)
    arguments = _array(data), *filters, _array(coarse), _array(share)[0], rows, _output(out)
    _in_slabs("blend", data.shape[2], *arguments)
    return out


def halve(data: Tensor) -> Tensor:
    """Compute `filters.halve`."""
    coarse = _empty(1, data.shape[1], *(-(-size // 2) for size in data.shape[2:]))
    _in_slabs("halve", coarse.shape[2], _array(data), _output(coarse))
    return coarse


def double(data: Tensor, shape: Sequence[int]) -> Tensor:
    """Compute `filters.double`."""
    fine = _empty(1, data.shape[1], *shape)
    _in_slabs("double", shape[0], _array(data), _output(fine))
    return fine


def _gaussian_filters(
    data: Tensor, sigma: Sequence[float]
) -> tuple[tuple[np.ndarray, ...], tuple[np.ndarray, ...]]:
    """Return the weights and scale factors of a Gaussian along the three axes of a volume."""
    weights, scales = zip(*map(_gaussian_weights, data.shape[2:], sigma), strict=True)
    return weights, scales


def _gaussian_weights(size: int, sigma: float) -> tuple[np.ndarray, np.ndarray]:
    """Return a Gaussian from its centre outwards, and 1 / its sum within the axis by voxel."""
    radius = min(int(3 * sigma + 0.5), size - 1) if sigma > 0 else 0
    weights = np.exp(-0.5 * (np.arange(radius + 1) / max(sigma, 1e-6)) ** 2)
    both_sides = np.concatenate([weights[:0:-1], weights])
    sums = np.convolve(np.ones(size), both_sides)[radius : radius + size]
    return weights.astype(np.float32), (1 / sums).astype(np.float32)


def classify(values: np.ndarray, *arguments: Any, sums: int) -> tuple[np.ndarray, np.ndarray]:
    """Classify intensities (i, j, k); the other arguments and the results are the kernel's."""
    structures = np.empty(values.shape, np.float32)
    weighted = np.empty((sums, *values.shape), np.float32)
    _in_slabs("classify", len(values), values, *arguments, structures, weighted)
    return structures, weighted


def map_voxels(shape: Sequence[int], matrix: np.ndarray) -> Tensor:
    """Compute `coordinates.map_voxels`."""
    mapped = _empty(1, 3, *shape)
    _in_slabs("map_voxels", shape[0], np.ascontiguousarray(matrix[:3]), _array(mapped))
    return mapped


def map_points(coordinates: Tensor, matrix: np.ndarray) -> Tensor:
    """Compute `coordinates.map_points`."""
    mapped = _empty(*coordinates.shape)
    points, target = (_array(each).reshape(3, -1) for each in (coordinates, mapped))
    linear = np.ascontiguousarray(matrix[:3], np.float32)
    _in_slabs("map_points", points.shape[1], linear, points, target, size=POINTS)
    return mapped


def sample(image: Tensor, coordinates: Tensor, padding: str, fill: float | None = None) -> Tensor:
    """Compute `displacement.sample` with linear interpolation, for coordinates (1, 3, *shape).

    With a `fill`, it is the value farther than half a voxel beyond the outermost voxel centres.
    """
    channels, shape = image.shape[1], coordinates.shape[2:]
    sampled = _empty(1, channels, *shape)
    _in_slabs(
        "sample",
        shape.numel(),
        _array(image),
        _array(coordinates).reshape(3, -1),
        padding == "border",
        *_fill_arguments(fill),
        _array(sampled).reshape(channels, -1),
        size=POINTS,
    )
    return sampled


def _fill_arguments(fill: float | None) -> tuple[bool, np.float32]:
    """Return the arguments `limited` and `fill` of a kernel."""
    return fill is not None, np.float32(fill or 0.0)


def vote(labels: Tensor, coordinates: Tensor, fill: float | None = None) -> Tensor:
    """Compute `transform.vote`; `fill` as in `sample`."""
    shape = coordinates.shape[2:]
    winners = _empty(1, 1, *shape)
    _in_slabs(
        "vote",
        shape.numel(),
        _array(labels)[0],
        _array(coordinates).reshape(3, -1),
        *_fill_arguments(fill),
        _array(winners).reshape(-1),
        size=POINTS,
    )
    return winners


def warp(
    image: Tensor,
    displacement: Tensor,
    rows: np.ndarray | None = None,
    out: Tensor | None = None,
) -> Tensor:
    """Compute `displacement.warp` with linear interpolation; `rows` and `out` as in `gaussian`."""
    shape = displacement.shape[2:]
    warped = _empty(1, image.shape[1], *shape) if out is None else out
    rows = _all_rows(*shape) if rows is None else rows
    _in_slabs("warp", shape[0], _array(image), _array(displacement), rows, _output(warped))
    return warped


def compose(
    first: Tensor,
    second: Tensor,
    rows: np.ndarray | None = None,
    out: Tensor | None = None,
    scale: float = 1.0,
) -> Tensor:
    """Compute `displacement.compose` of ``scale * first``; `rows`, `out` as in `gaussian`."""
    both = _empty(*first.shape) if out is None else out
    rows = _all_rows(*first.shape[2:]) if rows is None else rows
    arguments = _array(first), np.float32(scale), _array(second), rows, _output(both)
    _in_slabs("compose", first.shape[2], *arguments)
    return both


def damp_divergence(
    displacement: Tensor,
    rate: float,
    rows: np.ndarray | None = None,
    out: Tensor | None = None,
) -> Tensor:
    """Compute `displacement.damp_divergence`; `rows` and `out` as in `gaussian`."""
    damped = _empty(*displacement.shape) if out is None else out
    rows = _all_rows(*displacement.shape[2:]) if rows is None else rows
    arguments = _array(displacement), np.float32(rate), rows, _output(damped)
    _in_slabs("damp_divergence", displacement.shape[2], *arguments)
    return damped


def largest_length(field: Tensor, rows: np.ndarray) -> float:
    """Find the largest length of a displacement (1, 3, i, j, k) in a region."""
    return float(max(_in_slabs("largest_square", field.shape[2], _array(field), rows))) ** 0.5


def invert(displacement: Tensor, tolerance: float, iterations: int) -> Tensor:
    """Compute `inverse.invert`."""
    inverse = _empty(*displacement.shape)
    settings = np.float32(tolerance), iterations
    _in_slabs("invert", displacement.shape[2], _array(displacement), *settings, _output(inverse))
    return inverse


def update_inverse(
    displacement: Tensor, inverse: Tensor, changed: Tensor, tolerance: float, iterations: int
) -> None:
    """Compute `inverse.update_inverse`."""
    for axis in (2, 3, 4):  # voxels of whose cell one corner has changed
        changed = changed | changed.roll(-1, axis)
    settings = np.float32(tolerance), iterations
    arrays = _array(displacement), _array(changed)[0], *settings, _output(inverse)
    _in_slabs("update_inverse", displacement.shape[2], *arrays)


def round_trip(there: Tensor, back: Tensor) -> Tensor:
    """Compute `inverse.round_trip`."""
    distances = _empty(1, 1, *there.shape[2:])
    arrays = _array(there), _array(back), _output(distances)[0]
    _in_slabs("round_trip", there.shape[2], *arrays)
    return distances


def jacobian_determinant(displacement: Tensor) -> Tensor:
    """Compute `displacement.jacobian_determinant`."""
    determinant = _empty(1, 1, *displacement.shape[2:])
    _in_slabs(
        "jacobian_determinant", displacement.shape[2], _array(displacement), _array(determinant)[0]
    )
    return determinant


def local_ncc_forces(
    forces: Tensor,
    decay: float,
    images: Tensor,
    radius: int,
    weight: Tensor,
    shares: Sequence[float],
    damping: Tensor,
) -> Tensor:
    """Compute `similarity.accumulate_forces`."""
    arrays = [_output(force) for force in forces.split(1)]
    return _local_ncc(arrays, decay, images, radius, weight, shares, damping)


def local_ncc(images: Tensor, radius: int, weight: Tensor, damping: Tensor) -> Tensor:
    """Compute `similarity.local_ncc` for one channel of two images, (2, 1, i, j, k)."""
    nothing = np.empty((3, 0, 0, 0), np.float32)
    return _local_ncc([nothing, nothing], 0.0, images, radius, weight, (1.0,), damping)


def _local_ncc(
    forces: Sequence[np.ndarray],
    decay: float,
    images: Tensor,
    radius: int,
    weight: Tensor,
    shares: Sequence[float],
    damping: Tensor,
) -> Tensor:
    """Return the weighted mean of the windows' values; add to the forces unless empty."""
    parts = _in_slabs(
        "local_ncc_forces",
        weight.shape[2],
        *map(_array, images.split(1)),
        _array(weight)[0],
        radius,
        *damping.numpy(),
        np.array(shares, np.float32),
        np.float32(decay),
        *forces,
        size=FORCE_PLANES,
    )
    return torch.tensor(sum(parts), dtype=torch.float32)


@lru_cache(maxsize=16)
def _all_rows(i: int, j: int, k: int) -> np.ndarray:
    """Return rows (i, j, 2) of a region that holds a whole grid."""
    return np.full((i, j, 2), (0, k), np.int32)


def _empty(*shape: int) -> Tensor:
    """Allocate a result with numpy, which uses huge pages: their first use costs much less."""
    return torch.from_numpy(np.empty(shape, np.float32))


def _array(tensor: Tensor) -> np.ndarray:
    """Return the one sample of a batch: a view if the tensor is contiguous, else a copy."""
    return tensor.detach().contiguous().numpy()[0]


def _output(tensor: Tensor) -> np.ndarray:
    """Return a view of the one sample of a batch, to write into."""
    assert tensor.is_contiguous()
    return tensor.numpy()[0]


def _in_slabs(name: str, count: int, *arguments: Any, size: int = PLANES) -> list[Any]:
    """Call a kernel for each slab of `size` out of `count` planes; return results in order."""
    kernel = _kernels()[name]

    def run(first: int) -> Any:
        return kernel(first, min(first + size, count), *arguments)

    return parallel_map(run, range(0, count, size))
