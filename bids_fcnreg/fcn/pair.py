"""Image pairs: both images on one grid, after the linear stage, at any resolution."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bids_fcnreg.fcn.field_of_view import beyond_field_of_view
from bids_fcnreg.fcn.intensity import standardize
from bids_fcnreg.fcn.spatial.filters import dilate, gaussian
from bids_fcnreg.fcn.spatial.grid import Grid, Image
from bids_fcnreg.fcn.spatial.transform import Affine, Transform

#: Margin around the fixed brain in mm; the deformation tapers to zero in it.
MARGIN_MM = 12.0

#: Finer voxels than this (mm) add time, not accuracy, to the deformation of a T1w brain.
FINEST_MM = 1.0


@dataclass(frozen=True, eq=False)
class Pair:
    """Two images on one grid.

    Attributes
    ----------
    images : Tensor (2, channels, i, j, k)
        The fixed image and the moving one after the linear stage. The first channel has
        intensities, scaled to about 0 to 1.
    weight : Tensor (1, 1, i, j, k)
        How much each voxel of the fixed image counts, 0 to 1.
    moving_exclude : Tensor (1, 1, i, j, k) or None
        1 at voxels of the moving image that must not drive the deformation, for instance a lesion.
    grid : Grid
        Their common grid, in the fixed space.
    fixed_mask, moving_mask : Tensor (1, 1, i, j, k) or None
        Brain fraction of each voxel, 0 to 1.
    voxels_mm : pair of float
        Cube root of the voxel volume of the original fixed and moving image; 0 if unknown.
    fixed_exclude : Tensor (1, 1, i, j, k) or None
        Such voxels of the fixed image.
    beyond : Tensor (1, 1, i, j, k) or None
        1 beyond the field of view of the moving image, if that ends inside the brain; these voxels
        are excluded, too.
    """

    images: Tensor
    weight: Tensor
    moving_exclude: Tensor | None
    grid: Grid
    fixed_mask: Tensor | None = None
    moving_mask: Tensor | None = None
    voxels_mm: tuple[float, float] = (0.0, 0.0)
    fixed_exclude: Tensor | None = None
    beyond: Tensor | None = None

    @property
    def fixed(self) -> Tensor:
        """Fixed image (1, channels, i, j, k), without a copy."""
        return self.images[:1]

    @property
    def moving(self) -> Tensor:
        """Moving image (1, channels, i, j, k), without a copy."""
        return self.images[1:]

    @property
    def effective_weight(self) -> Tensor:
        """Weight (1, 1, i, j, k), zero at excluded voxels."""
        weight = self.weight
        for exclude in (self.fixed_exclude, self.moving_exclude):
            weight = weight if exclude is None else weight * (1 - exclude)
        return weight

    def coarser_grid(self, spacing: float) -> Grid:
        """Return the grid of `coarser`: of `spacing` mm, or that of the pair if it is no finer."""
        grid = self.grid.with_spacing(spacing)
        return self.grid if np.all(grid.spacing / self.grid.spacing < 1.01) else grid

    def coarser(self, spacing: float) -> Pair:
        """Return the pair downsampled to voxels of `spacing` mm, with anti-alias smoothing."""
        grid = self.coarser_grid(spacing)
        if grid is self.grid:
            return self
        factor = grid.spacing / self.grid.spacing

        def shrink(data: Tensor) -> Tensor:
            blurred = gaussian(data, np.where(factor > 1.01, 0.5 * factor, 0))
            return Transform(()).resample(Image(blurred, self.grid), grid).data

        def shrink_each(batch: Tensor) -> Tensor:
            return torch.cat([shrink(data) for data in batch.split(1)])

        return self._changed(shrink_each, grid)

    def to(self, device: torch.device) -> Pair:
        """Return the pair on a device."""
        return self._changed(lambda data: data.to(device), self.grid)

    def _changed(self, change: Callable[[Tensor], Tensor], grid: Grid) -> Pair:
        """Return the pair with a function applied to each volume, once to one of two names."""
        done: dict[int, Tensor] = {}
        changed: dict[str, Any] = {}
        for one in fields(self):
            volume = getattr(self, one.name)
            if isinstance(volume, Tensor):
                if id(volume) not in done:
                    done[id(volume)] = change(volume)
                changed[one.name] = done[id(volume)]
        return replace(self, grid=grid, **changed)


def make_pair(
    fixed: Image,
    moving: Image,
    affine: np.ndarray,
    fixed_mask: Image | None = None,
    moving_mask: Image | None = None,
    moving_exclude: Image | None = None,
    fixed_exclude: Image | None = None,
) -> Pair:
    """Bring two images and their masks onto one grid around the fixed brain.

    Parameters
    ----------
    fixed, moving : Image (1, 1, i, j, k)
        Any intensity scale; they are standardized (`intensity.standardize`).
    affine : ndarray (4, 4)
        Fixed to moving points, RAS+ mm.
    fixed_mask, moving_mask : Image, optional
        Brain masks, by default estimated. Images are set to zero outside.
    moving_exclude, fixed_exclude : Image, optional
        Voxels of the moving and of the fixed image to exclude from the similarity.

    Returns
    -------
    Pair
    """
    fixed, fixed_mask = standardize(fixed, fixed_mask, "fixed")
    moving, moving_mask = standardize(moving, moving_mask, "moving")
    return assemble_pair(
        fixed, moving, affine, fixed_mask, moving_mask, moving_exclude, fixed_exclude
    )


def assemble_pair(
    fixed: Image,
    moving: Image,
    affine: np.ndarray,
    fixed_mask: Image,
    moving_mask: Image,
    moving_exclude: Image | None = None,
    fixed_exclude: Image | None = None,
    grid: Grid | None = None,
) -> Pair:
    """Make a pair of images that are standardized, with their masks; see `make_pair`.

    `grid` is another common grid than that around the fixed brain.
    """
    grid = _working_grid(fixed.grid, fixed_mask) if grid is None else grid
    identity = Transform(())
    inside = identity.resample(fixed_mask, grid).data
    brain = identity.resample(_smoothed(fixed, grid), grid).data
    # Dilated by two voxels, so that the outline of the brain counts.
    weight = dilate((inside > 0.5).float(), 2)
    sizes = _edge(fixed.grid), 0.0
    beyond = beyond_field_of_view(fixed_mask, identity, grid)
    exclude = _excluded(fixed_exclude, beyond, identity, grid)
    images = brain.expand(2, -1, -1, -1, -1)  # in place of the moving one, which follows
    pair = Pair(images, weight, None, grid, inside, inside, sizes, exclude)
    return replace_moving(pair, moving, Transform((Affine(affine),)), moving_mask, moving_exclude)


def replace_moving(
    pair: Pair,
    moving: Image,
    transform: Transform,
    moving_mask: Image,
    moving_exclude: Image | None = None,
) -> Pair:
    """Return the pair with another moving image or transform to it; see `assemble_pair`."""
    beyond = beyond_field_of_view(moving_mask, transform, pair.grid)
    moved = transform.resample(_smoothed(moving, pair.grid), pair.grid).data
    return replace(
        pair,
        images=torch.cat([pair.fixed, moved]),
        moving_mask=transform.resample(moving_mask, pair.grid).data,
        moving_exclude=_excluded(moving_exclude, beyond, transform, pair.grid),
        beyond=beyond,
        voxels_mm=(pair.voxels_mm[0], _edge(moving.grid)),
    )


def _excluded(
    exclude: Image | None, beyond: Tensor | None, transform: Transform, grid: Grid
) -> Tensor | None:
    """Find voxels of a grid that are excluded, by a mask or as they are not in the image.

    Parameters
    ----------
    exclude : Image or None
        Excluded voxels of the image.
    beyond : Tensor (1, 1, *grid.shape) or None
        1 beyond its field of view.
    transform : Transform
        From points of the grid to those of the image.
    grid : Grid
        Where to look.

    Returns
    -------
    Tensor (1, 1, *grid.shape) or None
        1 where a voxel around is excluded, else 0.
    """
    if exclude is None:
        return beyond
    excluded = (transform.resample(exclude, grid).data > 0).float()
    return excluded if beyond is None else torch.maximum(excluded, beyond)


def _edge(grid: Grid) -> float:
    """Return the cube root of the voxel volume, in mm."""
    return float(grid.spacing.prod() ** (1 / 3))


def _working_grid(grid: Grid, mask: Image) -> Grid:
    """Return a grid of isotropic voxels around a mask, on the image's own voxels where possible.

    Its axes are perpendicular even if those of the image are not, as transform files require.
    """
    spacing = max(FINEST_MM, float(grid.spacing.min()))
    occupied = mask.data[0, 0].nonzero().cpu()
    lower, upper = occupied.amin(0).numpy(), occupied.amax(0).numpy() + 1
    margin = np.ceil(MARGIN_MM / grid.spacing).astype(int)
    cropped = grid.crop(lower - margin, upper + margin)
    if not grid.is_orthogonal:
        return cropped.straightened(spacing)
    fits = np.abs(grid.spacing / spacing - 1).max() < 0.05
    return cropped if fits else cropped.with_spacing(spacing)


def _smoothed(image: Image, target: Grid) -> Image:
    """Smooth an image against aliasing on a coarser grid."""
    ratio = target.spacing.max() / image.grid.spacing
    sigma = np.where(ratio > 1.2, 0.5 * ratio, 0)
    return Image(gaussian(image.data, sigma), image.grid)
