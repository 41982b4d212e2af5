"""Quality metrics of a registration, from its images and its deformation.

Local correlation and local volume changes depend on the sampling of images and fields. They are
computed at one resolution for all voxel sizes: smoothed to `RESOLUTION_MM`, including the
smoothing by the voxels themselves, on a grid of `SPACING_MM`. Overlap is that of brain masks.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace

import numpy as np
import torch
from scipy.linalg import polar
from scipy.spatial.transform import Rotation
from torch import Tensor
from torch.nn.functional import avg_pool3d

from bids_fcnreg.fcn.losses.similarity import FixedWindows, local_ncc
from bids_fcnreg.fcn.pair import Pair
from bids_fcnreg.fcn.reproducible import mean, variance
from bids_fcnreg.fcn.spatial.displacement import compose, jacobian_determinant, warp
from bids_fcnreg.fcn.spatial.filters import dilate, gaussian
from bids_fcnreg.fcn.spatial.grid import Grid, Image
from bids_fcnreg.fcn.spatial.transform import Displacement, Transform, change_grid

#: Voxel size of the metrics, and standard deviation of the smoothing of the compared images, in
#: mm.
SPACING_MM = 2.0
RESOLUTION_MM = 2.0

#: Standard deviation of the smoothing by a voxel and by linear interpolation, in voxels.
VOXEL_SIGMA = 0.4

#: Half-width of the windows of local NCC, in voxels of `SPACING_MM`.
RADIUS = 2

#: Edge in mm of the cubes of `lowest_similarity`, about the width of a lobe.
REGION_MM = 40.0


@dataclass
class Quality:
    """Quality metrics of a registration.

    Attributes
    ----------
    mode, device : str
        Registration mode, or the kind of a linear transform; and device.
    weights : str or None
        SHA-256 of the trained weights, if any.
    similarity_initial, similarity_affine, similarity : float
        Local NCC (signed square, window of 10 mm) in and just around the fixed brain: by the
        headers alone, after the linear stage (and a nonlinear initial transform before it), and
        after the registration.
    similarity_lowest : float
        The same in the cube of `REGION_MM` where it is lowest.
    outside_percent : float
        Percentage of fixed brain voxels beyond the field of view of the moving image, if that ends
        inside the brain. The other metrics are of the voxels within.
    brain_overlap : float
        Dice of the warped moving brain mask and the fixed one.
    folds_percent : float
        Percentage of fixed brain voxels whose Jacobian determinant is not positive.
    sd_log_jacobian : float
        Standard deviation in the fixed brain of the logarithm of the determinant, of the
        deformation smoothed to `RESOLUTION_MM`.
    inverse_consistency_mm, inverse_consistency_p95_mm : float
        Mean and 95th percentile in the fixed brain of the distance between a point and its image
        under the transform and its inverse.
    rotation_degrees : float
        Angle of the rotation in the linear part of the transform.
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
    outside_percent: float = float("nan")
    brain_overlap: float = float("nan")
    folds_percent: float = float("nan")
    sd_log_jacobian: float = float("nan")
    inverse_consistency_mm: float = float("nan")
    inverse_consistency_p95_mm: float = float("nan")
    rotation_degrees: float = float("nan")
    seconds: dict[str, float] = field(default_factory=dict)

    def as_dict(self) -> dict[str, object]:
        """Return the metrics by name, as they are written to JSON."""
        return asdict(self)

    @contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        """Add the wall time of a block to that of a stage."""
        start = time.perf_counter()
        yield
        elapsed = time.perf_counter() - start
        self.seconds[stage] = round(self.seconds.get(stage, 0.0) + elapsed, 3)


def similarity(pair: Pair) -> float:
    """Compute the local NCC of a pair."""
    fixed, moving, weight = _at_metric_resolution(pair)
    return float(local_ncc(fixed, moving, RADIUS, weight))


def assess(quality: Quality, pair: Pair, forward: Displacement, inverse: Displacement) -> None:
    """Compute the metrics of a deformation.

    Parameters
    ----------
    quality : Quality
        Filled in.
    pair : Pair
        The images after the linear stage.
    forward, inverse : Displacement
        On the pair's grid.
    """
    quality.similarity_affine = similarity(pair)
    fixed_mask, moving_mask = _masks(pair)
    registered = replace(
        pair,
        images=torch.cat([pair.fixed, warp(pair.moving, forward.field)]),
        beyond=None if pair.beyond is None else warp(pair.beyond, forward.field),
    )
    quality.similarity = similarity(registered)
    quality.similarity_lowest = lowest_similarity(registered)
    brain = fixed_mask[0, 0] > 0.5
    seen, warped_brain = brain, warp(moving_mask, forward.field)[0, 0] > 0.5
    if registered.beyond is not None:
        within = registered.beyond[0, 0] < 0.5
        seen, warped_brain = brain & within, warped_brain & within
    quality.outside_percent = 100 * (1 - int(seen.sum()) / max(int(brain.sum()), 1))
    both = int(seen.sum()) + int(warped_brain.sum())
    quality.brain_overlap = 2 * int((seen & warped_brain).sum()) / both if both else 0.0
    determinant = jacobian_determinant(forward.field)[0, 0][brain]
    quality.folds_percent = 100 * float((determinant <= 0).double().mean())
    quality.sd_log_jacobian = sd_log_jacobian(forward, fixed_mask)
    there_and_back = compose(forward.field, inverse.field)[0][:, brain]
    spacing = torch.as_tensor(forward.grid.spacing).to(there_and_back)
    distance = (there_and_back * spacing[:, None]).square().sum(dim=0).sqrt().cpu()
    quality.inverse_consistency_mm = float(mean(distance))
    quality.inverse_consistency_p95_mm = float(np.percentile(distance.numpy(), 95))


def rotation_degrees(matrix: np.ndarray) -> float:
    """Compute the angle of the rotation that is nearest to an affine matrix (4, 4).

    Examples
    --------
    >>> rotation_degrees(np.diag([-1.1, -0.9, 1.0, 1.0]))
    180.0
    """
    rotation, _ = polar(matrix[:3, :3])
    return float(np.degrees(Rotation.from_matrix(rotation).magnitude()))


def lowest_similarity(pair: Pair) -> float:
    """Compute the local NCC in the cube of the fixed brain where it is lowest.

    A low value reveals a registration that failed in one lobe only.

    Parameters
    ----------
    pair : Pair
        With the moving image after the registration.

    Returns
    -------
    float
        Minimum over cubes at least half filled by brain or, if there are none, over the fullest.
    """
    fixed, moving, weight = _at_metric_resolution(pair)
    correlation = FixedWindows(fixed, radius=RADIUS).compare(moving).value
    edge = min(round(REGION_MM / SPACING_MM), *weight.shape[2:])
    step = max(edge // 4, 1)
    filled = avg_pool3d(weight, edge, step)
    values = avg_pool3d(weight * correlation, edge, step) / filled.clamp(min=1e-6)
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


def _at_metric_resolution(pair: Pair) -> tuple[Tensor, Tensor, Tensor]:
    """Return fixed image, moving image and weight at the resolution of the metrics.

    The weight is 0 where a window reaches beyond the field of view of the moving image.
    """
    fixed, moving = (
        _resampled(gaussian(image, _sigma(pair.grid, voxel_mm)), pair.grid)
        for image, voxel_mm in zip((pair.fixed, pair.moving), pair.voxels_mm, strict=True)
    )
    weight = dilate((_resampled(_masks(pair)[0], pair.grid) > 0.5).float(), 1)
    if pair.beyond is not None:
        weight = weight * (1 - dilate((_resampled(pair.beyond, pair.grid) > 0).float(), RADIUS))
    return fixed, moving, weight


def _sigma(grid: Grid, voxel_mm: float = 0.0) -> np.ndarray:
    """Return the smoothing along i, j, k, in voxels, from a grid's resolution to `RESOLUTION_MM`.

    `voxel_mm` is the voxel size of the image that was resampled onto the grid, if known.
    """
    own = VOXEL_SIGMA * np.maximum(grid.spacing, voxel_mm)
    return np.sqrt(np.maximum(RESOLUTION_MM**2 - own**2, 0)) / grid.spacing


def _resampled(data: Tensor, grid: Grid) -> Tensor:
    return Transform(()).resample(Image(data, grid), grid.with_spacing(SPACING_MM)).data


def _masks(pair: Pair) -> tuple[Tensor, Tensor]:
    """Return the brain masks of a pair; by default its nonzero voxels."""
    if pair.fixed_mask is None or pair.moving_mask is None:
        return (pair.fixed > 0).float(), (pair.moving > 0).float()
    return pair.fixed_mask, pair.moving_mask
