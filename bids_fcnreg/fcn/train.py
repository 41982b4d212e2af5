"""Training a network with nothing but image similarity: on a cohort, or on a single pair."""

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
from torch.nn.parallel import DistributedDataParallel

from bids_fcnreg.atomic import is_intact_archive, replacing
from bids_fcnreg.errors import InputError
from bids_fcnreg.fcn import distributed
from bids_fcnreg.fcn.losses.objective import Objective
from bids_fcnreg.fcn.pair import Pair
from bids_fcnreg.fcn.spatial.midpoint import Halves


class Network(Protocol):
    """What both networks offer: stages to be trained in turn, and a deformation in the end.

    Beside that, they are modules of PyTorch.
    """

    @property
    def spacings(self) -> Sequence[float]: ...

    def cost(self, pair: Pair, objective: Objective, stage: int) -> Tensor: ...

    def deform(self, pair: Pair) -> Halves: ...

    def begin(self, stage: int) -> None: ...

    def follows(self, stage: int) -> bool: ...

    def parameters(self) -> Iterator[nn.Parameter]: ...

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> Any: ...


@dataclass(frozen=True)
class Training:
    """How a network is trained.

    Parameters
    ----------
    steps : sequence of int
        Number of updates in each of the network's stages.
    learning_rate : float
        Of Adam at first; it falls to a tenth along a cosine.
    largest_gradient : float
        Gradients of a larger norm are shortened to it.
    objective : Objective
        Cost at every level; the levels' costs are summed (deep self-supervision).
    check_every : int
        Updates between two looks at the held-out pairs.
    patience : int
        A stage ends when more looks in a row than these brought nothing better.
    batch : int
        Pairs in each update, of which each process of a group (`parallel`) takes its share.
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

#: How each network is trained on a cohort, unless something else is asked for.
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
    """One line of the curves of a training.

    Parameters
    ----------
    stage, step : int
        Where the training is: stage from 0, updates done in this stage. Where there are held-out
        pairs, a stage's first record has step 0: how good the network was before.
    seconds : float
        Wall time so far, over all runs.
    cost : float
        Mean cost of the pairs since the last record; not a number at step 0.
    held_out : float
        Mean cost of the held-out pairs; not a number if there are none.
    """

    stage: int
    step: int
    seconds: float
    cost: float
    held_out: float


class _Cost(nn.Module):
    """A network whose forward pass is the cost of a pair: what runs on several processes."""

    def __init__(self, network: Network, objective: Objective) -> None:
        super().__init__()
        self.network = network
        self.objective = objective

    def forward(self, pair: Pair, stage: int) -> Tensor:
        """Cost () of a pair in a stage."""
        return self.network.cost(pair, self.objective, stage)


class Trainer:
    """A training that can be saved, killed, and gone on with.

    In a group of processes (`parallel`) each takes its share of the pairs of an update, and all
    have the same weights all the time; the same batch gives the same training, whatever their
    number, up to rounding.

    Parameters
    ----------
    network : Network
        Trained in place, from the weights it has.
    settings : Training
        How.
    draw : callable
        Gives a pair for a stage; all its randomness comes from the generator it is given. The
        same pair again and again optimises that pair (Li & Fan 2017).
    held_out : callable, optional
        Gives the pairs for a stage that judge the network and are never trained on. With them
        the best weights of each stage are kept.
    seed : int
        Of the pairs' randomness.
    fresh : bool
        Whether each stage is begun anew (`Network.begin`), or with the weights that are there. A
        stage that was never trained is begun anew in any case.
    """

    def __init__(
        self,
        network: Network,
        settings: Training,
        draw: Callable[[int, torch.Generator], Pair],
        held_out: Callable[[int], Sequence[Pair]] | None = None,
        seed: int = 0,
        fresh: bool = True,
    ) -> None:
        self.network, self.settings = network, settings
        self.anew = [fresh or network.follows(stage) for stage in range(len(settings.steps))]
        self.draw, self.held_out = draw, held_out
        self.seed = seed
        self.cost: _Cost | DistributedDataParallel = _Cost(network, settings.objective)
        if distributed.size() > 1:
            # Each stage trains one level of the network: the others get no gradient.
            self.cost = DistributedDataParallel(self.cost, find_unused_parameters=True)
        self.stage = self.step = self.stale = 0
        self.seconds, self.best = 0.0, float("inf")
        self.best_weights: dict[str, Tensor] | None = None
        self.records: list[Record] = []
        self._begin_stage()

    def _begin_stage(self) -> None:
        self.step = self.stale = 0
        self.best, self.best_weights = float("inf"), None
        if not self.finished and self.anew[self.stage]:
            self.network.begin(self.stage)
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
        self,
        report: Callable[[Record], None] | None = None,
        checkpoint: Path | None = None,
    ) -> None:
        """Train until all stages are done.

        Parameters
        ----------
        report : callable, optional
            Is told each new record.
        checkpoint : path, optional
            Where to save the state with each record; an existing file there is gone on from.
        """
        if checkpoint is not None and checkpoint.exists():
            self.load(checkpoint)
        place = [self.stage, self.step]
        if [distributed.agreed(number) for number in place] != place:
            raise InputError(
                f"The processes of this training do not all see the checkpoint {checkpoint}: put "
                "the work folder where all machines can read it."
            )
        distributed.wait()  # until all have read it, for the first writes it anew
        while not self.finished:
            record = self._advance()
            if checkpoint is not None and distributed.rank() == 0:
                self.save(checkpoint)
            if report is not None:
                report(record)

    def _advance(self) -> Record:
        """Train up to the next record, and on to the next stage if it ends this one."""
        started, costs = time.perf_counter(), []
        begun = self.held_out is None or any(past.stage == self.stage for past in self.records)
        left = self.settings.steps[self.stage] - self.step
        for _ in range(min(self.settings.check_every, left) if begun else 0):
            costs.append(self._update())
        held_out = self._look()
        self.seconds += time.perf_counter() - started
        cost = sum(costs) / len(costs) if costs else math.nan
        record = Record(self.stage, self.step, self.seconds, cost, held_out)
        self.records.append(record)
        if self.step >= self.settings.steps[self.stage] or self.stale > self.settings.patience:
            if self.best_weights is not None:
                self.network.load_state_dict(self.best_weights)
            self.stage += 1
            self._begin_stage()
        return record

    def _update(self) -> float:
        """One step on a batch of pairs; their mean cost."""
        share = range(distributed.rank(), self.settings.batch, distributed.size())
        self.optimiser.zero_grad(set_to_none=True)
        costs = 0.0
        for number in share:
            last = number + distributed.size() >= self.settings.batch
            cost = self._cost_of(self._draw(number), exchange=last)
            (cost / len(share)).backward()
            costs += float(cost.detach())
        norm = nn.utils.clip_grad_norm_(self.network.parameters(), self.settings.largest_gradient)
        # One pair that gives no usable gradient shall not spoil the weights.
        if torch.isfinite(norm):
            self.optimiser.step()
        self.schedule.step()
        self.step += 1
        return float(distributed.total(self._tensor([costs]))) / self.settings.batch

    def _draw(self, number: int) -> Pair:
        """A pair of this update; which one depends on its number alone, not on who draws it."""
        seeds = np.random.SeedSequence((self.seed, self.stage, self.step, number))
        generator = torch.Generator().manual_seed(int(seeds.generate_state(1)[0]))
        return self.draw(self.stage, generator)

    def _cost_of(self, pair: Pair, exchange: bool) -> Tensor:
        """Cost of a pair; going back, gradients are averaged over processes if `exchange`."""
        if exchange or not isinstance(self.cost, DistributedDataParallel):
            return self.cost(pair, self.stage)
        with self.cost.no_sync():
            return self.cost(pair, self.stage)

    def _tensor(self, values: Sequence[float]) -> Tensor:
        """Values where the network is, so that processes can exchange them."""
        device = next(self.network.parameters()).device
        return torch.tensor(values, dtype=torch.float64, device=device)

    def _look(self) -> float:
        """Mean cost of the held-out pairs; the network is remembered if it is the best so far."""
        if self.held_out is None:
            return math.nan
        pairs = list(self.held_out(self.stage))
        with torch.no_grad():
            costs = [
                float(self.network.cost(pair, self.settings.objective, self.stage))
                for pair in pairs[distributed.rank() :: distributed.size()]
            ]
        held_out = float(distributed.total(self._tensor([sum(costs)]))) / len(pairs)
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
        """Go on from a state that was saved.

        Raises
        ------
        InputError
            If the file cannot be read.
        """
        state = read_checkpoint(path)
        self.stage = state["place"][0]
        self._begin_stage()
        self.network.load_state_dict(state["network"])
        self.optimiser.load_state_dict(state["optimiser"])
        if state["schedule"] is not None:
            self.schedule.load_state_dict(state["schedule"])
        self.stage, self.step, self.stale, self.seconds, self.best = state["place"]
        self.best_weights = state["best_weights"]
        self.records = [Record(**record) for record in state["records"]]


def read_checkpoint(path: Path) -> dict[str, Any]:
    """State of a training as `Trainer.save` wrote it.

    Raises
    ------
    InputError
        If the file cannot be read.
    """
    if not is_intact_archive(path):
        raise InputError(f"The checkpoint {path} is damaged: delete its folder to train anew.")
    return torch.load(path, map_location="cpu", weights_only=True)


def optimize(network: Network, pair: Pair, settings: Training) -> Halves:
    """Train a network on one pair alone, and return the deformation it ends with.

    Parameters
    ----------
    network : Network
        On the device of the pair.
    pair : Pair
        The images after the linear stage.
    settings : Training
        How.

    Returns
    -------
    Halves
        On the grid of the network's finest level.
    """
    levels = [pair.coarser(spacing) for spacing in network.spacings]
    Trainer(network, settings, lambda stage, _: levels[stage]).run()
    return network.deform(pair)
