"""The command `fcnreg train`: words → images, network and recipe → trained weights."""

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
that list NIfTI files, one a line. Whole heads are of no use: run the participant level first and
give its output folder.

Beside MODEL.safetensors are written MODEL.json (what it was made from, how, how good it is),
MODEL_curves.tsv and MODEL_curves.png. The same command again goes on where an earlier one was
stopped, and ends with the same weights. Give the weights to `fcnreg register --model`.

On several GPUs or machines, start it with torchrun:
    torchrun --nproc-per-node N -m bids_fcnreg.cli.fcnreg train ...
"""


def add_train(commands: Any) -> None:
    """Add the command to the parser of `fcnreg`."""
    command = commands.add_parser(
        "train",
        help="train a network on brain images",
        description="Trains a network on random pairs of brain images by their likeness alone:\n"
        "no labels, no deformations made by other programs.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    command.add_argument("data", nargs="+", metavar="DATA", help="where the images are; see below")
    command.add_argument(
        "-o",
        "--output",
        type=Path,
        metavar="MODEL.safetensors",
        required=True,
        help="file for the trained weights",
    )
    command.add_argument(
        "--network", choices=NETWORKS, help=f"which to train (default: {NETWORKS[0]})"
    )
    command.add_argument(
        "--template",
        default=DEFAULT_TEMPLATE,
        metavar="NAME|FILE",
        help="to which all images are aligned first; it is one of the cohort, too (default: "
        "%(default)s)",
    )
    command.add_argument(
        "--start-from", type=Path, metavar="MODEL", help="weights to begin with, not random ones"
    )
    command.add_argument(
        "--held-out",
        type=_number(int, 0),
        metavar="N",
        help="images, chosen at random, that judge the network and are not trained on; a stage "
        "ends early when they get no better (default: a tenth, at least 2; none of fewer than 6)",
    )
    command.add_argument(
        "--steps",
        type=_number(int, 0),
        nargs="+",
        metavar="N",
        help="updates in each stage of the network: the diffeomorphic one has a stage for each "
        "resolution, coarse to fine, that of 2017 has one (default: what suits some dozens of "
        "images)",
    )
    command.add_argument(
        "--batch",
        type=_number(int, 1),
        metavar="N",
        help="pairs in each update (default: as many as there are processes, else 1)",
    )
    command.add_argument(
        "--learning-rate",
        type=_number(float, 0, False),
        metavar="X",
        help="of Adam at the start of each stage; it falls to a tenth",
    )
    command.add_argument(
        "--strength",
        type=_number(float, 0),
        metavar="X",
        help="weight of smoothness against likeness",
    )
    command.add_argument(
        "--device",
        default="auto",
        metavar="{auto,cpu,cuda,cuda:N}",
        help="where to train (default: %(default)s, a GPU if there is)",
    )
    command.add_argument(
        "--random-seed",
        dest="seed",
        type=int,
        default=0,
        metavar="N",
        help="of weights, pairs and who is held out (default: %(default)s)",
    )
    command.add_argument(
        "--nthreads", type=_number(int, 1), metavar="N", help="processor cores to use"
    )
    command.add_argument(
        "-w",
        "--work-dir",
        type=Path,
        metavar="DIR",
        help="for aligned images and the checkpoint (default: .MODEL-work beside MODEL)",
    )
    command.set_defaults(run=train)


def _number(kind: type, least: float, included: bool = True) -> Callable[[str], Any]:
    """An argparse type for numbers from `least` on."""
    name = "a whole number" if kind is int else "a number"

    def read(word: str) -> Any:
        try:
            value = kind(word)
        except ValueError:
            value = None
        if value is None or not (least <= value if included else least < value < float("inf")):
            bound = f"at least {least}" if included else f"more than {least}"
            raise argparse.ArgumentTypeError(f"it must be {name} of {bound}, not {word!r}")
        return value

    return read


def train(options: argparse.Namespace) -> None:
    """Do what the words ask for.

    Raises
    ------
    InputError
        If something is missing, does not fit, or belongs to another training.
    KeyboardInterrupt
        If the user stops it; it says how to go on.
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

    place = resolve_device(device)
    if options.nthreads is not None:
        torch.set_num_threads(options.nthreads)
    with distributed.group(place) as own:
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
            device=own,
        )
        quiet = distributed.rank() > 0
        console = Console(highlight=False, soft_wrap=True, markup=False, quiet=quiet)
        try:
            with TrainingDisplay(console) as display:
                job.run(display)
        except KeyboardInterrupt:
            raise KeyboardInterrupt(job.resume_hint()) from None


def _network(options: argparse.Namespace) -> tuple[RegistrationNetwork, str | None]:
    """The network as it is before training, and the checksum of the weights it starts from."""
    from bids_fcnreg.fcn.nets import checkpoint

    if options.start_from is None:
        return untrained_network(options.network or NETWORKS[0], options.seed), None
    if not options.start_from.is_file():
        raise InputError(f"--start-from: {options.start_from} does not exist.")
    network, checksum = checkpoint.load(options.start_from)
    kind = checkpoint.kind_of(network)
    if options.network not in (None, kind):
        raise InputError(
            f"{options.start_from} holds the network {kind}: leave --network {options.network} "
            "away, or start from another model."
        )
    return network.train(), checksum


def _recipe(options: argparse.Namespace, network: RegistrationNetwork) -> Training:
    """How to train: what was asked for, else what is usual for the network."""
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
