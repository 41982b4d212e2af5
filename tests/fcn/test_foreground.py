"""The brain is found in skull-stripped images whose background is not one value."""

from __future__ import annotations

import io

import nibabel as nib
import numpy as np
import pytest
from PIL import Image as Picture
from scipy import ndimage

from bids_fcnreg.bids.builtin_templates import nilearn_map
from bids_fcnreg.fcn.foreground import background, foreground, non_background


@pytest.fixture(scope="module")
def brain() -> np.ndarray:
    """The built-in template with voxels of 2 mm, from 0 to about 1000."""
    return 4 * np.asarray(nib.load(nilearn_map("t1")).dataobj, np.float32)[::2, ::2, ::2]


def dice(one: np.ndarray, other: np.ndarray) -> float:
    return 2 * (one & other).sum() / (one.sum() + other.sum())


def resampled_by_splines(brain: np.ndarray) -> np.ndarray:
    """Shifted by a third of a voxel and back: rings, and no voxel is 0."""
    there = ndimage.shift(brain.astype(np.float64), 1 / 3, order=3, mode="grid-wrap")
    return ndimage.shift(there, -1 / 3, order=5, mode="grid-wrap").astype(np.float32)


def noise(brain: np.ndarray, sigma: float) -> np.ndarray:
    return sigma * np.random.default_rng(0).standard_normal(brain.shape).astype(np.float32)


def with_rician_noise(brain: np.ndarray) -> np.ndarray:
    return np.hypot(brain + noise(brain, 40), noise(brain.T, 40).T)


def compressed(brain: np.ndarray) -> np.ndarray:
    """Slices as JPEG: blocks around the brain are no longer 0."""
    slices = []
    for plane in np.moveaxis(np.clip(brain / 4, 0, 255).astype(np.uint8), -1, 0):
        file = io.BytesIO()
        Picture.fromarray(plane).save(file, "jpeg", quality=50)
        slices.append(np.asarray(Picture.open(file)))
    return np.moveaxis(np.array(slices), 0, -1).astype(np.float32)


def changed_at(brain: np.ndarray, count: int, value: float, inside: bool) -> np.ndarray:
    """Some voxels have another value."""
    places = np.argwhere((brain > 0) == inside)
    chosen = np.random.default_rng(count).choice(places, count, replace=False)
    result = brain.copy()
    result[tuple(chosen.T)] = value
    return result


def with_bright_slice(brain: np.ndarray) -> np.ndarray:
    result = brain.copy()
    result[:, :, 40] = 20_000
    return result


KINDS = {
    "as it is": (lambda b: b, 0.999),
    "spline-resampled": (resampled_by_splines, 0.97),
    "Gaussian noise": (lambda b: b + noise(b, 20), 0.97),
    "noise cut off at 0": (lambda b: (b + noise(b, 20)).clip(0), 0.97),
    "whole-numbered noise": (lambda b: np.rint(b + noise(b, 20)), 0.97),
    "Rician noise": (with_rician_noise, 0.95),
    "JPEG": (compressed, 0.97),
    "background of 300": (lambda b: b + 300, 0.999),
    "background of -1000 below 0": (lambda b: np.where(b > 0, b, -1000), 0.999),
    "white background": (lambda b: np.where(b > 0, b, 1100), 0.98),
    "standardized in the brain": (lambda b: np.where(b > 0, (b - 750) / 150, 0), 0.995),
    "negative": (lambda b: -b, 0.999),
    "tiny": (lambda b: 1e-20 * b, 0.999),
    "huge": (lambda b: 1e25 * b, 0.999),
    "a bright voxel outside": (lambda b: changed_at(b, 1, 1e6, False), 0.999),
    "200 bright voxels outside": (lambda b: changed_at(b, 200, 1e5, False), 0.999),
    "200 bright voxels inside": (lambda b: changed_at(b, 200, 1e5, True), 0.999),
    "200 negative spikes": (lambda b: changed_at(b, 200, -1e5, True), 0.999),
    "a bright slice": (with_bright_slice, 0.98),
}


@pytest.mark.parametrize("kind", KINDS)
def test_brain_is_found_whatever_the_background_holds(brain, kind):
    change, least = KINDS[kind]
    assert dice(foreground(change(brain)), brain > 0) > least


@pytest.mark.parametrize("kind", KINDS)
def test_little_but_the_brain_differs_from_the_background(brain, kind):
    """What tells a skull-stripped image from a head."""
    change, _ = KINDS[kind]
    assert non_background(change(brain)).mean() < 1.2 * (brain > 0).mean()


def test_background_of_images_without_a_frequent_value(brain):
    assert background(brain + 50 + noise(brain, 5)) == pytest.approx(50, abs=10)
    assert background(np.rint(brain)) == 0


def test_constant_images_show_nothing():
    assert not foreground(np.full((9, 9, 9), 7.0, np.float32)).any()


def test_parts_that_are_not_connected_are_kept_if_they_are_large():
    data = np.zeros((30, 30, 30), np.float32)
    data[3:18, 3:27, 3:27] = 100
    data[20:27, 5:20, 5:20] = 100  # as a cerebellum behind a gap
    data[24:27, 24:27, 24:27] = 100  # as an eye
    mask = foreground(data)
    assert mask[22, 10, 10] and not mask[25, 25, 25]
