"""A study so small that it can be run many times."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import nibabel as nib
import numpy as np
import pytest

from bids_fcnreg.bids.templates import nilearn_map


@pytest.fixture(scope="session")
def small_study(phantom_dataset, tmp_path_factory) -> SimpleNamespace:
    """Dataset ``bids`` of two small phantoms, a small template, ``words`` to register them."""
    folder = tmp_path_factory.mktemp("small")
    for label in ("01", "02"):
        name = f"sub-{label}/anat/sub-{label}_T1w.nii.gz"
        _thin_out(phantom_dataset / name, folder / "bids" / name, 2)
    description = json.dumps({"Name": "Small", "BIDSVersion": "1.10.0"})
    (folder / "bids/dataset_description.json").write_text(description)
    template = _thin_out(nilearn_map("t1"), folder / "tpl-Small_T1w.nii.gz", 3)
    words = ["--template", str(template), "--mode", "predict", "--device", "cpu"]
    words.append("--skip-bids-validation")
    return SimpleNamespace(bids=folder / "bids", template=template, words=words)


def _thin_out(source: Path, target: Path, step: int) -> Path:
    """Copy some of the voxels of an image."""
    image = nib.load(source)
    target.parent.mkdir(parents=True, exist_ok=True)
    data = np.asarray(image.dataobj)[::step, ::step, ::step]
    affine = image.affine @ np.diag([step, step, step, 1.0])
    nib.Nifti1Image(data, affine).to_filename(target)
    return target
