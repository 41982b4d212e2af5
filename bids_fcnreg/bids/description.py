"""Read dataset_description.json, and tell raw datasets from derivatives."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bids_fcnreg.atomic import read_text
from bids_fcnreg.errors import InputError


def read_description(bids_dir: Path) -> dict[str, Any]:
    """Content of a dataset's dataset_description.json.

    Raises
    ------
    InputError
        If the folder is not the root of a BIDS dataset.
    """
    if not bids_dir.is_dir():
        raise InputError(f"{bids_dir} is not a folder: give the root of a BIDS dataset.")
    description = bids_dir / "dataset_description.json"
    if not description.exists():
        raise InputError(
            f"{bids_dir} has no dataset_description.json: give the root of a BIDS dataset, or "
            'add that file with at least "Name" and "BIDSVersion".'
        )
    try:
        content = json.loads(read_text(description))
    except (OSError, ValueError, RecursionError) as why:
        raise InputError(f"{description} is not readable JSON ({why}): repair it.") from why
    known = content if isinstance(content, dict) else {}
    missing = [key for key in ("Name", "BIDSVersion") if key not in known]
    if missing:
        raise InputError(f"{description} lacks {' and '.join(missing)}: add what BIDS requires.")
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
            f"{bids_dir} holds derivatives (dataset_description.json says so): give the raw BIDS "
            "dataset that they were made from. To register one of these images, use "
            "`fcnreg register`."
        )


def is_derivative(description: Mapping[str, Any]) -> bool:
    """Whether dataset_description.json is that of derivatives."""
    # PipelineDescription is what derivatives had before BIDS 1.4.
    kind = str(description.get("DatasetType", "")).lower()
    return kind.startswith("deriv") or "PipelineDescription" in description
