"""Run a workflow: Nipype's settings, the logs, and the plugin of a run."""

from __future__ import annotations

import gc
import logging
import os
import warnings
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from nipype import Workflow
from nipype import config as nipype_config
from nipype import logging as nipype_logging
from nipype.interfaces.utility import IdentityInterface
from nipype.pipeline.plugins import SLURMPlugin
from nipype.utils.gpu_count import gpu_count
from rich.console import Console

from bids_fcnreg.config import Config
from bids_fcnreg.errors import InputError
from bids_fcnreg.execution.cluster import read_plugin, request_resources
from bids_fcnreg.execution.graph import nodes_of
from bids_fcnreg.execution.plugin import IsolatedPlugin
from bids_fcnreg.execution.progress import ProgressDisplay
from bids_fcnreg.garbage_collection import exclude_from_collection


def configure(config: Config, run_dir: Path) -> Path:
    """Set up Nipype and the logs of one run, before the workflow is built.

    Parameters
    ----------
    config : Config
    run_dir : Path
        Directory of the log and crash files of this run.

    Returns
    -------
    Path
        The log file.
    """
    threads = str(config.omp_nthreads)
    # Waiting threads must not occupy the cores of other processes.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ["OMP_NUM_THREADS"] = os.environ["ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS"] = threads
    log_file = run_dir / "run.log"
    level = "DEBUG" if config.verbose > 1 else "INFO"
    nipype_config.update_config(
        {
            "logging": {
                "workflow_level": level,
                "utils_level": level,
                "interface_level": level,
                "log_directory": str(run_dir),
            },
            "execution": {
                "crashdump_dir": str(run_dir),
                "crashfile_format": "txt",
                "get_linked_libs": "false",
                # Hashing contents would read every file for every node, in the main process.
                "hash_method": "timestamp",
                "create_report": "false",
                "remove_node_directories": "false",  # a rerun resumes from them
                "check_version": "false",
                "stop_on_first_crash": str(config.stop_on_first_crash).lower(),
                # `IsolatedPlugin` waits for the end of a node instead.
                "poll_sleep_duration": "2" if config.plugin_file else "0",
            },
            "monitoring": {
                "enabled": str(config.resource_monitor).lower(),
                "sample_frequency": "0.5",
                "summary_append": "true",
            },
        }
    )
    if config.resource_monitor:
        _enable_monitor()
    nipype_logging.update_logging(nipype_config)
    _log_to(log_file, also_terminal=config.verbose > 0)
    return log_file


def _enable_monitor() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        nipype_config.enable_resource_monitor()
    if not nipype_config.resource_monitor:
        raise InputError(
            "--resource-monitor requires the Python package psutil. Install it (pip install "
            "psutil), or omit the option."
        )


def _log_to(log_file: Path, also_terminal: bool) -> None:
    """Send logs and warnings of all libraries to a file and, optionally, the terminal."""
    handlers: list[logging.Handler] = [logging.FileHandler(log_file)]
    if also_terminal:
        handlers.append(logging.StreamHandler())
    style = logging.Formatter("%(asctime)s %(name)s %(levelname)s: %(message)s", "%H:%M:%S")
    for handler in handlers:
        handler.setFormatter(style)
    logging.captureWarnings(True)
    root = logging.getLogger()
    for logger in (root, *map(logging.getLogger, list(root.manager.loggerDict))):
        for handler in logger.handlers:
            handler.close()
        logger.handlers.clear()
        logger.propagate = True
    root.handlers[:] = handlers


def make_plugin(config: Config, log_file: Path, callback: Callable[..., None]) -> Any:
    """Create the plugin that runs the workflow: `IsolatedPlugin`, or that of --use-plugin.

    Parameters
    ----------
    config : Config
    log_file : Path
        Log file for the output of node processes, unless it is verbose.
    callback : callable
        Called with each node and its status: ``start``, ``end`` or ``exception``.

    Raises
    ------
    InputError
        As `read_plugin`.
    """
    if config.plugin_file is not None:
        os.environ.setdefault("LOGNAME", str(os.getuid()))  # required by Nipype's plugins
        plugin = read_plugin(config.plugin_file, config.work_dir)
    else:
        one_gpu = config.device.startswith("cuda:")  # selected by the registration itself
        gpus = () if one_gpu else visible_gpus()
        plugin = IsolatedPlugin(
            {
                # Steps with more threads take all processors.
                "n_procs": 1 if config.low_mem else config.nprocs,
                "memory_gb": config.mem_gb,
                "n_gpu_procs": 1 if one_gpu else len(gpus),
                "raise_insufficient": False,
            },
            log_file=None if config.verbose else log_file,
            gpus=gpus,
        )
    # not through plugin_args, which Nipype would pickle along with nodes
    plugin._status_callback = callback
    return plugin


def run_workflow(
    config: Config, workflow: Workflow, labels: Mapping[str, str], log_file: Path, console: Console
) -> tuple[ProgressDisplay, Exception | None]:
    """Run a workflow and show its progress.

    Parameters
    ----------
    config : Config
    workflow : Workflow
    labels : mapping of str to str
        Labels of subjects (or of the study) by the name of their workflow.
    log_file : Path
        See `make_plugin`.
    console : rich.console.Console

    Returns
    -------
    ProgressDisplay
        Progress of each subject.
    Exception or None
        Exception that Nipype raised.
    """
    nodes = [
        name
        for name, node in nodes_of(workflow)
        if not isinstance(node.interface, IdentityInterface)
    ]
    display = ProgressDisplay(nodes, labels, console, live=False if config.verbose else None)
    plugin = make_plugin(config, log_file, display)
    if isinstance(plugin, SLURMPlugin):
        request_resources(workflow, plugin._sbatch_args or "")
    exclude_from_collection()
    try:
        with ExitStack() as unless_it_ends, display:
            if hasattr(plugin, "stop"):
                unless_it_ends.callback(plugin.stop)
            workflow.run(plugin=plugin)
            unless_it_ends.pop_all()  # the next workflow uses the same fork server
    except Exception as error:  # Nipype raises the error of the first failed node
        return display, error
    finally:
        gc.unfreeze()  # the nodes can be freed now
    return display, None


def visible_gpus() -> tuple[str, ...]:
    """Return the GPUs that this process may use, as in CUDA_VISIBLE_DEVICES."""
    allowed = os.environ.get("CUDA_VISIBLE_DEVICES")
    if allowed is not None:
        return tuple(name for name in allowed.split(",") if name)
    return tuple(str(number) for number in range(gpu_count()))
