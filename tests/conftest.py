"""Fixtures shared by all tests."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import nibabel as nib
import numpy as np
import pytest
from nilearn.image import math_img
from scipy import ndimage

from bids_fcnreg.bids.builtin_templates import nilearn_map

#: Voxels around a brain in the images of `small_study`.
MARGIN = 4


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark tests that use real scans."""
    for item in items:
        if "real_data" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.real_data)


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Folder of real data sets, named by BIDS_FCNREG_TEST_DATA."""
    folder = os.environ.get("BIDS_FCNREG_TEST_DATA")
    if not folder:
        pytest.skip("BIDS_FCNREG_TEST_DATA is not set: no real data to test on")
    return Path(folder)


@pytest.fixture(scope="session")
def phantom_dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """BIDS folder of two phantoms whose truth is known; made once for all test processes."""
    from bids_fcnreg.phantom.dataset import make_dataset

    base = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        base = base.parent  # what the processes of one run share
    folder = base / "phantom"
    with open(base / "phantom.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.exists():
            make_dataset(folder, participants=2, seed=0)
    return folder


@pytest.fixture(scope="session")
def running_in() -> Callable[[Path], list[int]]:
    """Finds the processes whose working directory lies in a folder."""

    def find(folder: Path) -> list[int]:
        found = []
        for link in Path("/proc").glob("[0-9]*/cwd"):
            try:
                inside = link.resolve(strict=True).is_relative_to(folder)
            except OSError:  # it has ended, or is not ours
                continue
            if inside:
                found.append(int(link.parent.name))
        return found

    return find


@pytest.fixture(scope="session")
def small_study(phantom_dataset, tmp_path_factory) -> SimpleNamespace:
    """Dataset ``bids`` of two small brains, a small template, ``words`` to register them."""
    folder = tmp_path_factory.mktemp("small")
    for label in ("01", "02"):
        name = f"sub-{label}/anat/sub-{label}_T1w.nii.gz"
        mask = f"derivatives/truth/sub-{label}/anat/sub-{label}_desc-brain_mask.nii.gz"
        brain = math_img("a * b", a=phantom_dataset / name, b=phantom_dataset / mask)
        _thin_out(brain, folder / "bids" / name, 2)
    description = json.dumps({"Name": "Small", "BIDSVersion": "1.10.0"})
    (folder / "bids/dataset_description.json").write_text(description)
    template = _thin_out(nib.load(nilearn_map("t1")), folder / "tpl-Small_T1w.nii.gz", 3)
    words = ["--template", str(template), "--mode", "predict", "--device", "cpu"]
    # The images are skull-stripped; to detect it, brain extraction would run.
    words += ["--skip-bids-validation", "--skull-strip-t1w", "skip"]
    return SimpleNamespace(bids=folder / "bids", template=template, words=words)


def _thin_out(image: nib.Nifti1Image, target: Path, step: int) -> Path:
    """Write some of the voxels of a brain image, with a margin around the brain."""
    target.parent.mkdir(parents=True, exist_ok=True)
    thin = image.slicer[::step, ::step, ::step]
    brain = ndimage.binary_dilation(np.asarray(thin.dataobj) != 0, iterations=MARGIN)
    thin.slicer[ndimage.find_objects(brain.astype(int))[0]].to_filename(target)
    return target
