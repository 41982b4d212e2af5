"""Segment the anatomy of a scan of any contrast, orientation and voxel size."""

from __future__ import annotations

from dataclasses import dataclass

import cc3d
import fill_voids
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as nnf

from bids_fcnreg.errors import InputError
from bids_fcnreg.fcn.masks import bounding_box
from bids_fcnreg.fcn.nets.anatomy import SPACING, AnatomyFCN, normalize_intensities
from bids_fcnreg.fcn.nets.checkpoint import load
from bids_fcnreg.fcn.nets.li_fan_2017 import pad_to_multiple
from bids_fcnreg.fcn.nets.packaged_weights import PACKAGED_WEIGHTS
from bids_fcnreg.fcn.reproducible import one_thread
from bids_fcnreg.fcn.spatial.filters import gaussian
from bids_fcnreg.fcn.spatial.grid import Grid, Image, apply_affine
from bids_fcnreg.fcn.spatial.transform import Transform
from bids_fcnreg.fcn.structures import STRUCTURES

#: Largest number of voxels of the network's grid: 400 mm along each axis, in 6 GB of memory.
MAX_VOXELS = 8_000_000

#: Distance in mm around a brain at which the network sees its head.
MARGIN_MM = 40.0


@dataclass(frozen=True, eq=False)
class Anatomy:
    """Posterior probabilities of the structures in a scan.

    Attributes
    ----------
    posteriors : Tensor (1, structures, i, j, k)
        In the order of `bids_fcnreg.fcn.structures.STRUCTURES`; they add up to 1.
    grid : Grid
        RAS+ axes, 2 mm voxels, around the scan's field of view.
    """

    posteriors: Tensor
    grid: Grid

    def brain_mask(self, grid: Grid) -> Image:
        """Return the brain on a grid: its largest connected part, without holes.

        Parameters
        ----------
        grid : Grid
            For instance that of the scan.

        Returns
        -------
        Image (1, 1, i, j, k)
            0 and 1.
        """
        posterior = Image(1 - self.posteriors[:, :1], self.grid)
        brain = Transform(()).resample(posterior, grid).data[0, 0] > 0.5
        parts = cc3d.largest_k(brain.numpy(), k=1, connectivity=6)
        filled = fill_voids.fill(parts.astype(bool))
        return Image(torch.from_numpy(filled)[None, None].float(), grid)


def segment(
    scan: Image,
    network: AnatomyFCN | None = None,
    flip: bool = False,
    brain: Image | None = None,
) -> Anatomy:
    """Segment a scan.

    Parameters
    ----------
    scan : Image (1, 1, i, j, k)
        Head or brain, of any contrast and intensity scale.
    network : AnatomyFCN, optional
        Trained, in evaluation mode; by default the packaged one.
    flip : bool
        Average with the posteriors of the mirrored scan.
    brain : Image (1, 1, i, j, k), optional
        Approximate brain mask on the grid of `scan`: only the head around it is segmented.

    Returns
    -------
    Anatomy

    Raises
    ------
    InputError
        If the field of view is too large for a head.
    """
    if network is None:
        network, _ = load(PACKAGED_WEIGHTS / "anatomy.safetensors", ["anatomy"])
    grid = _network_grid(scan.grid if brain is None else _around(brain))
    if np.prod(grid.shape, dtype=float) > MAX_VOXELS:
        size = " × ".join(f"{SPACING * n:.0f}" for n in grid.shape)
        raise InputError(f"the field of view, {size} mm, is too large for a head. Crop it")
    coarser = SPACING / scan.grid.spacing
    blurred = gaussian(scan.data.float(), np.where(coarser > 1.2, 0.5 * coarser, 0))
    image = Transform(()).resample(Image(blurred, scan.grid), grid).data
    with one_thread():
        posteriors = _posteriors(image, network)
        if flip:
            mirrored = _posteriors(image.flip(2), network)
            for channel, opposite in enumerate(_opposite_channels()):
                posteriors[:, channel] += mirrored[:, opposite].flip(1)
            posteriors /= 2
    return Anatomy(posteriors, grid)


@torch.no_grad()
def _posteriors(image: Tensor, network: AnatomyFCN) -> Tensor:
    """Compute posteriors (1, structures, i, j, k) of an image at the network's voxel size."""
    image = normalize_intensities(image)
    i, j, k = image.shape[2:]
    if not image.any():  # there is nothing to see
        background = torch.zeros(1, len(STRUCTURES), i, j, k)
        background[:, 0] = 1
        return background
    # Instance normalization needs two voxels at the coarsest resolution.
    image = nnf.pad(image, (0, max(0, 2 * network.multiple - k)))
    padded = pad_to_multiple(image, network.multiple)
    logits = network(padded).reshape(*padded.shape[2:], len(STRUCTURES))
    return logits[:i, :j, :k].softmax(dim=-1).permute(3, 0, 1, 2)[None].contiguous()


def _around(brain: Image) -> Grid:
    """Return the part of a grid that is less than `MARGIN_MM` from a brain."""
    inside = brain.data[0, 0].numpy() > 0.5
    if not inside.any():
        return brain.grid
    margin = np.ceil(MARGIN_MM / brain.grid.spacing).astype(int)
    box = bounding_box(inside)
    lower = np.array([along.start for along in box]) - margin
    upper = np.array([along.stop for along in box]) + margin
    return brain.grid.crop(np.maximum(lower, 0), np.minimum(upper, inside.shape))


def _network_grid(grid: Grid) -> Grid:
    """Return a grid with RAS+ axes and the network's voxel size around a field of view."""
    corners = np.array(list(np.ndindex(2, 2, 2))) * np.array(grid.shape) - 0.5
    world = apply_affine(grid.affine, corners)
    low, high = world.min(axis=0), world.max(axis=0)
    shape = np.maximum(1, np.ceil((high - low) / SPACING - 1e-6)).astype(int)
    affine = np.diag([SPACING, SPACING, SPACING, 1.0])
    affine[:3, 3] = (low + high) / 2 - SPACING * (shape - 1) / 2
    return Grid(tuple(shape), affine)


def _opposite_channels() -> list[int]:
    """Return for each channel that of the same structure in the other hemisphere."""
    names = list(STRUCTURES.values())
    swapped = {"Left": "Right", "Right": "Left"}
    sides = [name.partition("-") for name in names]
    return [names.index(swapped.get(side, side) + dash + rest) for side, dash, rest in sides]
