"""The command `fcnreg train`: options → images, network and recipe → trained weights."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bids_fcnreg.config import DEFAULT_TEMPLATE, NETWORKS
from bids_fcnreg.config_file import convert
from bids_fcnreg.errors import InputError

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
    command.set_defaults(run=_train)


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


def _train(options: argparse.Namespace) -> None:
    options.device = convert("device", options.device, "--device")
    options.seed = convert("seed", options.seed, "--random-seed")
    if options.output.suffix != ".safetensors":
        raise InputError(f"The output {options.output} must end in .safetensors.")

    from bids_fcnreg.app.network_training import train

    train(options)
