"""Fall back to the CPU when a GPU runs out of memory."""

from __future__ import annotations

import gc
import warnings
from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar

import torch

T = TypeVar("T")


def with_fallback(
    compute: Callable[[torch.device], T], device: torch.device, part: str = "this"
) -> T:
    """Compute on a device; fall back to the CPU if a GPU runs out of memory.

    First retries on the GPU after emptying PyTorch's memory cache, because another process may
    have occupied memory, or memory was fragmented. Each part of a registration runs through this
    function, so that only the parts that do not fit run on the CPU.

    Parameters
    ----------
    compute : callable
        Called with the device; must leave nothing on it when it raises.
    device : torch.device
        Preferred device.
    part : str
        Name of the computation, for the warning.

    Returns
    -------
    object
        What `compute` returns.

    Warns
    -----
    UserWarning
        If the CPU is used instead of the GPU.
    """
    if device.type == "cpu":
        return compute(device)
    for _ in range(2):
        with suppress(torch.OutOfMemoryError):
            return compute(device)
        # The exception no longer holds references, so its memory can be released.
        gc.collect()
        torch.cuda.empty_cache()
    warnings.warn(f"{device} is out of memory: falling back to the CPU for {part}.", stacklevel=2)
    return compute(torch.device("cpu"))
