"""What a registration is judged by: a dense map of points, and figures of it.

Every tool's transform is first turned into the same thing: for each voxel of the fixed grid the
point of the moving space that it maps to. Labels, Jacobians and inverse consistency all come from
that map, by the same code for every tool.
"""

from __future__ import annotations

import itertools
import resource
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor

from bids_fcnreg.fcn.spatial.displacement import identity, jacobian_determinant
from bids_fcnreg.fcn.spatial.grid import Grid, Image, apply_affine
from bids_fcnreg.fcn.spatial.transform import POINTS_AT_A_TIME, Displacement, Transform


@dataclass(frozen=True, eq=False)
class PointMap:
    """A map known at the voxels of a grid.

    Attributes
    ----------
    grid : Grid
        Of the fixed space.
    places : Tensor (i, j, k, 3), float64
        Where each voxel maps to, RAS+ mm of the moving space.
    """

    grid: Grid
    places: Tensor

    @classmethod
    def of(cls, transform: Transform, grid: Grid) -> PointMap:
        """Evaluate a transform at every voxel of a grid."""
        planes = max(1, POINTS_AT_A_TIME // (grid.shape[1] * grid.shape[2]))
        return cls(grid, torch.cat([transform.map(s) for s in grid.points().split(planes)]))

    def map(self, points: Tensor) -> Tensor:
        """Look voxel centres of the grid up.

        Parameters
        ----------
        points : Tensor (..., 3)
            RAS+ mm; each within a thousandth of a voxel of a voxel's centre.
        """
        voxels = torch.from_numpy(apply_affine(np.linalg.inv(self.grid.affine), points.numpy()))
        index = voxels.round()
        if float((voxels - index).abs().max()) > 1e-3:
            raise ValueError("The map is known at the voxels of its grid only.")
        i, j, k = index.long().unbind(-1)
        return self.places[i, j, k]

    def resample(self, image: Image, interpolation: str = "linear") -> Image:
        """Bring an image of the moving space onto the grid, as `Transform.resample` does."""
        inverse = torch.from_numpy(np.linalg.inv(self.grid.affine))
        voxels = self.places @ inverse[:3, :3].T + inverse[:3, 3]
        field = voxels.movedim(-1, 0)[None] - identity(self.grid.shape, voxels)
        displacement = Displacement(self.grid, field.float().contiguous())
        return Transform((displacement,)).resample(image, self.grid, interpolation)


def dice(fixed: Tensor, warped: Tensor, labels: list[int]) -> dict[int, float]:
    """Compute the Dice coefficient of each label.

    Parameters
    ----------
    fixed, warped : Tensor, any one shape
        Label images on one grid.
    labels : list of int
        Which labels to compare; one that neither image has gets no number.

    Returns
    -------
    dict of int to float
        Dice coefficients, 0 to 1.
    """
    one, two = (image.flatten().round().long() for image in (fixed, warped))
    count = int(max(one.max(), two.max(), max(labels, default=0))) + 1
    both = torch.bincount(one[one == two], minlength=count)
    sizes = torch.bincount(one, minlength=count) + torch.bincount(two, minlength=count)
    return {n: float(2 * both[n] / sizes[n]) for n in labels if sizes[n]}


def mean_overlap(labels: Sequence[Tensor]) -> float:
    """Compute the mean Dice over labels and pairs of label images on one grid."""
    present = sorted({int(n) for one in labels for n in one.unique().round()} - {0})
    pairs = [dice(one, other, present) for one, other in itertools.combinations(labels, 2)]
    return float(np.mean([np.mean(list(overlaps.values())) for overlaps in pairs]))


def label_entropy(labels: Sequence[Tensor]) -> float:
    """Compute the entropy of the labels at a voxel, in bit.

    Parameters
    ----------
    labels : sequence of Tensor, any one shape
        Label images on one grid.

    Returns
    -------
    float
        Mean over the voxels where any image has a label other than 0; 0 if all images agree.
    """
    several = torch.stack([one.flatten() for one in labels])
    several = several[:, (several != 0).any(dim=0)]
    frequency = torch.stack([(several == one).sum(dim=0) for one in several]) / len(several)
    return float(-frequency.double().log2().mean())


def sharpness(mean: Tensor, grid: Grid) -> float:
    """Compute the mean length of the gradient of a mean brain, per mm.

    Parameters
    ----------
    mean : Tensor (i, j, k)
        Mean of standardized brains: bright tissue has 1, the background 0.
    grid : Grid
        Its grid, with perpendicular axes.

    Returns
    -------
    float
        Over voxels of more than a quarter of bright tissue.
    """
    spacing = [float(size) for size in grid.spacing]
    gradient = torch.stack(torch.gradient(mean, spacing=spacing))
    return float(gradient.norm(dim=0)[mean > 0.25].mean())


def deformation(points: PointMap, brain: Tensor) -> dict[str, float]:
    """Measure the deformation and folds of a map.

    Parameters
    ----------
    points : PointMap
        The whole map, affine part included.
    brain : Tensor (i, j, k), bool
        Where to look.

    Returns
    -------
    dict of str to float
        ``folds_percent``: voxels whose Jacobian determinant is not positive; ``sd_log_jacobian``:
        standard deviation of the determinant's logarithm, which the affine part, a constant
        factor, does not change. Determinants below 1e-3 count as 1e-3.
    """
    to_voxels = np.linalg.inv(points.grid.affine)
    voxels = torch.from_numpy(apply_affine(to_voxels, points.places.numpy()))
    voxels = voxels.movedim(-1, 0).unsqueeze(0)
    displacement = (voxels - identity(points.grid.shape, voxels)).float()
    determinant = jacobian_determinant(displacement)[0, 0][brain].double()
    return {
        "folds_percent": 100 * float((determinant <= 0).double().mean()),
        "sd_log_jacobian": float(determinant.clamp(min=1e-3).log().std()),
    }


def hd95(
    fixed: Tensor, warped: Tensor, labels: list[int], spacing: np.ndarray
) -> dict[int, float]:
    """Compute the 95 % Hausdorff distance of each label, in mm.

    Distances are from each boundary voxel of a structure (one that has a face in common with a
    voxel of another label) to the nearest boundary voxel of the same structure in the other image.
    Their 95th percentile is taken in each direction, and the larger of both is the result.

    Parameters
    ----------
    fixed, warped : Tensor (..., i, j, k)
        Label images on one grid.
    labels : list of int
        Which labels to compare; one that either image lacks gets no number.
    spacing : ndarray (3,)
        Voxel size, mm.
    """
    one, two = (
        data.reshape(data.shape[-3:]).round().numpy().astype(np.int32) for data in (fixed, warped)
    )
    boxes = [ndimage.find_objects(data) for data in (one, two)]
    found = {}
    for label in labels:
        pair = [box[label - 1] if label <= len(box) else None for box in boxes]
        if None in pair:
            continue
        box = tuple(
            slice(min(a.start, b.start), max(a.stop, b.stop)) for a, b in zip(*pair, strict=True)
        )
        edges = [_boundary(data[box] == label) for data in (one, two)]
        apart = [ndimage.distance_transform_edt(~edge, sampling=spacing) for edge in edges]
        ways = (np.percentile(apart[1 - n][edges[n]], 95) for n in (0, 1))
        found[label] = float(max(ways))
    return found


def _boundary(inside: np.ndarray) -> np.ndarray:
    """Return the voxels of a mask with a face towards another voxel or the border of the array."""
    return inside & ~ndimage.binary_erosion(inside)


def harmonic_energy(points: PointMap, brain: Tensor) -> float:
    """Compute the harmonic energy of a map without its affine part.

    The affine part is the affine map that is nearest to the whole map in the brain (least squares
    of the distance over its voxels). Its inverse is applied after the map, so that the remaining
    displacement is in mm of the fixed space. The energy is the mean over the brain of the squared
    Frobenius norm of that displacement's gradient, by central differences (mm per mm).

    Parameters
    ----------
    points : PointMap
        The whole map, affine part included.
    brain : Tensor (i, j, k), bool
        Where to look.
    """
    there = points.grid.points()[brain].double()
    centre = there.mean(0)
    design = torch.cat([there - centre, torch.ones_like(there[:, :1])], dim=1)
    affine = torch.linalg.lstsq(design, points.places[brain].double()).solution[:3].T
    inside = brain.nonzero()
    ends = zip(inside.amin(0).tolist(), inside.amax(0).tolist(), strict=True)
    box = tuple(slice(max(low - 1, 0), high + 2) for low, high in ends)
    gradients = torch.gradient(points.places[box], dim=(0, 1, 2))
    per_voxel = torch.stack([part[brain[box]] for part in gradients], dim=-1).double()
    to_voxels = torch.from_numpy(np.linalg.inv(points.grid.affine[:3, :3]))
    remaining = torch.linalg.inv(affine) @ per_voxel @ to_voxels - torch.eye(3).double()
    return float(remaining.square().sum(dim=(-2, -1)).mean())


def inverse_consistency(
    points: PointMap, inverse: Transform | None, brain: Tensor
) -> dict[str, float | None]:
    """Compute the inverse consistency error in the brain, in mm.

    Parameters
    ----------
    points : PointMap
        There.
    inverse : Transform or None
        And back; None if the tool gives none.
    brain : Tensor (i, j, k), bool
        Where to look.
    """
    if inverse is None:
        return {"inverse_mean_mm": None, "inverse_max_mm": None}
    there = points.places[brain]
    back = torch.cat([inverse.map(part) for part in there.split(POINTS_AT_A_TIME)])
    distance = (back - points.grid.points()[brain]).norm(dim=-1)
    return {
        "inverse_mean_mm": float(distance.mean()),
        "inverse_max_mm": float(distance.max()),
    }


class Meter:
    """Wall time and memory of a block of code.

    Memory is what the block's peak adds to what the process held when the block began (the
    libraries and both images): on Linux from the kernel's high-water mark, reset at the start.
    Not `ru_maxrss`, which begins at the size of the process that started this one.

    Attributes
    ----------
    seconds : float
        Wall time, less what was deducted.
    memory_gb : float
        Peak of the block.
    """

    def __init__(self) -> None:
        self.seconds = 0.0
        self.memory_gb = 0.0

    def __enter__(self) -> Meter:
        try:
            with open("/proc/self/clear_refs", "w") as file:
                file.write("5")
        except OSError:
            pass  # no such thing here: the mark stays where it was
        self._before = _memory_gb("VmRSS")
        self._start = time.perf_counter()
        return self

    def __exit__(self, *error: object) -> None:
        self.seconds += time.perf_counter() - self._start
        self.memory_gb = _memory_gb("VmHWM") - self._before

    def deduct(self, seconds: float) -> None:
        """Take off what the block spent on files, measured separately."""
        self.seconds = max(0.0, self.seconds - seconds)


def _memory_gb(field: str) -> float:
    """Read a field of the process's status, or the peak so far if missing, in GB (2^30)."""
    try:
        with open("/proc/self/status") as file:
            lines = dict(line.split(":", 1) for line in file)
        return int(lines[field].split()[0]) / 2**20
    except (OSError, KeyError):
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
