"""Fields that fold, their inverses, and what is no transform; against ITK."""

from __future__ import annotations

import re
import warnings
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk

import bids_fcnreg as fr
from bids_fcnreg.cli.fcnreg import main
from bids_fcnreg.errors import InputError

SHAPE, SPACING = (30, 26, 24), (4.0, 3.0, 5.0)
LPS = np.diag([-1.0, -1.0, 1.0])


def places() -> np.ndarray:
    """Points of the voxels in LPS+ mm (i, j, k, 3)."""
    return np.moveaxis(np.indices(SHAPE), 0, -1) * SPACING


def reference() -> nib.Nifti1Image:
    return nib.Nifti1Image(np.ones(SHAPE, "f4"), np.diag([-4.0, -3.0, 5.0, 1.0]))


def displacement(kind: str) -> np.ndarray:
    """Displacements (i, j, k, 3), LPS+ mm."""
    away = places() - np.multiply(SHAPE, SPACING) / 2
    fade = np.exp(-(away**2).sum(-1, keepdims=True) / (2 * 12.0**2))
    if kind == "smooth":
        return 3 * fade * np.array([1.0, -0.5, 0.7])
    if kind == "pinched":  # folds across one axis
        return fade * away[..., :1] * np.array([-2.5, 0.0, 0.0])
    if kind == "turned inside out":  # across all three
        return -1.8 * fade * away
    rng = np.random.default_rng(0)  # scattered folds
    return np.where(rng.random((*SHAPE, 1)) < 0.02, 9.0, 0.0) * fade * np.array([1.0, 1.0, 0.3])


def write_field(folder: Path, kind: str, form: str = "fold.h5") -> tuple[Path, sitk.Transform]:
    """A field as ITK writes it, and ITK's transform."""
    u = displacement(kind)
    image = sitk.GetImageFromArray(u.transpose(2, 1, 0, 3), isVector=True)
    image.SetSpacing(SPACING)
    path = folder / form
    if form.endswith(".nii.gz"):
        sitk.WriteImage(sitk.Cast(image, sitk.sitkVectorFloat32), str(path))
    transform = sitk.DisplacementFieldTransform(sitk.Cast(image, sitk.sitkVectorFloat64))
    if form == "composite.h5":
        affine = sitk.AffineTransform(3)
        affine.SetMatrix((1.05, 0.08, 0, -0.06, 0.97, 0.03, 0, 0.02, 1.02))
        transform = sitk.CompositeTransform([affine, transform])
    if not form.endswith(".nii.gz"):
        sitk.WriteTransform(transform, str(path))
    return path, transform


def itk_determinant(kind: str) -> np.ndarray:
    image = sitk.GetImageFromArray(displacement(kind).transpose(2, 1, 0, 3), isVector=True)
    image.SetSpacing(SPACING)
    return sitk.GetArrayFromImage(sitk.DisplacementFieldJacobianDeterminant(image)).T


FOLDS = ("pinched", "turned inside out", "scattered")


@pytest.mark.parametrize("kind", FOLDS)
def test_determinant_of_a_fold_is_that_of_itk(tmp_path, kind):
    path, _ = write_field(tmp_path, kind)
    reference().to_filename(tmp_path / "r.nii")
    out = tmp_path / "j.nii.gz"
    assert (
        main(["jacobian", "-r", f"{tmp_path}/r.nii", "-t", str(path), "-o", str(out), "--float32"])
        == 0
    )
    inside = (slice(1, -1),) * 3  # at the border ITK takes other differences
    found, wanted = nib.load(out).get_fdata(), itk_determinant(kind)
    np.testing.assert_allclose(found[inside], wanted[inside], atol=1e-4)
    assert (wanted < -0.05).sum() > 4
    np.testing.assert_array_equal(fr.jacobian([path], reference()).get_fdata(), found)


@pytest.mark.filterwarnings("default:The transform folds")  # the command prints it
@pytest.mark.parametrize("kind", FOLDS)
def test_logarithm_of_a_fold_is_finite_and_folds_are_counted(tmp_path, kind, capsys):
    path, _ = write_field(tmp_path, kind)
    folded = int((itk_determinant(kind) <= 0).sum())
    with pytest.warns(UserWarning, match=f"folds in {folded} of {np.prod(SHAPE)} voxels"):
        found = fr.jacobian([path], reference(), log=True).get_fdata()
    assert np.isfinite(found).all()
    assert found.min() == pytest.approx(np.log(1e-3), abs=1e-5)
    reference().to_filename(tmp_path / "r.nii")
    words = ["-r", f"{tmp_path}/r.nii", "-t", str(path), "-o", f"{tmp_path}/j.nii", "--float32"]
    assert main(["jacobian", "--log", *words]) == 0
    assert f"folds in {folded} of" in capsys.readouterr().err
    np.testing.assert_array_equal(nib.load(tmp_path / "j.nii").get_fdata(), found)


def test_logarithm_without_folds_is_silent(tmp_path):
    path, _ = write_field(tmp_path, "smooth")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        log = fr.jacobian([path], reference(), log=True).get_fdata()
    np.testing.assert_allclose(
        np.exp(log)[1:-1, 1:-1, 1:-1], itk_determinant("smooth")[1:-1, 1:-1, 1:-1], atol=1e-4
    )


def error_by_itk(path: Path, forward: sitk.Transform) -> np.ndarray:
    """How far points come back from where they start, in mm: there by us, back by ITK."""
    middle = (places()[:-1, :-1, :-1] + np.divide(SPACING, 2)).reshape(-1, 3)
    points = np.concatenate([places().reshape(-1, 3), middle])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        there = fr.map_points(points @ LPS, [(path, True)]) @ LPS
    back = np.array([forward.TransformPoint(point) for point in there.tolist()])
    return np.linalg.norm(back - points, axis=1)


@pytest.mark.parametrize("form", ["fold.h5", "1Warp.nii.gz"])
@pytest.mark.parametrize("kind", FOLDS)
def test_inverse_error_agrees_with_itk(tmp_path, kind, form):
    path, forward = write_field(tmp_path, kind, form)
    with pytest.warns(UserWarning, match=re.escape(f"The inverse of {path} has errors")) as said:
        fr.map_points([[0, 0, 0]], [(path, True)])
    largest, share = re.search(
        r"up to ([\d.]+) mm, above 0.5 mm at ([\d.e+]+) %", str(said[0].message)
    ).groups()
    error = error_by_itk(path, forward)
    assert error.max() > 2
    assert float(largest) == pytest.approx(error.max(), abs=0.1)
    assert float(share) == pytest.approx(100 * (error > 0.5).mean(), rel=0.06)


@pytest.mark.parametrize("form", ["good.h5", "1Warp.nii.gz", "composite.h5"])
def test_accurate_inverse_does_not_warn(tmp_path, form):
    path, forward = write_field(tmp_path, "smooth", form)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fr.map_points([[0, 0, 0]], [(path, True)])
    assert error_by_itk(path, forward).max() < 0.5


@pytest.mark.filterwarnings("default:The inverse")  # the command prints it
def test_inaccurate_inverse_warns_in_every_function(tmp_path, capsys):
    path, _ = write_field(tmp_path, "pinched", "composite.h5")
    said = re.escape(f"The inverse of {path} has errors")
    with pytest.warns(UserWarning, match=said):
        fr.apply(reference(), reference(), [(path, True)])
    with pytest.warns(UserWarning, match=said):
        fr.jacobian([(path, True)], reference())
    (tmp_path / "p.csv").write_text("x,y,z\n1,2,3\n")
    words = ["-i", tmp_path / "p.csv", "-o", tmp_path / "q.csv", "-t", f"[{path},1]"]
    assert main(["apply", *map(str, words)]) == 0
    assert f"warning: The inverse of {path} has errors" in capsys.readouterr().err
    with warnings.catch_warnings():  # forward there is nothing to say
        warnings.simplefilter("error")
        fr.map_points([[0, 0, 0]], [path])


@pytest.mark.parametrize(
    "second", ["other.h5", Path("other.h5"), "False", "1", 2, -1, 0.5, None, [True], np.eye(2)]
)
def test_second_item_of_a_pair_must_be_boolean(tmp_path, second):
    path, _ = write_field(tmp_path, "smooth")
    for pair in ((path, second), [path, second]):
        with pytest.raises(InputError, match=r"\('.*fold\.h5'.* is not a transform"):
            fr.map_points([[0, 0, 0]], [pair])


@pytest.mark.parametrize("second", [True, 1, np.True_, np.int64(1)])
def test_true_may_be_that_of_numpy(tmp_path, second):
    path, _ = write_field(tmp_path, "smooth")
    start = np.array([[-60.0, -39.0, 60.0]])
    np.testing.assert_array_equal(
        fr.map_points(start, [(path, second)]), fr.map_points(start, [(path, True)])
    )
    assert not np.allclose(fr.map_points(start, [(path, second)]), start)
