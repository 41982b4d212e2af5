"""Memory that each step was given and what it took; seconds expected of it, and what it took.

    python benchmarks/resources.py BIDS_DIR OUT_DIR --participant-label 01 [-- OPTIONS]

Runs the participant level with a work folder of its own. Memory is the largest that the process of
a step, and what it started, held for themselves, looked at ten times a second.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import psutil
from rich.console import Console
from rich.table import Table

from bids_fcnreg.cli import bids_app
from bids_fcnreg.execution import plugin, run

GB = 1024**3


@dataclass
class Step:
    """A node while it runs and after."""

    name: str
    given_gb: float
    expected: float
    threads: int
    begun: float
    process: psutil.Process
    seconds: float = 0.0
    peak_gb: float = 0.0

    def look(self) -> None:
        """Take the memory of this moment into account."""
        try:
            family = (self.process, *self.process.children(recursive=True))
            held = sum(one.memory_full_info().uss for one in family)
        except psutil.Error:  # it has just ended
            return
        self.peak_gb = max(self.peak_gb, held / GB)


class MeasuringPlugin(plugin.IsolatedPlugin):
    """Watches the process of every node."""

    steps: ClassVar[list[Step]] = []

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._running: dict[int, Step] = {}
        threading.Thread(target=self._watch, daemon=True).start()

    def _submit_job(self, node: Any, updatehash: bool = False) -> int:
        task = super()._submit_job(node, updatehash)
        process = psutil.Process(self._task_obj[task][0].pid)
        name = node.fullname.split(".", 2)[-1]
        expected = getattr(node, "expected_seconds", float("nan"))
        self._running[task] = Step(
            name, node.mem_gb, expected, node.n_procs, time.perf_counter(), process
        )
        return task

    def _clear_task(self, taskid: int) -> None:
        step = self._running.pop(taskid)
        step.seconds = time.perf_counter() - step.begun
        self.steps.append(step)
        super()._clear_task(taskid)

    def _watch(self) -> None:
        while True:
            for step in list(self._running.values()):
                step.look()
            time.sleep(0.1)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("bids_dir", type=Path)
    parser.add_argument("out_dir", type=Path)
    parser.add_argument("--participant-label", required=True)
    parser.usage = "%(prog)s BIDS_DIR OUT_DIR --participant-label LABEL [-- OPTIONS]"
    end = sys.argv.index("--") if "--" in sys.argv else len(sys.argv)
    arguments, options = parser.parse_args(sys.argv[1:end]), sys.argv[end + 1 :]
    run.IsolatedPlugin = MeasuringPlugin
    with tempfile.TemporaryDirectory() as work:
        words = [str(arguments.bids_dir), str(arguments.out_dir), "participant", "-w", work]
        words += ["--participant-label", arguments.participant_label]
        code = bids_app.main([*words, *options])
    table = Table(
        "step", "threads", "expected s", "seconds", "given GB", "taken GB", "taken / given"
    )
    for step in sorted(MeasuringPlugin.steps, key=lambda one: -one.peak_gb):
        row = (
            f"{step.expected:.1f}",
            f"{step.seconds:.1f}",
            f"{step.given_gb:.2f}",
            f"{step.peak_gb:.2f}",
        )
        table.add_row(step.name, str(step.threads), *row, f"{step.peak_gb / step.given_gb:.2f}")
    Console(width=140).print(table)
    return code


if __name__ == "__main__":
    sys.exit(main())
