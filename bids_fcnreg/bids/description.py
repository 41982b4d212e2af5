"""Read dataset_description.json, and tell raw datasets from derivatives."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bids_fcnreg.atomic import read_text
from bids_fcnreg.errors import InputError


def read_description(bids_dir: Path) -> dict[str, Any]:
    """Read the dataset_description.json of a dataset.

    Raises
    ------
    InputError
        If the directory is not the root of a BIDS dataset.
    """
    if not bids_dir.is_dir():
        raise InputError(f"{bids_dir} is not a directory. Provide the root of a BIDS dataset.")
    description = bids_dir / "dataset_description.json"
    if not description.exists():
        raise InputError(
            f"{bids_dir} has no dataset_description.json. Provide the root of a BIDS dataset, or "
            'add the file with at least "Name" and "BIDSVersion".'
        )
    try:
        content = json.loads(read_text(description))
    except (OSError, ValueError, RecursionError) as why:
        raise InputError(f"{description} is not valid JSON ({why}). Repair it.") from why
    known = content if isinstance(content, dict) else {}
    missing = [key for key in ("Name", "BIDSVersion") if key not in known]
    if missing:
        raise InputError(
            f"{description} lacks {' and '.join(missing)}, required by BIDS. Complete the file."
        )
    return content


def check_raw(bids_dir: Path) -> None:
    """Refuse derivatives in place of a raw dataset.

    Raises
    ------
    InputError
        As `read_description`, and if the dataset is a derivative.
    """
    description = read_description(bids_dir)
    if is_derivative(description):
        raise InputError(
            f"{bids_dir} holds derivatives (see its dataset_description.json). Provide the raw "
            "BIDS dataset that they were made from. To register one of these images, use "
            "`fcnreg register`."
        )


def is_derivative(description: Mapping[str, Any]) -> bool:
    """Return whether dataset_description.json is that of derivatives."""
    # Derivatives before BIDS 1.4 have PipelineDescription.
    kind = str(description.get("DatasetType", "")).lower()
    return kind.startswith("deriv") or "PipelineDescription" in description
