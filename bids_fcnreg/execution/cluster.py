"""Plugins of Nipype that hand steps to a cluster."""

from __future__ import annotations

import math
import re
import shlex
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nipype.pipeline import plugins

from bids_fcnreg.atomic import read_text
from bids_fcnreg.errors import InputError

if TYPE_CHECKING:
    from nipype import Workflow

#: Command that hands a step over, by what the name of the plugin begins with.
_COMMANDS = {
    "SLURM": "sbatch",
    "SGE": "qsub",
    "PBS": "qsub",
    "LSF": "bsub",
    "OAR": "oarsub",
    "Condor": "condor_submit",
}


def read_plugin(path: Path, work_dir: Path) -> Any:
    """The plugin that a file of the user names.

    Parameters
    ----------
    path : Path
        YAML with ``plugin`` and, perhaps, ``plugin_args``.
    work_dir : Path
        Where the scripts lie that it hands over.

    Raises
    ------
    InputError
        When the file does not name a plugin of Nipype, its arguments are not right, this machine
        lacks its command, or that could not be given the work folder.
    """
    import yaml

    example = "it must hold 'plugin: SLURM' (a plugin of Nipype) and may hold 'plugin_args'"
    try:
        settings = yaml.safe_load(read_text(path))
        name, arguments = settings["plugin"], settings.get("plugin_args") or {}
    except (OSError, UnicodeDecodeError, yaml.YAMLError, KeyError, TypeError, RecursionError) as w:
        raise InputError(f"The plugin file {path} is not usable: {example}.") from w
    kind = getattr(plugins, f"{name}Plugin", None)
    if kind is None:
        raise InputError(
            f"The plugin file {path} names the plugin '{name}', which Nipype does not have; "
            f"{example}."
        )
    _check_arguments(arguments, path)
    command = next((_COMMANDS[key] for key in _COMMANDS if name.startswith(key)), None)
    if command is not None:
        _check_command(name, command, work_dir)
    try:
        return kind(plugin_args=arguments)
    except Exception as why:  # each plugin has its own
        raise InputError(
            f"The plugin file {path} has plugin_args that {name} cannot be made with ({why}): see "
            "Nipype's documentation of it."
        ) from why


def _check_arguments(arguments: Any, path: Path) -> None:
    """Refuse arguments of another kind than all plugins expect."""
    if not isinstance(arguments, dict):
        raise InputError(
            f"The plugin file {path} has plugin_args that are no names and values: write for "
            "instance 'plugin_args: {n_procs: 4}'."
        )
    for key, value in arguments.items():
        if str(key).endswith("_args") and not isinstance(value, str):
            raise InputError(f"The plugin file {path} has {key} {value!r}: it must be a text.")


def _check_command(name: str, command: str, work_dir: Path) -> None:
    """Refuse what would fail, or wait for ever, at the first step."""
    if shutil.which(command) is None:
        raise InputError(
            f"The plugin {name} needs the command {command}, which this machine does not have: "
            "start the run where jobs are handed in."
        )
    # Nipype writes the command as one line for a shell.
    if shlex.quote(str(work_dir)) != str(work_dir):
        raise InputError(
            f"The work folder {work_dir} has a name that the plugin {name} cannot pass on: give "
            "one of letters, digits and ._-/ with -w."
        )


def request_resources(workflow: Workflow, asked: str) -> None:
    """Ask SLURM for what each node needs, where the user's `sbatch` options do not say it."""
    for name in workflow.list_node_names():
        node = workflow.get_node(name)
        words = [
            f"--cpus-per-task={node.n_procs}" * ("--cpus-per-task" not in asked),
            f"--mem={math.ceil(node.mem_gb * 1024)}M" * ("--mem" not in asked),
            f"--time={_minutes(node)}" * (re.search(r"(--time\b|-t\b)", asked) is None),
        ]
        node.plugin_args = {"sbatch_args": " ".join(filter(None, words))}


def _minutes(node: Any) -> int:
    """Time to ask a cluster for: machines may be slower, and busy, and starting takes time."""
    return 10 + math.ceil(5 * getattr(node, "expected_seconds", 60) / 60)
