"""The command `fcnreg train`: train a network on a cohort of images."""

from __future__ import annotations

import argparse
from dataclasses import replace

import torch
from rich.console import Console

from bids_fcnreg.bids.templates import resolve_template
from bids_fcnreg.bids.training_images import find_brains
from bids_fcnreg.config import NETWORKS
from bids_fcnreg.errors import InputError
from bids_fcnreg.fcn import distributed
from bids_fcnreg.fcn.device import resolve_device
from bids_fcnreg.fcn.nets import checkpoint
from bids_fcnreg.fcn.nets.checkpoint import RegistrationNetwork
from bids_fcnreg.fcn.train import COHORT_RECIPES, Training
from bids_fcnreg.training.job import Job, TrainingFiles
from bids_fcnreg.training.progress import TrainingDisplay
from bids_fcnreg.training.recipe import untrained_network, with_steps


def train(options: argparse.Namespace) -> None:
    """Train a network with the options of the command line.

    Raises
    ------
    InputError
        If an input is missing or invalid, or belongs to another training.
    KeyboardInterrupt
        If the user interrupts the training; the message says how to resume.
    """
    if options.nthreads is not None:
        torch.set_num_threads(options.nthreads)
    with distributed.process_group(resolve_device(options.device)) as process_device:
        network, start = _network(options)
        job = Job(
            files=TrainingFiles.of(options.output, options.work_dir),
            network=network,
            recipe=_recipe(options, network),
            start_from=start,
            template=resolve_template(options.template),
            brains=tuple(find_brains(options.data, print if distributed.rank() == 0 else str)),
            held_out=options.held_out,
            seed=options.seed,
            device=process_device,
        )
        quiet = distributed.rank() > 0
        console = Console(highlight=False, soft_wrap=True, markup=False, quiet=quiet)
        try:
            with TrainingDisplay(console) as display:
                job.run(display)
        except KeyboardInterrupt:
            raise KeyboardInterrupt(job.resume_hint()) from None


def _network(options: argparse.Namespace) -> tuple[RegistrationNetwork, str | None]:
    """Return the network before training, and the checksum of its initial weights."""
    if options.start_from is None:
        return untrained_network(options.network or NETWORKS[0], options.seed), None
    if not options.start_from.is_file():
        raise InputError(f"--start-from: {options.start_from} does not exist.")
    network, checksum = checkpoint.load(options.start_from)
    kind = checkpoint.architecture_of(network)
    if options.network not in (None, kind):
        raise InputError(
            f"{options.start_from} holds weights of the network {kind}. Omit --network "
            f"{options.network}, or start from another model."
        )
    return network.train(), checksum


def _recipe(options: argparse.Namespace, network: RegistrationNetwork) -> Training:
    """Return the recipe of the network, with the options of the command line."""
    recipe = COHORT_RECIPES[checkpoint.architecture_of(network)]
    if options.strength is not None:
        recipe = replace(recipe, objective=replace(recipe.objective, strength=options.strength))
    if options.learning_rate is not None:
        recipe = replace(recipe, learning_rate=options.learning_rate)
    recipe = replace(recipe, batch=options.batch or distributed.world_size())
    return with_steps(recipe, recipe.steps if options.steps is None else options.steps, "--steps")
