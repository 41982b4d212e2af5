"""Registration of pairs whose true deformation is known."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import ndimage

from bids_fcnreg.bids.builtin_templates import nilearn_map
from bids_fcnreg.errors import InputError
from bids_fcnreg.fcn.device import resolve_device
from bids_fcnreg.fcn.nets.checkpoint import load, save
from bids_fcnreg.fcn.nets.mdregnet import DiffeomorphicFCN
from bids_fcnreg.fcn.nets.packaged_weights import packaged_weights
from bids_fcnreg.fcn.register import register
from bids_fcnreg.fcn.spatial.displacement import exponentiate
from bids_fcnreg.fcn.spatial.filters import gaussian
from bids_fcnreg.fcn.spatial.grid import Grid, Image
from bids_fcnreg.fcn.spatial.inverse import invert
from bids_fcnreg.fcn.spatial.transform import Affine, Displacement, Transform
from bids_fcnreg.io import image

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def fixed() -> Image:
    """The built-in template with voxels of 3 mm."""
    template = image.read(nilearn_map("t1"))
    blurred = Image(gaussian(template.data, 1.5), template.grid)
    coarse = Transform(()).resample(blurred, template.grid.with_spacing(3.0))
    brain = Transform(()).resample(template, coarse.grid).data > 0
    return replace(coarse, data=coarse.data * brain)


@pytest.fixture(scope="module")
def truth(fixed) -> Transform:
    """From points of the template to those of the subject: up to 9 mm, turned and shifted."""
    noise = torch.randn(1, 3, *fixed.grid.shape, generator=torch.Generator().manual_seed(5))
    velocity = gaussian(noise, 5.0)
    velocity = 3.0 * velocity / velocity.abs().max()
    matrix = np.eye(4)
    matrix[:3, :3] = [[1.05, 0.08, 0.0], [-0.08, 0.98, 0.1], [0.0, -0.1, 1.02]]
    matrix[:3, 3] = 12, -7, 9
    return Transform((Displacement(fixed.grid, exponentiate(velocity)), Affine(matrix)))


@pytest.fixture(scope="module")
def moving(fixed, truth) -> Image:
    """The subject: the template under the truth, in other intensities, stored as LPI."""
    displacement, affine = truth.steps
    back = Transform((
        Affine(np.linalg.inv(affine.matrix)),
        Displacement(fixed.grid, invert(displacement.field)),
    ))  # fmt: skip
    onto = np.diag([-2.5, -2.5, 2.5, 1.0])
    onto[:3, 3] = 105, 90, -75
    subject = back.resample(fixed, Grid((84, 92, 76), onto))
    noise = torch.randn(subject.data.shape, generator=torch.Generator().manual_seed(6))
    brain = subject.data > 10
    return Image((800 * (subject.data / 255) ** 0.8 + 8 * noise) * brain, subject.grid)


def errors(result: Transform, truth: Transform, fixed: Image) -> torch.Tensor:
    """Distances in mm between where the result and the truth take the brain's points."""
    points = fixed.grid.points()[fixed.data[0, 0] > 10]
    return (result.map(points) - truth.map(points)).norm(dim=-1)


@pytest.fixture(scope="module")
def refined(fixed, moving):
    return register(fixed, moving, device="cpu", threads=1)


@pytest.fixture(scope="module")
def predicted(fixed, moving):
    return register(fixed, moving, mode="predict", device="cpu", threads=1)


def test_refine_recovers_the_truth(refined, fixed, truth):
    linear = Transform(tuple(s for s in refined.forward.steps if isinstance(s, Affine)))
    before = errors(linear, truth, fixed)
    after = errors(refined.forward, truth, fixed)
    assert before.median() > 2
    assert after.median() < 0.9
    assert after.quantile(0.95) < 2.5


@pytest.mark.parametrize("shear", [2e-4, 0.1])
def test_a_sheared_fixed_image_gets_a_deformation_on_a_straight_grid(
    predicted, fixed, moving, truth, shear
):
    skewed = np.eye(4)
    skewed[0, 1], skewed[2, 0] = shear, -shear
    grid = Grid(fixed.grid.shape, skewed @ fixed.grid.affine)
    sheared = Transform(()).resample(fixed, grid)
    result = register(sheared, moving, mode="predict", device="cpu", threads=1)
    for transform in (result.forward, result.inverse):
        (step,) = (one for one in transform.steps if isinstance(one, Displacement))
        assert step.grid.is_orthogonal
    after, usual = (errors(one.forward, truth, fixed) for one in (result, predicted))
    assert after.median() < 1.1 * usual.median()
    assert after.quantile(0.95) < 1.2 * usual.quantile(0.95)


def test_quality_describes_the_registration(refined):
    quality = refined.quality
    assert quality.similarity_initial < quality.similarity_affine < quality.similarity
    assert quality.similarity > 0.8
    assert quality.folds_percent == 0
    assert 0.02 < quality.sd_log_jacobian < 0.5
    assert quality.inverse_consistency_mm < 0.1
    assert set(quality.seconds) == {
        "affine", "prepare", "network", "refine", "inverse", "quality"
    }  # fmt: skip
    assert quality.weights == load(packaged_weights("diffeomorphic"))[1]


def test_inverse_brings_points_back(refined, fixed):
    points = fixed.grid.points()[fixed.data[0, 0] > 10]
    back = refined.inverse.map(refined.forward.map(points))
    assert (back - points).norm(dim=-1).quantile(0.99) < 0.3


def test_the_same_again_gives_the_same(refined, fixed, moving):
    again = register(fixed, moving, device="cpu", threads=1)
    for one, other in zip(refined.forward.steps, again.forward.steps, strict=True):
        if isinstance(one, Affine):
            assert (one.matrix == other.matrix).all()
        else:
            assert torch.equal(one.field, other.field)


def test_predict_recovers_most_of_the_truth(predicted, fixed, truth):
    linear = Transform(tuple(s for s in predicted.forward.steps if isinstance(s, Affine)))
    before, after = (errors(part, truth, fixed).median() for part in (linear, predicted.forward))
    assert after < 0.7 * before
    assert predicted.quality.folds_percent == 0


def spoilt(data: torch.Tensor, count: int, value: float) -> torch.Tensor:
    """Some voxels of the brain and of the background have another value."""
    data = data.clone()
    places = torch.randperm(data.numel(), generator=torch.Generator().manual_seed(7))[:count]
    data.view(-1)[places] = value
    return data


def rung(data: torch.Tensor) -> torch.Tensor:
    """As splines leave it: no voxel is zero."""
    there = ndimage.shift(data[0, 0].double().numpy(), 0.4, order=3)
    return torch.from_numpy(ndimage.shift(there, -0.4, order=3))[None, None].float()


def noisy(data: torch.Tensor) -> torch.Tensor:
    noise = torch.randn(data.shape, generator=torch.Generator().manual_seed(8))
    return data + 0.02 * data.max() * noise


#: Some of those of test_intensity.py, whose images are equal after standardization.
INTENSITIES = {
    "standardized over the volume": lambda d: (d - d.mean()) / d.std(),
    "offset of 1000 in the brain": lambda d: torch.where(d > 0, d + 1000, 0.0),
    "white background": lambda d: torch.where(d > 0, d, 1.1 * d.max()),
    "negative": lambda d: -d,
    "gamma of 0.5": lambda d: d.clamp(min=0) ** 0.5,
    "gamma of 2": lambda d: d.clamp(min=0) ** 2,
    "spline-resampled": rung,
    "noisy": noisy,
    "200 bright voxels": lambda d: spoilt(d, 200, 1e5),
}


@pytest.mark.parametrize("kind", INTENSITIES)
def test_intensities_need_no_scale(predicted, fixed, moving, truth, kind):
    """In the moving image; of the fixed one they are treated in the same way."""
    changed = Image(INTENSITIES[kind](moving.data), moving.grid)
    result = register(fixed, changed, mode="predict", device="cpu", threads=1)
    usual, found = (errors(one.forward, truth, fixed).median() for one in (predicted, result))
    assert found < 1.1 * usual + 0.1
    assert result.quality.similarity > predicted.quality.similarity - 0.05
    assert result.quality.brain_overlap > predicted.quality.brain_overlap - 0.02


@pytest.mark.parametrize("kind", ["standardized over the volume", "noisy"])
def test_intensities_of_the_fixed_image_need_no_scale(predicted, fixed, moving, truth, kind):
    changed = Image(INTENSITIES[kind](fixed.data), fixed.grid)
    result = register(changed, moving, mode="predict", device="cpu", threads=1)
    usual, found = (errors(one.forward, truth, fixed).median() for one in (predicted, result))
    # Where zero means nothing, dark tissue is a guess: the contrast differs a little.
    assert found < 1.3 * usual + 0.1


def test_another_model_is_used_and_named(fixed, moving, tmp_path):
    torch.manual_seed(0)
    path = tmp_path / "other.safetensors"
    save(DiffeomorphicFCN(spacings=(6.0,), passes=(2,), widths=(4, 8)), path)
    result = register(fixed, moving, mode="predict", model=path, device="cpu", threads=1)
    assert result.quality.weights == load(path)[1]
    assert result.quality.similarity > result.quality.similarity_affine


@pytest.mark.parametrize(("network", "left"), [("diffeomorphic", 0.7), ("2017", 0.8)])
def test_optimize_recovers_a_part_of_the_truth(fixed, moving, truth, network, left):
    """The affine's error is half a voxel of 4.5 mm already."""
    coarse = Transform(()).resample(fixed, fixed.grid.with_spacing(4.5))
    result = register(coarse, moving, mode="optimize", network=network, device="cpu", threads=1)
    linear = Transform(tuple(s for s in result.forward.steps if isinstance(s, Affine)))
    before, after = (errors(part, truth, fixed).median() for part in (linear, result.forward))
    assert after < left * before
    assert result.quality.similarity > result.quality.similarity_affine
    assert result.quality.folds_percent == 0


def test_excluded_voxels_exert_no_force(refined, fixed, moving):
    """A lesion that looks like nothing in the template moves what is around it, if compared."""
    lesion = torch.zeros_like(moving.data)
    lesion[..., 24:36, 40:52, 34:46] = 1
    spoiled = Image(torch.where(lesion > 0, 1200.0, moving.data), moving.grid)
    exclude = Image(lesion, moving.grid)
    compared, left_out = (
        register(fixed, spoiled, moving_exclude=without, device="cpu", threads=1).forward
        for without in (None, exclude)
    )
    clean = refined.forward
    distance = ndimage.distance_transform_edt(lesion[0, 0] == 0, moving.grid.spacing)
    around = Image(torch.from_numpy(distance < 12).float()[None, None], moving.grid)
    around = clean.resample(around, fixed.grid).data[0, 0] > 0.5
    points = fixed.grid.points()[(fixed.data[0, 0] > 10) & around]
    reference = clean.map(points)
    apart = [(other.map(points) - reference).norm(dim=-1) for other in (compared, left_out)]
    assert apart[0].mean() > 3 * apart[1].mean()


def test_excluded_voxels_of_the_fixed_image_exert_no_force(refined, fixed, moving):
    lesion = torch.zeros_like(fixed.data)
    lesion[..., 22:32, 40:50, 30:40] = 1
    spoiled = Image(torch.where(lesion > 0, 400.0, fixed.data), fixed.grid)
    exclude = Image(lesion, fixed.grid)
    compared, left_out = (
        register(spoiled, moving, fixed_exclude=without, device="cpu", threads=1).forward
        for without in (None, exclude)
    )
    clean = refined.forward
    around = ndimage.distance_transform_edt(lesion[0, 0] == 0, fixed.grid.spacing) < 12
    points = fixed.grid.points()[(fixed.data[0, 0] > 10) & torch.from_numpy(around)]
    reference = clean.map(points)
    apart = [(other.map(points) - reference).norm(dim=-1) for other in (compared, left_out)]
    assert apart[0].mean() > 3 * apart[1].mean()


@pytest.mark.parametrize("transform", ["rigid", "similarity", "affine"])
def test_linear_transforms(fixed, moving, truth, transform):
    found = register(fixed, moving, transform=transform, device="cpu", threads=1)
    (step,) = found.forward.steps
    stretch = np.linalg.svd(step.matrix[:3, :3], compute_uv=False)
    if transform != "affine":
        np.testing.assert_allclose(stretch, stretch.mean(), rtol=1e-6)
    if transform == "rigid":
        assert stretch.mean() == pytest.approx(1)
    both = found.forward.then(found.inverse)
    np.testing.assert_allclose(both.steps[1].matrix @ both.steps[0].matrix, np.eye(4), atol=1e-9)
    assert errors(found.forward, truth, fixed).median() < 6  # the truth is deformed by up to 9 mm
    quality = found.quality
    assert quality.mode == transform and quality.similarity == quality.similarity_affine
    assert quality.similarity > quality.similarity_initial and quality.sd_log_jacobian == 0


def test_invalid_arguments_raise(fixed, moving):
    with pytest.raises(InputError, match="Unknown mode 'quick'"):
        register(fixed, moving, mode="quick")
    with pytest.raises(InputError, match="Unknown network 'unet'"):
        register(fixed, moving, network="unet")
    with pytest.raises(InputError, match="Unknown transform 'syn'"):
        register(fixed, moving, transform="syn")
    with pytest.raises(InputError, match="A rigid transform needs no network"):
        register(fixed, moving, transform="rigid", model=packaged_weights("diffeomorphic"))
    with pytest.raises(InputError, match="The package has no trained weights"):
        register(fixed, moving, mode="predict", network="2017")
    with pytest.raises(InputError, match="trains a network from scratch"):
        register(fixed, moving, mode="optimize", model=packaged_weights("diffeomorphic"))
    with pytest.raises(InputError, match="Unknown device 'tpu'"):
        resolve_device("tpu")
    with pytest.raises(InputError, match="'cuda:99' is not available"):
        resolve_device("cuda:99")
    mask = Image(torch.ones(1, 1, 4, 4, 4), Grid((4, 4, 4), np.eye(4)))
    with pytest.raises(InputError, match="mask"):
        register(fixed, moving, fixed_mask=mask)
