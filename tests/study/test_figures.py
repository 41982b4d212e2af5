"""Figures of a study."""

from __future__ import annotations

import nibabel as nib
import numpy as np
import pytest
from matplotlib import image as mpl_image

from bids_fcnreg.study.figures import draw_iterations, draw_means

SHAPE = (30, 36, 30)
AFFINE = np.diag([4.0, 4, 4, 1])
AFFINE[:3, 3] = [-58, -80, -45]
RADIUS = np.linalg.norm(np.moveaxis(np.indices(SHAPE), 0, -1) - np.array(SHAPE) / 2, axis=-1)
INSIDE = RADIUS < 11
BRAIN = np.where(INSIDE, np.where(RADIUS < 7, 900.0, 400.0), 0)


def nifti(data: np.ndarray) -> nib.Nifti1Image:
    return nib.Nifti1Image(np.asarray(data, "float32"), AFFINE)


def greys(picture: np.ndarray) -> np.ndarray:
    rgb = picture[..., :3]
    grey = rgb.mean(-1)[rgb.max(-1) - rgb.min(-1) < 0.02]
    return grey[(grey > 0.02) & (grey < 0.98)]


@pytest.mark.parametrize(
    "head",
    [
        BRAIN,
        np.where(RADIUS > 12, 20000 * (RADIUS < 14), BRAIN),
        np.where(INSIDE, BRAIN / 200 - 3, 0),
        np.where(RADIUS < 1, 1e7, BRAIN),
        np.where(RADIUS > 13, np.nan, BRAIN),
    ],
    ids=["brain", "bright skull", "negative", "bright voxels", "NaN"],
)
def test_the_brain_in_the_mean_image_uses_the_greys(tmp_path, head):
    rng = np.random.default_rng(0)
    change = nifti(rng.normal(0, 0.1, SHAPE) * INSIDE)
    path = draw_means(
        (nifti(head), nifti(INSIDE)), (change, change), nifti(INSIDE), tmp_path / "means.png"
    )
    picture = mpl_image.imread(path)
    first = picture[: len(picture) // 4, : int(0.9 * picture.shape[1])]
    assert np.percentile(greys(first), 95) - np.percentile(greys(first), 5) > 0.4


def test_brains_that_do_not_overlap_are_drawn(tmp_path):
    image, nowhere = nifti(BRAIN), nifti(0 * BRAIN)
    assert draw_means((image, image), (image, image), nowhere, tmp_path / "means.png").exists()


@pytest.mark.parametrize("outlier", [0, 1e7, np.nan])
def test_iterations_of_a_template_use_the_greys(tmp_path, outlier):
    paths = [tmp_path / "a.nii.gz", tmp_path / "b.nii.gz"]
    for path in paths:
        nifti(np.where(RADIUS < 1, outlier or BRAIN, BRAIN)).to_filename(path)
    shown = greys(mpl_image.imread(draw_iterations(paths, tmp_path / "steps.png")))
    assert np.percentile(shown, 95) - np.percentile(shown, 5) > 0.4
