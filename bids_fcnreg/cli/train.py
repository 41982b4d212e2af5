"""The command `fcnreg train`: options → images, network and recipe → trained weights."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bids_fcnreg.config import DEFAULT_TEMPLATE, convert
from bids_fcnreg.errors import InputError
from bids_fcnreg.training.recipe import untrained_network, with_steps

if TYPE_CHECKING:
    from bids_fcnreg.fcn.nets.checkpoint import RegistrationNetwork
    from bids_fcnreg.fcn.train import Training

NETWORKS = ("diffeomorphic", "2017")

_EPILOG = """\
DATA is any mix of BIDS datasets, derivatives of the participant level, NIfTI files, and text files
that list NIfTI files, one per line. Whole heads are refused: run the participant level first and
use its output directory.

Besides MODEL.safetensors, the command writes a model card (MODEL.json) and learning curves
(MODEL_curves.tsv and MODEL_curves.png). Run the same command again to resume an interrupted
training; the weights are the same as without the interruption. Use the weights with
`fcnreg register --model`.

On several GPUs or machines, start the command with torchrun:
    torchrun --nproc-per-node N -m bids_fcnreg.cli.fcnreg train ...
"""


def add_train(commands: Any) -> None:
    """Add the command to the parser of `fcnreg`."""
    command = commands.add_parser(
        "train",
        help="train a network on brain images",
        description="Trains a network on random pairs of brain images, by their similarity\n"
        "alone: without labels and without deformations of other software.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    command.add_argument("data", nargs="+", metavar="DATA", help="brain images; see below")
    command.add_argument(
        "-o",
        "--output",
        type=Path,
        metavar="MODEL.safetensors",
        required=True,
        help="file for the trained weights",
    )
    command.add_argument(
        "--network", choices=NETWORKS, help=f"network to train (default: {NETWORKS[0]})"
    )
    command.add_argument(
        "--template",
        default=DEFAULT_TEMPLATE,
        metavar="NAME|FILE",
        help="template to which all images are aligned first, itself one of the training images "
        "(default: %(default)s)",
    )
    command.add_argument(
        "--start-from", type=Path, metavar="MODEL", help="initial weights (default: random)"
    )
    command.add_argument(
        "--held-out",
        type=_number(int, 0),
        metavar="N",
        help="number of randomly chosen images held out for validation; a stage stops early when "
        "their cost no longer improves (default: a tenth, at least 2; none of fewer than 6)",
    )
    command.add_argument(
        "--steps",
        type=_number(int, 0),
        nargs="+",
        metavar="N",
        help="updates in each stage of the training: the diffeomorphic network has a stage per "
        "resolution, coarse to fine, the network of 2017 has one (default: suited to some dozens "
        "of images)",
    )
    command.add_argument(
        "--batch",
        type=_number(int, 1),
        metavar="N",
        help="pairs in each update (default: the number of processes)",
    )
    command.add_argument(
        "--learning-rate",
        type=_number(float, 0, False),
        metavar="X",
        help="initial learning rate of Adam in each stage; it falls to a tenth",
    )
    command.add_argument(
        "--strength",
        type=_number(float, 0),
        metavar="X",
        help="weight of the regularization relative to the similarity",
    )
    command.add_argument(
        "--device",
        default="auto",
        metavar="{auto,cpu,cuda,cuda:N}",
        help="device to train on (default: %(default)s, a GPU if there is one)",
    )
    command.add_argument(
        "--random-seed",
        dest="seed",
        type=int,
        default=0,
        metavar="N",
        help="seed of initial weights, pairs and held-out images (default: %(default)s)",
    )
    command.add_argument(
        "--nthreads", type=_number(int, 1), metavar="N", help="number of CPU threads"
    )
    command.add_argument(
        "-w",
        "--work-dir",
        type=Path,
        metavar="DIR",
        help="directory for aligned images and the checkpoint (default: .MODEL-work beside MODEL)",
    )
    command.set_defaults(run=train)


def _number(kind: type, least: float, included: bool = True) -> Callable[[str], Any]:
    """Return an argparse type for numbers from `least` on."""
    name = "a whole number" if kind is int else "a number"

    def read(text: str) -> Any:
        try:
            value = kind(text)
        except ValueError:
            value = None
        if value is None or not (least <= value if included else least < value < float("inf")):
            bound = f"at least {least}" if included else f"more than {least}"
            raise argparse.ArgumentTypeError(f"it must be {name} of {bound}, not {text!r}")
        return value

    return read


def train(options: argparse.Namespace) -> None:
    """Train a network with the options of the command line.

    Raises
    ------
    InputError
        If an input is missing or invalid, or belongs to another training.
    KeyboardInterrupt
        If the user interrupts the training; the message says how to resume.
    """
    device = convert("device", options.device, "--device")
    options.seed = convert("seed", options.seed, "--random-seed")
    if options.output.suffix != ".safetensors":
        raise InputError(f"The output {options.output} must end in .safetensors.")

    import torch
    from rich.console import Console

    from bids_fcnreg.bids.templates import resolve_template
    from bids_fcnreg.bids.training_images import find_brains
    from bids_fcnreg.fcn import distributed
    from bids_fcnreg.fcn.register import resolve_device
    from bids_fcnreg.training.job import Job, TrainingFiles
    from bids_fcnreg.training.progress import TrainingDisplay

    if options.nthreads is not None:
        torch.set_num_threads(options.nthreads)
    with distributed.group(resolve_device(device)) as process_device:
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
    from bids_fcnreg.fcn.nets import checkpoint

    if options.start_from is None:
        return untrained_network(options.network or NETWORKS[0], options.seed), None
    if not options.start_from.is_file():
        raise InputError(f"--start-from: {options.start_from} does not exist.")
    network, checksum = checkpoint.load(options.start_from)
    kind = checkpoint.kind_of(network)
    if options.network not in (None, kind):
        raise InputError(
            f"{options.start_from} holds weights of the network {kind}. Omit --network "
            f"{options.network}, or start from another model."
        )
    return network.train(), checksum


def _recipe(options: argparse.Namespace, network: RegistrationNetwork) -> Training:
    """Return the recipe of the network, with the options of the command line."""
    from bids_fcnreg.fcn import distributed
    from bids_fcnreg.fcn.nets.checkpoint import kind_of
    from bids_fcnreg.fcn.train import COHORT_RECIPES

    recipe = COHORT_RECIPES[kind_of(network)]
    if options.strength is not None:
        recipe = replace(recipe, objective=replace(recipe.objective, strength=options.strength))
    if options.learning_rate is not None:
        recipe = replace(recipe, learning_rate=options.learning_rate)
    recipe = replace(recipe, batch=options.batch or distributed.size())
    return with_steps(recipe, recipe.steps if options.steps is None else options.steps, "--steps")
