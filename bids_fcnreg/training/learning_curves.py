"""Learning curves of a training: a table and a figure."""

from __future__ import annotations

import math
import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from matplotlib.figure import Figure

from bids_fcnreg.atomic import replacing
from bids_fcnreg.bids.derivatives import write_tsv
from bids_fcnreg.fcn.train import Record

COLUMNS = ("stage", "spacing", "step", "seconds", "cost", "held_out")


def write_curves(
    table: Path, figure: Path, records: Sequence[Record], spacings: Sequence[float]
) -> None:
    """Write the table and the figure.

    Parameters
    ----------
    table : path
        TSV file with one row per record: stage (from 1), its voxel size in mm, updates in the
        stage, wall time in s, mean cost of the training pairs since the last record, and mean
        cost of the held-out pairs; n/a for missing values.
    figure : path
        PNG file with a panel per stage.
    records : sequence of Record
        All records so far.
    spacings : sequence of float
        Voxel size of each stage in mm.
    """
    with _later_interrupts():
        write_tsv(table, COLUMNS, (_row(record, spacings) for record in records))
        _draw(figure, records, spacings)


@contextmanager
def _later_interrupts() -> Iterator[None]:
    """Let Ctrl-C take effect at the end of a block.

    Matplotlib uses callbacks of weak references, whose exceptions Python ignores: an interrupt
    during one of them would be lost.
    """
    if threading.current_thread() is not threading.main_thread():  # no other has handlers
        yield
        return
    received: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, _frame: received.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
        if received:
            signal.raise_signal(signal.SIGINT)


def _row(record: Record, spacings: Sequence[float]) -> tuple[object, ...]:
    """Return a row of the table."""
    costs = (None if math.isnan(c) else f"{c:.6g}" for c in (record.cost, record.held_out))
    stage = record.stage
    return stage + 1, f"{spacings[stage]:g}", record.step, f"{record.seconds:.1f}", *costs


def _draw(path: Path, records: Sequence[Record], spacings: Sequence[float]) -> None:
    """Plot the costs against the updates."""
    # Without pyplot: no display is needed, and no figure stays open.
    figure = Figure(figsize=(4.5 * len(spacings), 3.4), layout="constrained")
    panels = figure.subplots(1, len(spacings), squeeze=False)[0]
    for stage, (panel, spacing) in enumerate(zip(panels, spacings, strict=True)):
        own = [record for record in records if record.stage == stage]
        for name, label in (("cost", "training pairs"), ("held_out", "held-out pairs")):
            points = [(record.step, getattr(record, name)) for record in own]
            points = [(step, cost) for step, cost in points if not math.isnan(cost)]
            if points:
                panel.plot(*zip(*points, strict=True), marker=".", label=label)
        panel.set(title=f"stage {stage + 1}: {spacing:g} mm", xlabel="updates")
        if panel.lines:
            panel.legend(frameon=False)
    panels[0].set_ylabel("cost")
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=120)
