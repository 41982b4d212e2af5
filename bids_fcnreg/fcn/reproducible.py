"""Arithmetic whose result is the same to the last bit whatever the number of threads.

PyTorch gives each thread a part of what is to be done. Rounding depends on where the parts end: in
sums to one number, in products of large matrices, and in a few functions of single values, such
as the sigmoid, which are computed in another way for what is left over at the end of a part.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor
from torch.nn import functional as nnf

#: Values that one thread adds up. PyTorch does not divide fewer than 32768 between threads.
BLOCK = 4096


@contextmanager
def one_thread() -> Iterator[None]:
    """Let PyTorch use one thread on the CPU in this block."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def total(values: Tensor) -> Tensor:
    """Sum of all values of a tensor of any shape, with gradients.

    Parts have a fixed size.
    """
    values = values.reshape(-1)
    while values.numel() > BLOCK:
        values = nnf.pad(values, (0, -values.numel() % BLOCK)).view(-1, BLOCK).sum(dim=1)
    return values.sum()


def mean(values: Tensor) -> Tensor:
    """Mean of all values of a tensor of any shape, with gradients."""
    return total(values) / values.numel()


def variance(values: Tensor) -> Tensor:
    """Variance (of a sample: n - 1) of all values of a tensor of any shape, with gradients."""
    return total((values - mean(values)).square()) / (values.numel() - 1)
