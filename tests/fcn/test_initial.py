"""Registrations that start from a nonlinear transform."""

from __future__ import annotations

from dataclasses import replace

import nibabel as nib
import nitransforms as nt
import numpy as np
import pytest
import SimpleITK as sitk
import torch

import bids_fcnreg as fr
from bids_fcnreg.bids.builtin_templates import nilearn_map
from bids_fcnreg.errors import InputError
from bids_fcnreg.fcn.register import Registration, register
from bids_fcnreg.fcn.spatial.displacement import exponentiate
from bids_fcnreg.fcn.spatial.filters import gaussian
from bids_fcnreg.fcn.spatial.grid import Grid, Image
from bids_fcnreg.fcn.spatial.transform import Affine, Displacement, Transform
from bids_fcnreg.io import image, itk
from bids_fcnreg.io.formats import table

pytestmark = pytest.mark.slow

SPACING_MM = 3.0


@pytest.fixture(scope="module")
def fixed() -> Image:
    """The built-in template with voxels of 3 mm."""
    template = image.read(nilearn_map("t1"))
    blurred = Image(gaussian(template.data, 1.5), template.grid)
    coarse = Transform(()).resample(blurred, template.grid.with_spacing(SPACING_MM))
    brain = Transform(()).resample(template, coarse.grid).data > 0
    return replace(coarse, data=coarse.data * brain)


def random_displacement(grid: Grid, largest_mm: float, sigma: float, seed: int) -> Displacement:
    """A smooth diffeomorphism, zero at the border."""
    noise = torch.randn(1, 3, *grid.shape, generator=torch.Generator().manual_seed(seed))
    window = torch.zeros(1, 1, *grid.shape)
    window[..., 6:-6, 6:-6, 6:-6] = 1
    velocity = gaussian(noise, sigma) * gaussian(window, 2.0)
    velocity *= largest_mm / SPACING_MM / velocity.square().sum(dim=1).sqrt().max()
    return Displacement(grid, exponentiate(velocity))


@pytest.fixture(scope="module")
def large(fixed) -> Transform:
    """The initial transform: a deformation of up to 18 mm, turned, stretched and shifted."""
    matrix = np.eye(4)
    matrix[:3, :3] = nib.eulerangles.euler2mat(0.4, -0.3, 0.5) @ np.diag([1.1, 0.9, 1.05])
    matrix[:3, 3] = 25, -20, 15
    return Transform((random_displacement(fixed.grid, 18.0, 5.0, 3), Affine(matrix)))


@pytest.fixture(scope="module")
def truth(fixed, large) -> Transform:
    """With a remaining difference of up to 5 mm."""
    return Transform((random_displacement(fixed.grid, 5.0, 4.0, 4), *large.steps))


@pytest.fixture(scope="module")
def moving(fixed, truth) -> Image:
    onto = np.diag([-2.5, -2.5, 2.5, 1.0])
    onto[:3, 3] = 150, 120, -105
    return truth.inverse().resample(fixed, Grid((104, 104, 92), onto))


@pytest.fixture(scope="module")
def found(fixed, moving, large) -> Registration:
    return register(fixed, moving, initial=large, device="cpu", threads=1)


def brain_points(fixed: Image) -> torch.Tensor:
    return fixed.grid.points()[fixed.data[0, 0] > 10]


def errors(result: Transform, truth: Transform, fixed: Image) -> torch.Tensor:
    """Distances in mm between the images of the brain's points."""
    points = brain_points(fixed)
    return (result.map(points) - truth.map(points)).norm(dim=-1)


def test_the_remaining_difference_is_recovered(found, fixed, truth, large):
    before, after = (errors(one, truth, fixed) for one in (large, found.forward))
    assert before.median() > 1.5
    assert after.median() < 0.75  # a quarter of a voxel
    assert after.quantile(0.95) < 0.5 * before.quantile(0.95)


def test_metrics_are_those_of_the_whole_transform(found, fixed):
    quality = found.quality
    assert quality.similarity_initial < 0.3 < quality.similarity_affine < quality.similarity
    points = brain_points(fixed)
    back = (found.inverse.map(found.forward.map(points)) - points).norm(dim=-1)
    assert float(back.mean()) == pytest.approx(quality.inverse_consistency_mm, rel=0.1)
    assert back.max() < SPACING_MM
    assert quality.folds_percent == 0 and quality.sd_log_jacobian > 0.3


def test_the_result_is_one_displacement_and_one_affine(found, fixed, large):
    displacement, affine = found.forward.steps
    back, deformation = found.inverse.steps
    np.testing.assert_allclose(back.matrix @ affine.matrix, np.eye(4), atol=1e-9)
    for step in (displacement, deformation):
        ends = [step.field.select(axis, end) for axis in (2, 3, 4) for end in (0, -1)]
        assert max(float(end.abs().max()) for end in ends) == 0  # continuous
    # The deformation vanishes at the border: the affine is that of the initial transform, optimized.
    assert np.linalg.norm((affine.matrix - large.steps[1].matrix)[:3, :3]) < 0.1


def written_by_simpleitk(large: Transform, folder) -> list:
    """A composite, as antsRegistration writes it."""
    displacement, affine = large.steps
    itk.write_transform(folder / "large.h5", Transform((displacement,)))
    field = sitk.CompositeTransform(sitk.ReadTransform(str(folder / "large.h5")))
    flip = np.diag([-1.0, -1.0, 1.0, 1.0])
    matrix = flip @ affine.matrix @ flip
    linear = sitk.AffineTransform(matrix[:3, :3].ravel().tolist(), matrix[:3, 3].tolist())
    composite = sitk.CompositeTransform([linear, field.GetNthTransform(0)])
    sitk.WriteTransform(composite, str(folder / "composite.h5"))
    return [folder / "composite.h5"]


def written_by_nitransforms(large: Transform, folder) -> list:
    """A displacement field and an affine, as a chain."""
    displacement, affine = large.steps
    grid = displacement.grid
    mm = np.einsum("ab,bijk->ijka", grid.affine[:3, :3], displacement.field[0].numpy())
    field = nib.Nifti1Image(mm.astype("float32"), grid.affine)
    reference = nib.Nifti1Image(np.zeros(grid.shape, "u1"), grid.affine)
    nt.nonlinear.DenseFieldTransform(field, reference=reference).to_filename(
        folder / "field.nii.gz", fmt="itk"
    )
    nt.linear.Affine(affine.matrix, reference=reference).to_filename(
        folder / "affine.txt", fmt="itk"
    )
    return [folder / "field.nii.gz", folder / "affine.txt"]


@pytest.mark.parametrize("write", [written_by_simpleitk, written_by_nitransforms])
def test_files_of_other_software(write, fixed, moving, large, truth, tmp_path):
    """The written transforms are whole, and ITK resamples the moving image with them as we do."""
    names = {"fixed": fixed, "moving": moving}
    for name, one in names.items():
        image.write(tmp_path / f"{name}.nii.gz", one)
    files = write(large, tmp_path)
    result = fr.register(
        *(tmp_path / f"{name}.nii.gz" for name in names), initial=files, mode="predict"
    )
    assert (
        errors(result.forward, truth, fixed).median() < 0.6 * errors(large, truth, fixed).median()
    )
    warped, xfm, inverse, affine = result.save(tmp_path / "r_")
    images = (sitk.ReadImage(str(tmp_path / f"{name}.nii.gz")) for name in names)
    reference, source = images
    forward, back = (sitk.ReadTransform(str(path)) for path in (xfm, inverse))
    theirs = sitk.GetArrayFromImage(sitk.Resample(source, reference, forward)).T
    ours = nib.load(warped).get_fdata()
    assert np.abs(theirs - ours).max() < 0.01 * ours.max()
    for point in brain_points(fixed)[::2000].tolist():
        there = forward.TransformPoint((-point[0], -point[1], point[2]))
        returned = np.array(back.TransformPoint(there)) * [-1, -1, 1]
        assert np.linalg.norm(returned - point) < SPACING_MM / 2
    (linear,) = table.read(affine).steps
    np.testing.assert_allclose(linear.matrix, table.read(xfm).steps[-1].matrix, atol=1e-6)


def test_an_affine_within_a_displacement_field(fixed, moving, large, truth, found):
    """As antsApplyTransforms writes composed transforms: it does not vanish at the border."""
    field = Transform((large.displacement(fixed.grid),))
    result = register(fixed, moving, initial=field, device="cpu", threads=1)
    usual = errors(found.forward, truth, fixed)
    assert errors(result.forward, truth, fixed).median() < 1.1 * usual.median()
    assert result.quality.inverse_consistency_p95_mm < 0.6
    expected = found.forward.steps[1].matrix
    np.testing.assert_allclose(result.forward.steps[1].matrix, expected, atol=2)


@pytest.mark.parametrize("transform", ["rigid", "similarity", "affine"])
def test_a_linear_registration_cannot_start_from_it(fixed, moving, large, transform):
    with pytest.raises(InputError, match=f"would make the {transform} transform nonlinear"):
        register(fixed, moving, initial=large, transform=transform)


def test_a_transform_of_other_images_is_refused(fixed, moving, large):
    away = np.eye(4)
    away[0, 3] = 500
    with pytest.raises(InputError, match="the moving brain is far from the fixed one"):
        register(fixed, moving, initial=large.then(Transform((Affine(away),))))
    mirrored = large.then(Transform((Affine(np.diag([-1.0, 1.0, 1.0, 1.0])),)))
    with pytest.raises(InputError, match="exchanges left and right"):
        register(fixed, moving, initial=mirrored)


def test_excluded_voxels_are_those_of_the_moving_image(fixed, moving, large, found):
    """A lesion of the moving image is excluded where the initial transform takes it."""
    lesion = torch.zeros_like(moving.data)
    lesion[..., 44:56, 50:62, 42:54] = 1
    spoiled = Image(torch.where(lesion > 0, 400.0, moving.data), moving.grid)
    inside = found.forward.resample(Image(lesion, moving.grid), fixed.grid).data[0, 0] > 0.5
    points = fixed.grid.points()[inside]
    apart = [
        (
            register(fixed, spoiled, initial=large, moving_exclude=exclude, threads=1)
            .forward.map(points)
            .sub(found.forward.map(points))
            .norm(dim=-1)
            .mean()
        )
        for exclude in (None, Image(lesion, moving.grid))
    ]
    assert len(points) > 200
    assert apart[1] < 0.6 * apart[0]
