"""Garbage is still collected, but not what the libraries are made of."""

from __future__ import annotations

import subprocess
import sys

CODE = """
import gc, weakref
from bids_fcnreg.garbage_collection import collect_rarely

class Node:
    pass

collect_rarely()
one = Node()
one.itself = one
left = weakref.ref(one)
del one
kept = [[] for _ in range(1_000)]
assert left() is not None
kept += [[] for _ in range(20_000)]
assert left() is None
"""


def test_reference_cycles_are_collected():
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
