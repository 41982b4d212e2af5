"""How a workflow is run: Nipype's settings, and one process per node on this machine."""

from __future__ import annotations

import ctypes
import gc
import logging
import multiprocessing
import os
import signal
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from multiprocessing import forkserver
from pathlib import Path
from traceback import format_exception
from typing import TYPE_CHECKING, Any

from nipype import config as nipype_config
from nipype import logging as nipype_logging
from nipype.interfaces.utility import IdentityInterface
from nipype.pipeline.plugins import SLURMPlugin
from nipype.pipeline.plugins.multiproc import MultiProcPlugin
from nipype.utils.gpu_count import gpu_count

from bids_fcnreg.config import Config
from bids_fcnreg.errors import InputError
from bids_fcnreg.execution.cluster import read_plugin, request_resources
from bids_fcnreg.execution.node_cache import discard_damaged, store_checksums
from bids_fcnreg.execution.progress import ProgressDisplay
from bids_fcnreg.fcn.memory import keep_freed_memory

if TYPE_CHECKING:
    from nipype import Workflow
    from rich.console import Console

#: A name in Linux' sys/prctl.h.
_PR_SET_PDEATHSIG = 1

#: Loaded once, in the process that all node processes are split off from.
_PRELOADED = [
    "bids_fcnreg.execution.plugin",
    "bids_fcnreg.workflows.base",
    "torch",
    "numba",
    "nilearn.plotting",
]


def start_server() -> None:
    """Start the process that all node processes are split off from, if there is none.

    It loads their libraries while this process goes on.
    """
    multiprocessing.get_context("forkserver").set_forkserver_preload(_PRELOADED)
    # This process decides what a terminal's Ctrl-C means; the others inherit to ignore it.
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    # A folder that is called like the package, in the current one, must not be taken for it.
    with _environment(PYTHONSAFEPATH="1"):
        forkserver.ensure_running()
    signal.signal(signal.SIGINT, before)


@contextmanager
def _environment(**values: str) -> Iterator[None]:
    """Environment variables as they are to be inside a block, where they are not set."""
    new = {name: value for name, value in values.items() if name not in os.environ}
    os.environ.update(new)
    try:
        yield
    finally:
        for name in new:
            del os.environ[name]


def stop_server() -> None:
    """End that process, if there is one.

    Still loading libraries, it would hold the terminal, and start a node after all.
    """
    server: Any = forkserver._forkserver  # what is asked of it is not public
    if server._forkserver_pid is not None:
        with suppress(ProcessLookupError):
            os.kill(server._forkserver_pid, signal.SIGKILL)
        server._stop()


class IsolatedPlugin(MultiProcPlugin):
    """Nipype's MultiProc, with a process of its own for every node.

    A node that is killed (out of memory, say) is one failed node instead of a run that waits for
    it forever; its memory goes back to the machine when it ends; and the processes are split off
    from a server that has no threads, so that neither OpenMP nor a live display is in the way.

    Parameters
    ----------
    plugin_args : dict
        Those of Nipype's MultiProc.
    log_file : Path or None
        Where node processes write what they print; None leaves it on the terminal.
    gpus : sequence of str
        GPUs as CUDA_VISIBLE_DEVICES names them; each node that uses one sees one that is free.
    """

    def __init__(
        self,
        plugin_args: dict[str, Any],
        log_file: Path | None = None,
        gpus: Sequence[str] = (),
    ) -> None:
        super().__init__(plugin_args=plugin_args)
        self._log_file = log_file
        self._free_gpus = list(gpus)
        self._gpu_of: dict[int, str] = {}
        self._context = multiprocessing.get_context("forkserver")
        start_server()

    def _submit_job(self, node: Any, updatehash: bool = False) -> int:
        self._taskid += 1
        gpu = self._free_gpus.pop(0) if node.is_gpu_node() and self._free_gpus else None
        if gpu is not None:
            self._gpu_of[self._taskid] = gpu
        receiver, sender = self._context.Pipe(duplex=False)
        process = self._context.Process(
            target=_run_node, args=(sender, node, updatehash, self._cwd, self._log_file, gpu)
        )
        process.start()
        sender.close()
        self._task_obj[self._taskid] = process, receiver
        return self._taskid

    def _local_hash_check(self, jobid: int, graph: Any) -> bool:
        discard_damaged(self.procs[jobid])
        return super()._local_hash_check(jobid, graph)

    def _sort_jobs(self, jobids: Sequence[int], scheduler: str = "tsort") -> list[int]:
        """One subject after another: the first results are there early, a kill costs few."""
        return sorted(jobids, key=lambda job: (self.procs[job].fullname.split(".")[:2], job))

    def _get_result(self, taskid: int) -> dict[str, Any] | None:
        process, receiver = self._task_obj[taskid]
        if not receiver.poll():
            return None
        try:
            return receiver.recv()
        except EOFError:
            process.join()
            return {"result": None, "traceback": [_describe_exit(process.exitcode)]}

    def _clear_task(self, taskid: int) -> None:
        process, receiver = self._task_obj.pop(taskid)
        receiver.close()
        process.join()
        if taskid in self._gpu_of:
            self._free_gpus.append(self._gpu_of.pop(taskid))

    def stop(self) -> None:
        """End the node processes that still run, and what they started."""
        for process, _ in self._task_obj.values():
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGTERM)
            process.terminate()
        stop_server()
        for process, receiver in self._task_obj.values():
            process.join()
            receiver.close()
        self._task_obj.clear()


def _run_node(
    sender: Any, node: Any, updatehash: bool, cwd: str, log_file: Path | None, gpu: str | None
) -> None:
    """Run a node in a process group of its own and send back its result or its traceback."""
    if gpu is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = gpu
    os.setpgid(0, 0)
    _die_with_parent()
    keep_freed_memory()
    os.chdir(cwd)
    if log_file is not None:
        with open(log_file, "a") as stream:
            os.dup2(stream.fileno(), 1)
            os.dup2(stream.fileno(), 2)
    outcome: dict[str, Any] = {"result": None, "traceback": None}
    try:
        outcome["result"] = node.run(updatehash=updatehash)
        store_checksums(node)
    except Exception:
        outcome["traceback"] = format_exception(*sys.exc_info())
        with suppress(Exception):  # there may be no result yet
            outcome["result"] = node.result
    sender.send(outcome)
    sender.close()


def _die_with_parent() -> None:
    """End this process when the one it was split off from ends, be it killed.

    That one ends with the run: a node that went on would be in the way of the next run.
    """
    with suppress(OSError, AttributeError):  # not Linux
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _describe_exit(exitcode: int | None) -> str:
    """What to say of a process that ended without a result."""
    if exitcode == -signal.SIGKILL:
        why = "was killed, most likely because memory ran out; give --mem or a smaller --nprocs"
    elif exitcode is not None and exitcode < 0:
        why = f"was ended by signal {-exitcode} ({signal.Signals(-exitcode).name})"
    else:
        why = f"ended without a result (exit code {exitcode})"
    return f"RuntimeError: The process of this step {why}.\n"


def configure(config: Config, run_dir: Path) -> Path:
    """Set up Nipype and the logs of one run, before the workflow is built.

    Parameters
    ----------
    config : Config
    run_dir : Path
        Folder of this run's log and crash files.

    Returns
    -------
    Path
        The log file.
    """
    threads = str(config.omp_nthreads)
    # Threads that wait for each other must not keep the cores that other processes need.
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
                # Contents would be read anew for every node, all in the one main process.
                "hash_method": "timestamp",
                "create_report": "false",
                "check_version": "false",
                "stop_on_first_crash": str(config.stop_on_first_crash).lower(),
                "poll_sleep_duration": "2" if config.plugin_file else "0.1",
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
            "--resource-monitor needs the Python package psutil; "
            "install it (pip install psutil) or leave the option out."
        )


def _log_to(log_file: Path, also_terminal: bool) -> None:
    """Send what all libraries log and warn to the file, and to the terminal only on demand."""
    handlers: list[logging.Handler] = [logging.FileHandler(log_file)]
    if also_terminal:
        handlers.append(logging.StreamHandler())
    style = logging.Formatter("%(asctime)s %(name)s %(levelname)s: %(message)s", "%H:%M:%S")
    for handler in handlers:
        handler.setFormatter(style)
    logging.captureWarnings(True)
    logging.getLogger().handlers[:] = handlers
    for logger in map(logging.getLogger, list(logging.root.manager.loggerDict)):
        logger.handlers.clear()
        logger.propagate = True


def make_plugin(config: Config, log_file: Path, callback: Callable[..., None]) -> Any:
    """The Nipype plugin that runs the workflow: ours on this machine, or the user's.

    Parameters
    ----------
    config : Config
    log_file : Path
        Where node processes write what they print unless the user wants to see it.
    callback : callable
        Gets each node and what happened to it: ``start``, ``end`` or ``exception``.

    Raises
    ------
    InputError
        As `read_plugin`.
    """
    if config.plugin_file is not None:
        os.environ.setdefault("LOGNAME", str(os.getuid()))  # Nipype's plugins ask for it
        plugin = read_plugin(config.plugin_file, config.work_dir)
    else:
        threads = min(config.nprocs, config.omp_nthreads) if config.low_mem else config.nprocs
        one_only = config.device.startswith("cuda:")  # which is that, the registration knows
        gpus = () if one_only else visible_gpus()
        plugin = IsolatedPlugin(
            {
                "n_procs": threads,
                "memory_gb": config.mem_gb,
                "n_gpu_procs": 1 if one_only else len(gpus),
                "raise_insufficient": False,
            },
            log_file=None if config.verbose else log_file,
            gpus=gpus,
        )
    # not through plugin_args, which Nipype would pickle along with nodes
    plugin._status_callback = callback
    return plugin


def run_workflow(
    config: Config,
    workflow: Workflow,
    labels: Mapping[str, str],
    log_file: Path,
    console: Console,
) -> tuple[ProgressDisplay, Exception | None]:
    """Run a workflow and show how it goes.

    Parameters
    ----------
    config : Config
    workflow : Workflow
    labels : mapping of str to str
        What the user calls the parts that have a name of their own, by that name.
    log_file : Path
        See `make_plugin`.
    console : rich.console.Console

    Returns
    -------
    ProgressDisplay
        What was seen.
    Exception or None
        What Nipype raised in the end.
    """
    nodes = [
        f"{workflow.name}.{name}"
        for name in workflow.list_node_names()
        if not isinstance(workflow.get_node(name).interface, IdentityInterface)
    ]
    display = ProgressDisplay(nodes, labels, console, live=False if config.verbose else None)
    plugin = make_plugin(config, log_file, display)
    if isinstance(plugin, SLURMPlugin):
        request_resources(workflow, plugin._sbatch_args or "")
    gc.freeze()  # Nipype collects garbage twice per node: not among all that has been loaded
    try:
        with display:
            workflow.run(plugin=plugin)
    except Exception as error:  # Nipype raises whatever the first node that failed has raised
        return display, error
    finally:
        if hasattr(plugin, "stop"):
            plugin.stop()
    return display, None


def visible_gpus() -> tuple[str, ...]:
    """GPUs this process may use, as CUDA_VISIBLE_DEVICES names them."""
    allowed = os.environ.get("CUDA_VISIBLE_DEVICES")
    if allowed is not None:
        return tuple(name for name in allowed.split(",") if name)
    return tuple(str(number) for number in range(gpu_count()))
