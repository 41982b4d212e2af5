"""A plugin of Nipype with one process per node."""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from heapq import nsmallest
from multiprocessing.connection import wait
from pathlib import Path
from traceback import format_exception
from typing import Any

import numpy as np
from nipype import logging as nipype_logging
from nipype.pipeline.engine.utils import topological_sort
from nipype.pipeline.plugins.multiproc import MultiProcPlugin

from bids_fcnreg.execution.fork_server import start_server, stop_server
from bids_fcnreg.execution.graph import Dependencies
from bids_fcnreg.execution.node_cache import discard_damaged, store_checksums
from bids_fcnreg.fcn.memory import keep_freed_memory
from bids_fcnreg.garbage_collection import exclude_from_collection

logger = nipype_logging.getLogger("nipype.workflow")

#: Longest time in seconds for which the plugin waits for a node to end.
_LONGEST_WAIT = 0.1

#: Number of ready jobs that are considered at a time, for each processor. Others wait, even if
#: only they would fit into the free memory.
_JOBS_PER_PROCESSOR = 20

#: Number of finished nodes after which the objects that remain are excluded from collections.
_JOBS_PER_COLLECTION = 50

#: Constant of Linux' sys/prctl.h.
_PR_SET_PDEATHSIG = 1


class IsolatedPlugin(MultiProcPlugin):
    """Nipype's MultiProc plugin with a separate process for every node.

    A killed node (for instance, out of memory) is one failed node and does not block the run; its
    memory is released when it ends; and the processes are forked from a server without threads,
    which is safe with OpenMP and a live display.

    Parameters
    ----------
    plugin_args : dict
        Arguments of Nipype's MultiProc plugin.
    log_file : Path or None
        Log file for the output of node processes; None for the terminal.
    gpus : sequence of str
        GPUs as in CUDA_VISIBLE_DEVICES; each node that uses a GPU sees a free one.
    """

    def __init__(
        self, plugin_args: dict[str, Any], log_file: Path | None = None, gpus: Sequence[str] = ()
    ) -> None:
        super().__init__(plugin_args=plugin_args)
        self._log_file = log_file
        self._free_gpus = list(gpus)
        self._gpu_of: dict[int, str] = {}
        self._finished = 0
        #: Of each job: its subject; −seconds until all that depends on it is done; its number.
        self._ranks: list[tuple[list[str], float, int]] = []
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

    def _send_procs_to_workers(self, updatehash: bool = False, graph: Any = None) -> None:
        """Submit all jobs that can start, then wait until one of the running ones ends."""
        waiting = -1
        # A job with a cached result is finished immediately, and others may then be ready.
        while waiting != (waiting := int(np.count_nonzero(~self.proc_done))):
            super()._send_procs_to_workers(updatehash, graph)
        receivers = [receiver for _, receiver in self._task_obj.values()]
        if receivers:
            wait(receivers, timeout=_LONGEST_WAIT)
        elif waiting:  # nothing is running, and no job can start
            time.sleep(_LONGEST_WAIT)

    def _local_hash_check(self, jobid: int, graph: Any) -> bool:
        discard_damaged(self.procs[jobid])
        return super()._local_hash_check(jobid, graph)

    def _generate_dependency_list(self, graph: Any) -> None:
        self.procs, _ = topological_sort(graph)
        position = {node: job for job, node in enumerate(self.procs)}
        followers = [[position[node] for node in graph.successors(one)] for one in self.procs]
        left = seconds_left(self.procs, followers)
        self._ranks = [
            (node.fullname.split(".")[:2], -left[job], job) for job, node in enumerate(self.procs)
        ]
        self.depidx = Dependencies(followers)
        self.proc_done = np.zeros(len(followers), dtype=bool)
        self.proc_pending = np.zeros(len(followers), dtype=bool)
        exclude_from_collection()

    def _submit_mapnode(self, jobid: int) -> bool:
        """Add the parts of a node for several files, once; return whether they were there."""
        if jobid in self.mapnodes:
            return True
        self.mapnodes.append(jobid)
        parts = self.procs[jobid].get_subnodes()
        first = len(self.procs)
        self.mapnodesubids.update(dict.fromkeys(range(first, first + len(parts)), jobid))
        self.procs.extend(parts)
        subject = self._ranks[jobid][0]
        self._ranks += [(subject, -np.inf, first + part) for part in range(len(parts))]
        self.depidx.add(len(parts), jobid)
        none = np.zeros(len(parts), dtype=bool)
        self.proc_done = np.append(self.proc_done, none)
        self.proc_pending = np.append(self.proc_pending, none)
        return False

    def _task_finished_cb(self, jobid: int, cached: bool = False) -> None:
        state = "Cached" if cached else "Completed"
        logger.info("[Job %d] %s (%s).", jobid, state, self.procs[jobid])
        if self._status_callback:
            self._status_callback(self.procs[jobid], "end")
        self.proc_pending[jobid] = False
        self.depidx.release(jobid)
        self._finished += 1
        if self._finished % _JOBS_PER_COLLECTION == 0:
            exclude_from_collection()

    def _sort_jobs(self, jobids: Sequence[int], scheduler: str = "tsort") -> list[int]:
        """Choose the next jobs: of the first subjects, so that first results are complete early.

        Of one subject, what the rest waits for longest is first. Nipype looks at each of these
        jobs; in a large dataset, many more are ready.
        """
        count = _JOBS_PER_PROCESSOR * self.processors
        return nsmallest(count, jobids, key=self._ranks.__getitem__)

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
        """Terminate the running node processes, their child processes and the fork server."""
        for process, _ in self._task_obj.values():
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGTERM)
            process.terminate()
        stop_server()
        for process, receiver in self._task_obj.values():
            process.join()
            receiver.close()
        self._task_obj.clear()


def seconds_left(nodes: Sequence[Any], followers: Sequence[Sequence[int]]) -> list[float]:
    """Return the expected seconds from the start of each node until what depends on it is done.

    Parameters
    ----------
    nodes : sequence of nipype Node
        In topological order; their ``expected_seconds``, by default 0.
    followers : sequence of sequence of int
        Positions of the nodes that depend on each directly.

    Examples
    --------
    >>> from types import SimpleNamespace
    >>> nodes = [SimpleNamespace(expected_seconds=seconds) for seconds in (1, 5, 2, 3)]
    >>> seconds_left(nodes, [[1, 2], [3], [3], []])
    [9, 8, 5, 3]
    """
    left = [0.0] * len(nodes)
    for job in reversed(range(len(nodes))):
        after = max((left[follower] for follower in followers[job]), default=0)
        left[job] = getattr(nodes[job], "expected_seconds", 0) + after
    return left


def _run_node(
    sender: Any, node: Any, updatehash: bool, cwd: str, log_file: Path | None, gpu: str | None
) -> None:
    """Run a node in its own process group; send back its result or its traceback."""
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
    """Kill this process when its parent, the fork server, ends.

    The server ends with the run; an orphaned node would conflict with the next run.
    """
    with suppress(OSError, AttributeError):  # not Linux
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _describe_exit(exitcode: int | None) -> str:
    """Describe why a process ended without a result, as the last line of a traceback."""
    if exitcode == -signal.SIGKILL:
        return (
            "bids_fcnreg.errors.FcnregError: A process was killed, most likely out of memory. Set "
            "--mem or a smaller --nprocs, then rerun the command to resume.\n"
        )
    if exitcode is not None and exitcode < 0:
        why = f"was killed by signal {-exitcode} ({signal.Signals(-exitcode).name})"
    else:
        why = f"ended without a result (exit code {exitcode})"
    return f"RuntimeError: The process of this node {why}.\n"
