"""Curves of a training: a table and a picture."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from bids_fcnreg.atomic import replacing
from bids_fcnreg.bids.derivatives import write_tsv
from bids_fcnreg.fcn.train import Record

COLUMNS = ("stage", "spacing", "step", "seconds", "cost", "held_out")


def write_curves(
    table: Path, picture: Path, records: Sequence[Record], spacings: Sequence[float]
) -> None:
    """Write both anew.

    Parameters
    ----------
    table : path
        Tab-separated, one line a record: stage (from 1), its voxel size in mm, updates done in
        it, wall time in seconds, mean cost of the pairs since the last record, and of those held
        out; n/a where there is none.
    picture : path
        PNG with a panel for each stage.
    records : sequence of Record
        All so far.
    spacings : sequence of float
        Voxel size of each stage in mm.
    """
    write_tsv(table, COLUMNS, (_row(record, spacings) for record in records))
    _draw(picture, records, spacings)


def _row(record: Record, spacings: Sequence[float]) -> tuple[object, ...]:
    """One line of the table."""
    costs = (None if math.isnan(c) else f"{c:.6g}" for c in (record.cost, record.held_out))
    stage = record.stage
    return stage + 1, f"{spacings[stage]:g}", record.step, f"{record.seconds:.1f}", *costs


def _draw(path: Path, records: Sequence[Record], spacings: Sequence[float]) -> None:
    """Draw the costs over the updates."""
    # Without pyplot no display is looked for, and nothing is kept open.
    from matplotlib.figure import Figure

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
