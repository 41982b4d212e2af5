"""Number of threads of interfaces that use PyTorch."""

from __future__ import annotations

from nipype.interfaces.base import BaseInterfaceInputSpec, traits


class ThreadsInputSpec(BaseInterfaceInputSpec):
    """Inputs of an interface with a number of threads."""

    num_threads = traits.Int(1, usedefault=True, nohash=True, desc="processor cores to use")


def set_threads(number: int) -> None:
    """Set the number of threads of PyTorch in this process."""
    import torch  # takes seconds: only in the process of a node

    torch.set_num_threads(number)
