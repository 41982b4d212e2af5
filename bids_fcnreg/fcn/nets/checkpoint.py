"""Save and load trained networks: safetensors files with architecture and checksum."""

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
from bids_fcnreg.fcn.nets.packaged_weights import METADATA_KEY

#: Network for pairwise registration.
RegistrationNetwork = DiffeomorphicFCN | FCN2017

#: Networks for pairwise registration.
NETWORKS: dict[str, type[DiffeomorphicFCN] | type[FCN2017]] = {
    "diffeomorphic": DiffeomorphicFCN,
    "2017": FCN2017,
}

#: All networks that a model file can contain.
ARCHITECTURES: dict[str, type[DiffeomorphicFCN] | type[FCN2017] | type[AnatomyFCN]] = {
    **NETWORKS,
    "anatomy": AnatomyFCN,
}


def architecture_of(network: RegistrationNetwork | AnatomyFCN) -> str:
    """Return the name of a network in `ARCHITECTURES`."""
    return next(name for name, cls in ARCHITECTURES.items() if type(network) is cls)


def save(network: RegistrationNetwork | AnatomyFCN, path: Path) -> None:
    """Write a network to a file that `load` reads.

    Parameters
    ----------
    network : nn.Module
        On any device.
    path : path
        Ends in .safetensors.
    """
    tensors = {name: value.cpu().contiguous() for name, value in network.state_dict().items()}
    facts = {"network": architecture_of(network), "arguments": network.arguments}
    facts["sha256"] = _checksum(tensors, facts)
    with replacing(path) as temporary:
        # One entry: several have no fixed order, and equal weights must give equal files.
        save_file(tensors, temporary, metadata={METADATA_KEY: json.dumps(facts)})


@overload
def load(path: Path) -> tuple[RegistrationNetwork, str]: ...


@overload
def load(path: Path, networks: Collection[Literal["anatomy"]]) -> tuple[AnatomyFCN, str]: ...


def load(
    path: Path, networks: Collection[str] = tuple(NETWORKS)
) -> tuple[RegistrationNetwork | AnatomyFCN, str]:
    """Read a network from a file and verify its checksum.

    Parameters
    ----------
    path : path
        Written by `save`.
    networks : collection of str
        Accepted keys of `ARCHITECTURES`; by default those for pairwise registration.

    Returns
    -------
    network : nn.Module
        On the CPU, ready to use.
    sha256 : str
        Checksum of its arguments and weights.

    Raises
    ------
    InputError
        If the file is not a model file of this package, or is damaged.
    """
    try:
        with safe_open(path, framework="pt") as stream:
            facts = _facts(stream.metadata())
            tensors = {name: stream.get_tensor(name) for name in stream.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise InputError(
            f"The model {path} is not a readable .safetensors file ({error}). Choose a file "
            "written by `fcnreg train`."
        ) from error
    if facts is None or facts["network"] not in networks:
        raise InputError(
            f"The model {path} was not written by `fcnreg train`. Train one with `fcnreg train`."
        )
    if facts["sha256"] != _checksum(tensors, facts):
        raise InputError(
            f"The model {path} is damaged: its checksum does not match. Copy or download it again."
        )
    network = _assembled(ARCHITECTURES[facts["network"]], facts["arguments"], tensors)
    if network is None:
        raise InputError(
            f"The model {path} does not match the network {facts['network']} of this version. "
            "Train one with `fcnreg train`."
        )
    network.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]  # not in stubs
    return network.eval(), facts["sha256"]


def is_intact(path: Path) -> bool:
    """Return whether a file exists and can be read by `load`."""
    try:
        load(path)
    except InputError:
        return False
    return True


def _facts(metadata: dict[str, str] | None) -> dict[str, Any] | None:
    """Return the description of the weights; None if the file was not written by `save`."""
    try:
        facts = json.loads((metadata or {})[METADATA_KEY])
        known = facts["network"] in ARCHITECTURES and isinstance(facts["arguments"], dict)
        return facts if known and "sha256" in facts else None
    except (KeyError, TypeError, ValueError, RecursionError):
        return None


def _assembled(
    kind: type[DiffeomorphicFCN] | type[FCN2017] | type[AnatomyFCN],
    arguments: dict[str, Any],
    tensors: dict[str, Tensor],
) -> RegistrationNetwork | AnatomyFCN | None:
    """Build a network with given weights; None if they do not fit."""
    try:
        # Checked before allocation: a network cannot be larger than its weights.
        if not all(value.isfinite().all() for value in tensors.values()):
            return None
        if max(arguments["widths"]) ** 2 > sum(value.numel() for value in tensors.values()):
            return None
        network = kind(**arguments)
        network.load_state_dict(tensors)
    except (KeyError, RuntimeError, TypeError, ValueError, IndexError, OverflowError):
        return None
    return network


def _checksum(tensors: dict[str, Tensor], facts: dict[str, Any]) -> str:
    """Compute the SHA-256 of the network, its arguments, and the weights with their names."""
    description = [facts["network"], facts["arguments"]]
    digest = hashlib.sha256(json.dumps(description, sort_keys=True).encode())
    for name in sorted(tensors):
        digest.update(f"{name} {tuple(tensors[name].shape)}".encode())
        digest.update(tensors[name].contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
