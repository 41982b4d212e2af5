"""How good a registration is: numbers from its images and its deformation."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import avg_pool3d

from bids_fcnreg.fcn.pair import Pair
from bids_fcnreg.fcn.reproducible import mean, variance
from bids_fcnreg.fcn.similarity import FixedWindows, local_ncc
from bids_fcnreg.fcn.transform import Displacement
from bids_fcnreg.fcn.warp import compose, jacobian_determinant, warp

#: Edge in mm of the cubes whose similarity is compared: as large as a lobe is wide.
REGION_MM = 40.0


@dataclass
class Quality:
    """Numbers that tell how a registration went.

    Parameters
    ----------
    mode, device : str
        What ran, and on what.
    weights : str or None
        SHA-256 of the network's weights, if trained ones were used.
    similarity_initial, similarity_affine, similarity : float
        Local NCC (signed square, window of 5 voxels) in and just around the fixed brain: as the
        headers place the images, after the linear stage, after all.
    similarity_lowest : float
        The same at half the resolution, in the cube of `REGION_MM` where it is lowest.
    brain_overlap : float
        Dice of the warped moving brain and the fixed brain.
    folds_percent : float
        Part of the voxels of the fixed brain where the Jacobian determinant is not positive.
    sd_log_jacobian : float
        Standard deviation in the fixed brain of the logarithm of the determinant.
    inverse_consistency_mm, inverse_consistency_p95_mm : float
        Mean and 95th percentile in the fixed brain of the distance between a point and where it
        comes back to through the transform and its inverse.
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
    brain_overlap: float = float("nan")
    folds_percent: float = float("nan")
    sd_log_jacobian: float = float("nan")
    inverse_consistency_mm: float = float("nan")
    inverse_consistency_p95_mm: float = float("nan")
    seconds: dict[str, float] = field(default_factory=dict)

    def as_dict(self) -> dict[str, object]:
        """The numbers by name, as they are written to JSON."""
        return asdict(self)

    @contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        """Add the wall time of a block to that of a stage."""
        start = time.perf_counter()
        yield
        elapsed = time.perf_counter() - start
        self.seconds[stage] = round(self.seconds.get(stage, 0.0) + elapsed, 3)


def similarity(pair: Pair) -> float:
    """Local NCC of a pair as it lies."""
    return float(local_ncc(pair.fixed, pair.moving, 2, pair.weight))


def assess(quality: Quality, pair: Pair, forward: Displacement, inverse: Displacement) -> None:
    """Fill in the numbers of a deformation.

    Parameters
    ----------
    quality : Quality
        Where to.
    pair : Pair
        The images after the linear stage.
    forward, inverse : Displacement
        On the pair's grid.
    """
    quality.similarity_affine = similarity(pair)
    warped = warp(pair.moving, forward.field)
    quality.similarity = float(local_ncc(pair.fixed, warped, 2, pair.weight))
    quality.similarity_lowest = lowest_similarity(pair, warped)
    brain = pair.fixed[0, 0] > 0
    brought = warp((pair.moving > 0).float(), forward.field)[0, 0] > 0.5
    both = int(brain.sum()) + int(brought.sum())
    quality.brain_overlap = 2 * int((brain & brought).sum()) / both if both else 0.0
    determinant = jacobian_determinant(forward.field)[0, 0][brain]
    quality.folds_percent = 100 * float((determinant <= 0).double().mean())
    quality.sd_log_jacobian = float(variance(determinant.clamp(min=1e-3).log()).sqrt())
    there_and_back = compose(forward.field, inverse.field)[0][:, brain]
    spacing = torch.as_tensor(forward.grid.spacing).to(there_and_back)
    distance = (there_and_back * spacing[:, None]).square().sum(dim=0).sqrt().cpu()
    quality.inverse_consistency_mm = float(mean(distance))
    quality.inverse_consistency_p95_mm = float(np.percentile(distance.numpy(), 95))


def lowest_similarity(pair: Pair, warped: Tensor) -> float:
    """Local NCC in the cube of the fixed brain where it is lowest, at half the resolution.

    A registration that is good but for one lobe is told by it.

    Parameters
    ----------
    pair : Pair
        Its fixed image and weight are used.
    warped : Tensor (1, 1, i, j, k)
        The moving image after the registration.

    Returns
    -------
    float
        Of the cubes that brain fills by half or, where there is none, as far as in any.
    """
    fixed, warped, weight = (avg_pool3d(data, 2) for data in (pair.fixed, warped, pair.weight))
    alike = FixedWindows(fixed, radius=2).compare(warped).value
    edge = min(round(REGION_MM / (2 * pair.grid.spacing.max())), *weight.shape[2:])
    step = max(edge // 4, 1)
    filled = avg_pool3d(weight, edge, step)
    values = avg_pool3d(weight * alike, edge, step) / filled.clamp(min=1e-6)
    enough = min(0.5, float(filled.max()))
    return float(values[filled >= enough].min())
