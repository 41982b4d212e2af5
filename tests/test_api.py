"""Registration as Python functions."""

from __future__ import annotations

import doctest
import warnings

import nibabel as nib
import numpy as np
import pytest
import torch

import bids_fcnreg as fr
from bids_fcnreg import api
from bids_fcnreg.errors import InputError
from bids_fcnreg.fcn.spatial.transform import Affine, Transform
from bids_fcnreg.io.itk import write_transform

pytestmark = pytest.mark.slow

SHAPE = (40, 44, 36)


def brain(shift: float = 0.0, turned: bool = False) -> nib.Nifti1Image:
    """A 5 mm image of a lobed body with a dark core; turned, its voxels run the other way."""
    affine = np.diag([-5.0 if turned else 5.0, 5.0, 5.0, 1.0])
    affine[:3, 3] = [95 if turned else -100, -110, -90]
    x, y, z = nib.affines.apply_affine(affine, np.moveaxis(np.indices(SHAPE), 0, -1)).T - shift
    lobes = 1 + 0.15 * np.cos(3 * np.arctan2(y, x)) + 0.1 * z / 60
    radius = np.sqrt((x / 62) ** 2 + (y / 78) ** 2 + (z / 55) ** 2) / lobes
    core = np.clip((0.45 - np.hypot(radius, (x - 15) / 90)) * 10, 0, 1)
    values = 100 * np.clip((1 - radius) * 8, 0, 1) - 55 * core
    return nib.Nifti1Image(values.T.clip(0).astype("float32"), affine)


@pytest.fixture
def moved(tmp_path):
    """A transform that moves points by 10 mm and doubles lengths."""
    matrix = np.diag([2.0, 2.0, 2.0, 1.0])
    matrix[0, 3] = 10
    return write_transform(tmp_path / "moved.h5", Transform((Affine(matrix),)))


def test_examples_of_the_documentation(tmp_path):
    given = {"template": brain(), "scan": brain(6.0, turned=True), "directory": tmp_path}
    done = doctest.testmod(api, extraglobs=given)
    assert done.attempted > 5
    assert not done.failed
    assert not doctest.testmod(fr).failed


def test_files_are_taken_as_images_are(tmp_path):
    brain().to_filename(tmp_path / "fixed.nii.gz")
    brain(6.0).to_filename(tmp_path / "moving.nii.gz")
    one = fr.register(str(tmp_path / "fixed.nii.gz"), tmp_path / "moving.nii.gz", mode="predict")
    other = fr.register(brain(), brain(6.0), mode="predict")
    np.testing.assert_array_equal(one.warped.get_fdata(), other.warped.get_fdata())
    assert one.quality["similarity"] > one.quality["similarity_initial"]


@pytest.mark.filterwarnings("ignore:The image looks like a label image")
def test_a_series_is_resampled_volume_by_volume(tmp_path, moved):
    volumes = [
        nib.Nifti1Image(np.rint(brain(shift).get_fdata()).astype("f4"), brain().affine)
        for shift in (0.0, 5.0, 10.0)
    ]
    series = nib.concat_images(volumes)
    series.header.set_xyzt_units("mm", "sec")
    series.header["pixdim"][4] = 2.5
    series.to_filename(tmp_path / "bold.nii.gz")
    for interpolation in ("linear", "label"):
        found = fr.apply(tmp_path / "bold.nii.gz", brain(), [moved], interpolation=interpolation)
        assert found.shape == (*SHAPE, 3)
        assert found.header.get_zooms()[3] == pytest.approx(2.5)
        assert found.header.get_xyzt_units() == ("mm", "sec")
        for number, volume in enumerate(volumes):
            alone = fr.apply(volume, brain(), [moved], interpolation=interpolation)
            np.testing.assert_array_equal(found.dataobj[..., number], alone.dataobj)


def test_a_truncated_series_is_refused(tmp_path, moved):
    series = nib.concat_images([brain(), brain()])
    series.to_filename(tmp_path / "bold.nii")
    whole = (tmp_path / "bold.nii").read_bytes()
    (tmp_path / "bold.nii").write_bytes(whole[: len(whole) * 3 // 4])
    with pytest.raises(InputError, match=r"bold.nii is too small for"):
        fr.apply(tmp_path / "bold.nii", brain(), [moved])


def test_jacobian_of_a_known_growth(moved):
    assert np.allclose(fr.jacobian([moved], brain()).get_fdata(), 8)
    assert np.allclose(fr.jacobian([moved, moved], brain(), log=True).get_fdata(), 2 * np.log(8))


def test_common_mistakes_are_accepted_or_reported(moved):
    one, many = (fr.apply(brain(), brain(), given) for given in (moved, [moved]))
    np.testing.assert_array_equal(one.get_fdata(), many.get_fdata())
    with pytest.raises(
        InputError, match=r"no interpolation 'NearestNeighbor'. Choose one of linear"
    ):
        fr.apply(brain(), brain(), [moved], interpolation="NearestNeighbor")


def test_arguments_in_the_wrong_order_are_reported(moved):
    with pytest.raises(InputError, match="Transforms are of type Nifti1Image"):
        fr.jacobian(brain(), [moved])
    with pytest.raises(InputError, match="The moving image is of type list. Pass a file"):
        fr.apply([moved], brain(), [moved])


def test_empty_result_gives_a_warning(moved):
    far = nib.Nifti1Image(brain().get_fdata(), np.diag([1, 1, 1, 1.0]))
    far.affine[:3, 3] = 5000
    with pytest.warns(UserWarning, match="The result is empty"):
        fr.apply(brain(), far, [moved])


def test_linear_interpolation_of_labels_gives_a_warning(moved):
    blocks = np.repeat(np.arange(4), 8)[:, None, None] * np.ones((32, 32, 32))
    labels = nib.Nifti1Image(blocks.astype("int16"), np.eye(4))
    with pytest.warns(UserWarning, match="looks like a label image"):
        fr.apply(labels, labels, [moved])
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        fr.apply(labels, labels, [moved], interpolation="label")
        fr.apply(brain(), brain(), [moved])


def test_a_head_is_registered_as_its_brain_is(phantom_dataset):
    """The brain mask and the bias field need not be known."""
    scan = nib.load(phantom_dataset / "sub-01/anat/sub-01_T1w.nii.gz").slicer[::2, ::2, ::2]
    truth = "derivatives/truth/sub-01/anat/sub-01_desc-brain_mask.nii.gz"
    mask = nib.load(phantom_dataset / truth).slicer[::2, ::2, ::2]
    template = fr.apply("MNI152NLin2009aSym", None, "identity", spacing=3)
    found, known = (
        fr.register(template, scan, moving_mask=given, mode="predict") for given in (None, mask)
    )
    assert found.quality["brain_extracted"] == ["moving"]
    assert known.quality["brain_extracted"] == []
    inside = np.argwhere(template.get_fdata() > 20)[::53]
    points = torch.from_numpy(nib.affines.apply_affine(template.affine, inside))
    apart = torch.linalg.norm(found.forward.map(points) - known.forward.map(points), dim=1)
    assert apart.median() < 0.5


def test_what_is_no_head_has_failed():
    noise = np.random.default_rng(0).uniform(1, 2, (20, 20, 20))
    other = nib.Nifti1Image(noise, np.diag([10, 10, 10, 1.0]))
    quality = fr.register(brain(), other, mode="predict").quality
    assert quality["verdict"] == "failed"
    assert "the image does not show a head" in quality["verdict_reason"]


def test_the_builtin_template_has_a_name(moved):
    growth = fr.jacobian([moved], "MNI152NLin2009aSym")
    assert growth.shape == (197, 233, 189)


def test_no_transform_is_refused():
    with pytest.raises(InputError, match="There is no transform"):
        fr.apply(brain(), brain(), [])


def test_unknown_attribute_raises():
    with pytest.raises(AttributeError, match="no attribute 'registre'"):
        fr.registre  # noqa: B018
