"""Check the options of the participant and of the group level."""

from __future__ import annotations

import dataclasses
import re

from bids_fcnreg.config import OTHER_CONTRASTS, UNBIASED_OPTION, Config
from bids_fcnreg.errors import InputError
from bids_fcnreg.fcn.modes import MODES


def check_group(config: Config) -> None:
    """Refuse options that do not fit the group level.

    Raises
    ------
    InputError
        If there is one.
    """
    for name in ("dry_run", "boilerplate_only", "reports_only"):
        if getattr(config, name):
            raise InputError(
                f"{Config.flag(name)} is an option of the participant level. Omit it."
            )
    if config.group_task == "template":
        _check_template(config)
    if config.group_task == "train" and not MODES[config.mode].trained:
        raise InputError(
            f"--group-task train cannot be used with --mode {config.mode}, which uses no trained "
            "network. Choose refine or predict."
        )
    if not all(step.isdecimal() for step in config.train_steps):
        raise InputError(
            f"--train-steps must be whole numbers, not {' '.join(config.train_steps)}."
        )


def check_participant(config: Config) -> None:
    """Refuse options of the group level, and those that do not fit each other.

    Raises
    ------
    InputError
        If there is one.
    """
    if config.longitudinal and config.reference_suffix in OTHER_CONTRASTS:
        raise InputError(
            f"{UNBIASED_OPTION} cannot be used with --reference-suffix "
            f"{config.reference_suffix}. Omit one of them."
        )
    for field in dataclasses.fields(config):
        of_group = field.name.startswith(("group_", "train_", "template_"))
        if of_group and getattr(config, field.name) != field.default:
            raise InputError(
                f"{Config.flag(field.name)} is an option of the group level. Omit it."
            )


def _check_template(config: Config) -> None:
    """Refuse options that do not fit the construction of a study template."""
    name = config.template_name
    if name is None:
        raise InputError("--group-task template requires a name. Set --template-name.")
    if not re.fullmatch(r"[a-zA-Z0-9]+", name):
        raise InputError(f"--template-name must be letters and digits only, not {name!r}.")
    if len(config.templates) > 1:
        raise InputError("A study template starts from one template. Use --template once.")
