"""Image channels of a pair: intensities, and the inner and outer border of the cortex.

Local correlation of intensities is dominated by the strongest edge in each window. In a T1w brain,
the cortex has two borders of different strength, to CSF and to white matter. In a further channel
for each border, with constant intensities on either side, both count everywhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from bids_fcnreg.fcn.pair import Pair
from bids_fcnreg.fcn.reproducible import one_thread
from bids_fcnreg.fcn.spatial.midpoint import MidpointDeformation

#: Weights of the channels in the similarity: intensities, the two borders.
SHARES = (0.625, 0.1875, 0.1875)

#: Border intensities, as fractions of the distance from the mean of other tissue to white
#: matter's.
BORDERS = (-0.1, 0.55)

#: Width of the borders, as a fraction of the same distance.
SOFTNESS = 1 / 16

#: Intensities (of about 0 to 1) up to this are background, smoothed in by interpolation.
BACKGROUND = 0.05

#: Quantiles are computed from about this number of values.
SAMPLE = 500_000

#: Iterations of the expectation–maximization algorithm.
ROUNDS = 60


def add_border_channels(pair: Pair, deformation: MidpointDeformation) -> Pair:
    """Add channels for the borders of the cortex to a pair.

    Parameters
    ----------
    pair : Pair
        With images (2, 1, i, j, k), T1w: white matter is the bright class of their intensities.
    deformation : MidpointDeformation
        Current deformation, on the grid of the pair. Where the images overlap, equal fractions of
        their voxels are brighter than a border.

    Returns
    -------
    Pair
        With images (2, 3, i, j, k): intensities, and for each border a soft threshold, 0 to 1.
    """
    excluded = pair.fixed_exclude, pair.moving_exclude
    images = [
        image if exclude is None else image * (1 - exclude)
        for image, exclude in zip((pair.fixed, pair.moving), excluded, strict=True)
    ]
    warped = deformation.warp_to_midpoint(*images)
    overlap = (warped[0] > BACKGROUND) & (warped[1] > BACKGROUND)
    overlapping = [image[overlap] for image in warped]
    classes = [two_classes(image[image > BACKGROUND]) for image in images]
    borders = [
        _matched_borders([other + part * (white - other) for other, white in classes], overlapping)
        for part in BORDERS
    ]
    widths = [SOFTNESS * max(white - other, 1e-3) for other, white in classes]
    channels = pair.images.new_empty(2, 1 + len(borders), *pair.images.shape[2:])
    with one_thread():
        for number, (image, width) in enumerate(zip(pair.images, widths, strict=True)):
            channels[number, :1] = image
            for border, out in zip(borders, channels[number, 1:], strict=True):
                torch.sub(image[0], border[number], out=out).div_(width).sigmoid_()
    return replace(pair, images=channels)


def _matched_borders(borders: Sequence[float], overlapping: Sequence[Tensor]) -> list[float]:
    """Return borders of both images at the same quantile of their values (n,).

    The classes found in two images may differ in tissue; their borders must not.
    """
    if not overlapping[0].numel():
        return list(borders)
    ranks = [
        float((values <= border).double().mean())
        for values, border in zip(overlapping, borders, strict=True)
    ]
    some = (values[:: max(1, values.numel() // SAMPLE)].cpu().numpy() for values in overlapping)
    return [float(np.quantile(values, np.mean(ranks))) for values in some]


def two_classes(values: Tensor, bins: int = 256) -> tuple[float, float]:
    """Estimate the mean intensities of two classes from a histogram.

    Parameters
    ----------
    values : Tensor (n,)
        Intensities.
    bins : int
        Number of bins of the histogram.

    Returns
    -------
    low, high : float
        Means of a mixture of two Gaussians; 0 and 1 without values.

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
