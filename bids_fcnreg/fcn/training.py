"""Training a network with nothing but image similarity: on a cohort, or on a single pair."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn import functional as nnf

from bids_fcnreg.fcn.network import FCN2017, pad_to_multiple
from bids_fcnreg.fcn.objective import Objective
from bids_fcnreg.fcn.pair import Pair
from bids_fcnreg.fcn.transform import Displacement, change_grid


@dataclass(frozen=True)
class Training:
    """How a network is trained.

    Parameters
    ----------
    steps : int
        Number of updates.
    learning_rate : float
        Of Adam.
    largest_gradient : float
        Gradients of a larger norm are shortened to it.
    objective : Objective
        Cost at every level; the levels' costs are summed (deep self-supervision).
    """

    steps: int = 100
    learning_rate: float = 5e-4
    largest_gradient: float = 1.0
    objective: Objective = field(default_factory=Objective)


def summed_cost(network: FCN2017, pair: Pair, objective: Objective) -> Tensor:
    """Cost of a network's displacements of one pair, summed over its resolutions.

    Parameters
    ----------
    network : FCN2017
        Called once.
    pair : Pair
        At the resolution of the network's finest level.
    objective : Objective
        Evaluated at every level, on images averaged to its resolution.

    Returns
    -------
    Tensor ()
    """
    weight = pair.weight if pair.exclude is None else pair.weight * (1 - pair.exclude)
    displacements = network(pair.fixed, pair.moving)
    cost = objective(pair.fixed, pair.moving, displacements[0], weight)
    multiple = 2 ** (network.levels - 1)
    fixed, moving, weight = (
        pad_to_multiple(data, multiple) for data in (pair.fixed, pair.moving, weight)
    )
    for displacement in displacements[1:]:
        fixed, moving, weight = (nnf.avg_pool3d(data, 2) for data in (fixed, moving, weight))
        cost = cost + objective(fixed, moving, displacement, weight)
    return cost


def train(
    network: FCN2017,
    pairs: Iterable[Pair],
    settings: Training,
    report: Callable[[int, float], None] | None = None,
) -> None:
    """Train a network in place, one pair an update.

    Parameters
    ----------
    network : FCN2017
        Trained from the weights it has.
    pairs : iterable of Pair
        As many as there are steps to take, or more; the same one again and again optimises
        that pair (Li & Fan 2017, pairwise registration).
    settings : Training
        How.
    report : callable, optional
        Is told the number and the cost of each step.
    """
    optimiser = torch.optim.Adam(network.parameters(), lr=settings.learning_rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(
        optimiser, settings.steps, eta_min=0.1 * settings.learning_rate
    )
    for step, pair in zip(range(settings.steps), pairs, strict=False):
        optimiser.zero_grad(set_to_none=True)
        cost = summed_cost(network, pair, settings.objective)
        cost.backward()
        norm = torch.nn.utils.clip_grad_norm_(network.parameters(), settings.largest_gradient)
        if torch.isfinite(norm):
            optimiser.step()
        schedule.step()
        if report is not None:
            report(step, float(cost.detach()))


def predict(network: FCN2017, pair: Pair) -> Displacement:
    """Displacement of a pair by one pass through the network, on the pair's grid."""
    with torch.no_grad():
        displacement = network(pair.fixed, pair.moving)[0]
    return Displacement(pair.grid, displacement)


def optimize(
    pair: Pair, spacing: float, settings: Training | None = None, seed: int = 0
) -> Displacement:
    """Train a new network on one pair alone, and return the displacement it ends with.

    Parameters
    ----------
    pair : Pair
        The images after the linear stage.
    spacing : float
        Voxel size in mm at which the network sees the images.
    settings : Training, optional
        How.
    seed : int
        Of the network's first weights.

    Returns
    -------
    Displacement
        On the grid of `pair`.
    """
    settings = settings or Training()
    torch.manual_seed(seed)
    network = FCN2017().to(pair.fixed.device)
    coarse = pair.coarser(spacing)
    train(network, (coarse for _ in range(settings.steps)), settings)
    return change_grid(predict(network, coarse), pair.grid)
