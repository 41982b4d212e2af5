"""Import this module before processes are forked that use the kernels.

The first call of a compiled kernel imports most of numba, which takes as long as the rest of it.
"""

from __future__ import annotations

from contextlib import suppress

import torch

from bids_fcnreg.fcn.cpu import kernels
from bids_fcnreg.fcn.reproducible import one_thread

# The threads of a process do not survive a fork. What fails here is reported where it is needed.
with one_thread(), suppress(Exception):
    if kernels.usable(torch.zeros(1, 1, 2, 2, 2)):
        kernels.gaussian(torch.zeros(1, 1, 2, 2, 2), (0.0, 0.0, 0.0))
