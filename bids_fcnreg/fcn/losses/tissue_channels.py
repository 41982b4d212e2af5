"""Contrasts of a pair: its intensities, and either border of the cortex told apart.

Local correlation of intensities follows the strongest edge in each window. In a T1w brain, cortex
meets CSF on one side and white matter on the other, two edges of unlike strength. Compared also
as images in which everything on either side of one of them is alike, both count everywhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from bids_fcnreg.fcn.pair import Pair
from bids_fcnreg.fcn.reproducible import one_thread
from bids_fcnreg.fcn.spatial.midpoint import Halves

#: How much the similarity of each contrast counts: of intensities, of the two borders.
SHARES = (0.625, 0.1875, 0.1875)

#: Where the borders lie, as parts of the way from the mean of all other tissue to white matter's.
BORDERS = (-0.1, 0.55)

#: Width of the borders, as a part of the same way.
SOFTNESS = 1 / 16

#: Intensities (of about 0 to 1) up to this are background that interpolation brought in.
BACKGROUND = 0.05

#: Quantiles are taken of about so many values.
SAMPLE = 500_000

#: Rounds of expectation and maximisation.
ROUNDS = 60


def with_borders(pair: Pair, halves: Halves) -> Pair:
    """The pair with further channels that show the borders of the cortex.

    Parameters
    ----------
    pair : Pair
        With images (1, 1, i, j, k), T1w: white matter is the bright class of their intensities.
    halves : Halves
        What of the deformation is known, on the grid of the pair. Where the images overlap, as
        many voxels of either are to be brighter than a border.

    Returns
    -------
    Pair
        With images (1, 3, i, j, k): intensities, and from 0 to 1 how sure a voxel is brighter
        than each of the borders.
    """
    moving = pair.moving if pair.exclude is None else pair.moving * (1 - pair.exclude)
    images = pair.fixed, moving
    met = halves.meet(*images)
    overlap = (met[0] > BACKGROUND) & (met[1] > BACKGROUND)
    shown = [image[overlap] for image in met]
    classes = [two_classes(image[image > BACKGROUND]) for image in images]
    borders = [
        _agreed([other + part * (white - other) for other, white in classes], shown)
        for part in BORDERS
    ]
    of_fixed, of_moving = zip(*borders, strict=True)
    widths = [SOFTNESS * max(white - other, 1e-3) for other, white in classes]
    return replace(
        pair,
        fixed=_beside(pair.fixed, of_fixed, widths[0]),
        moving=_beside(pair.moving, of_moving, widths[1]),
    )


def _beside(image: Tensor, borders: Sequence[float], width: float) -> Tensor:
    """An image (1, 1, i, j, k), and for each border how sure its voxels are brighter."""
    with one_thread():
        return torch.cat([image, *(torch.sigmoid((image - b) / width) for b in borders)], dim=1)


def _agreed(borders: Sequence[float], shown: Sequence[Tensor]) -> list[float]:
    """Borders of both images that part the same share of the values (n,) both show.

    The classes found in two images need not be the same tissues: their borders have to be.
    """
    if not shown[0].numel():
        return list(borders)
    ranks = [
        float((values <= border).double().mean())
        for values, border in zip(shown, borders, strict=True)
    ]
    some = (values[:: max(1, values.numel() // SAMPLE)].cpu().numpy() for values in shown)
    return [float(np.quantile(values, np.mean(ranks))) for values in some]


def two_classes(values: Tensor, bins: int = 256) -> tuple[float, float]:
    """Mean intensities of the two classes that a histogram shows.

    Parameters
    ----------
    values : Tensor (n,)
        Intensities.
    bins : int
        Of the histogram.

    Returns
    -------
    low, high : float
        Means of a mixture of two Gaussians; 0 and 1 of no values.

    References
    ----------
    Dempster, Laird & Rubin, Maximum likelihood from incomplete data via the EM algorithm,
    J. R. Stat. Soc. B 39(1), 1977.
    """
    if not values.numel():
        return 0.0, 1.0
    low, high = float(values.min()), float(values.max())
    width = max((high - low) / bins, 1e-9)
    count = torch.histc(values, bins, low, high).double().cpu()
    centre = low + width * (torch.arange(bins).double()[:, None] + 0.5)
    rank = count.cumsum(0) / count.sum()
    mean = centre[torch.searchsorted(rank, torch.tensor([0.35, 0.85]).double()), 0]
    spread = torch.full_like(mean, bins * width / 8)
    part = torch.full_like(mean, 1 / 2)
    for _ in range(ROUNDS):
        density = part / spread * torch.exp(-0.5 * ((centre - mean) / spread) ** 2)
        members = count[:, None] * density / density.sum(dim=1, keepdim=True).clamp(min=1e-300)
        size = members.sum(dim=0).clamp(min=1e-9)
        mean = (members * centre).sum(dim=0) / size
        variance = (members * (centre - mean) ** 2).sum(dim=0) / size
        spread, part = variance.sqrt().clamp(min=width), size / size.sum()
    return float(mean.min()), float(mean.max())
