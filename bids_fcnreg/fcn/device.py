"""Devices by name."""

from __future__ import annotations

import torch

from bids_fcnreg.errors import InputError


def resolve_device(name: str) -> torch.device:
    """Return the device of a given name.

    Parameters
    ----------
    name : str
        ``auto`` (a GPU if there is one), ``cpu``, ``cuda``, ``cuda:N``.

    Raises
    ------
    InputError
        If the device is not available.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    kind, _, number = name.partition(":")
    if kind not in ("cpu", "cuda") or (number and not number.isdigit()):
        raise InputError(f"Unknown device {name!r}. Choose auto, cpu, cuda or cuda:N.")
    if kind == "cuda" and int(number or 0) >= torch.cuda.device_count():
        raise InputError(
            f"The device {name!r} is not available: PyTorch sees {torch.cuda.device_count()} CUDA "
            "GPUs. Choose cpu, or install a CUDA build of PyTorch and the NVIDIA driver."
        )
    return torch.device(name)
