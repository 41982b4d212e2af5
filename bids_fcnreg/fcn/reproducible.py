"""Arithmetic with bitwise identical results for any number of threads.

PyTorch gives each thread a part of the work. Rounding depends on where the parts end: in sums over
a tensor, in products of large matrices, and in a few elementwise functions, such as the sigmoid,
which use other code for the remainder of a vectorized loop.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor
from torch.nn import functional as nnf

#: Values summed by one thread. PyTorch does not divide fewer than 32768 between threads.
BLOCK = 4096


#: The number of threads of PyTorch is that of all Python threads.
_LOCK = threading.RLock()


@contextmanager
def one_thread() -> Iterator[None]:
    """Limit PyTorch to one thread in this context, which one Python thread enters at a time."""
    with _LOCK:
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            yield
        finally:
            torch.set_num_threads(threads)


def total(values: Tensor) -> Tensor:
    """Sum all values of a tensor, on a CPU in blocks of fixed size; differentiable."""
    if values.device.type != "cpu":
        return values.sum()
    values = values.reshape(-1)
    while values.numel() > BLOCK:
        values = nnf.pad(values, (0, -values.numel() % BLOCK)).view(-1, BLOCK).sum(dim=1)
    return values.sum()


def mean(values: Tensor) -> Tensor:
    """Compute the mean of all values of a tensor; differentiable."""
    return total(values) / values.numel()


def variance(values: Tensor) -> Tensor:
    """Compute the sample variance (n - 1) of all values of a tensor; differentiable."""
    return total((values - mean(values)).square()) / (values.numel() - 1)
