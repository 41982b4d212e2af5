"""atlas-<label>_description.json in the derivatives."""

from __future__ import annotations

import json
from pathlib import Path

from bids_fcnreg.bids.atlas_descriptions import write_atlas_descriptions
from bids_fcnreg.bids.atlases import TISSUE, Atlas


def content(path: Path) -> dict:
    return json.loads(path.read_text())


def test_an_atlas_without_description(tmp_path):
    atlas = Atlas("A", tmp_path / "in" / "mine.nii.gz", ())
    write_atlas_descriptions(tmp_path, [atlas, Atlas(TISSUE, None, (), builtin="MNI")])
    made = content(tmp_path / "atlas-A_description.json")
    assert made["AtlasName"] == "A" and made["License"].startswith("Unknown")
    assert content(tmp_path / f"atlas-{TISSUE}_description.json")["LevelType"] == "group"


def test_the_description_of_its_dataset_is_used_and_an_edited_one_kept(tmp_path):
    image = tmp_path / "flow" / "tpl-X" / "cohort-1" / "tpl-X_atlas-A_seg-B_dseg.nii.gz"
    image.parent.mkdir(parents=True)
    given = {"AtlasName": "Atlas A", "License": "CC0", "Authors": ["B"]}
    (tmp_path / "flow" / "atlas-A_description.json").write_text(json.dumps(given))
    write_atlas_descriptions(tmp_path, [Atlas("A", image, (), segmentation="B")])
    made = tmp_path / "atlas-A_description.json"
    assert given.items() <= content(made).items()
    made.write_text("{}")
    write_atlas_descriptions(tmp_path, [Atlas("A", image, ())])
    assert content(made) == {}
