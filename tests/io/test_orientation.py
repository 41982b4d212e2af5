"""What headers claim of an image's orientation, and what results claim then."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

import bids_fcnreg as fr
from bids_fcnreg.fcn.spatial.transform import Affine, Transform
from bids_fcnreg.interfaces.preprocess import AverageRuns, Conform
from bids_fcnreg.interfaces.registration import Resample, ToTemplate
from bids_fcnreg.io import image, nifti
from bids_fcnreg.io.itk import write_transform
from bids_fcnreg.io.orientation import codes_of

pytestmark = pytest.mark.slow

SHIFTED = np.diag([2.0, 2.0, 2.0, 1.0])
SHIFTED[:3, 3] = -10, -12, -14
SHEARED = SHIFTED.copy()
SHEARED[0, 1] = 0.3
VALUES = np.random.default_rng(0).integers(1, 99, (10, 12, 14)).astype("int16")


def save(path: Path, sform: int, qform: int, apart: float = 0.0) -> Path:
    """An image with these codes, the qform a few mm from the sform."""
    made = nib.Nifti1Image(VALUES, SHIFTED)
    moved = SHIFTED.copy()
    moved[0, 3] += apart
    made.set_qform(moved, qform)
    made.set_sform(SHIFTED, sform)
    made.to_filename(path)
    return path


def stored_codes(path: str | Path) -> tuple[int, int]:
    header = nib.load(path).header
    return int(header["sform_code"]), int(header["qform_code"])


#: Codes of an input, how far apart its forms are, and the codes that a result may have.
CASES = [
    (0, 0, 0, (0, 0)),
    (1, 1, 0, (1, 1)),
    (2, 0, 0, (2, 0)),
    (0, 1, 0, (0, 1)),
    (4, 1, 0, (4, 1)),
    (4, 1, 7, (4, 4)),
    (1, 2, 0.2, (1, 2)),
]


@pytest.mark.parametrize(("sform", "qform", "apart", "kept"), CASES)
def test_results_have_the_codes_of_the_input(tmp_path, sform, qform, apart, kept):
    path = save(tmp_path / "x.nii.gz", sform, qform, apart)
    there = nib.load(path).affine
    read = nifti.load(path)
    assert codes_of(read) == kept
    again = nifti.write(tmp_path / "y.nii.gz", read)
    assert stored_codes(again) == kept
    np.testing.assert_allclose(nib.load(again).affine, there, atol=1e-4)


@pytest.mark.filterwarnings("ignore:.* has no orientation", "ignore:sform and qform")
@pytest.mark.parametrize(("sform", "qform", "apart", "kept"), CASES)
def test_resampled_images_have_the_codes_of_the_reference(tmp_path, sform, qform, apart, kept):
    path = save(tmp_path / "x.nii.gz", sform, qform, apart)
    stay = write_transform(tmp_path / "stay.h5", Transform((Affine(np.eye(4)),)))
    for made in (
        fr.apply(path, path, [stay]),
        fr.apply(path, path, [stay], interpolation="label"),
        fr.jacobian([stay], path),
    ):
        written = nifti.write(tmp_path / "y.nii.gz", made)
        assert stored_codes(written) == kept
        np.testing.assert_allclose(nib.load(written).affine, nib.load(path).affine, atol=1e-4)
    for onto_template in (False, True):
        resample = Resample(
            in_file=str(path),
            reference=str(path),
            transform=[str(stay)],
            onto_template=onto_template,
        )
        found = stored_codes(resample.run(cwd=tmp_path).outputs.out_file)
        assert found == ((4, 4) if onto_template and any(kept) else kept)
    same = dict.fromkeys(("preproc", "mask", "reference", "template_mask"), str(path))
    made = ToTemplate(**same, transform=str(stay)).run(cwd=tmp_path)
    for output in (made.outputs.preproc_std, made.outputs.mask_std, made.outputs.log_jacobian):
        assert stored_codes(output) == ((4, 4) if any(kept) else (0, 0))


@pytest.mark.parametrize(("sform", "qform", "apart", "kept"), CASES)
def test_conform_keeps_codes_and_world_coordinates(tmp_path, sform, qform, apart, kept):
    path = save(tmp_path / "x.nii.gz", sform, qform, apart)
    conformed = Conform(in_file=str(path)).run(cwd=tmp_path).outputs.out_file
    assert stored_codes(conformed) == kept
    before, after = (nib.as_closest_canonical(nib.load(one)) for one in (path, conformed))
    np.testing.assert_allclose(after.affine, before.affine, atol=1e-4)
    np.testing.assert_array_equal(np.asarray(after.dataobj), np.asarray(before.dataobj))


def test_average_has_the_codes_of_the_first_run(tmp_path):
    box = np.zeros((40, 40, 40), "float32")
    box[8:30, 9:28, 10:33] = np.random.default_rng(1).random((22, 19, 23)) + 5
    for name in "ab":
        made = nib.Nifti1Image(box, np.diag([3.0, 3, 3, 1]))
        made.set_sform(None, 0)
        made.set_qform(None, 0)
        made.to_filename(tmp_path / f"{name}.nii")
    runs = [str(tmp_path / f"{name}.nii") for name in "ab"]
    mean = AverageRuns(in_files=runs).run(cwd=tmp_path).outputs.out_file
    assert stored_codes(mean) == (0, 0)
    np.testing.assert_allclose(nib.load(mean).affine, nib.load(runs[0]).affine, atol=1e-4)


def test_a_sheared_affine_is_in_the_sform_alone(tmp_path):
    made = nib.Nifti1Image(VALUES, SHEARED)
    made.set_sform(SHEARED, 1)
    made.to_filename(tmp_path / "x.nii")
    read = nifti.load(tmp_path / "x.nii")
    written = image.write(tmp_path / "y.nii", image.to_image(read))
    assert stored_codes(written) == (1, 0)
    np.testing.assert_allclose(nib.load(written).affine, SHEARED, atol=1e-5)


def test_unusual_affine_gets_a_code(tmp_path):
    made = image.to_image(nib.Nifti1Image(VALUES, SHIFTED))
    written = image.write(tmp_path / "x.nii", made, space=0)
    assert stored_codes(written) == (2, 0)
    np.testing.assert_allclose(nib.load(written).affine, SHIFTED, atol=1e-5)


def test_ambiguous_orientation_warns_for_files_and_images(tmp_path):
    nothing = save(tmp_path / "none.nii", 0, 0)
    assert "none.nii has no orientation" in nifti.orientation_warning(nothing)
    apart = save(tmp_path / "two.nii", 1, 1, apart=7)
    assert "two.nii disagree by 7 mm: the sform is used" in nifti.orientation_warning(apart)
    analyze = nib.AnalyzeImage(VALUES, SHIFTED)
    analyze.to_filename(tmp_path / "old.img")
    assert "a format without orientation" in nifti.orientation_warning(tmp_path / "old.img")
    nib.MGHImage(VALUES.astype("float32"), SHIFTED).to_filename(tmp_path / "fs.mgz")
    for path in (
        save(tmp_path / "good.nii", 1, 1),
        save(tmp_path / "one.nii", 2, 0),
        save(tmp_path / "near.nii", 1, 1, apart=0.3),
        tmp_path / "fs.mgz",
        tmp_path / "missing.nii",
    ):
        assert nifti.orientation_warning(path) is None, path
    stay = write_transform(tmp_path / "stay.h5", Transform((Affine(np.eye(4)),)))
    for given in (nothing, nib.load(nothing)):
        with pytest.warns(UserWarning, match="has no orientation"):
            fr.apply(given, nib.load(tmp_path / "good.nii"), [stay])
        with pytest.warns(UserWarning, match="has no orientation"):
            fr.jacobian([stay], given)
    with pytest.warns(UserWarning, match="disagree by 7 mm"):
        fr.apply(tmp_path / "good.nii", apart, [stay])


@pytest.mark.parametrize("kind", [nib.AnalyzeImage, nib.Spm99AnalyzeImage, nib.Spm2AnalyzeImage])
def test_analyze_images_warn_about_orientation(tmp_path, kind):
    kind(np.ones((5, 6, 7), "int16"), None).to_filename(tmp_path / "x.img")
    doubt = nifti.orientation_warning(tmp_path / "x.img")
    assert "x.img is an Analyze image, a format without orientation" in doubt
    nib.Nifti1Pair(np.ones((5, 6, 7), "int16"), np.eye(4)).to_filename(tmp_path / "y.img")
    assert nifti.orientation_warning(tmp_path / "y.img") is None
