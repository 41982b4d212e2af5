"""Recipes of trainings, and networks before training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch

from bids_fcnreg.errors import InputError
from bids_fcnreg.fcn.nets import checkpoint
from bids_fcnreg.fcn.nets.checkpoint import RegistrationNetwork
from bids_fcnreg.fcn.train import Training


def untrained_network(kind: str, seed: int) -> RegistrationNetwork:
    """Return a network with random weights."""
    torch.manual_seed(seed)
    network = checkpoint.NETWORKS[kind]()
    network.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]  # not in stubs
    return network


def with_steps(recipe: Training, steps: Sequence[int], flag: str) -> Training:
    """Replace the numbers of updates in a recipe.

    Parameters
    ----------
    recipe : Training
        Default recipe of the network.
    steps : sequence of int
        Updates in each stage.
    flag : str
        Option with which the user sets them.

    Raises
    ------
    InputError
        If there are too few or too many of them, or all are zero.
    """
    stages = len(recipe.steps)
    if len(steps) != stages or not any(steps):
        example = " ".join(map(str, recipe.steps))
        raise InputError(
            f"{flag}: this network is trained in {stages} "
            f"{'stage' if stages == 1 else 'stages'}. Provide one number per stage, not all zero, "
            f"for example {flag} {example}."
        )
    # A short training is validated about ten times in its longest stage.
    check_every = max(1, min(recipe.check_every, max(steps) // 10))
    return replace(recipe, steps=tuple(steps), check_every=check_every)
