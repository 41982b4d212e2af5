"""Distributed training with `torchrun`; a single process needs no group.

Each process of the group has a rank, from 0. Rank 0 writes all files.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

import torch
from torch import Tensor, distributed

from bids_fcnreg.errors import InputError

#: How long a process waits for others, which covers the preparation of the images by one of them.
TIMEOUT = timedelta(days=2)


@contextmanager
def process_group(device: torch.device) -> Iterator[torch.device]:
    """Join the process group of `torchrun`, if there is one.

    Parameters
    ----------
    device : torch.device
        Requested device; with several GPUs each process of a machine takes its own.

    Yields
    ------
    torch.device
        Device of this process.

    Raises
    ------
    InputError
        If a machine has fewer GPUs than processes.
    """
    if not distributed.is_torchelastic_launched() or int(os.environ["WORLD_SIZE"]) == 1:
        yield device
        return
    if device.type == "cuda":
        own, there = int(os.environ["LOCAL_RANK"]), torch.cuda.device_count()
        if own >= there:
            raise InputError(
                f"torchrun started more processes than this machine has GPUs ({there}). Use "
                f"--nproc-per-node {there}."
            )
        device = torch.device("cuda", own)
        torch.cuda.set_device(device)
    # Its default arguments hold the group that exists when it is imported (by the optimizers of
    # PyTorch, for one). The threads of a group that is held abort the process when it exits.
    from torch.distributed.nn import functional  # noqa: F401

    backend = "nccl" if device.type == "cuda" else "gloo"
    distributed.init_process_group(backend, timeout=TIMEOUT)
    try:
        yield device
    finally:
        distributed.destroy_process_group()


def rank() -> int:
    """Return the rank of this process in its group."""
    return distributed.get_rank() if distributed.is_initialized() else 0


def world_size() -> int:
    """Return the number of processes in the group."""
    return distributed.get_world_size() if distributed.is_initialized() else 1


def barrier() -> None:
    """Wait until all processes of the group arrive here."""
    if distributed.is_initialized():
        distributed.barrier()


def broadcast(value: int) -> int:
    """Return the value of rank 0 in every process."""
    if not distributed.is_initialized():
        return value
    backend = distributed.get_backend()
    shared = torch.tensor(value, device="cuda" if backend == "nccl" else "cpu")
    distributed.broadcast(shared, src=0)
    return int(shared)


def broadcast_tensor(values: Tensor) -> None:
    """Overwrite values by those of rank 0."""
    if distributed.is_initialized():
        distributed.broadcast(values, src=0)


def all_reduce(values: Tensor) -> Tensor:
    """Sum values over all processes of the group."""
    if distributed.is_initialized():
        distributed.all_reduce(values)
    return values
