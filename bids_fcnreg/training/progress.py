"""What the user sees of a training: a bar on a terminal, elsewhere a line now and then."""

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
    """Shows the images being aligned and the stages being trained; a context manager.

    Parameters
    ----------
    console : rich.console.Console
        Where to show it.
    live : bool, optional
        Whether there is a bar; by default, whether the console is a terminal.
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

    def at(self, what: str, done: int, total: int) -> None:
        """So much of something is done."""
        if what == self._shown:
            self._bar.update(self._task, completed=done)
            return
        self._shown = what
        self._bar.reset(self._task, description=what, completed=done, total=total, visible=True)

    def record(self, record: Record, spacings: Sequence[float], steps: Sequence[int]) -> None:
        """Print a record of a training with so many stages and updates in each."""
        costs = {"cost": record.cost, "held-out cost": record.held_out}
        words = [f"{name} {cost:.4f}" for name, cost in costs.items() if not math.isnan(cost)]
        self.say(
            f"{stage_title(record.stage, spacings)}: update {record.step} of "
            f"{steps[record.stage]}, {', '.join(words or ['no cost'])}, "
            f"{format_elapsed(record.seconds)} in all"
        )


def stage_title(stage: int, spacings: Sequence[float]) -> str:
    """A stage in words."""
    return f"Stage {stage + 1} of {len(spacings)} ({spacings[stage]:g} mm)"


def format_elapsed(seconds: float) -> str:
    """Seconds, minutes or hours, as reads best."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"
