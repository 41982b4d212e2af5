"""Transforms: chains of affines and displacement fields that map points.

A transform maps points of the fixed space to points of the moving space, in RAS+ mm, as needed to
resample a moving image onto the fixed grid (ITK's convention). The chain is evaluated exactly, and
images are interpolated once, from the original.
"""

from __future__ import annotations

import operator
from collections.abc import Iterator
from dataclasses import dataclass
from functools import reduce

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as nnf

from bids_fcnreg.errors import InputError
from bids_fcnreg.fcn.cpu import kernels
from bids_fcnreg.fcn.spatial.coordinates import map_points, map_voxels
from bids_fcnreg.fcn.spatial.displacement import (
    geometric_determinant,
    identity,
    jacobian_determinant,
    sample,
)
from bids_fcnreg.fcn.spatial.grid import Grid, Image, apply_affine, voxel_to_voxel
from bids_fcnreg.fcn.spatial.inverse import invert

#: Points mapped at a time: limits memory, and is large enough to keep every core busy.
POINTS_AT_A_TIME = 2_000_000

#: Lower bound of the Jacobian determinant in its logarithm.
MIN_JACOBIAN = 1e-3


@dataclass(frozen=True, eq=False)
class Affine:
    """A linear map of points.

    Attributes
    ----------
    matrix : ndarray (4, 4), float64
        RAS+ mm to RAS+ mm.
    """

    matrix: np.ndarray

    def inverse(self) -> Affine:
        """Return the inverse.

        Raises
        ------
        InputError
            If the matrix is singular.
        """
        try:
            return Affine(np.linalg.inv(self.matrix))
        except np.linalg.LinAlgError as why:
            raise InputError("A singular linear transform has no inverse.") from why

    def map(self, points: Tensor) -> Tensor:
        """Map points (..., 3), RAS+ mm."""
        matrix = torch.as_tensor(self.matrix, dtype=points.dtype)
        return points @ matrix[:3, :3].T + matrix[:3, 3]


@dataclass(frozen=True, eq=False)
class Displacement:
    """A displacement field on a grid, linear between voxels, zero outside the grid.

    Attributes
    ----------
    grid : Grid
        Grid of the field.
    field : Tensor (1, 3, i, j, k), float32
        x to x + u(x), in voxels of the grid, channels in the order i, j, k.
    """

    grid: Grid
    field: Tensor

    def __post_init__(self) -> None:
        if tuple(self.field.shape) != (1, 3, *self.grid.shape):
            raise ValueError(
                f"A field of shape {tuple(self.field.shape)} does not fit the grid "
                f"{self.grid.shape}."
            )

    def to(self, device: torch.device | str) -> Displacement:
        """Return the displacement on a device."""
        return Displacement(self.grid, self.field.to(device))

    def cpu(self) -> Displacement:
        """Return the displacement on the CPU."""
        return self.to("cpu")

    def inverse(self) -> Displacement:
        """Return the inverse on the same grid; the field must vanish at its border."""
        return Displacement(self.grid, invert(self.field))

    def map(self, points: Tensor) -> Tensor:
        """Map points (..., 3), RAS+ mm."""
        moved = self.at(_to_voxels(points, self.grid)).reshape(3, -1).T
        to_world = torch.as_tensor(self.grid.affine[:3, :3], dtype=points.dtype)
        return points + (moved.to(points.dtype) @ to_world.T).reshape(points.shape)

    def at(self, coordinates: Tensor) -> Tensor:
        """Sample the displacement at coordinates (1, 3, *shape), both in voxels of its grid."""
        return sample_as_itk(self.field, coordinates, "linear")


@dataclass(frozen=True, eq=False)
class Transform:
    """A chain of affines and displacements, from the fixed space to the moving space.

    Attributes
    ----------
    steps : tuple of Affine and Displacement
        Applied to a point in this order.

    Examples
    --------
    >>> right = np.eye(4)
    >>> right[0, 3] = 5.0
    >>> shift = Transform((Affine(right),))
    >>> shift.map(torch.zeros(3)).tolist()
    [5.0, 0.0, 0.0]
    >>> shift.then(shift.inverse()).map(torch.ones(3)).tolist()
    [1.0, 1.0, 1.0]
    >>> grid = Grid((8, 1, 1), np.eye(4))
    >>> ramp = Image(torch.arange(8.0).reshape(1, 1, 8, 1, 1), grid)
    >>> shift.resample(ramp, grid, fill=-1.0).data.flatten().round(decimals=3).tolist()
    [5.0, 6.0, 7.0, -1.0, -1.0, -1.0, -1.0, -1.0]
    """

    steps: tuple[Affine | Displacement, ...]

    def map(self, points: Tensor) -> Tensor:
        """Map points of the fixed space to the moving space.

        Parameters
        ----------
        points : Tensor (..., 3)
            RAS+ mm.

        Returns
        -------
        Tensor (..., 3)
            RAS+ mm.
        """
        for step in self.steps:
            points = step.map(points)
        return points

    def inverse(self) -> Transform:
        """Return the transform from the moving to the fixed space; see `Displacement.inverse`."""
        return Transform(tuple(step.inverse() for step in reversed(self.steps)))

    @property
    def displacements(self) -> tuple[Displacement, ...]:
        """The displacement fields among its steps."""
        return tuple(step for step in self.steps if isinstance(step, Displacement))

    def to(self, device: torch.device | str) -> Transform:
        """Return the transform on a device."""
        steps = (
            step.to(device) if isinstance(step, Displacement) else step for step in self.steps
        )
        return Transform(tuple(steps))

    def then(self, other: Transform) -> Transform:
        """Compose with another transform, which acts on a point after this one."""
        return Transform(self.steps + other.steps)

    def resample(
        self, image: Image, onto: Grid, interpolation: str = "linear", fill: float = 0.0
    ) -> Image:
        """Resample an image of the moving space onto a grid of the fixed space.

        Parameters
        ----------
        image : Image (1, channels, i, j, k)
            In the moving space, on its own grid.
        onto : Grid
                        In the fixed space.
        interpolation : {"linear", "nearest", "label"}
            ``label`` assigns the label with the largest sum of trilinear weights among the eight
            neighbours: smooth outlines, no new labels.
        fill : float
            Value outside the moving image.

        Returns
        -------
        Image (1, channels, *onto.shape)
        """
        parts = [
            sample_as_itk(
                image.data,
                self.coordinates_in(slab, image.grid, image.data.device),
                interpolation,
                fill,
            )
            for slab in slabs(onto)
        ]
        return Image(torch.cat(parts, dim=2), onto)

    def coordinates_in(self, onto: Grid, grid: Grid, device: torch.device | str) -> Tensor:
        """Map the voxels of a grid of the fixed space to those of a grid of the moving space.

        Parameters
        ----------
        onto, grid : Grid
            In the fixed and in the moving space.
        device : torch.device or str
            Where to compute.

        Returns
        -------
        Tensor (1, 3, *onto.shape), float32
            In voxels of `grid`.
        """
        coordinates, world = None, onto.affine  # affine of the current coordinates
        for step in self.steps:
            if isinstance(step, Affine):
                world = step.matrix @ world
            else:
                to_voxels = np.linalg.inv(step.grid.affine) @ world
                coordinates = _mapped(coordinates, to_voxels, onto, device)
                coordinates = coordinates + step.at(coordinates)
                world = step.grid.affine
        to_voxels = np.linalg.inv(grid.affine) @ world
        return _mapped(coordinates, to_voxels, onto, device)

    def log_jacobian(self, grid: Grid) -> Tensor:
        """Compute the log Jacobian determinant, from the fixed to the moving space.

        Parameters
        ----------
        grid : Grid
            In the fixed space.

        Returns
        -------
        Tensor (1, 1, i, j, k), float32
            Positive where the moving image is larger than the fixed one; log(1e-3) at folds.
        """
        return self.jacobian(grid).clamp(min=MIN_JACOBIAN).log()

    def jacobian(self, grid: Grid, geometric: bool = False) -> Tensor:
        """Compute the Jacobian determinant, from the fixed to the moving space.

        Parameters
        ----------
        grid : Grid
            In the fixed space.
        geometric : bool
            Compute the volume of each deformed voxel instead of central differences.

        Returns
        -------
        Tensor (1, 1, i, j, k), float32
            Above 1 where the moving image is larger than the fixed one; at most 0 at folds.
        """
        # In voxels of the grid, on both sides, the determinant is the same as in millimetres.
        determinant = geometric_determinant if geometric else jacobian_determinant
        return determinant(self.displacement(grid).field)

    def displacement(self, grid: Grid) -> Displacement:
        """Evaluate the chain as one displacement field on a grid of the fixed space."""
        fields = [step.field.device for step in self.displacements]
        device = fields[0] if fields else torch.device("cpu")
        moved = torch.cat([self.coordinates_in(slab, grid, device) for slab in slabs(grid)], dim=2)
        return Displacement(grid, moved - identity(grid.shape, moved))


def change_grid(displacement: Displacement, grid: Grid) -> Displacement:
    """Resample a displacement to another grid of the fixed space, in that grid's voxels.

    Outside its own grid it takes the values at the border.
    """
    if displacement.grid.matches(grid):
        return displacement
    field = displacement.field
    to_old = voxel_to_voxel(grid, displacement.grid)
    index = map_voxels(grid.shape, to_old, field.device)
    to_new = torch.from_numpy(np.linalg.inv(to_old)[:3, :3]).to(field)
    moved = sample(field, index, padding="border")
    return Displacement(grid, torch.einsum("cd,ndijk->ncijk", to_new, moved).contiguous())


def pad_to_cover(displacement: Displacement, grid: Grid) -> Displacement:
    """Pad a displacement with zeros until it covers a grid.

    Parameters
    ----------
    displacement : Displacement
        Zero at its border.
    grid : Grid
                    In the fixed space.

    Returns
    -------
    Displacement
        Zero in the added voxels. The first and the last axis get the same size, because fMRIPrep
        (``load_ants_h5``) exchanges them.
    """
    corners = np.array(list(np.ndindex(2, 2, 2))) * (np.array(grid.shape) - 1)
    corners = apply_affine(voxel_to_voxel(grid, displacement.grid), corners)
    lower = np.minimum(np.floor(corners.min(axis=0) + 1e-3).astype(int), 0)
    reach = np.ceil(corners.max(axis=0) - 1e-3).astype(int) + 1
    upper = np.maximum(reach, displacement.grid.shape)
    longest = max((upper - lower)[0], (upper - lower)[2])
    upper[[0, 2]] = lower[[0, 2]] + longest
    added = np.stack([-lower, upper - displacement.grid.shape], axis=1)[::-1]
    field = nnf.pad(displacement.field, added.ravel().tolist())
    return Displacement(displacement.grid.crop(lower, upper), field)


def slabs(grid: Grid) -> Iterator[Grid]:
    """Split a grid into slabs of whole planes, of at most `POINTS_AT_A_TIME` points."""
    planes = max(1, POINTS_AT_A_TIME // (grid.shape[1] * grid.shape[2]))
    for lower in range(0, grid.shape[0], planes):
        yield grid.crop((lower, 0, 0), (min(lower + planes, grid.shape[0]), *grid.shape[1:]))


def _mapped(
    coordinates: Tensor | None, matrix: np.ndarray, grid: Grid, device: torch.device | str
) -> Tensor:
    """Map coordinates (1, 3, i, j, k), by default the voxel indices of a grid, by a matrix."""
    if coordinates is None:
        return map_voxels(grid.shape, matrix, device)
    return map_points(coordinates, matrix)


def _to_voxels(points: Tensor, grid: Grid) -> Tensor:
    """Convert world points (..., 3) to voxel coordinates (1, 3, i, j, k), float32."""
    inverse = torch.as_tensor(np.linalg.inv(grid.affine), dtype=points.dtype)
    voxels = points @ inverse[:3, :3].T + inverse[:3, 3]
    if voxels.ndim != 4:
        voxels = voxels.reshape(1, 1, -1, 3)
    return voxels.movedim(-1, 0).unsqueeze(0).float()


def sample_as_itk(
    data: Tensor, coordinates: Tensor, interpolation: str, fill: float = 0.0
) -> Tensor:
    """Sample an image at arbitrary coordinates as ITK does.

    Parameters
    ----------
    data : Tensor (1, channels, i, j, k)
        What to sample.
    coordinates : Tensor (1, 3, *shape)
        In its voxels.
    interpolation : {"linear", "nearest", "label"}
        See `Transform.resample`.
    fill : float
        Value farther than half a voxel beyond the outermost voxel centres; nearer, the border's
        value is repeated.

    Returns
    -------
    Tensor (1, channels, *shape)
    """
    coordinates = coordinates.to(data.device)
    if interpolation == "label" and kernels.usable(data, coordinates):
        return kernels.vote(data, coordinates, fill)
    if interpolation != "label":
        data = data.float()
    if interpolation == "linear" and kernels.usable(data, coordinates):
        return kernels.sample(data, coordinates, "border", fill)
    parts = zip(coordinates.split(1, dim=1), data.shape[2:], strict=True)
    inside = reduce(operator.and_, ((part >= -0.5) & (part <= n - 0.5) for part, n in parts))
    if interpolation == "label":
        values = vote(data, coordinates)
    else:
        values = sample(data, coordinates, interpolation, padding="border")
    return torch.where(inside, values, fill)


def vote(labels: Tensor, coordinates: Tensor) -> Tensor:
    """Find the label with the largest sum of trilinear weights among the eight neighbours.

    Parameters
    ----------
    labels : Tensor (1, 1, i, j, k)
        Any numbers.
    coordinates : Tensor (1, 3, *shape)
        In voxels.

    Returns
    -------
    Tensor (1, 1, *shape), dtype of `labels`
    """
    if kernels.usable(labels, coordinates):
        return kernels.vote(labels, coordinates)
    size = torch.tensor(labels.shape[2:])
    strides = torch.tensor([labels.shape[3] * labels.shape[4], labels.shape[4], 1])
    flat = labels.reshape(-1)
    largest, smallest = (sign * nnf.max_pool3d(sign * labels, 2, stride=1) for sign in (1, -1))
    uniform = torch.zeros(labels.shape[2:], dtype=torch.bool)
    uniform[:-1, :-1, :-1] = (largest == smallest)[0, 0]
    places = coordinates.reshape(3, -1).nan_to_num(nan=0.0)
    clamped = places.clamp(min=0).minimum((size - 1)[:, None])
    base = clamped.long().minimum((size - 2)[:, None])
    corner = (base * strides[:, None]).sum(dim=0)
    winners = flat[corner]
    # A vote is needed only where neighbours differ.
    mixed = ~uniform.reshape(-1)[corner]
    corner, fraction = corner[mixed], (clamped - base)[:, mixed]
    values, products = [], []
    for offsets in np.ndindex(2, 2, 2):
        values.append(flat[corner + int((torch.tensor(offsets) * strides).sum())])
        shares = [fraction[d] if offset else 1 - fraction[d] for d, offset in enumerate(offsets)]
        products.append(shares[0] * shares[1] * shares[2])
    candidates, weights = torch.stack(values), torch.stack(products)
    votes = torch.stack([(weights * (candidates == label)).sum(dim=0) for label in candidates])
    winners[mixed] = candidates.gather(0, votes.argmax(dim=0, keepdim=True))[0]
    return winners.reshape(1, 1, *coordinates.shape[2:])
