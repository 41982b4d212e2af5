"""Images in memory pass the checks of files, in every function that takes images."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

import bids_fcnreg as fr
from bids_fcnreg.errors import InputError
from bids_fcnreg.fcn.spatial.transform import Affine, Transform
from bids_fcnreg.io.itk import write_transform

SHAPE = (20, 22, 18)
AFFINE = np.diag([8.0, 8.0, 9.0, 1.0])
AFFINE[:3, 3] = -80


def values() -> np.ndarray:
    x, y, z = nib.affines.apply_affine(AFFINE, np.moveaxis(np.indices(SHAPE), 0, -1)).T
    radius = np.sqrt((x / 55) ** 2 + (y / 65) ** 2 + (z / 50) ** 2).T
    return (100 * np.clip((1 - radius) * 4, 0, 1)).astype("f4")


GOOD = nib.Nifti1Image(values(), AFFINE)
MASK = nib.Nifti1Image((values() > 5).astype("u1"), AFFINE)


def broken(affine: np.ndarray) -> nib.Nifti1Image:
    """An image whose affine says what no affine may."""
    image = nib.Nifti1Image(values(), AFFINE)
    image.header.set_sform(affine, code=1)
    image.affine[:] = affine
    return image


FLAT, TWICE = AFFINE.copy(), AFFINE.copy()
FLAT[2, 2], TWICE[:, 1] = 0, AFFINE[:, 0]
NAN = AFFINE.copy()
NAN[0, 0] = np.nan
COLOURS = np.zeros(SHAPE, [("R", "u1"), ("G", "u1"), ("B", "u1")])

#: Whose grid cannot be used, and whose values cannot be used.
GRIDS = {
    "flat": (broken(FLAT), "singular affine"),
    "singular": (broken(TWICE), "singular affine"),
    "no affine": (broken(NAN), "singular affine"),
    "metres": (broken(np.diag([0.001, 0.001, 0.001, 1])), "in metres or another unit"),
    "a plane": (nib.Nifti1Image(values()[:, :, :1], AFFINE), "has shape"),
    "two axes": (nib.Nifti1Image(values()[:, :, 1], AFFINE), "has shape"),
}
VALUES = {
    "all NaN": (nib.Nifti1Image(values() * np.nan, AFFINE), "only zeros, infinite values"),
    "zeros": (nib.Nifti1Image(values() * 0, AFFINE), "contains only zeros"),
    "complex": (nib.Nifti1Image(values() * 1j, AFFINE), "complex"),
    "colours": (nib.Nifti1Image(COLOURS, AFFINE), "colours"),
    "huge": (
        nib.Nifti1Image(values().astype("f8") * 1e300, AFFINE),
        "beyond the range of float32",
    ),
    "vectors": (nib.Nifti1Image(np.ones((*SHAPE, 1, 3), "f4"), AFFINE), "has shape"),
}
SERIES = {
    "series": (nib.Nifti1Image(np.ones((*SHAPE, 3), "f4"), AFFINE), "not that of a 3D volume")
}

#: Calls with an image in a role; what messages call it.
USES: dict[str, Callable[[object, Path], object]] = {
    "fixed image": lambda image, xfm: fr.register(image, GOOD, mode="predict"),
    "moving image": lambda image, xfm: fr.register(GOOD, image, mode="predict"),
    "fixed mask": lambda image, xfm: fr.register(GOOD, GOOD, fixed_mask=image),
    "moving mask": lambda image, xfm: fr.register(GOOD, GOOD, moving_mask=image),
    "apply": lambda image, xfm: fr.apply(image, GOOD, [xfm]),
    "labels": lambda image, xfm: fr.apply(image, GOOD, [xfm], interpolation="label"),
    "reference image": lambda image, xfm: fr.apply(GOOD, image, [xfm]),
    "jacobian": lambda image, xfm: fr.jacobian([xfm], image),
}
CALLED = {"apply": "moving image", "labels": "moving image", "jacobian": "reference image"}
REFERENCES = ("reference image", "jacobian")


def refused(use: str) -> dict[str, tuple[nib.Nifti1Image, str]]:
    """What one use refuses."""
    if use in REFERENCES:
        return GRIDS
    series = {} if use in ("apply", "labels") else SERIES
    return GRIDS | VALUES | series


CASES = [
    pytest.param(use, image, message, id=f"{use}: {name}")
    for use in USES
    for name, (image, message) in refused(use).items()
    if (use, name) != ("labels", "huge")
]


@pytest.fixture
def xfm(tmp_path) -> Path:
    matrix = np.eye(4)
    matrix[0, 3] = 4
    return write_transform(tmp_path / "moved.h5", Transform((Affine(matrix),)))


@pytest.mark.parametrize(("use", "image", "message"), CASES)
def test_images_in_memory_are_checked_like_files(use, image, message, xfm, tmp_path):
    with pytest.raises(InputError, match=message) as refusal:
        USES[use](image, xfm)
    sentence = str(refusal.value)
    assert sentence.startswith(f"The {CALLED.get(use, use)} ")
    if np.isnan(image.affine).any():
        return  # nibabel writes no such affine
    path = tmp_path / "file.nii.gz"
    copy = nib.Nifti1Image(image.dataobj, image.affine, image.header)  # the file names this one
    copy.to_filename(path)
    with pytest.raises(InputError) as refusal_of_file:
        USES[use](path, xfm)
    expected = sentence.replace(f"The {CALLED.get(use, use)}", str(path), 1)
    assert str(refusal_of_file.value) == expected


@pytest.mark.parametrize("use", USES)
@pytest.mark.parametrize("given", [values(), values().tolist(), 3, None, b"a.nii", MASK.dataobj])
def test_objects_that_are_not_images_are_refused(use, given, xfm):
    if given is None and ("mask" in use or use == "reference image"):
        return
    with pytest.raises(InputError, match=f"The {CALLED.get(use, use)} is of type") as refusal:
        USES[use](given, xfm)
    advice = "nibabel.Nifti1Image" if isinstance(given, np.ndarray) else "a nibabel image"
    assert advice in str(refusal.value)


@pytest.mark.parametrize("interpolation", ["linear", "nearest", "label"])
def test_nonfinite_values_become_zero(xfm, tmp_path, interpolation):
    data = np.rint(values())
    data[8, 9, 7], data[9, 9, 7], data[9, 9, 8] = np.nan, np.inf, -np.inf
    image, zero = nib.Nifti1Image(data, AFFINE), np.nan_to_num(data, posinf=0, neginf=0)
    image.to_filename(tmp_path / "file.nii.gz")
    wanted = fr.apply(nib.Nifti1Image(zero, AFFINE), GOOD, [xfm], interpolation=interpolation)
    for given in (image, tmp_path / "file.nii.gz", nib.load(tmp_path / "file.nii.gz")):
        found = fr.apply(given, GOOD, [xfm], interpolation=interpolation)
        assert np.isfinite(found.get_fdata()).all()
        np.testing.assert_array_equal(found.get_fdata(), wanted.get_fdata())
        series = nib.concat_images([image, image])
        found = fr.apply(series, GOOD, [xfm], interpolation=interpolation)
        for volume in nib.four_to_three(found):
            np.testing.assert_array_equal(volume.get_fdata(), wanted.get_fdata())


@pytest.mark.parametrize("use", ["fixed image", "moving image", "apply", "reference image"])
@pytest.mark.parametrize("axes", [(1,), (1, 1)])
def test_trailing_axes_are_dropped(use, axes, xfm):
    longer = nib.Nifti1Image(values().reshape(*SHAPE, *axes), AFFINE)
    found, wanted = (USES[use](image, xfm) for image in (longer, GOOD))
    if hasattr(found, "warped"):
        found, wanted = found.warped, wanted.warped
    assert found.shape == SHAPE
    np.testing.assert_array_equal(found.get_fdata(), wanted.get_fdata())


def test_masks_may_have_a_trailing_axis(xfm):
    mask = nib.Nifti1Image(np.asarray(MASK.dataobj)[..., None], AFFINE)
    found = fr.register(GOOD, GOOD, fixed_mask=mask, moving_mask=MASK, mode="predict")
    assert found.warped.shape == SHAPE


@pytest.mark.parametrize(
    "data",
    [
        np.zeros(SHAPE),
        np.ones((*SHAPE, 4)),
        np.zeros((*SHAPE, 2)),
        np.full(SHAPE, np.nan),
        COLOURS,
    ],
)
def test_only_the_grid_of_a_reference_counts(data, xfm):
    reference = nib.Nifti1Image(data, AFFINE)
    wanted = fr.apply(GOOD, GOOD, [xfm]).get_fdata()
    np.testing.assert_array_equal(fr.apply(GOOD, reference, [xfm]).get_fdata(), wanted)
    assert fr.jacobian([xfm], reference).shape == SHAPE


@pytest.mark.parametrize("kind", [nib.Nifti1Image, nib.Nifti2Image, nib.MGHImage])
def test_other_images_of_nibabel(kind, xfm):
    found = fr.apply(kind(values(), AFFINE), kind(values(), AFFINE), [xfm])
    np.testing.assert_allclose(
        found.get_fdata(), fr.apply(GOOD, GOOD, [xfm]).get_fdata(), atol=1e-3
    )


def test_a_truncated_file_opened_before_is_named(xfm, tmp_path):
    path = tmp_path / "cut.nii"
    GOOD.to_filename(path)
    image = nib.load(path)
    path.write_bytes(path.read_bytes()[:4000])
    for use in ("apply", "labels", "moving image"):
        with pytest.raises(InputError, match=r"cut\.nii is too small"):
            USES[use](image, xfm)


def test_input_image_is_not_modified(xfm):
    data = values()
    data[0, 0, 0] = np.nan
    image = nib.Nifti1Image(data, AFFINE)
    fr.apply(image, GOOD, [xfm])
    assert np.isnan(data[0, 0, 0]) and np.isnan(image.get_fdata()[0, 0, 0])


@pytest.mark.parametrize(
    "points",
    [
        [[0, 0]], [[0, 0, np.nan]], [[0, 0, np.inf]], [["a", "b", "c"]], [[1j, 0, 0]],
        None, [[0, 0, 0], [1, 1]], "points", [[True, False, True]],
    ],
)  # fmt: skip
def test_invalid_points_are_refused(points, xfm):
    with pytest.raises(InputError, match="Points must be an array"):
        fr.map_points(points, [xfm])


def test_points_of_any_kind_of_number(xfm):
    for points in ([[1, 2, 3]], np.array([[1, 2, 3]], "u1"), np.array([[1, 2, 3]], "f2")):
        np.testing.assert_allclose(fr.map_points(points, [xfm]), [[5, 2, 3]])
    np.testing.assert_allclose(fr.map_points([1, 2, 3], [xfm]), [5, 2, 3])
    assert fr.map_points(np.empty((0, 3)), [xfm]).shape == (0, 3)


def test_transforms_in_all_spellings(xfm):
    start = np.array([[1.0, 2.0, 3.0]])
    for given, wanted in (
        (xfm, 5), (str(xfm), 5), ((xfm, True), -3), ([(xfm, 1), xfm, xfm], 5), ("identity", 1),
        ([("identity", True), xfm], 5),
    ):  # fmt: skip
        assert fr.map_points(start, given)[0, 0] == pytest.approx(wanted)
    for given in ([3], [GOOD], [np.eye(3)], [None], [(xfm, True, 1)]):
        with pytest.raises(InputError, match="is not a transform"):
            fr.map_points(start, given)
