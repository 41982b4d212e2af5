"""Words of the command line that concern the group level."""

from __future__ import annotations

import argparse
import dataclasses
import re

from bids_fcnreg.config import GROUP_TASKS, Config
from bids_fcnreg.errors import InputError


def add_group(parser: argparse.ArgumentParser) -> None:
    """Add the options of the group level."""
    group = parser.add_argument_group("Options for the group level")
    group.add_argument(
        "--group-task",
        choices=GROUP_TASKS,
        help="report: tables, mean images and outliers of the study; template: an unbiased "
        "template of the study's own brains; train: a network trained on the study, with which "
        f"every scan is registered (default: {Config.group_task})",
    )
    group.add_argument(
        "--template-name",
        metavar="NAME",
        help="name of the study template to make, letters and digits; it is written to "
        "OUTPUT_DIR/tpl-NAME, which can be given as --template",
    )
    group.add_argument(
        "--template-symmetric",
        action="store_true",
        help="make the study template equal on the left and the right",
    )
    group.add_argument(
        "--template-anchored",
        action="store_true",
        help="keep the scale of the template given with --template, whose orientation is kept "
        "in any case; else the study template has the mean size of the study's brains",
    )
    group.add_argument(
        "--template-warm-start",
        action="store_true",
        help="the template given with --template is a study template of nearly the same scans: "
        "go on from it, without the linear start and the first, rough iterations",
    )
    group.add_argument(
        "--template-iterations",
        type=int,
        metavar="N",
        help="stop after so many iterations, even if the study template still changes "
        f"(default: {Config.template_iterations})",
    )
    group.add_argument(
        "--train-steps",
        nargs="+",
        metavar="N",
        help="updates in each stage of the training, coarse to fine (default: what suits some "
        "dozens of scans)",
    )
    group.add_argument(
        "--train-from-scratch",
        action="store_true",
        help="start from random weights, not from those of the package",
    )


def check_group(config: Config) -> None:
    """Refuse what the group level cannot do.

    Raises
    ------
    InputError
        With one sentence that says what to change.
    """
    for name in ("dry_run", "boilerplate_only", "reports_only"):
        if getattr(config, name):
            word = f"--{name.replace('_', '-')}"
            raise InputError(f"{word} is of the participant level only: leave it out.")
    if config.group_task == "template":
        _check_template(config)
    if config.group_task == "train" and config.mode == "optimize":
        raise InputError("--mode optimize uses no trained network: choose refine or predict.")
    if not all(word.isdecimal() for word in config.train_steps):
        raise InputError(
            f"--train-steps must be whole numbers, not {' '.join(config.train_steps)}."
        )


def check_participant(config: Config) -> None:
    """Refuse options of the group level.

    Raises
    ------
    InputError
        That names the first of them.
    """
    for field in dataclasses.fields(config):
        ours = field.name.startswith(("group_", "train_", "template_"))
        if ours and getattr(config, field.name) != field.default:
            word = f"--{field.name.replace('_', '-')}"
            raise InputError(f"{word} is of the group level only: leave it out.")


def _check_template(config: Config) -> None:
    """Refuse what a study template cannot be made of."""
    name = config.template_name
    if name is None:
        raise InputError("--group-task template needs a name for the template: --template-name.")
    if not re.fullmatch(r"[a-zA-Z0-9]+", name):
        raise InputError(f"--template-name must be letters and digits only, not {name!r}.")
    if len(config.templates) > 1:
        raise InputError("A study template starts from one template: give --template once.")
