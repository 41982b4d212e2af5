"""Nipype plugins that submit nodes to a cluster."""

from __future__ import annotations

import math
import re
import shlex
import shutil
from pathlib import Path
from typing import Any

import yaml
from nipype import Workflow
from nipype.pipeline import plugins

from bids_fcnreg.atomic import read_text
from bids_fcnreg.errors import InputError
from bids_fcnreg.execution.graph import nodes_of

#: Submission commands, by the prefix of the name of the plugin.
_COMMANDS = {
    "SLURM": "sbatch",
    "SGE": "qsub",
    "PBS": "qsub",
    "LSF": "bsub",
    "OAR": "oarsub",
    "Condor": "condor_submit",
}


def read_plugin(path: Path, work_dir: Path) -> Any:
    """Create the Nipype plugin described in a YAML file.

    Parameters
    ----------
    path : Path
        YAML file with ``plugin`` and optional ``plugin_args``.
    work_dir : Path
        Work directory, which holds the submitted scripts.

    Raises
    ------
    InputError
        If the file does not name a Nipype plugin, its arguments are invalid, the submission
        command is not installed, or it cannot handle the path of the work directory.
    """
    example = "It must contain 'plugin: SLURM' (a Nipype plugin) and may contain 'plugin_args'"
    try:
        settings = yaml.safe_load(read_text(path))
        name, arguments = settings["plugin"], settings.get("plugin_args") or {}
    except (OSError, UnicodeDecodeError, yaml.YAMLError, KeyError, TypeError, RecursionError) as w:
        raise InputError(f"The plugin file {path} is invalid. {example}.") from w
    kind = getattr(plugins, f"{name}Plugin", None)
    if kind is None:
        raise InputError(
            f"The plugin file {path} names the plugin '{name}', which Nipype does not have. "
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
            f"The plugin file {path} has invalid plugin_args for {name} ({why}). See Nipype's "
            "documentation."
        ) from why


def _check_arguments(arguments: Any, path: Path) -> None:
    """Refuse arguments whose types no plugin accepts."""
    if not isinstance(arguments, dict):
        raise InputError(
            f"The plugin file {path} has plugin_args that are not a mapping. Write for example "
            "'plugin_args: {n_procs: 4}'."
        )
    for key, value in arguments.items():
        if str(key).endswith("_args") and not isinstance(value, str):
            raise InputError(f"The plugin file {path}: {key} must be a string, not {value!r}.")


def _check_command(name: str, command: str, work_dir: Path) -> None:
    """Refuse a submission command that is missing, or fails on the work directory."""
    if shutil.which(command) is None:
        raise InputError(
            f"The plugin {name} needs the command {command}, which is not installed. Start the "
            "run on a login node."
        )
    # Nipype writes the command as one line for a shell.
    if shlex.quote(str(work_dir)) != str(work_dir):
        raise InputError(
            f"The plugin {name} does not support the name of the work directory {work_dir}. "
            "Choose one of letters, digits and ._-/ with -w."
        )


def request_resources(workflow: Workflow, asked: str) -> None:
    """Request the resources of each node from SLURM, unless the user's `sbatch` options do."""
    for _, node in nodes_of(workflow):
        options = [
            f"--cpus-per-task={node.n_procs}" * ("--cpus-per-task" not in asked),
            f"--mem={math.ceil(node.mem_gb * 1024)}M" * ("--mem" not in asked),
            f"--time={_minutes(node)}" * (re.search(r"(--time\b|-t\b)", asked) is None),
        ]
        node.plugin_args = {"sbatch_args": " ".join(filter(None, options))}


def _minutes(node: Any) -> int:
    """Return a generous time limit for a node in minutes: machines may be slow or busy."""
    return 10 + math.ceil(5 * getattr(node, "expected_seconds", 60) / 60)
