"""Classify the voxels of a scan by intensity, with posteriors of the anatomy network as prior.

The network sees images at 2 mm; intensities show the borders of tissues more sharply. As in
unified segmentation, intensities of each class of structures follow a Gaussian, whose mean and
variance are fitted by expectation maximization, while prior probabilities differ between voxels.
Background is what the network says, and what resembles no structure: outside the brain,
intensities are of many kinds.

References
----------
Ashburner & Friston, Unified segmentation, NeuroImage 26(3):839-851, 2005.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from bids_fcnreg.fcn.cpu import kernels
from bids_fcnreg.fcn.reproducible import one_thread
from bids_fcnreg.fcn.segment import Anatomy, segment
from bids_fcnreg.fcn.spatial.grid import Grid, Image, voxel_to_voxel
from bids_fcnreg.fcn.spatial.transform import Transform
from bids_fcnreg.fcn.structures import STRUCTURES, TISSUES

#: Structures whose intensities follow one Gaussian, beside left and right ones.
_SAME_GAUSSIAN = (
    ("Cerebral-White-Matter", "Cerebellum-White-Matter"),
    ("Lateral-Ventricle", "3rd-Ventricle", "4th-Ventricle", "CSF"),
    ("Hippocampus", "Amygdala"),
)

#: Intensities of structures in a T1w image, the white matter's being 1: medians of four scans of
#: ds002748 with standardized intensities (`fcn.intensity`).
T1W_INTENSITIES = {
    "Cerebral-White-Matter": 1.0, "Cerebellum-White-Matter": 1.0, "Brain-Stem": 0.98,
    "VentralDC": 0.95, "Pallidum": 0.97, "Thalamus": 0.88, "Putamen": 0.83, "Caudate": 0.76,
    "Accumbens-area": 0.7, "Cerebral-Cortex": 0.62, "Cerebellum-Cortex": 0.71,
    "Hippocampus": 0.7, "Amygdala": 0.69, "Lateral-Ventricle": 0.36, "3rd-Ventricle": 0.36,
    "4th-Ventricle": 0.36, "CSF": 0.32,
}  # fmt: skip

#: Voxels that are less probably in the brain are background.
LEAST_BRAIN = 0.02

#: Intensities farther from the mean of every structure, in standard deviations, are more probably
#: those of the background.
OUTLIER = 3.0

#: Number of voxels from which Gaussians are fitted, and of iterations.
SAMPLE, ITERATIONS = 100_000, 10

#: Smallest standard deviation of a Gaussian, as a fraction of the range of intensities.
LEAST_SPREAD = 0.02


#: Voxels with a larger probability of a tissue represent its intensities, if there are so many.
CERTAIN, ENOUGH_VOXELS = 0.8, 100

#: Margin in mm around a brain mask in which the brain is sought.
MARGIN_MM = 20.0


@dataclass(frozen=True, eq=False)
class Classification:
    """Structures and tissues of a scan, on its grid.

    Attributes
    ----------
    labels : Image (1, 1, i, j, k)
        FreeSurfer's label of the most probable structure, 0 in the background.
    tissues : Image (1, 3, i, j, k)
        Probabilities of grey matter, white matter and cerebrospinal fluid.
    t1w_like : Image (1, 1, i, j, k)
        Intensity that a T1w image of the brain would have, 1 in white matter, 0 in the background.
    anatomy : Anatomy
        Posteriors of the network.
    """

    labels: Image
    tissues: Image
    t1w_like: Image
    anatomy: Anatomy


def classify(scan: Image, anatomy: Anatomy) -> Classification:
    """Classify the voxels of a scan.

    Parameters
    ----------
    scan : Image (1, 1, i, j, k)
        Of any contrast, without a strong bias field.
    anatomy : Anatomy
        Of this scan.

    Returns
    -------
    Classification
    """
    lower, upper = _brain_box(scan.grid, anatomy)
    box = tuple(slice(*ends) for ends in zip(lower, upper, strict=True))
    values, grid = scan.data[0, 0][box].contiguous(), scan.grid.crop(lower, upper)
    prior = Image(anatomy.posteriors, anatomy.grid)
    with one_thread():
        means, variances = _fit_gaussians(values, prior, grid)
    channels_last = prior.data[0].permute(1, 2, 3, 0).contiguous()
    share = 1 - channels_last[..., 0] / channels_last.sum(dim=-1).clamp(min=1e-30)
    summary = _summary_weights()
    found, summed = kernels.classify(
        values.numpy(),
        channels_last.numpy(),
        (share > LEAST_BRAIN).numpy(),
        voxel_to_voxel(grid, prior.grid)[:3],
        torch.stack([means, 1 / variances, -0.5 * variances.log()]).numpy(),
        _intensity_classes().numpy(),
        np.float32(OUTLIER),
        np.float32(LEAST_BRAIN),
        summary.numpy(),
        sums=len(summary),
    )
    channel_labels = torch.tensor([float(label) for label in STRUCTURES])
    labels = torch.zeros_like(scan.data)
    labels[0, 0][box] = channel_labels[torch.from_numpy(found).long()]
    sums = scan.data.new_zeros((1, len(summary), *scan.grid.shape))
    sums[0][(slice(None), *box)] = torch.from_numpy(summed)
    return Classification(
        Image(labels, scan.grid),
        Image(sums[:, : len(TISSUES)].contiguous(), scan.grid),
        Image(sums[:, len(TISSUES) :].contiguous(), scan.grid),
        anatomy,
    )


def classify_brain(scan: Image, mask: Image) -> Classification:
    """Segment and classify the voxels around a brain mask; farther ones are background.

    Parameters
    ----------
    scan : Image (1, 1, i, j, k)
        Of any contrast, without a strong bias field.
    mask : Image (1, 1, i, j, k)
        Its brain, above 0.5, on the same grid; it may be rough.

    Returns
    -------
    Classification
        On the grid of the scan.
    """
    occupied = (mask.data[0, 0] > 0.5).nonzero()
    if not len(occupied):
        return classify(scan, segment(scan, flip=True))
    margin = np.ceil(MARGIN_MM / scan.grid.spacing).astype(int)
    lower = np.maximum(occupied.amin(dim=0).numpy() - margin, 0)
    upper = np.minimum(occupied.amax(dim=0).numpy() + 1 + margin, scan.grid.shape)
    i, j, k = (slice(*ends) for ends in zip(lower.tolist(), upper.tolist(), strict=True))
    part = Image(scan.data[..., i, j, k].contiguous(), scan.grid.crop(lower, upper))
    found = classify(part, segment(part, flip=True))

    def enlarged(image: Image) -> Image:
        data = image.data.new_zeros((1, image.data.shape[1], *scan.grid.shape))
        data[..., i, j, k] = image.data
        return Image(data, scan.grid)

    return Classification(
        enlarged(found.labels), enlarged(found.tissues), enlarged(found.t1w_like), found.anatomy
    )


def white_matter_is_darker(scan: Image, tissues: Image) -> bool:
    """Return whether white matter is known not to be brighter than gray matter.

    In T1w images of adults, it is brighter.

    Parameters
    ----------
    scan : Image (1, 1, i, j, k)
        Without a strong bias field.
    tissues : Image (1, 3, i, j, k)
        Probabilities of gray matter, white matter and cerebrospinal fluid, on the same grid.
    """
    gray, white = (scan.data[0, 0][tissue > CERTAIN] for tissue in tissues.data[0, :2])
    enough = min(gray.numel(), white.numel()) >= ENOUGH_VOXELS
    return enough and bool(white.median() <= gray.median())


def most_probable(probabilities: Tensor) -> Tensor:
    """Return the number of the most probable class at each voxel, the first of equal ones.

    Like ``argmax``, which takes much longer along this axis.

    Parameters
    ----------
    probabilities : Tensor (1, classes, i, j, k)

    Returns
    -------
    Tensor (1, 1, i, j, k), uint8

    Examples
    --------
    >>> most_probable(torch.tensor([0.2, 0.4, 0.4]).reshape(1, 3, 1, 1, 1)).flatten().tolist()
    [1]
    """
    largest, *others = probabilities.split(1, dim=1)
    winner = torch.zeros_like(largest, dtype=torch.uint8)
    for number, other in enumerate(others, start=1):
        winner.masked_fill_(other > largest, number)
        largest = torch.maximum(largest, other)
    return winner


def _brain_box(grid: Grid, anatomy: Anatomy) -> tuple[list[int], list[int]]:
    """Return first voxel, and one past the last, of the box with all possible brain voxels."""
    brain = Image(1 - anatomy.posteriors[:, :1], anatomy.grid)
    occupied = (Transform(()).resample(brain, grid).data[0, 0] > LEAST_BRAIN).nonzero()
    if not len(occupied):
        return [0, 0, 0], [1, 1, 1]
    return occupied.amin(dim=0).tolist(), (occupied.amax(dim=0) + 1).tolist()


def _on_grid(prior: Image, grid: Grid) -> Tensor:
    """Return prior probabilities (structures, i, j, k) on a grid."""
    return Transform(()).resample(prior, grid).data[0]


def _fit_gaussians(values: Tensor, prior: Image, grid: Grid) -> tuple[Tensor, Tensor]:
    """Fit the mean and the variance of each structure's intensities.

    Parameters
    ----------
    values : Tensor (i, j, k)
        Intensities.
    prior : Image (1, structures, ...)
        Prior probabilities.
    grid : Grid
        Of `values`.

    Returns
    -------
    means, variances : Tensor (classes,)
        See `_intensity_classes`.
    """
    stride = max(1, round((values.numel() / SAMPLE) ** (1 / 3)))
    coarse = Grid(
        tuple(-(-n // stride) for n in grid.shape), grid.affine @ np.diag([stride] * 3 + [1])
    )
    sample = values[::stride, ::stride, ::stride].flatten().double()
    classes = _intensity_classes()
    probabilities = _on_grid(prior, coarse).flatten(1).double()
    brain = probabilities[classes < 0].sum(dim=0) < 0.5
    sample, probabilities = sample[brain], probabilities[:, brain]
    if not len(sample):
        return torch.zeros(int(classes.max()) + 1), torch.ones(int(classes.max()) + 1)
    known = classes >= 0
    joined = probabilities.new_zeros((int(classes.max()) + 1, len(sample)))
    joined.index_add_(0, classes[known], probabilities[known])
    low, high = torch.quantile(sample, torch.tensor([0.02, 0.98], dtype=torch.float64))
    floor = (LEAST_SPREAD * (high - low)).square().clamp(min=1e-12)
    shares = joined.square()  # first, voxels that are surely of one class
    for _ in range(ITERATIONS):
        total = shares.sum(dim=1) + 1e-3
        means = shares @ sample / total
        variances = (shares * (sample - means[:, None]).square()).sum(dim=1) / total + floor
        shares = joined * _likelihood(sample, means, variances)
        shares = shares / shares.sum(dim=0).clamp(min=1e-30)
    return means.float(), variances.float()


def _likelihood(values: Tensor, means: Tensor, variances: Tensor) -> Tensor:
    """Compute Gaussian likelihoods (classes, n), relative to the largest at each of n voxels."""
    means, variances = means[:, None], variances[:, None]
    logarithm = (values - means).square_().div_(variances).add_(variances.log()).mul_(-0.5)
    return logarithm.sub_(logarithm.amax(dim=0)).exp_()


def _unsided() -> list[str]:
    """Return the names of the structures, in channel order, without their side."""
    return [name.removeprefix("Left-").removeprefix("Right-") for name in STRUCTURES.values()]


def _intensity_classes() -> Tensor:
    """Return the number of each structure's Gaussian, −1 for the background."""
    first = {name: names[0] for names in _SAME_GAUSSIAN for name in names}
    names = [first.get(name, name) for name in _unsided()]
    order = list(dict.fromkeys(names))
    return torch.tensor([order.index(name) - 1 for name in names])


def _summary_weights() -> Tensor:
    """Return weights (4, structures) of the structures in the tissues and in a T1w image."""
    rows = [[float(name in structures) for name in _unsided()] for structures in TISSUES.values()]
    return torch.tensor([*rows, [T1W_INTENSITIES.get(name, 0.0) for name in _unsided()]])
