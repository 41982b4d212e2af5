"""Segment the anatomy of a scan of any contrast, orientation and voxel size."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import cc3d
import fill_voids
import numpy as np
import torch
from scipy.spatial.transform import Rotation
from torch import Tensor
from torch.nn import functional as nnf

from bids_fcnreg.errors import InputError
from bids_fcnreg.fcn.arrangement import Arrangement, angle_degrees, arrangement, label_structures
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

#: A head may be turned if it is turned by more degrees than the first, or its structures are
#: farther from their typical arrangement than the second, in mm.
TURNED_DEGREES, MISPLACED_MM = 45.0, 5.5

#: What the network sees is no head if its mean posterior in the brain is lower than the first,
#: plus the second for each structure with an implausible volume. Noise and objects have up to
#: 0.69; turned heads 0.74 or more with up to 8 such structures, 0.78 or more with up to 17.
LEAST_POSTERIOR, PER_IMPLAUSIBLE = 0.69, 0.004

#: Voxel size in mm at which the orientation of a head is searched, and voxels along each axis.
SEARCH_MM, SEARCH_VOXELS = 3.0, 64

#: Most mm and structures of a head that is recognized at this voxel size: upright ones have 2.6 to
#: 4.4 mm and no structure, those in one of the other 23 orientations 9.2 mm and more.
SEARCH_MISPLACED_MM, SEARCH_IMPLAUSIBLE = 8.0, 8

#: From more mm on, corrections do not lead to an upright head.
CORRECTABLE_MM = 12.0

#: A head that is recognized is upright if it is tilted by no more degrees.
TILTED_DEGREES = 25.0

#: How often the orientation that was found is corrected by that of the structures.
CORRECTIONS = 3

#: All other orientations by quarters of a turn: half turns about an axis, rotations that exchange
#: two axes, and others.
_TURNS = sorted(
    (one for one in Rotation.create_group("O").as_matrix().round() if one.trace() < 3),
    key=lambda turn: -np.abs(turn).trace(),
)


@dataclass(frozen=True, eq=False)
class Anatomy:
    """Posterior probabilities of the structures in a scan.

    Attributes
    ----------
    posteriors : Tensor (1, structures, i, j, k)
        In the order of `bids_fcnreg.fcn.structures.STRUCTURES`; they add up to 1.
    grid : Grid
        2 mm voxels around the scan's field of view. Its axes are those of an upright head; RAS+
        unless the scan's header turns the head.
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

    The network recognizes the structures of heads that are upright, and of those that are tilted.
    A head that is turned by more in its header is segmented upright.

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
    view = scan.grid if brain is None else _around(brain)
    _check_size(_network_grid(view))
    coarser = SPACING / scan.grid.spacing
    blurred = gaussian(scan.data.float(), np.where(coarser > 1.2, 0.5 * coarser, 0))

    def look(turn: np.ndarray, view: Grid) -> _View:
        grid = _network_grid(_turned(view, turn))
        return _View.of(Image(blurred, scan.grid), grid, turn, network)

    found = as_it_lies = look(np.eye(4), view)
    if as_it_lies.may_be_turned:
        near = _around(as_it_lies.anatomy.brain_mask(scan.grid))
        found = _upright(as_it_lies, partial(look, view=near), scan, network) or as_it_lies
    anatomy = found.anatomy
    if flip:
        with one_thread():
            mirrored = _posteriors(found.image.flip(2), network)
        for channel, opposite in enumerate(_opposite_channels()):
            anatomy.posteriors[:, channel] += mirrored[:, opposite].flip(1)
        anatomy.posteriors.div_(2)
    return anatomy


@dataclass(frozen=True, eq=False)
class _View:
    """What the network sees and finds after a rotation (4, 4) of the head.

    The anatomy and its arrangement are those of the head as its header says it lies.
    """

    image: Tensor
    anatomy: Anatomy
    turn: np.ndarray
    structures: Arrangement

    @classmethod
    def of(cls, scan: Image, grid: Grid, turn: np.ndarray, network: AnatomyFCN) -> _View:
        """Segment a scan on a grid in the space of the turned head."""
        turned = Image(scan.data, _turned(scan.grid, turn))
        image = Transform(()).resample(turned, grid).data
        with one_thread():
            posteriors = _posteriors(image, network)
        anatomy = Anatomy(posteriors, _turned(grid, np.linalg.inv(turn)))
        structures = arrangement(label_structures(posteriors), anatomy.grid.affine)
        return cls(image, anatomy, turn, structures)

    @property
    def may_be_turned(self) -> bool:
        """Whether a head that is not upright may be seen."""
        known = self.structures
        if known.turned_degrees <= TURNED_DEGREES and known.misplaced_mm <= MISPLACED_MM:
            return False
        return self.mean_posterior >= LEAST_POSTERIOR + PER_IMPLAUSIBLE * known.implausible

    @property
    def mean_posterior(self) -> float:
        """Mean posterior of the most probable structure in the brain."""
        posteriors = self.anatomy.posteriors[0]
        brain = posteriors[0] < 0.5
        return float(posteriors[1:, brain].amax(dim=0).mean()) if brain.any() else 0.0

    @property
    def is_recognized(self) -> bool:
        """Whether a head is recognized, if only at low resolution or tilted."""
        known = self.structures
        arranged = known.misplaced_mm <= SEARCH_MISPLACED_MM
        return arranged and known.implausible <= SEARCH_IMPLAUSIBLE

    @property
    def is_upright(self) -> bool:
        """Whether a brain is recognized, and was upright."""
        left = self.turn[:3, :3] @ self.structures.rotation
        return self.structures.is_brain and angle_degrees(left) <= TILTED_DEGREES

    def turned_by(self, rotation: np.ndarray) -> np.ndarray:
        """Return a rotation (3, 3) of the head about its center, as a matrix (4, 4)."""
        turn = np.eye(4)
        turn[:3, :3] = rotation
        turn[:3, 3] = self.structures.center - rotation @ self.structures.center
        return turn


def _upright(
    as_it_lies: _View, look: Callable[[np.ndarray], _View], scan: Image, network: AnatomyFCN
) -> _View | None:
    """Turn a head upright, and segment it; None if it is not recognized.

    `look` segments the head after a rotation.
    """
    best = as_it_lies if as_it_lies.is_recognized else _search(as_it_lies, scan, network)
    if _misplaced_mm(best) > CORRECTABLE_MM:
        return None
    for _ in range(CORRECTIONS):
        best = look(best.turned_by(best.structures.rotation.T))
        if best.is_upright:
            return best
    return None


def _search(as_it_lies: _View, scan: Image, network: AnatomyFCN) -> _View:
    """Return the best view of a head that is turned by quarters, at low resolution."""
    sigma = 0.5 * SEARCH_MM / scan.grid.spacing
    blurred = Image(gaussian(scan.data.float(), np.where(sigma > 0.6, sigma, 0)), scan.grid)
    affine = np.diag([SEARCH_MM, SEARCH_MM, SEARCH_MM, 1.0])
    affine[:3, 3] = as_it_lies.structures.center - SEARCH_MM * (SEARCH_VOXELS - 1) / 2
    grid = Grid((SEARCH_VOXELS,) * 3, affine)
    best = as_it_lies
    for rotation in _TURNS:
        view = _View.of(blurred, grid, as_it_lies.turned_by(rotation), network)
        best = min(best, view, key=_misplaced_mm)
        if best.is_recognized:
            break
    return best


def _misplaced_mm(view: _View) -> float:
    return view.structures.misplaced_mm


def _check_size(grid: Grid) -> None:
    """Refuse a field of view that is too large for a head."""
    if np.prod(grid.shape, dtype=float) > MAX_VOXELS:
        size = " × ".join(f"{SPACING * n:.0f}" for n in grid.shape)
        raise InputError(f"the field of view, {size} mm, is too large for a head. Crop it")


def _turned(grid: Grid, turn: np.ndarray) -> Grid:
    """Return a grid after a motion (4, 4) in world coordinates."""
    return Grid(grid.shape, turn @ grid.affine)


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
    return network.posteriors(pad_to_multiple(image, network.multiple), (i, j, k))


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
