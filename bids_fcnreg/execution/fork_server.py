"""The process from which the processes of nodes are forked, with their libraries imported."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from multiprocessing import forkserver
from typing import Any


def start_server() -> None:
    """Start the fork server of the node processes, unless it is running.

    It imports their libraries while this process continues.
    """
    multiprocessing.get_context("forkserver").set_forkserver_preload(
        ["bids_fcnreg.execution.preload"]
    )
    # Only this process handles Ctrl-C; the others inherit to ignore it.
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    # A directory named like the package in the current one must not shadow it.
    with _environment(PYTHONSAFEPATH="1"):
        forkserver.ensure_running()
    signal.signal(signal.SIGINT, before)


@contextmanager
def _environment(**values: str) -> Iterator[None]:
    """Set environment variables inside a block, unless they are set already."""
    new = {name: value for name, value in values.items() if name not in os.environ}
    os.environ.update(new)
    try:
        yield
    finally:
        for name in new:
            del os.environ[name]


def stop_server() -> None:
    """Kill the fork server, if it is running.

    While it imports libraries, it would keep the terminal open, or still start a node.
    """
    server: Any = forkserver._forkserver  # its process id is not public
    if server._forkserver_pid is not None:
        with suppress(ProcessLookupError):
            os.kill(server._forkserver_pid, signal.SIGKILL)
        server._stop()
