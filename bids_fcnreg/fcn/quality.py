"""How good a registration is: metrics of its images and its deformation.

Local correlation and local volume changes depend on how fine images and fields are sampled. They
are computed at one resolution, whatever the voxels: smoothed to `RESOLUTION_MM`, what the voxels
themselves smooth taken into account, on a grid of `SPACING_MM`. Overlap is that of brain masks.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import avg_pool3d

from bids_fcnreg.fcn.losses.similarity import FixedWindows, local_ncc
from bids_fcnreg.fcn.pair import Pair
from bids_fcnreg.fcn.reproducible import mean, variance
from bids_fcnreg.fcn.spatial.displacement import compose, jacobian_determinant, warp
from bids_fcnreg.fcn.spatial.filters import dilate, gaussian
from bids_fcnreg.fcn.spatial.grid import Grid, Image
from bids_fcnreg.fcn.spatial.transform import Displacement, Transform, change_grid

#: Voxels of the metrics in mm, and the standard deviation in mm of the smoothing of what is
#: compared in them.
SPACING_MM = 2.0
RESOLUTION_MM = 2.0

#: Standard deviation of what a voxel and linear interpolation smooth, in voxels.
VOXEL_SIGMA = 0.4

#: Edge in mm of the cubes whose similarity is compared: as large as a lobe is wide.
REGION_MM = 40.0


@dataclass
class Quality:
    """Numbers that tell how a registration went.

    Parameters
    ----------
    mode, device : str
        What ran, and on what.
    weights : str or None
        SHA-256 of the network's weights, if trained ones were used.
    similarity_initial, similarity_affine, similarity : float
        Local NCC (signed square, window of 10 mm) in and just around the fixed brain: as the
        headers place the images, after the linear stage, after all.
    similarity_lowest : float
        The same in the cube of `REGION_MM` where it is lowest.
    brain_overlap : float
        Dice of the warped moving brain mask and the fixed one.
    folds_percent : float
        Part of the voxels of the fixed brain where the Jacobian determinant is not positive.
    sd_log_jacobian : float
        Standard deviation in the fixed brain of the logarithm of the determinant, of the
        deformation smoothed to `RESOLUTION_MM`.
    inverse_consistency_mm, inverse_consistency_p95_mm : float
        Mean and 95th percentile in the fixed brain of the distance between a point and where it
        comes back to through the transform and its inverse.
    seconds : dict of str to float
        Wall time of each stage.
    """

    mode: str
    device: str
    weights: str | None = None
    similarity_initial: float = float("nan")
    similarity_affine: float = float("nan")
    similarity: float = float("nan")
    similarity_lowest: float = float("nan")
    brain_overlap: float = float("nan")
    folds_percent: float = float("nan")
    sd_log_jacobian: float = float("nan")
    inverse_consistency_mm: float = float("nan")
    inverse_consistency_p95_mm: float = float("nan")
    seconds: dict[str, float] = field(default_factory=dict)

    def as_dict(self) -> dict[str, object]:
        """The numbers by name, as they are written to JSON."""
        return asdict(self)

    @contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        """Add the wall time of a block to that of a stage."""
        start = time.perf_counter()
        yield
        elapsed = time.perf_counter() - start
        self.seconds[stage] = round(self.seconds.get(stage, 0.0) + elapsed, 3)


def similarity(pair: Pair, warped: Tensor | None = None) -> float:
    """Compute the local NCC of a pair, its moving image as it lies or warped."""
    fixed, moving, weight = _compared(pair, pair.moving if warped is None else warped)
    return float(local_ncc(fixed, moving, 2, weight))


def assess(quality: Quality, pair: Pair, forward: Displacement, inverse: Displacement) -> None:
    """Fill in the metrics of a deformation.

    Parameters
    ----------
    quality : Quality
        Where to.
    pair : Pair
        The images after the linear stage.
    forward, inverse : Displacement
        On the pair's grid.
    """
    quality.similarity_affine = similarity(pair)
    warped = warp(pair.moving, forward.field)
    quality.similarity = similarity(pair, warped)
    quality.similarity_lowest = lowest_similarity(pair, warped)
    fixed_mask, moving_mask = _masks(pair)
    brain = fixed_mask[0, 0] > 0.5
    brought = warp(moving_mask, forward.field)[0, 0] > 0.5
    both = int(brain.sum()) + int(brought.sum())
    quality.brain_overlap = 2 * int((brain & brought).sum()) / both if both else 0.0
    determinant = jacobian_determinant(forward.field)[0, 0][brain]
    quality.folds_percent = 100 * float((determinant <= 0).double().mean())
    quality.sd_log_jacobian = sd_log_jacobian(forward, fixed_mask)
    there_and_back = compose(forward.field, inverse.field)[0][:, brain]
    spacing = torch.as_tensor(forward.grid.spacing).to(there_and_back)
    distance = (there_and_back * spacing[:, None]).square().sum(dim=0).sqrt().cpu()
    quality.inverse_consistency_mm = float(mean(distance))
    quality.inverse_consistency_p95_mm = float(np.percentile(distance.numpy(), 95))


def lowest_similarity(pair: Pair, warped: Tensor) -> float:
    """Compute the local NCC in the cube of the fixed brain where it is lowest.

    It reveals a registration that is good but for one lobe.

    Parameters
    ----------
    pair : Pair
        Its fixed image and mask are used.
    warped : Tensor (1, 1, i, j, k)
        The moving image after the registration.

    Returns
    -------
    float
        Of the cubes that brain fills by half or, where there is none, as far as in any.
    """
    fixed, warped, weight = _compared(pair, warped)
    alike = FixedWindows(fixed, radius=2).compare(warped).value
    edge = min(round(REGION_MM / SPACING_MM), *weight.shape[2:])
    step = max(edge // 4, 1)
    filled = avg_pool3d(weight, edge, step)
    values = avg_pool3d(weight * alike, edge, step) / filled.clamp(min=1e-6)
    enough = min(0.5, float(filled.max()))
    return float(values[filled >= enough].min())


def sd_log_jacobian(displacement: Displacement, mask: Tensor) -> float:
    """Compute the standard deviation of the log Jacobian determinant in a mask.

    Parameters
    ----------
    displacement : Displacement
        Smoothed first: see `RESOLUTION_MM`.
    mask : Tensor (1, 1, i, j, k)
        The brain, above 0.5, on the grid of the displacement.
    """
    grid = displacement.grid
    smooth = Displacement(grid, gaussian(displacement.field, _sigma(grid)))
    field = change_grid(smooth, grid.with_spacing(SPACING_MM)).field
    inside = _resampled(mask, grid)[0, 0] > 0.5
    determinant = jacobian_determinant(field)[0, 0][inside]
    return float(variance(determinant.clamp(min=1e-3).log()).sqrt())


def _compared(pair: Pair, moving: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Fixed image, moving image and what counts of them, at the resolution of the metrics."""
    fixed, moving = (
        _resampled(gaussian(image, _sigma(pair.grid, voxel_mm)), pair.grid)
        for image, voxel_mm in zip((pair.fixed, moving), pair.voxels_mm, strict=True)
    )
    inside = (_resampled(_masks(pair)[0], pair.grid) > 0.5).float()
    return fixed, moving, dilate(inside, 1)


def _sigma(grid: Grid, voxel_mm: float = 0.0) -> np.ndarray:
    """Smoothing along i, j, k, in voxels, that brings a grid's resolution to `RESOLUTION_MM`.

    `voxel_mm` is the voxel size of the image that was resampled onto the grid, if it is known.
    """
    own = VOXEL_SIGMA * np.maximum(grid.spacing, voxel_mm)
    return np.sqrt(np.maximum(RESOLUTION_MM**2 - own**2, 0)) / grid.spacing


def _resampled(data: Tensor, grid: Grid) -> Tensor:
    return Transform(()).resample(Image(data, grid), grid.with_spacing(SPACING_MM)).data


def _masks(pair: Pair) -> tuple[Tensor, Tensor]:
    """Brain masks of a pair; where it has none, what is not zero."""
    if pair.fixed_mask is None or pair.moving_mask is None:
        return (pair.fixed > 0).float(), (pair.moving > 0).float()
    return pair.fixed_mask, pair.moving_mask
