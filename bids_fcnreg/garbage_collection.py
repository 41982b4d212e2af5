"""Garbage collection that does not slow down a command."""

from __future__ import annotations

import atexit
import gc

#: Thresholds of `gc.set_threshold`; those of Python 3.11 are 700, 10, 10.
_THRESHOLDS = (20_000, 50, 10)


def collect_rarely() -> None:
    """Collect garbage of this process less often, and none when it ends.

    The libraries of a participant's nodes create some 400,000 objects that last. Of 3.6 s for
    importing them and exiting, the search for garbage among these took 1.6 s.
    """
    gc.set_threshold(*_THRESHOLDS)
    atexit.register(gc.freeze)


def exclude_from_collection() -> None:
    """Exclude all present objects, such as the nodes of all subjects, from garbage collection.

    Nipype collects garbage twice per node, in a time that increases with the number of objects.
    """
    gc.collect()  # what is excluded is never freed
    gc.freeze()
