"""Unsupervised training of a network by image similarity, on a cohort or a single pair."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from bids_fcnreg.atomic import is_intact_archive, replacing
from bids_fcnreg.errors import InputError
from bids_fcnreg.fcn import distributed
from bids_fcnreg.fcn.losses.objective import Objective
from bids_fcnreg.fcn.pair import Pair
from bids_fcnreg.fcn.spatial.midpoint import MidpointDeformation


class Network(Protocol):
    """Interface of the networks: a PyTorch module trained in successive stages."""

    @property
    def spacings(self) -> Sequence[float]:
        """Voxel size (mm) at which each stage is trained."""

    def cost(self, pair: Pair, objective: Objective, stage: int) -> Tensor:
        """Compute the cost of a pair in one stage."""

    def deform(self, pair: Pair) -> MidpointDeformation:
        """Predict the deformation of a pair, without gradients."""

    def initialize_stage(self, stage: int) -> None:
        """Initialize the weights of a stage before it is trained."""

    def is_untrained(self, stage: int) -> bool:
        """Return whether a stage still has its initial weights."""

    def parameters(self) -> Iterator[nn.Parameter]:
        """Return the trainable weights."""

    def state_dict(self) -> dict[str, Any]:
        """Return the weights by name."""

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> Any:
        """Replace the weights by those of a state dictionary."""


@dataclass(frozen=True)
class Training:
    """Settings of a training.

    Attributes
    ----------
    steps : sequence of int
        Number of updates in each of the network's stages.
    learning_rate : float
        Initial learning rate of Adam; falls to a tenth on a cosine schedule.
    largest_gradient : float
        Gradients are clipped to this norm.
    objective : Objective
        Cost at every level; the levels' costs are summed (deep self-supervision).
    check_every : int
        Updates between two evaluations of the held-out pairs.
    patience : int
        A stage ends after more than this number of evaluations without improvement.
    batch : int
        Pairs in each update, divided among the processes of a group (`distributed`).
    """

    steps: Sequence[int] = (100,)
    learning_rate: float = 5e-4
    largest_gradient: float = 1.0
    objective: Objective = field(default_factory=Objective)
    check_every: int = 100
    patience: int = 10
    batch: int = 1


#: How `optimize` trains each network on one pair.
RECIPES = {
    "diffeomorphic": Training(
        steps=(60, 30, 0),
        learning_rate=1e-3,
        objective=Objective(regularity="diffusion", strength=0.4),
    ),
    "2017": Training(
        steps=(150,), learning_rate=1e-3, objective=Objective(regularity="tv", strength=0.02)
    ),
}

#: How each network is trained on a cohort by default.
COHORT_RECIPES = {
    "diffeomorphic": Training(
        steps=(400, 800, 0),
        learning_rate=1e-3,
        objective=Objective(regularity="diffusion", strength=0.4),
    ),
    "2017": Training(steps=(5000,)),
}


@dataclass(frozen=True)
class Record:
    """One row of the learning curves.

    Attributes
    ----------
    stage, step : int
        Stage from 0, and number of updates in this stage. With held-out pairs, a stage's first
        record has step 0: the network before training.
    seconds : float
        Wall time so far, over all runs.
    cost : float
        Mean cost of the pairs since the last record; NaN at step 0.
    held_out : float
        Mean cost of the held-out pairs; NaN if there are none.
    """

    stage: int
    step: int
    seconds: float
    cost: float
    held_out: float


class Trainer:
    """A training that can be interrupted and resumed.

    In a group of processes (`distributed`) each takes its share of the pairs of an update, and all
    have the same weights at any time. The number of processes does not change the training of a
    given batch size, up to rounding.

    Parameters
    ----------
    network : Network
        Trained in place, from its current weights.
    settings : Training
    draw : callable
        Returns a pair for a stage; its randomness comes from the given generator only. Returning
        the same pair every time optimizes that pair (Li & Fan 2017).
    held_out : callable, optional
        Returns the held-out pairs of a stage. With them the best weights of each stage are kept.
    seed : int
        Random seed of the pairs.
    reinitialize : bool
        Whether to initialize each stage (`Network.initialize_stage`) instead of starting from its
        current weights. An untrained stage is always initialized.
    """

    def __init__(
        self,
        network: Network,
        settings: Training,
        draw: Callable[[int, torch.Generator], Pair],
        held_out: Callable[[int], Sequence[Pair]] | None = None,
        seed: int = 0,
        reinitialize: bool = True,
    ) -> None:
        self.network, self.settings = network, settings
        self.reinitialized = [
            reinitialize or network.is_untrained(stage) for stage in range(len(settings.steps))
        ]
        self.draw, self.held_out = draw, held_out
        self.seed = seed
        for value in network.state_dict().values():
            distributed.broadcast_tensor(value)
        self.stage = self.step = self.stale = 0
        self.seconds, self.best = 0.0, float("inf")
        self.best_weights: dict[str, Tensor] | None = None
        self.records: list[Record] = []
        self._start_stage()

    def _start_stage(self) -> None:
        self.step = self.stale = 0
        self.best, self.best_weights = float("inf"), None
        if not self.finished and self.reinitialized[self.stage]:
            self.network.initialize_stage(self.stage)
        self.optimiser = torch.optim.Adam(
            self.network.parameters(), lr=self.settings.learning_rate
        )
        if not self.finished:
            self.schedule = torch.optim.lr_scheduler.CosineAnnealingLR(
                self.optimiser,
                self.settings.steps[self.stage],
                eta_min=0.1 * self.settings.learning_rate,
            )

    @property
    def finished(self) -> bool:
        """Whether all stages are done."""
        return self.stage >= len(self.settings.steps)

    def run(
        self, report: Callable[[Record], None] | None = None, checkpoint: Path | None = None
    ) -> None:
        """Train until all stages are done.

        Parameters
        ----------
        report : callable, optional
            Called with each new record.
        checkpoint : path, optional
            File to save the state to with each record; training resumes from an existing file.
        """
        if checkpoint is not None and checkpoint.exists():
            self.load(checkpoint)
        progress = [self.stage, self.step]
        if [distributed.broadcast(number) for number in progress] != progress:
            raise InputError(
                f"Not all processes of this training can read the checkpoint {checkpoint}. "
                "Choose a work directory that all machines share."
            )
        distributed.barrier()  # all have read it before rank 0 overwrites it
        while not self.finished:
            record = self._advance()
            if checkpoint is not None and distributed.rank() == 0:
                self.save(checkpoint)
            if report is not None:
                report(record)

    def _advance(self) -> Record:
        """Train up to the next record, and start the next stage if this one ends."""
        started, costs = time.perf_counter(), []
        validated = self.held_out is None or any(past.stage == self.stage for past in self.records)
        left = self.settings.steps[self.stage] - self.step
        for _ in range(min(self.settings.check_every, left) if validated else 0):
            costs.append(self._update())
        held_out = self._validate()
        self.seconds += time.perf_counter() - started
        cost = sum(costs) / len(costs) if costs else math.nan
        record = Record(self.stage, self.step, self.seconds, cost, held_out)
        self.records.append(record)
        if self.step >= self.settings.steps[self.stage] or self.stale > self.settings.patience:
            if self.best_weights is not None:
                self.network.load_state_dict(self.best_weights)
            self.stage += 1
            self._start_stage()
        return record

    def _update(self) -> float:
        """Take one step on a batch of pairs; return their mean cost."""
        share = range(distributed.rank(), self.settings.batch, distributed.world_size())
        self.optimiser.zero_grad(set_to_none=True)
        costs = 0.0
        for number in share:
            pair = self._draw_pair(number)
            cost = self.network.cost(pair, self.settings.objective, self.stage)
            (cost / self.settings.batch).backward()
            costs += float(cost.detach())
        self._sum_gradients()
        norm = nn.utils.clip_grad_norm_(self.network.parameters(), self.settings.largest_gradient)
        if not torch.isfinite(norm):  # such a pair must not change the weights
            self.optimiser.zero_grad(set_to_none=True)
        self.optimiser.step()
        self.schedule.step()
        self.step += 1
        return float(distributed.all_reduce(self._tensor([costs]))) / self.settings.batch

    def _draw_pair(self, number: int) -> Pair:
        """Draw a pair of this update; it depends on its number, not on the process."""
        seeds = np.random.SeedSequence((self.seed, self.stage, self.step, number))
        generator = torch.Generator().manual_seed(int(seeds.generate_state(1)[0]))
        return self.draw(self.stage, generator)

    def _sum_gradients(self) -> None:
        """Sum the gradients over all processes."""
        if distributed.world_size() == 1:
            return
        # Each stage trains one level of the network: the others have no gradient.
        own = [p.grad for p in self.network.parameters() if p.grad is not None]
        total = distributed.all_reduce(torch.cat([gradient.flatten() for gradient in own]))
        for gradient, part in zip(own, total.split([g.numel() for g in own]), strict=True):
            gradient.copy_(part.view_as(gradient))

    def _tensor(self, values: Sequence[float]) -> Tensor:
        """Return values as a tensor on the network's device, for exchange between processes."""
        device = next(self.network.parameters()).device
        return torch.tensor(values, dtype=torch.float64, device=device)

    def _validate(self) -> float:
        """Compute the mean cost of the held-out pairs; keep the best weights."""
        if self.held_out is None:
            return math.nan
        pairs = list(self.held_out(self.stage))
        with torch.no_grad():
            costs = [
                float(self.network.cost(pair, self.settings.objective, self.stage))
                for pair in pairs[distributed.rank() :: distributed.world_size()]
            ]
        held_out = float(distributed.all_reduce(self._tensor([sum(costs)]))) / len(pairs)
        self.stale += 1
        if held_out < self.best:
            self.best, self.stale = held_out, 0
            weights = self.network.state_dict()
            self.best_weights = {name: value.clone() for name, value in weights.items()}
        return held_out

    def save(self, path: Path) -> None:
        """Write the whole state to a file."""
        state = {
            "network": self.network.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "schedule": None if self.finished else self.schedule.state_dict(),
            "place": (self.stage, self.step, self.stale, self.seconds, self.best),
            "best_weights": self.best_weights,
            "records": [asdict(record) for record in self.records],
        }
        with replacing(path) as temporary:
            torch.save(state, temporary)

    def load(self, path: Path) -> None:
        """Resume from a saved state.

        Raises
        ------
        InputError
            If the file cannot be read.
        """
        state = read_checkpoint(path)
        self.stage = state["place"][0]
        self._start_stage()
        self.network.load_state_dict(state["network"])
        self.optimiser.load_state_dict(state["optimiser"])
        if state["schedule"] is not None:
            self.schedule.load_state_dict(state["schedule"])
        self.stage, self.step, self.stale, self.seconds, self.best = state["place"]
        self.best_weights = state["best_weights"]
        self.records = [Record(**record) for record in state["records"]]


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Read the state of a training written by `Trainer.save`.

    Raises
    ------
    InputError
        If the file cannot be read.
    """
    if not is_intact_archive(path):
        raise InputError(
            f"The checkpoint {path} is damaged. Delete its directory and train again."
        )
    return torch.load(path, map_location="cpu", weights_only=True)


def optimize(network: Network, pair: Pair, settings: Training) -> MidpointDeformation:
    """Train a network on one pair alone and return its deformation.

    Parameters
    ----------
    network : Network
        On the device of the pair.
    pair : Pair
        The images after the linear stage.
    settings : Training

    Returns
    -------
    MidpointDeformation
        On the grid of the network's finest level.
    """
    levels = [pair.coarser(spacing) for spacing in network.spacings]
    Trainer(network, settings, lambda stage, _: levels[stage]).run()
    return network.deform(pair)
