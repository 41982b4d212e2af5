"""Trained networks as files: safetensors that know what they are and whether they are whole."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection
from pathlib import Path
from typing import Any, Literal, overload

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from bids_fcnreg.atomic import replacing
from bids_fcnreg.errors import InputError
from bids_fcnreg.fcn.nets.anatomy import AnatomyFCN
from bids_fcnreg.fcn.nets.li_fan_2017 import FCN2017
from bids_fcnreg.fcn.nets.mdregnet import DiffeomorphicFCN

#: A network that registers a pair.
RegistrationNetwork = DiffeomorphicFCN | FCN2017

#: Networks that register a pair.
NETWORKS: dict[str, type[DiffeomorphicFCN] | type[FCN2017]] = {
    "diffeomorphic": DiffeomorphicFCN,
    "2017": FCN2017,
}

#: All networks that a file can hold.
ARCHITECTURES: dict[str, type[DiffeomorphicFCN] | type[FCN2017] | type[AnatomyFCN]] = {
    **NETWORKS,
    "anatomy": AnatomyFCN,
}

#: Under this name a file says what its weights are.
_FACTS = "fcnreg"

#: Where the weights are that come with the package.
SHIPPED = Path(__file__).parents[2] / "data" / "weights"


def shipped(network: str) -> Path:
    """File of the weights that come with the package.

    Parameters
    ----------
    network : {"diffeomorphic", "2017"}
        Which network.

    Raises
    ------
    InputError
        If none come for this network.
    """
    path = SHIPPED / f"{network}.safetensors"
    if not path.is_file():
        raise InputError(
            f"No trained weights come with the package for the network {network}: train some "
            "with `fcnreg train` and give the file with --model, or use --mode optimize."
        )
    return path


def kind_of(network: RegistrationNetwork | AnatomyFCN) -> str:
    """Name in `ARCHITECTURES` of what a network is."""
    return next(name for name, made in ARCHITECTURES.items() if type(network) is made)


def save(network: RegistrationNetwork | AnatomyFCN, path: Path) -> None:
    """Write a network to a file that `load` can make it anew from.

    Parameters
    ----------
    network : nn.Module
        On any device.
    path : path
        Ends in .safetensors.
    """
    tensors = {name: value.cpu().contiguous() for name, value in network.state_dict().items()}
    facts = {
        "network": kind_of(network),
        "arguments": network.arguments,
        "sha256": _checksum(tensors),
    }
    with replacing(path) as temporary:
        # One entry: several would come in any order, and equal weights shall be equal files.
        save_file(tensors, temporary, metadata={_FACTS: json.dumps(facts)})


@overload
def load(path: Path) -> tuple[RegistrationNetwork, str]: ...


@overload
def load(path: Path, networks: Collection[Literal["anatomy"]]) -> tuple[AnatomyFCN, str]: ...


def load(
    path: Path, networks: Collection[str] = tuple(NETWORKS)
) -> tuple[RegistrationNetwork | AnatomyFCN, str]:
    """Read a network from a file, and make sure that it is as it was written.

    Parameters
    ----------
    path : path
        Written by `save`.
    networks : collection of str
        Accepted keys of `ARCHITECTURES`; by default those that register a pair.

    Returns
    -------
    network : nn.Module
        On the CPU, ready to use.
    sha256 : str
        Checksum of its weights.

    Raises
    ------
    InputError
        If the file is not such a file, or is damaged.
    """
    try:
        with safe_open(path, framework="pt") as stream:
            facts = _facts(stream.metadata())
            tensors = {name: stream.get_tensor(name) for name in stream.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise InputError(
            f"The model {path} cannot be read as a .safetensors file ({error}): give a file made "
            "by fcnreg train."
        ) from error
    if facts is None or facts["network"] not in networks:
        raise InputError(
            f"The model {path} holds no network of ours: train one with fcnreg train."
        )
    if facts["sha256"] != _checksum(tensors):
        raise InputError(
            f"The model {path} is damaged: its checksum is not that of its weights. Copy or "
            "download it again."
        )
    network = _assembled(ARCHITECTURES[facts["network"]], facts["arguments"], tensors)
    if network is None:
        raise InputError(
            f"The model {path} does not hold what a network {facts['network']} consists of (was "
            "it made by another version?): train one with fcnreg train."
        )
    network.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]  # not in stubs
    return network.eval(), facts["sha256"]


def is_whole(path: Path) -> bool:
    """Whether a file is there and holds weights that `load` would read."""
    try:
        load(path)
    except InputError:
        return False
    return True


def _facts(metadata: dict[str, str] | None) -> dict[str, Any] | None:
    """What a file says of its weights; None if it was not written by `save`."""
    try:
        facts = json.loads((metadata or {})[_FACTS])
        known = facts["network"] in ARCHITECTURES and isinstance(facts["arguments"], dict)
        return facts if known and "sha256" in facts else None
    except (KeyError, TypeError, ValueError, RecursionError):
        return None


def _assembled(
    kind: type[DiffeomorphicFCN] | type[FCN2017] | type[AnatomyFCN],
    arguments: dict[str, Any],
    tensors: dict[str, Tensor],
) -> RegistrationNetwork | AnatomyFCN | None:
    """Network of these weights; None if they do not fit."""
    try:
        # Arguments cannot make it larger than the weights are, before any of it is made.
        if not all(value.isfinite().all() for value in tensors.values()):
            return None
        if max(arguments["widths"]) ** 2 > sum(value.numel() for value in tensors.values()):
            return None
        network = kind(**arguments)
        network.load_state_dict(tensors)
    except (KeyError, RuntimeError, TypeError, ValueError, IndexError, OverflowError):
        return None
    return network


def _checksum(tensors: dict[str, Tensor]) -> str:
    """SHA-256 over names, shapes and values."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        digest.update(f"{name} {tuple(tensors[name].shape)}".encode())
        digest.update(tensors[name].contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
