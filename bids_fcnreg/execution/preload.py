"""Import this module where the processes of nodes are forked: it imports their libraries."""

from __future__ import annotations

import gc
from contextlib import suppress
from importlib import import_module

_MODULES = (
    "bids_fcnreg.execution.plugin",
    "bids_fcnreg.workflows.base",
    "bids_fcnreg.figures.deformation",
    "bids_fcnreg.io.itk",
    "bids_fcnreg.fcn.cpu.preload",
)

gc.disable()
for _name in _MODULES:
    with suppress(Exception):  # the node that needs it fails, and says why
        import_module(_name)
# A garbage collection in a forked process would visit these objects, and so copy their memory.
gc.freeze()
gc.enable()
