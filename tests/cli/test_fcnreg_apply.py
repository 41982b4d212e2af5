"""`fcnreg apply` to images, with what ANTs' users have, against ITK, and to odd images."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk

import bids_fcnreg as fr
from bids_fcnreg.cli.fcnreg import main
from bids_fcnreg.errors import InputError
from bids_fcnreg.io.jacobian import write_jacobian

# The command prints these warnings.
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("default::UserWarning")]

SHAPE, AFFINE = (24, 26, 20), np.diag([-4.0, 4.0, 5.0, 1.0])
AFFINE[:3, 3] = [46, -50, -48]


def world(affine: np.ndarray = AFFINE, shape: tuple[int, ...] = SHAPE) -> np.ndarray:
    return nib.affines.apply_affine(affine, np.moveaxis(np.indices(shape), 0, -1))


def scan() -> nib.Nifti1Image:
    x, y, z = np.moveaxis(world(), -1, 0)
    data = 100 * np.exp(-((x / 30) ** 2) - (y / 36) ** 2 - (z / 28) ** 2) + 5 * np.sin(x / 6)
    return nib.Nifti1Image(data.clip(1).astype("f4"), AFFINE)


def apply(*words: object) -> int:
    return main(["apply", *map(str, words)])


@pytest.fixture(scope="module")
def ants(tmp_path_factory) -> Path:
    """What antsRegistration leaves, with a fixed and a moving image of other voxels."""
    folder = tmp_path_factory.mktemp("ants")
    scan().to_filename(folder / "moving.nii.gz")
    grid = np.array([[0, 0, 3.5, -40], [-3.0, 0.6, 0, 40], [0.6, 3.0, 0, -44], [0, 0, 0, 1]])
    grid[:3, :2] *= 3.0 / np.hypot(3, 0.6)
    x, y, z = np.moveaxis(world(grid, (26, 27, 23)), -1, 0)
    data = (80 + 20 * np.sin(x / 10) + 10 * np.cos(y / 8 + z / 9)).astype("f4")
    nib.Nifti1Image(data, grid).to_filename(folder / "fixed.nii.gz")
    fade = np.exp(-(x**2 + y**2 + z**2) / 18.0**2)
    for name, sign in (("1Warp", 1), ("1InverseWarp", -1)):
        lps = sign * np.stack([5 * fade, -3 * fade, 4 * fade], -1)[:, :, :, None]
        warp = nib.Nifti1Image(lps.astype("f4"), grid)
        warp.header.set_intent("vector")
        warp.to_filename(folder / f"{name}.nii.gz")
    affine = sitk.AffineTransform(3)
    affine.SetMatrix((1.05, 0.08, 0, -0.06, 0.97, 0.03, 0, 0.02, 1.1))
    affine.SetTranslation((3.0, -2.0, 4.0))
    sitk.WriteTransform(affine, str(folder / "0GenericAffine.mat"))
    return folder


def itk(folder: Path, source: str, target: str, *steps: sitk.Transform) -> np.ndarray:
    """Resampled by ITK; the first step moves a point of the target first."""
    image, grid = (sitk.ReadImage(str(folder / f"{name}.nii.gz")) for name in (source, target))
    chain = sitk.CompositeTransform(list(reversed(steps)))
    return sitk.GetArrayFromImage(sitk.Resample(image, grid, chain)).T


def warp(folder: Path, name: str) -> sitk.Transform:
    image = sitk.ReadImage(str(folder / f"{name}.nii.gz"), sitk.sitkVectorFloat64)
    return sitk.DisplacementFieldTransform(image)


def same(path: Path, wanted: np.ndarray) -> None:
    """Assert that an image is as wanted, but where rounding decides what lies outside."""
    found = nib.load(path).get_fdata()
    assert found.shape == wanted.shape
    difference = np.abs(found - wanted)
    assert np.quantile(difference, 0.995) < 0.02
    assert wanted.max() > 50 and (found > 0).mean() > 0.3


@pytest.mark.parametrize("options", ["", "-d 3 -v 1 -e 0 --float 0 -n Linear -f 0"])
@pytest.mark.parametrize("apart", [False, True])
def test_the_output_of_ants_is_applied_as_by_itk(ants, tmp_path, options, apart):
    affine = sitk.ReadTransform(str(ants / "0GenericAffine.mat"))
    files = [ants / "1Warp.nii.gz", ants / "0GenericAffine.mat"]
    transforms = [word for file in files for word in ("-t", file)] if apart else ["-t", *files]
    words = ["-i", ants / "moving.nii.gz", "-r", ants / "fixed.nii.gz", "-o", tmp_path / "o.nii"]
    assert apply(*options.split(), *words, *transforms) == 0
    same(tmp_path / "o.nii", itk(ants, "moving", "fixed", warp(ants, "1Warp"), affine))


def test_the_inverse_of_ants_is_applied_as_by_itk(ants, tmp_path):
    affine = sitk.ReadTransform(str(ants / "0GenericAffine.mat"))
    assert apply(
        "-i", ants / "fixed.nii.gz", "-r", ants / "moving.nii.gz", "-o", tmp_path / "o.nii",
        "-t", f"[{ants / '0GenericAffine.mat'},1]", "-t", ants / "1InverseWarp.nii.gz",
    ) == 0  # fmt: skip
    inverse = (affine.GetInverse(), warp(ants, "1InverseWarp"))
    same(tmp_path / "o.nii", itk(ants, "fixed", "moving", *inverse))


def test_jacobian_and_points_take_displacement_fields(ants, tmp_path):
    files = [ants / "1Warp.nii.gz", ants / "0GenericAffine.mat"]
    reference = ["-r", str(ants / "fixed.nii.gz"), "-o", str(tmp_path / "j.nii")]
    assert main(["jacobian", *reference, "-t", *map(str, files)]) == 0
    growth = nib.load(tmp_path / "j.nii").get_fdata()
    matrix = np.reshape(sitk.AffineTransform(
        sitk.ReadTransform(str(files[1]))).GetMatrix(), (3, 3))  # fmt: skip
    assert growth[0, 0, 0] == pytest.approx(np.linalg.det(matrix), rel=1e-3)
    assert growth.std() > 0.05
    (tmp_path / "p.csv").write_text("x,y,z\n4,-6,8\n")
    assert apply("-i", tmp_path / "p.csv", "-o", tmp_path / "q.csv", "-t", *files) == 0
    found = np.array((tmp_path / "q.csv").read_text().splitlines()[1].split(","), float)
    chain = sitk.CompositeTransform([sitk.ReadTransform(str(files[1])), warp(ants, "1Warp")])
    np.testing.assert_allclose(found * [-1, -1, 1], chain.TransformPoint((-4, 6, 8)), atol=1e-3)


def test_identity_moves_nothing(ants, tmp_path):
    image, out = ants / "moving.nii.gz", tmp_path / "o.nii.gz"
    assert apply("-i", image, "-r", image, "-o", out, "-t", "identity") == 0
    np.testing.assert_allclose(nib.load(out).get_fdata(), scan().get_fdata(), rtol=1e-5)
    far = tmp_path / "far.tfm"
    sitk.WriteTransform(sitk.TranslationTransform(3, (8.0, 0.0, 0.0)), str(far))
    assert apply("-i", image, "-r", image, "-o", out, "-t", far, "-t", "[identity,1]") == 0
    np.testing.assert_allclose(
        nib.load(out).get_fdata()[:-2], scan().get_fdata()[2:], rtol=1e-3, atol=1e-3
    )


@pytest.mark.parametrize(("how", "value"), [("linear", -3.5), ("nearest", 9), ("label", 9)])
def test_the_default_value_lies_outside(tmp_path, how, value):
    labels = np.ones((8, 8, 8), "i2")
    labels[4:] = 5
    nib.Nifti1Image(labels, np.eye(4)).to_filename(tmp_path / "i.nii")
    sitk.WriteTransform(sitk.TranslationTransform(3, (-4.0, 0, 0)), str(tmp_path / "t.tfm"))
    words = ["-i", tmp_path / "i.nii", "-r", tmp_path / "i.nii", "-t", tmp_path / "t.tfm"]
    assert apply(*words, "-o", tmp_path / "o.nii", "-n", how, "-f", value) == 0
    found = nib.load(tmp_path / "o.nii").get_fdata()
    np.testing.assert_allclose(found[:4], 5)
    np.testing.assert_allclose(found[4:], value)


def test_labels_have_a_whole_default_value(tmp_path, capsys):
    nib.Nifti1Image(np.ones((8, 8, 8), "i2"), np.eye(4)).to_filename(tmp_path / "i.nii")
    words = ["-i", tmp_path / "i.nii", "-r", tmp_path / "i.nii", "-t", "identity"]
    assert apply(*words, "-o", tmp_path / "o.nii", "-n", "label", "-f", "0.5") == 2
    assert "default value 0.5 of a label image must be an integer" in capsys.readouterr().err


def test_nearest_keeps_values_that_are_no_labels(tmp_path, capsys):
    data = np.random.default_rng(0).normal(0, 1, SHAPE).astype("f4")
    nib.Nifti1Image(data, AFFINE).to_filename(tmp_path / "z.nii")
    words = ["-i", tmp_path / "z.nii", "-r", tmp_path / "z.nii", "-t", "identity"]
    assert apply(*words, "-o", tmp_path / "o.nii", "-n", "NearestNeighbor") == 0
    np.testing.assert_array_equal(nib.load(tmp_path / "o.nii").get_fdata(), data)
    assert apply(*words, "-o", tmp_path / "p.nii", "-n", "GenericLabel") == 2
    assert "z.nii contains non-integer values" in capsys.readouterr().err


@pytest.mark.parametrize("how", ["nearest", "label"])
@pytest.mark.parametrize("number", [1, 3])
def test_label_interpolation_keeps_labels(tmp_path, how, number):
    """Large ones, and those that a scaling in single precision has moved a little."""
    labels = np.random.default_rng(0).choice([0, 2, 2035, 2**24 + 1, 2**31 - 1], (*SHAPE, number))
    for scale in (1.0, 1.00001526):
        if scale > 1:
            labels[labels > 3000] = 1000
        stored = labels * scale
        nib.Nifti1Image(np.squeeze(stored), AFFINE).to_filename(tmp_path / "l.nii")
        words = ["-i", tmp_path / "l.nii", "-r", tmp_path / "l.nii", "-t", "identity"]
        assert apply(*words, "-o", tmp_path / "o.nii", "-n", how) == 0
        found = nib.load(tmp_path / "o.nii")
        assert found.get_data_dtype() == np.int32
        np.testing.assert_array_equal(np.asarray(found.dataobj), np.squeeze(labels))


@pytest.mark.parametrize("how", ["nearest", "label"])
@pytest.mark.parametrize("dtype", ["u4", "f8"])
def test_labels_above_the_range_of_int32_are_kept(tmp_path, how, dtype):
    labels = np.random.default_rng(0).choice([0, 7, 2**31 + 5, 2**32 - 1], SHAPE)
    nib.Nifti1Image(labels.astype(dtype), AFFINE).to_filename(tmp_path / "l.nii")
    words = ["-i", tmp_path / "l.nii", "-t", "identity", "-o", tmp_path / "o.nii", "-n", how]
    assert apply(*words) == 0
    found = nib.load(tmp_path / "o.nii")
    assert found.get_data_dtype() == dtype
    np.testing.assert_array_equal(np.asarray(found.dataobj), labels)


@pytest.mark.parametrize("how", ["nearest", "label"])
@pytest.mark.parametrize("number", [1, 3])
@pytest.mark.parametrize(
    ("stored", "outside", "kept"),
    [
        ("u1", 0, "u1"),
        ("u1", -1, "i4"),
        ("u1", 300, "i4"),
        ("i1", -1, "i1"),
        (">i2", 0, "i2"),
        ("u2", 7, "u2"),
        ("i4", 0, "i4"),
        ("i8", 0, "i8"),
        ("f4", 0, "i4"),
        ("f8", 2**40, "f8"),
    ],
)
def test_labels_keep_their_data_type(tmp_path, how, number, stored, outside, kept):
    labels = np.random.default_rng(0).choice([0, 1, 100], (*SHAPE, number))
    image = nib.Nifti1Image(np.squeeze(labels).astype(stored), AFFINE, dtype=np.dtype(stored))
    image.to_filename(tmp_path / "l.nii")
    sitk.WriteTransform(sitk.TranslationTransform(3, (-4.0, 0.0, 0.0)), str(tmp_path / "t.tfm"))
    words = ["-i", tmp_path / "l.nii", "-t", tmp_path / "t.tfm", "-n", how, "-f", outside]
    assert apply(*words, "-o", tmp_path / "o.nii") == 0
    found = nib.load(tmp_path / "o.nii")
    assert found.get_data_dtype() == kept and found.dataobj.slope == 1
    assert set(np.unique(found.dataobj)) == {0, 1, 100, outside}


def test_labels_that_are_too_large_are_refused(tmp_path, capsys):
    nib.Nifti1Image(np.full(SHAPE, 2.0**60), AFFINE).to_filename(tmp_path / "l.nii")
    words = ["-i", tmp_path / "l.nii", "-r", tmp_path / "l.nii", "-t", "identity"]
    assert apply(*words, "-o", tmp_path / "o.nii", "-n", "label") == 2
    assert "l.nii contains labels above 9007199254740992" in capsys.readouterr().err


def test_nearest_keeps_double_precision(tmp_path):
    values = np.random.default_rng(0).normal(0, 1, SHAPE) * 10.0 ** np.arange(-10, 10)
    nib.Nifti1Image(values, AFFINE).to_filename(tmp_path / "i.nii")
    move = sitk.TranslationTransform(3, (-4.0, 0.0, 0.0))
    sitk.WriteTransform(move, str(tmp_path / "t.tfm"))
    words = ["-i", tmp_path / "i.nii", "-t", tmp_path / "t.tfm", "-n", "nearest", "-f", 0.1]
    assert apply(*words, "-o", tmp_path / "o.nii") == 0
    found = nib.load(tmp_path / "o.nii").get_fdata()
    np.testing.assert_array_equal(found[1:], values[:-1])
    np.testing.assert_array_equal(found[0], 0.1)


@pytest.mark.parametrize(
    ("how", "theirs"), [("cubic", sitk.sitkBSpline), ("lanczos", sitk.sitkLanczosWindowedSinc)]
)
def test_interpolations_of_higher_order_are_those_of_itk(ants, tmp_path, how, theirs):
    affine = sitk.ReadTransform(str(ants / "0GenericAffine.mat"))
    image, grid = (sitk.ReadImage(str(ants / f"{name}.nii.gz")) for name in ("moving", "fixed"))
    chain = sitk.CompositeTransform([affine, warp(ants, "1Warp")])
    wanted = sitk.GetArrayFromImage(sitk.Resample(image, grid, chain, theirs)).T
    words = ["-i", ants / "moving.nii.gz", "-r", ants / "fixed.nii.gz", "-o", tmp_path / "o.nii"]
    words += ["-t", ants / "1Warp.nii.gz", ants / "0GenericAffine.mat"]
    assert apply(*words, "-n", how) == 0
    same(tmp_path / "o.nii", wanted)
    assert apply(*words) == 0
    linear = nib.load(tmp_path / "o.nii").get_fdata()
    assert np.abs(linear - wanted)[wanted > 0].max() > 0.1  # they are not the same


def test_a_series_is_interpolated_by_higher_orders(tmp_path):
    data = np.stack([scan().get_fdata(), 2 * scan().get_fdata()], -1)
    series = nib.Nifti1Image(data, AFFINE)
    found = fr.apply(series, None, "identity", interpolation="cubic").get_fdata()
    np.testing.assert_allclose(found, data, atol=0.01)


def test_without_a_reference_the_grid_is_that_of_the_image(tmp_path):
    scan().to_filename(tmp_path / "i.nii")
    words = ["-i", tmp_path / "i.nii", "-t", "identity", "-o", tmp_path / "o.nii"]
    assert apply(*words) == 0
    found = nib.load(tmp_path / "o.nii")
    np.testing.assert_allclose(found.affine, AFFINE)
    np.testing.assert_allclose(found.get_fdata(), scan().get_fdata(), rtol=1e-5)
    assert apply(*words, "--spacing", 2, 4, 2.5) == 0
    found = nib.load(tmp_path / "o.nii")
    assert found.shape == (48, 26, 40) and found.header.get_zooms() == (2, 4, 2.5)
    image = sitk.ReadImage(str(tmp_path / "i.nii"))
    grid = sitk.ReadImage(str(tmp_path / "o.nii"))
    same(tmp_path / "o.nii", sitk.GetArrayFromImage(sitk.Resample(image, grid)).T)
    ends = nib.affines.apply_affine(found.affine, [[-0.5] * 3, np.subtract(found.shape, 0.5)])
    outer = nib.affines.apply_affine(AFFINE, [[-0.5] * 3, np.subtract(SHAPE, 0.5)])
    np.testing.assert_allclose(ends, outer, atol=1e-5)


@pytest.mark.parametrize("spacing", ["0", "-1", "1 2", "nan", "1e9"])
def test_invalid_voxel_sizes_are_refused(tmp_path, spacing, capsys):
    scan().to_filename(tmp_path / "i.nii")
    words = ["-i", tmp_path / "i.nii", "-t", "identity", "-o", tmp_path / "o.nii"]
    assert apply(*words, "--spacing", *spacing.split()) == 2
    assert "The voxel size must be one number or three" in capsys.readouterr().err


def test_jacobian_is_stored_as_integers(ants, tmp_path):
    """With the sign of the determinant, and without the linear part on demand."""
    files = [ants / "1Warp.nii.gz", ants / "0GenericAffine.mat"]
    words = ["jacobian", "-r", ants / "fixed.nii.gz", "-t", *files, "-o", tmp_path / "j.nii"]
    exact = fr.jacobian(files, ants / "fixed.nii.gz").get_fdata()
    for log in (False, True):
        assert main([*map(str, words), *["--log"] * log]) == 0
        found = nib.load(tmp_path / "j.nii")
        assert found.get_data_dtype() == np.int16
        wanted = np.log(exact) if log else exact
        assert np.abs(found.get_fdata() - wanted).max() <= 1.01 / 1024
    assert main([*map(str, words), "--float32"]) == 0
    np.testing.assert_array_equal(nib.load(tmp_path / "j.nii").get_fdata(), exact)
    assert main([*map(str, words), "--nonlinear", "--float32"]) == 0
    alone = fr.jacobian(files[0], ants / "fixed.nii.gz").get_fdata()
    np.testing.assert_allclose(nib.load(tmp_path / "j.nii").get_fdata(), alone, atol=1e-4)
    assert main([*map(str, words), "--geometric", "--float32"]) == 0
    volumes = nib.load(tmp_path / "j.nii").get_fdata()
    assert 0 < np.abs(volumes - exact).max() < 0.1


def test_rounding_does_not_change_the_sign_of_a_determinant(tmp_path):
    values = np.array([-1.0, -1e-5, 0.0, 1e-5, 1.0], "f4")
    image = nib.Nifti1Image(np.tile(values, (4, 4, 1)), np.eye(4))
    found = nib.load(write_jacobian(tmp_path / "j.nii.gz", image, log=False)).get_fdata()
    np.testing.assert_array_equal(found[0, 0] > 0, values > 0)


COLOURS = np.zeros(SHAPE, [("R", "u1"), ("G", "u1"), ("B", "u1")])
REFERENCES = {
    "empty": np.zeros(SHAPE, "u1"),
    "series": np.ones((*SHAPE, 5), "i2"),
    "empty series": np.zeros((*SHAPE, 2), "f4"),
    "a trailing axis": np.ones((*SHAPE, 1), "f4"),
    "NaN": np.full(SHAPE, np.nan, "f4"),
    "complex": np.ones(SHAPE, "c8"),
    "colours": COLOURS,
    "vectors": np.ones((*SHAPE, 1, 3), "f4"),
}


@pytest.mark.parametrize("name", REFERENCES)
def test_only_the_grid_of_a_reference_counts(ants, tmp_path, name):
    reference = tmp_path / "r.nii.gz"
    nib.Nifti1Image(REFERENCES[name], AFFINE).to_filename(reference)
    words = ["-r", str(reference), "-t", str(ants / "0GenericAffine.mat"), "-o"]
    assert apply("-i", ants / "fixed.nii.gz", *words, tmp_path / "o.nii") == 0
    found = nib.load(tmp_path / "o.nii")
    affine = sitk.ReadTransform(str(ants / "0GenericAffine.mat"))
    same(tmp_path / "o.nii", itk(ants, "fixed", "moving", affine))
    np.testing.assert_allclose(found.affine, AFFINE, atol=1e-5)
    assert main(["jacobian", *words, str(tmp_path / "j.nii")]) == 0
    assert nib.load(tmp_path / "j.nii").shape == SHAPE


@pytest.mark.parametrize("axes", [(), (1,), (1, 1)])
@pytest.mark.parametrize("kind", [[], ["-e", "3"]])
def test_a_series_becomes_a_series(ants, tmp_path, axes, kind):
    data = np.stack([scan().get_fdata(), 2 * scan().get_fdata(), 0 * scan().get_fdata()], -1)
    data[0, 0, 0] = np.nan, np.inf, -np.inf
    series = tmp_path / "s.nii.gz"
    nib.Nifti1Image(data.reshape(*data.shape, *axes), AFFINE).to_filename(series)
    words = ["-i", series, "-r", series, "-o", tmp_path / "o.nii", "-t", "identity"]
    assert apply(*words, *kind) == 0
    data[0, 0, 0] = 0
    found = nib.load(tmp_path / "o.nii").get_fdata()
    np.testing.assert_allclose(found, data, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("data", "words", "message"),
    [
        (np.ones((*SHAPE, 3), "f4"), "-e 0", "is a series. Use -e 3, or extract one volume"),
        (
            np.ones((*SHAPE, 1, 3), "f4"),
            "",
            "(24, 26, 20, 1, 3). Choose a 3D image or a 4D series",
        ),
        (np.ones((*SHAPE, 2, 3), "f4"), "-e 3", "Choose a 3D image or a 4D series"),
        (np.ones((*SHAPE, 3), "c8"), "", "stores complex64 values"),
        (np.zeros((*SHAPE, 3), "f4"), "", "contains only zeros"),
        (np.full(SHAPE, np.nan, "f4"), "", "contains only zeros, infinite values"),
        (COLOURS, "", "stores colours"),
        (np.ones(SHAPE[:2], "f4"), "", "has shape"),
    ],
)
def test_unsupported_images_are_refused(ants, tmp_path, data, words, message, capsys):
    path = tmp_path / "i.nii.gz"
    nib.Nifti1Image(data, AFFINE).to_filename(path)
    words = [*words.split(), "-r", ants / "fixed.nii.gz", "-t", "identity"]
    assert apply("-i", path, *words, "-o", tmp_path / "o.nii") == 2
    error = capsys.readouterr().err
    assert message in error and str(path) in error and error.count("\n") == 1
    assert not (tmp_path / "o.nii").exists()


def test_a_displacement_field_is_no_image(ants, tmp_path, capsys):
    words = ["-r", ants / "fixed.nii.gz", "-t", "identity", "-o", tmp_path / "o.nii"]
    assert apply("-i", ants / "1Warp.nii.gz", *words) == 2
    assert "Pass a displacement field as a transform" in capsys.readouterr().err


@pytest.mark.parametrize("axes", [(), (1,)], ids=["4D", "5D"])
@pytest.mark.parametrize(
    ("intent", "components"), [(1004, 9), (1005, 6), (1006, 3), (1007, 3), (1007, 2), (1010, 4)]
)
def test_vectors_and_tensors_are_refused(ants, tmp_path, intent, components, axes, capsys):
    path = tmp_path / "components.nii.gz"
    values = np.ones((*SHAPE, *axes, components), "f4")
    series = nib.Nifti1Image(values, AFFINE)
    series.header["intent_code"] = intent
    series.to_filename(path)
    words = ["-r", ants / "fixed.nii.gz", "-t", "identity", "-o", tmp_path / "o.nii"]
    assert apply("-i", path, *words) == 2
    error = capsys.readouterr().err
    assert f"{path} contains vectors or tensors" in error and "reorientation" in error
    assert not (tmp_path / "o.nii").exists()
    with pytest.raises(InputError, match="vectors or tensors"):
        fr.apply(series, scan(), ["identity"])


@pytest.mark.parametrize("intent", [0, 2, 1001, 1011, 2001])
def test_series_of_other_intents_are_resampled(tmp_path, intent):
    values = np.stack([scan().get_fdata(dtype="f4")] * 3, axis=-1)
    series = nib.Nifti1Image(values, AFFINE)
    series.header["intent_code"] = intent
    np.testing.assert_allclose(
        fr.apply(series, scan(), ["identity"]).get_fdata(), values, rtol=1e-5
    )
