"""Weights that come with the package; without PyTorch, which takes seconds to import."""

from __future__ import annotations

import json
from pathlib import Path

from safetensors import safe_open

from bids_fcnreg.errors import InputError

#: Directory of the files.
PACKAGED_WEIGHTS = Path(__file__).parents[2] / "data" / "weights"

#: Metadata key of the description of the weights in a file.
METADATA_KEY = "fcnreg"


def packaged_weights(network: str) -> Path:
    """Return the file of the weights that come with the package.

    Parameters
    ----------
    network : {"diffeomorphic", "2017"}
        Which network.

    Raises
    ------
    InputError
        If there are none for this network.
    """
    path = PACKAGED_WEIGHTS / f"{network}.safetensors"
    if not path.is_file():
        raise InputError(
            f"The package has no trained weights for the network {network}. Train it with "
            "`fcnreg train` and pass the file with --model, or use --mode optimize."
        )
    return path


def packaged_checksum(network: str) -> str:
    """Return the SHA-256 of the weights of `packaged_weights`, as `checkpoint.load` does."""
    with safe_open(packaged_weights(network), framework="numpy") as stream:
        return json.loads(stream.metadata()[METADATA_KEY])["sha256"]
