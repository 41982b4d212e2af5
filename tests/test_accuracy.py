"""Accuracy of the registration of two real brains, at full resolution, through the Python API."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import nibabel as nib
import numpy as np
import pytest

import bids_fcnreg as fr

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def brains(real_data) -> SimpleNamespace:
    """Files of two brains, fixed and moving, and their manual labels."""
    folder = real_data / "oasis-malf"
    if not folder.is_dir():
        pytest.skip(f"{folder} does not exist: no brains with manual labels")

    def files(subject: str) -> SimpleNamespace:
        image, labels = (
            next(path for path in folder.rglob(f"sub-{subject}_*{suffix}.nii.gz"))
            for suffix in ("T1w", "dseg")
        )
        return SimpleNamespace(image=image, labels=labels)

    return SimpleNamespace(fixed=files("1000"), moving=files("1001"))


def voxels(image: Path | nib.Nifti1Image) -> np.ndarray:
    image = image if isinstance(image, nib.Nifti1Image) else nib.load(image)
    return np.asarray(image.dataobj)


def mean_dice(one: np.ndarray, two: np.ndarray) -> float:
    """Mean over all labels of either image, without background."""
    one, two = (labels.ravel().astype(int) for labels in (one, two))
    count = max(one.max(), two.max()) + 1
    both = np.bincount(one[one == two], minlength=count)[1:]
    sizes = (np.bincount(one, minlength=count) + np.bincount(two, minlength=count))[1:]
    return float((2 * both[sizes > 0] / sizes[sizes > 0]).mean())


# Measured: Dice 0.625 and 0.655; standard deviation of the log-Jacobian 0.364 and 0.390.
@pytest.mark.parametrize(
    ("mode", "least_dice", "most_spread"), [("predict", 0.615, 0.38), ("refine", 0.645, 0.41)]
)
def test_two_brains_overlap_without_folds(tmp_path, brains, mode, least_dice, most_spread):
    """Dice counts only beside the spread of the Jacobian, which buys it."""
    registered = fr.register(brains.fixed.image, brains.moving.image, mode=mode, device="cpu")
    registered.save(tmp_path / "brain_")
    transform = tmp_path / "brain_xfm.h5"
    labels = fr.apply(brains.moving.labels, brains.fixed.image, [transform], interpolation="label")
    determinant = voxels(fr.jacobian([transform], brains.fixed.image))
    determinant = determinant[voxels(brains.fixed.image) > 0]
    assert determinant.min() > 0
    assert registered.quality["folds_percent"] == 0
    assert np.log(determinant).std() <= most_spread
    assert mean_dice(voxels(brains.fixed.labels), voxels(labels)) >= least_dice
    assert registered.quality["verdict"] == "good"


def test_a_mirrored_brain_is_doubtful(brains):
    """Measured: asymmetry 0.20 as it is, -0.19 mirrored."""
    brain = nib.load(brains.fixed.image)
    mirrored = nib.Nifti1Image(voxels(brain)[::-1].copy(), brain.affine)
    found = fr.register("MNI152NLin2009aSym", mirrored, mode="predict", device="cpu")
    assert -0.25 < found.quality["asymmetry"] < -0.1
    assert found.quality["verdict"] == "doubtful"
    assert "left and right appear swapped" in found.quality["verdict_reason"]
    assert "asymmetry" in found.metrics.index
