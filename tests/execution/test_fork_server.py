"""The process from which those of nodes are forked."""

from __future__ import annotations

import subprocess
import sys

import pytest

CODE = """
import gc, sys
sys.modules["bids_fcnreg.figures.deformation"] = None  # cannot be imported
import bids_fcnreg.execution.preload
assert gc.isenabled() and gc.get_freeze_count() > 100_000
assert "bids_fcnreg.fcn.cpu.preload" in sys.modules  # what comes later
"""


@pytest.mark.slow
def test_a_failed_import_does_not_stop_the_others():
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
