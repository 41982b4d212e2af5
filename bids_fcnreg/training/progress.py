"""Progress of a training: a progress bar on a terminal, and a line per record."""

from __future__ import annotations

import math
from collections.abc import Sequence

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from bids_fcnreg.fcn.train import Record


class TrainingDisplay:
    """Display of the alignment of images and the stages of the training; a context manager.

    Parameters
    ----------
    console : rich.console.Console
        Console to print to.
    live : bool, optional
        Whether to show a progress bar; by default, whether the console is a terminal.
    """

    def __init__(self, console: Console, live: bool | None = None) -> None:
        self._console = console
        self._bar = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=console,
            transient=True,
            disable=not (console.is_terminal if live is None else live),
        )
        self._task = self._bar.add_task("", total=None, visible=False)
        self._shown = ""

    def __enter__(self) -> TrainingDisplay:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def say(self, message: str) -> None:
        """Print a message."""
        self._console.print(message, markup=False, highlight=False, soft_wrap=True)

    def update(self, task: str, done: int, total: int) -> None:
        """Update the progress bar of a task, or replace that of another task."""
        if task == self._shown:
            self._bar.update(self._task, completed=done)
            return
        self._shown = task
        self._bar.reset(self._task, description=task, completed=done, total=total, visible=True)

    def record(self, record: Record, spacings: Sequence[float], steps: Sequence[int]) -> None:
        """Print a record of a training.

        Parameters
        ----------
        record : Record
        spacings : sequence of float
            Voxel size of each stage in mm.
        steps : sequence of int
            Number of updates in each stage.
        """
        costs = {"cost": record.cost, "held-out cost": record.held_out}
        known = [f"{name} {cost:.4f}" for name, cost in costs.items() if not math.isnan(cost)]
        self.say(
            f"{stage_title(record.stage, spacings)}: update {record.step} of "
            f"{steps[record.stage]}, {', '.join(known or ['no cost'])}, "
            f"{format_elapsed(record.seconds)} in all"
        )


def stage_title(stage: int, spacings: Sequence[float]) -> str:
    """Return the title of a stage."""
    return f"Stage {stage + 1} of {len(spacings)} ({spacings[stage]:g} mm)"


def format_elapsed(seconds: float) -> str:
    """Format an elapsed time in seconds, minutes or hours."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"
