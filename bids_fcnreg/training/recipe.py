"""Recipes: how a network is trained, from what is asked for and what is usual."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from bids_fcnreg.errors import InputError

if TYPE_CHECKING:
    from bids_fcnreg.fcn.nets.checkpoint import RegistrationNetwork
    from bids_fcnreg.fcn.train import Training


def untrained_network(kind: str, seed: int) -> RegistrationNetwork:
    """A network with random weights."""
    import torch

    from bids_fcnreg.fcn.nets import checkpoint

    torch.manual_seed(seed)
    network = checkpoint.NETWORKS[kind]()
    network.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]  # not in stubs
    return network


def with_steps(recipe: Training, steps: Sequence[int], flag: str) -> Training:
    """The recipe of a network with other numbers of updates in its stages.

    Parameters
    ----------
    recipe : Training
        What is usual for the network.
    steps : sequence of int
        Updates in each stage.
    flag : str
        Where the user gives them.

    Raises
    ------
    InputError
        If there are too few or too many of them, or all are zero.
    """
    stages = len(recipe.steps)
    if len(steps) != stages or not any(steps):
        example = " ".join(map(str, recipe.steps))
        raise InputError(
            f"The network is trained in {stages} {'stage' if stages == 1 else 'stages'}: give "
            f"{flag} so many numbers, not all of them zero, for instance {flag} {example}."
        )
    # A short training is looked at, too, some ten times in its longest stage.
    often = max(1, min(recipe.check_every, max(steps) // 10))
    return replace(recipe, steps=tuple(steps), check_every=often)
