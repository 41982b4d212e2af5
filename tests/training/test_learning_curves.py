"""Learning curves are written whole, and an interrupt meanwhile is not lost."""

from __future__ import annotations

import signal

import pytest

from bids_fcnreg.fcn.train import Record
from bids_fcnreg.training import learning_curves


def test_interrupt_while_curves_are_drawn_takes_effect_afterwards(tmp_path, monkeypatch):
    draw = learning_curves._draw

    class Ended:
        """Python ignores what its destructor raises, as in callbacks of weak references."""

        def __del__(self):
            signal.raise_signal(signal.SIGINT)

    def interrupted(*arguments):
        Ended()
        draw(*arguments)

    monkeypatch.setattr(learning_curves, "_draw", interrupted)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        records = [Record(stage=0, step=1, seconds=1.0, cost=-0.5, held_out=-0.4)]
        with pytest.raises(KeyboardInterrupt):
            learning_curves.write_curves(tmp_path / "c.tsv", tmp_path / "c.png", records, [4.0])
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, before)
    assert (tmp_path / "c.tsv").exists()
    assert (tmp_path / "c.png").exists()
