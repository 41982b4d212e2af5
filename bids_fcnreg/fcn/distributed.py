"""Several processes that train one network, as `torchrun` starts them; alone, nothing changes.

Each process is given a place in a group: its rank, from 0. Rank 0 leads: it writes what there is
to write.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

import torch
from torch import Tensor, distributed

from bids_fcnreg.errors import InputError

#: How long one process waits for another: long enough for one to prepare what others wait for.
PATIENCE = timedelta(days=2)


@contextmanager
def group(device: torch.device) -> Iterator[torch.device]:
    """Join the processes that `torchrun` has started, if it has.

    Parameters
    ----------
    device : torch.device
        Where to compute; of several GPUs each process of a machine takes its own.

    Yields
    ------
    torch.device
        Where this process computes.

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
                f"torchrun started more processes than the {there} GPUs of this machine: give "
                f"--nproc-per-node {there}."
            )
        device = torch.device("cuda", own)
        torch.cuda.set_device(device)
    backend = "nccl" if device.type == "cuda" else "gloo"
    distributed.init_process_group(backend, timeout=PATIENCE)
    try:
        yield device
    finally:
        distributed.destroy_process_group()


def rank() -> int:
    """Place of this process in its group; 0 leads."""
    return distributed.get_rank() if distributed.is_initialized() else 0


def size() -> int:
    """Number of processes in the group."""
    return distributed.get_world_size() if distributed.is_initialized() else 1


def wait() -> None:
    """Wait until all processes of the group are here."""
    if distributed.is_initialized():
        distributed.barrier()


def agreed(value: int) -> int:
    """The value that the first process has, in all of them."""
    if not distributed.is_initialized():
        return value
    backend = distributed.get_backend()
    shared = torch.tensor(value, device="cuda" if backend == "nccl" else "cpu")
    distributed.broadcast(shared, src=0)
    return int(shared)


def total(values: Tensor) -> Tensor:
    """Sum over the group of values that each process has."""
    if distributed.is_initialized():
        distributed.all_reduce(values)
    return values
