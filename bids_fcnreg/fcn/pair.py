"""A pair of images made ready: both on one grid, after the linear stage, at any resolution."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bids_fcnreg.fcn.intensity import standardize
from bids_fcnreg.fcn.spatial.filters import dilate, gaussian
from bids_fcnreg.fcn.spatial.grid import Grid, Image
from bids_fcnreg.fcn.spatial.transform import Affine, Transform

#: Room around the fixed brain in mm: the deformation fades out in it.
MARGIN_MM = 12.0

#: Finer voxels than this (mm) add time, not accuracy, to the deformation of a T1w brain.
FINEST_MM = 1.0


@dataclass(frozen=True, eq=False)
class Pair:
    """Two images on one grid.

    Parameters
    ----------
    fixed, moving : Tensor (1, 1, i, j, k)
        Intensities scaled to about 0 to 1, `moving` after the linear stage.
    weight : Tensor (1, 1, i, j, k)
        How much each voxel of the fixed image counts, 0 to 1.
    exclude : Tensor (1, 1, i, j, k) or None
        Voxels of the moving image that must not drive the deformation (1), for instance a lesion.
    grid : Grid
        Where all of them live, in the fixed space.
    fixed_mask, moving_mask : Tensor (1, 1, i, j, k) or None
        How much of each voxel is brain, 0 to 1.
    voxels_mm : pair of float
        Edge of a cube as large as a voxel of the fixed and of the moving image, as they were
        given; 0 if it is not known.
    """

    fixed: Tensor
    moving: Tensor
    weight: Tensor
    exclude: Tensor | None
    grid: Grid
    fixed_mask: Tensor | None = None
    moving_mask: Tensor | None = None
    voxels_mm: tuple[float, float] = (0.0, 0.0)

    @property
    def counted(self) -> Tensor:
        """Weight (1, 1, i, j, k) without what is excluded."""
        return self.weight if self.exclude is None else self.weight * (1 - self.exclude)

    def coarser(self, spacing: float) -> Pair:
        """The same pair with voxels of `spacing` mm, smoothed against aliasing."""
        grid = self.grid.with_spacing(spacing)
        factor = grid.spacing / self.grid.spacing
        if np.all(factor < 1.01):
            return self

        def shrink(data: Tensor) -> Tensor:
            blurred = gaussian(data, np.where(factor > 1.01, 0.5 * factor, 0))
            return Transform(()).resample(Image(blurred, self.grid), grid).data

        return self._changed(shrink, grid)

    def to(self, device: torch.device) -> Pair:
        """The same pair in the memory of a device."""
        return self._changed(lambda data: data.to(device), self.grid)

    def _changed(self, change: Callable[[Tensor], Tensor], grid: Grid) -> Pair:
        """The same pair, each of its volumes changed."""
        volumes = {one.name: getattr(self, one.name) for one in fields(self)}
        changed: dict[str, Any] = {
            name: change(volume) for name, volume in volumes.items() if isinstance(volume, Tensor)
        }
        return replace(self, grid=grid, **changed)


def make_pair(
    fixed: Image,
    moving: Image,
    affine: np.ndarray,
    fixed_mask: Image | None = None,
    moving_mask: Image | None = None,
    moving_exclude: Image | None = None,
) -> Pair:
    """Bring two images and their masks onto one grid around the fixed brain.

    Parameters
    ----------
    fixed, moving : Image (1, 1, i, j, k)
        In any intensities: they are standardized (`intensity.standardize`).
    affine : ndarray (4, 4)
        Fixed to moving points, RAS+ mm.
    fixed_mask, moving_mask : Image, optional
        Brain masks; by default estimated. Outside of them images are set to zero.
    moving_exclude : Image, optional
        Voxels of the moving image to leave out of the similarity.

    Returns
    -------
    Pair
    """
    fixed, fixed_mask = standardize(fixed, fixed_mask, "fixed")
    grid = _working_grid(fixed.grid, fixed_mask)
    stay = Transform(())
    inside = stay.resample(fixed_mask, grid).data
    brain = stay.resample(_smoothed(fixed, grid), grid).data
    # Two voxels beyond the brain: its outline counts.
    weight = dilate((inside > 0.5).float(), 2)
    pair = Pair(brain, brain, weight, None, grid, inside, inside, (_edge(fixed.grid), 0.0))
    return with_moving(pair, moving, affine, moving_mask, moving_exclude)


def with_moving(
    pair: Pair,
    moving: Image,
    affine: np.ndarray,
    moving_mask: Image | None = None,
    moving_exclude: Image | None = None,
) -> Pair:
    """The pair with another moving image, or with one aligned otherwise; see `make_pair`."""
    linear = Transform((Affine(affine),))
    moving, mask = standardize(moving, moving_mask, "moving")
    exclude = None
    if moving_exclude is not None:
        exclude = (linear.resample(moving_exclude, pair.grid).data > 0).float()
    return replace(
        pair,
        moving=linear.resample(_smoothed(moving, pair.grid), pair.grid).data,
        moving_mask=linear.resample(mask, pair.grid).data,
        exclude=exclude,
        voxels_mm=(pair.voxels_mm[0], _edge(moving.grid)),
    )


def _edge(grid: Grid) -> float:
    """Edge in mm of a cube as large as a voxel."""
    return float(grid.spacing.prod() ** (1 / 3))


def _working_grid(grid: Grid, mask: Image) -> Grid:
    """Grid of isotropic voxels around a mask, made of the image's own voxels where they fit.

    Its axes are perpendicular, whatever those of the image are: a deformation on it can be stored.
    """
    spacing = max(FINEST_MM, float(grid.spacing.min()))
    occupied = mask.data[0, 0].nonzero()
    lower, upper = occupied.amin(0).numpy(), occupied.amax(0).numpy() + 1
    margin = np.ceil(MARGIN_MM / grid.spacing).astype(int)
    cropped = grid.crop(lower - margin, upper + margin)
    if not grid.is_orthogonal:
        return cropped.straightened(spacing)
    fits = np.abs(grid.spacing / spacing - 1).max() < 0.05
    return cropped if fits else cropped.with_spacing(spacing)


def _smoothed(image: Image, target: Grid) -> Image:
    """The image smoothed as `target` is coarser."""
    ratio = target.spacing.max() / image.grid.spacing
    sigma = np.where(ratio > 1.2, 0.5 * ratio, 0)
    return Image(gaussian(image.data, sigma), image.grid)
