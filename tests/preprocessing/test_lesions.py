"""Lesion masks as people save them, against the lesion that they mean."""

from __future__ import annotations

import doctest
import json
import re
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from scipy import ndimage

from bids_fcnreg.errors import InputError
from bids_fcnreg.interfaces.preprocess import UniteLesions
from bids_fcnreg.interfaces.quality import quality_html
from bids_fcnreg.interfaces.registration import Register
from bids_fcnreg.preprocessing import lesions

SHAPE, AFFINE = (40, 44, 36), np.diag([4.0, 4.0, 4.0, 1.0])
AFFINE[:3, 3] = [-80, -88, -72]
RNG = np.random.default_rng(0)


def ball(center: tuple[float, ...], radius: float) -> np.ndarray:
    away = np.linalg.norm(np.indices(SHAPE).T - center, axis=-1).T
    return away < radius


BRAIN, LESION = ball((20, 22, 18), 14), ball((26, 22, 20), 4)
SECOND = ball((14, 22, 20), 3)
NOISE = RNG.normal(size=SHAPE)

#: 27 lesions in the brain, as connected components are numbered.
COMPONENTS = np.zeros(SHAPE)
for number, (i, j, k) in enumerate(np.ndindex(3, 3, 3), 1):
    i, j, k = 12 + 7 * i, 14 + 7 * j, 10 + 7 * k
    COMPONENTS[i : i + 1 + number % 4, j : j + 1 + number % 3, k : k + 2] = number
COMPONENTS[~BRAIN] = 0
BLURRED = ndimage.gaussian_filter(255.0 * LESION, 1.0)

#: Values of a mask, whether its user is warned, and the lesion that it means.
KINDS = {
    "binary": (LESION * 1.0, False, LESION),
    "255": (LESION * 255.0, False, LESION),
    "probability of one value": (LESION * 0.4, False, LESION),
    "positive traces": (LESION + 1e-5 * np.abs(NOISE), True, LESION),
    "traces of splines": (LESION + 1e-6 * NOISE, True, LESION),
    "in the brain": (np.where(LESION, 0.9, 0.02 * BRAIN), True, LESION),
    "linear": (ndimage.zoom(LESION[::2, ::2, ::2] * 1.0, 2, order=1), True, None),
    "overshoot": (ndimage.zoom(LESION[::2, ::2, ::2] * 1.0, 2, order=3), True, None),
    "percent": (np.where(LESION, 100.0, 3.0 * BRAIN), True, LESION),
    "maximum of one": (np.where(LESION, 1.0, 0.3 * BRAIN), True, LESION),
    "NaN outside": (np.where(LESION, 1.0, np.nan), False, LESION),
    "two labels": (LESION + 2.0 * SECOND, False, LESION | SECOND),
    "labels 1 and 5": (LESION + 5.0 * SECOND, False, LESION | SECOND),
    "rounded labels": (1.00001526 * (LESION + 3.0 * SECOND), False, LESION | SECOND),
    "labels rounded down": (0.9999847 * (LESION + 3.0 * SECOND), False, LESION | SECOND),
    "27 labels": (COMPONENTS, False, COMPONENTS > 0),
    "27 rounded labels": (1.00001526 * COMPONENTS, False, COMPONENTS > 0),
    "blurred 0 to 255": (np.round(BLURRED), True, np.round(BLURRED) >= BLURRED.round().max() / 2),
    "blurred percent": (np.round(BLURRED / 2.55), True, None),
}


def save(path: Path, values: np.ndarray, dtype: str = "f4") -> str:
    nib.Nifti1Image(np.asarray(values, dtype), AFFINE).to_filename(path)
    return str(path)


def unite(folder: Path, *masks: np.ndarray, names: tuple[str, ...] = ("roi.nii", "b.nii")):
    """Voxels that are excluded."""
    inputs = UniteLesions(
        in_files=[save(folder / name, mask) for name, mask in zip(names, masks, strict=False)],
        reference=save(folder / "t1w.nii", 100 * BRAIN + 1),
        mask=save(folder / "mask.nii", BRAIN, "u1"),
    )
    return np.asarray(nib.load(inputs.run(cwd=folder).outputs.out_file).dataobj) > 0


@pytest.mark.parametrize("kind", KINDS)
def test_the_lesion_is_excluded_and_no_more(tmp_path, kind):
    values, _, lesion = KINDS[kind]
    found = unite(tmp_path, values)
    if lesion is not None:
        np.testing.assert_array_equal(found, lesion)
        return
    dice = 2 * (found & LESION).sum() / (found.sum() + LESION.sum())
    assert dice > 0.75  # resampled from voxels of 8 mm
    assert found.sum() < 0.5 * np.count_nonzero(values)


@pytest.mark.parametrize("kind", KINDS)
def test_values_that_are_not_binary_are_reported(tmp_path, kind):
    values, doubtful, _ = KINDS[kind]
    path = save(tmp_path / "roi.nii.gz", values)
    said = lesions.lesion_value_warning(path)
    assert (said is not None) == doubtful
    if doubtful:
        assert path in said and "not binary" in said


def test_files_that_cannot_be_read_are_refused_elsewhere(tmp_path):
    (tmp_path / "roi.nii").write_bytes(b"nothing")
    assert lesions.lesion_value_warning(tmp_path / "roi.nii") is None


@pytest.mark.parametrize("scale", [1.0, 255.0, 0.5])
def test_inverted_mask_is_rejected(tmp_path, scale):
    message = r"roi\.nii covers 9\d % of the brain, so it may be inverted \(1 = healthy\)"
    with pytest.raises(InputError, match=message):
        unite(tmp_path, scale * ~LESION)


def test_masks_that_cover_most_of_the_brain_together_are_refused(tmp_path):
    left = BRAIN & (np.indices(SHAPE)[0] < 18)
    right = BRAIN & (np.indices(SHAPE)[0] > 22)
    for one in (left, right):  # each alone is less than half
        np.testing.assert_array_equal(unite(tmp_path, one), one)
    with pytest.raises(InputError, match=r"masks cover \d\d % of the brain \(roi\.nii, b\.nii\)"):
        unite(tmp_path, left, right)


@pytest.mark.parametrize("least", [-1.0, -0.5])
def test_large_negative_values_are_rejected(tmp_path, least):
    with pytest.raises(InputError, match=r"roi\.nii contains negative values"):
        unite(tmp_path, np.where(LESION, 1.0, least))


@pytest.mark.parametrize("lesion", [LESION, LESION | SECOND, np.zeros_like(LESION)])
def test_the_excluded_share_is_recorded_and_shown(tmp_path, lesion):
    x, y, z = np.indices(SHAPE)
    brain = np.where(BRAIN, 100 + 20 * np.sin(x / 3) + 15 * np.cos(y / 4 + z / 5), 0)
    file = save(tmp_path / "brain.nii", brain)
    node = Register(
        fixed=file,
        moving=file,
        moving_mask=save(tmp_path / "mask.nii", BRAIN, "u1"),
        moving_exclude=save(tmp_path / "exclude.nii", lesion, "u1"),
        mode="predict",
        device="cpu",
    )
    quality = json.loads(Path(node.run(cwd=tmp_path).outputs.quality).read_text())
    share = 100 * (lesion & BRAIN).sum() / BRAIN.sum()
    assert quality["excluded_percent"] == pytest.approx(share)
    shown = quality_html(quality, "Here")
    assert f"Excluded by lesion masks (% of the brain)</th><td colspan='2'>{share:.1f}<" in shown
    del quality["excluded_percent"]
    assert "lesion" not in quality_html(quality, "Here")


SCAN = np.diag([1.0, 1.0, 1.2, 1.0])
SCAN[:3, 3] = [-20, -20, -20]


@pytest.mark.parametrize(
    ("change", "warned"),
    [
        (None, False),
        ("flipped", False),
        ("permuted", False),
        ("rounded", False),
        ("coarser", False),
        ("another run", False),
        ("shifted", True),
        ("mirrored", True),
        ("rotated", True),
        ("another voxel size", True),
    ],
)
def test_a_mask_of_the_same_shape_that_lies_elsewhere_is_reported(tmp_path, change, warned):
    affine, values = SCAN.copy(), np.ones((20, 24, 28))
    values[:10] = 2
    nib.Nifti1Image(values, SCAN).to_filename(tmp_path / "t1w.nii")
    other = np.eye(4)
    other[:3, 3] = 30
    nib.Nifti1Image(values, other @ SCAN).to_filename(tmp_path / "run-2.nii")
    mask = nib.Nifti1Image(values, SCAN)
    if "flipped" in str(change):
        mask = mask.as_reoriented(nib.orientations.axcodes2ornt("LPS"))
    if change == "permuted":
        mask = mask.as_reoriented(np.array([[2, 1], [0, -1], [1, 1]]))
    affine = mask.affine.copy()
    if change == "rounded":
        affine[:3] += 1e-4
    if change == "another run":
        affine = other @ SCAN
    if "shifted" in str(change):
        affine[0, 3] += 3
    if change == "mirrored":
        affine[0] *= -1
    if change == "rotated":
        affine[:2] = affine[[1, 0]]
    if change == "another voxel size":
        affine[:3, :3] *= 1.2
    values = np.asarray(mask.dataobj)
    if change == "coarser":
        values, affine = values[::2], affine @ np.diag([2.0, 1, 1, 1])
    nib.Nifti1Image(values, affine).to_filename(tmp_path / "roi.nii")
    runs = [tmp_path / "t1w.nii", tmp_path / "run-2.nii"]
    said = lesions.lesion_position_warning(tmp_path / "roi.nii", runs)
    assert (said is not None) == warned
    assert said is None or re.search(r"roi\.nii has the shape of .*t1w\.nii, but", said)


def test_examples():
    assert doctest.testmod(lesions).attempted == 2
    assert not doctest.testmod(lesions).failed
