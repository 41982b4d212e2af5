"""What to do when the memory of a GPU does not suffice: part by part, it is the CPU's turn."""

from __future__ import annotations

import gc
import warnings
from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar

import torch

T = TypeVar("T")


def with_fallback(
    compute: Callable[[torch.device], T], place: torch.device, part: str = "this"
) -> T:
    """Compute on a device; on the CPU if the memory of a GPU does not suffice.

    Before that it is tried once more with all memory that PyTorch had kept for later given back:
    another process may have been in the way, or the memory in pieces. A registration does each of
    its parts like this, so that the large ones may run on the CPU and the others on the GPU.

    Parameters
    ----------
    compute : callable
        Is given the device, and leaves nothing on it when it raises.
    place : torch.device
        Where to compute.
    part : str
        What is computed, for the warning.

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
        f"The memory of {place} did not suffice: {part} is computed on the CPU.", stacklevel=2
    )
    return compute(torch.device("cpu"))
