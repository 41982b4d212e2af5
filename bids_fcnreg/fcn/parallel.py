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
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield device
        return
    if device.type == "cuda":
        device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
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


def total(values: Tensor) -> Tensor:
    """Sum over the group of values that each process has."""
    if distributed.is_initialized():
        distributed.all_reduce(values)
    return values
