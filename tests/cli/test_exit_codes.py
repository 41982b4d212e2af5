"""The exit codes in docs/usage.md are those of the commands."""

from __future__ import annotations

import re
import signal
from pathlib import Path

import pytest

from bids_fcnreg.app import participant, signals
from bids_fcnreg.cli import bids_app, fcnreg

USAGE = Path(__file__).parents[2] / "docs" / "usage.md"


@pytest.fixture
def handled():
    """Signals that end a run with an exit code of their own, besides SIGINT."""
    numbers = (signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGQUIT)
    before = {number: signal.getsignal(number) for number in numbers}
    for number in numbers:
        signal.signal(number, signal.SIG_DFL)
    signals.install_handlers()
    found = {number for number in numbers if signal.getsignal(number) is not signal.SIG_DFL}
    for number, handler in before.items():
        signal.signal(number, handler)
    return found


def test_the_table_has_all_exit_codes(handled):
    section = USAGE.read_text(encoding="utf-8").partition("### Exit codes")[2].partition("\n#")[0]
    rows = re.findall(r"^\| ([0-9, ]+) \|", section, re.MULTILINE)
    documented = [int(code) for row in rows for code in row.split(",")]
    codes = {participant.DONE, participant.SUBJECT_FAILED, bids_app.FAILED, bids_app.BAD_INPUT}
    codes |= {bids_app.INTERRUPTED, *(signals.Terminated(one).exit_code for one in handled)}
    assert sorted(documented) == sorted(codes)


@pytest.mark.parametrize("main", [bids_app.main, fcnreg.main])
def test_docstrings_name_the_same_codes(main, handled):
    named = {int(code) for code in re.findall(r"\b([0-9]+) (?!of)", main.__doc__)}
    assert named == {0, 1, 2, 130, *(signals.Terminated(one).exit_code for one in handled)}
