"""The kernels that are compiled into the image are all kernels of the package."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from bids_fcnreg.fcn.cpu import kernels

pytest.importorskip("numba")

SCRIPT = Path(__file__).parents[2] / "docker/compile_kernels.py"


def test_script_compiles_all_kernels():
    """In a new process, which has no kernel yet; those in numba's cache count as compiled."""
    done = subprocess.run(
        [sys.executable, str(SCRIPT)],
        env={**os.environ, kernels.SWITCH: "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"Compiled all {len(kernels._kernels())} kernels.\n"
