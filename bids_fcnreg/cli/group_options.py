"""Check the options of the participant and of the group level."""

from __future__ import annotations

import dataclasses
import re

from bids_fcnreg.config import Config
from bids_fcnreg.errors import InputError
from bids_fcnreg.fcn.modes import MODES


def check_group(config: Config) -> None:
    """Refuse what the group level cannot do.

    Raises
    ------
    InputError
        With one sentence that says what to change.
    """
    for name in ("dry_run", "boilerplate_only", "reports_only"):
        if getattr(config, name):
            raise InputError(
                f"{Config.flag(name)} is an option of the participant level: omit it."
            )
    if config.group_task == "template":
        _check_template(config)
    if config.group_task == "train" and not MODES[config.mode].trained:
        raise InputError(
            f"--mode {config.mode} uses no trained network: choose refine or predict."
        )
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
            raise InputError(
                f"{Config.flag(field.name)} is an option of the group level: omit it."
            )


def _check_template(config: Config) -> None:
    """Refuse what a study template cannot be made of."""
    name = config.template_name
    if name is None:
        raise InputError("--group-task template needs a name for the template: --template-name.")
    if not re.fullmatch(r"[a-zA-Z0-9]+", name):
        raise InputError(f"--template-name must be letters and digits only, not {name!r}.")
    if len(config.templates) > 1:
        raise InputError("A study template starts from one template: give --template once.")
