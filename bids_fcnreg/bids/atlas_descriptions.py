"""Describe the atlases of the derivatives: atlas-<label>_description.json."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from bids_fcnreg.atomic import read_json
from bids_fcnreg.bids.atlases import Atlas
from bids_fcnreg.bids.derivatives import write_json

_UNKNOWN_LICENSE = "Unknown. See the documentation of the atlas."

#: Maximum number of directories above a label image where its description is looked for.
_LEVELS = 3

_TISSUE = {
    "AtlasName": "Tissue",
    "License": "That of the template. See its documentation.",
    "Description": "Cerebrospinal fluid, gray matter and white matter: the most probable tissue "
    "in the tissue maps of the template",
    "Species": "Homo sapiens",
    "LevelType": "group",
}


def describe_atlas(atlas: Atlas) -> dict[str, Any]:
    """Return the content of the description of an atlas.

    It is that of ``atlas-<label>_description.json`` in the dataset of the label image, if there is
    one, with the fields that BIDS requires.
    """
    if atlas.builtin:
        return _TISSUE
    image = atlas.label_image
    name = f"atlas-{atlas.name}_description.json"
    files = (directory / name for directory in list(image.parents)[:_LEVELS])
    given: dict[str, Any] = next(filter(None, map(read_json, files)), {})
    required = {
        "AtlasName": atlas.name,
        "License": _UNKNOWN_LICENSE,
        "Description": f"Atlas with the label image {image.name}",
    }
    return required | given


def write_atlas_descriptions(output_dir: Path, atlases: Iterable[Atlas]) -> None:
    """Write the descriptions of atlases into the derivatives; keep existing ones."""
    for atlas in {atlas.name: atlas for atlas in atlases}.values():
        path = output_dir / f"atlas-{atlas.name}_description.json"
        if not path.exists():
            write_json(path, describe_atlas(atlas))
