"""What to do when the memory of a GPU does not suffice."""

from __future__ import annotations

import gc
import warnings
from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar

import torch

T = TypeVar("T")


def with_fallback(compute: Callable[[torch.device], T], place: torch.device) -> T:
    """Compute on a device; on the CPU if the memory of a GPU does not suffice.

    Before that it is tried once more with all memory that PyTorch had kept for later given back:
    another process may have been in the way, or the memory in pieces.

    Parameters
    ----------
    compute : callable
        Is given the device, and leaves nothing on it when it raises.
    place : torch.device
        Where to compute.

    Returns
    -------
    object
        What `compute` returns.

    Warns
    -----
    UserWarning
        If it had to be the CPU.
    """
    if place.type == "cpu":
        return compute(place)
    for _ in range(2):
        with suppress(torch.OutOfMemoryError):
            return compute(place)
        # What the exception held is gone, so that its memory can be given back.
        gc.collect()
        torch.cuda.empty_cache()
    warnings.warn(
        f"The memory of {place} did not suffice: this is computed on the CPU.", stacklevel=2
    )
    return compute(torch.device("cpu"))
