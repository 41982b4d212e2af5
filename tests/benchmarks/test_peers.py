"""Transforms of every tool: they resample as the tool does, and are those of its own command."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import measures
import nibabel as nib
import numpy as np
import peer
import peers
import peers_ants
import peers_elastix
import peers_torch
import pytest

from bids_fcnreg.fcn import register as registration
from bids_fcnreg.fcn.refine import Refinement
from bids_fcnreg.fcn.spatial.grid import Image

if TYPE_CHECKING:
    from conftest import Known

pytestmark = pytest.mark.slow


def gap(ours: Image, theirs: np.ndarray) -> float:
    """99.9th percentile of the difference, as a part of the range."""
    difference = np.abs(ours.data[0, 0].numpy() - theirs)
    return float(np.quantile(difference, 0.999) / theirs.max())


@pytest.fixture(scope="module")
def ants_found(known: Known) -> tuple[dict, peer.Maps]:
    """What antspyx finds, as it gives it and as we read it."""
    ants = pytest.importorskip("ants", reason="antspyx is not installed")
    caught = {}
    registration = ants.registration

    def catch(*args: object, **kwargs: object) -> dict:
        caught.update(registration(*args, **kwargs))
        return caught

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ants, "registration", catch)
        maps = peers_ants.ants(known.task, measures.Meter(), "SyN")
    return caught, maps


def test_ants_maps_resample_as_ants_does(known: Known, ants_found: tuple[dict, peer.Maps]) -> None:
    import ants

    found, maps = ants_found
    fixed, moving = (ants.image_read(str(p)) for p in (known.task.fixed, known.task.moving))
    there = ants.apply_transforms(fixed, moving, found["fwdtransforms"])
    points = measures.PointMap.of(maps.forward, known.fixed.grid)
    assert gap(points.resample(known.moving), there.numpy()) < 1e-4
    back = ants.apply_transforms(
        moving, fixed, found["invtransforms"], whichtoinvert=[True, False]
    )
    assert gap(maps.inverse.resample(known.fixed, known.moving.grid), back.numpy()) < 1e-4


def test_ants_finds_the_truth(known: Known, ants_found: tuple[dict, peer.Maps]) -> None:
    _, maps = ants_found
    assert known.error(maps.forward) < 0.5 * known.spacing
    points = measures.PointMap.of(maps.forward, known.fixed.grid)
    figures = measures.inverse_consistency(points, maps.inverse, known.fixed.data[0, 0] > 0)
    assert figures["inverse_mean_mm"] < 0.2 * known.spacing


def test_greedy_maps_resample_as_greedy_does_and_find_the_truth(known: Known) -> None:
    pytest.importorskip("picsl_greedy", reason="picsl-greedy is not installed")
    import SimpleITK as sitk
    from picsl_greedy import Greedy3D

    caught = {}

    def catch(warp: sitk.Image, affine: np.ndarray) -> peer.Maps:
        caught.update(warp=warp, affine=np.array(affine))
        return original(warp, affine)

    original = peers.greedy_maps
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(peers, "greedy_maps", catch)
        maps = peers.greedy(known.task, measures.Meter())
    tool = Greedy3D()
    fixed, moving = (sitk.ReadImage(str(p)) for p in (known.task.fixed, known.task.moving))
    # It takes no field from memory.
    warp, affine = known.task.scratch / "greedy_warp.nii", known.task.scratch / "greedy.mat"
    sitk.WriteImage(caught["warp"], str(warp))
    np.savetxt(affine, caught["affine"], fmt="%.12g")
    command = f"-rf fixed -rm moving warped -r {warp} {affine}"
    tool.execute(command, fixed=fixed, moving=moving, warped=None)
    theirs = sitk.GetArrayFromImage(tool["warped"]).T
    points = measures.PointMap.of(maps.forward, known.fixed.grid)
    assert gap(points.resample(known.moving), theirs) < 1e-4
    assert known.error(maps.forward) < 0.5 * known.spacing


def test_fireants_maps_resample_as_fireants_does(known: Known) -> None:
    pytest.importorskip("fireants", reason="FireANTs is not installed")
    from fireants.io import BatchedImages
    from fireants.io import Image as FireImage
    from fireants.registration.affine import AffineRegistration
    from fireants.registration.greedy import GreedyRegistration
    from fireants.registration.moments import MomentsRegistration

    caught = {}

    def deformable(**settings: object) -> GreedyRegistration:
        caught.update(settings, found=GreedyRegistration(**settings))
        return caught["found"]

    stages = MomentsRegistration, AffineRegistration, deformable
    images = FireImage, BatchedImages
    maps = peers_torch.run_fireants(known.task, measures.Meter(), images, stages)
    moved = caught["found"].evaluate(caught["fixed_images"], caught["moving_images"])
    points = measures.PointMap.of(maps.forward, known.fixed.grid)
    assert gap(points.resample(known.moving), moved[0, 0].detach().numpy().T) < 1e-4
    assert known.error(maps.forward) < 0.5 * known.spacing


def test_elastix_finds_the_truth(known: Known) -> None:
    pytest.importorskip("itk.itkElastixRegistrationMethodPython", reason="no itk-elastix")
    maps = peers_elastix.elastix(known.task, measures.Meter())
    assert known.error(maps.forward) < 0.5 * known.spacing


@pytest.mark.parametrize(
    ("arguments", "search"),
    [(peers_ants.script_arguments(2), False), (peers_ants.precise_arguments, True)],
    ids=["script", "precise"],
)
def test_antsregistration_finds_the_truth(
    known: Known, tmp_path: Path, arguments: peers_ants.Arguments, search: bool
) -> None:
    pytest.importorskip("ants", reason="antspyx is not installed")
    task = replace(known.task, scratch=tmp_path)

    def short(*words: object) -> list[str]:
        found = arguments(*words)
        for usual, few in (("1000x500x250x100", "100x50x5x0"), ("100x70x50x20", "20x10x5x0")):
            found = [word.replace(usual, few) for word in found]
        return found

    maps = peers_ants.antsregistration(task, measures.Meter(), short, search)
    assert known.error(maps.forward) < 0.5 * known.spacing
    points = measures.PointMap.of(maps.forward, known.fixed.grid)
    figures = measures.inverse_consistency(points, maps.inverse, known.fixed.data[0, 0] > 0)
    assert figures["inverse_mean_mm"] < 0.2 * known.spacing


@pytest.mark.parametrize(
    ("size", "radius", "factor", "expected"),
    [
        (256, 4, 1.0, ["CC[F,M,1,4]", "SyN[0.1,3,0]", "8x4x2x1", "[100x70x50x20,1e-6,10]"]),
        (256, 2, 2.0, ["CC[F,M,1,2]", "SyN[0.1,12,0]"]),
        (257, 4, 1.0, ["12x8x4x2", "10x6x4x2x1", "[100x100x70x50x20,1e-6,10]"]),
    ],
)
def test_script_arguments_follow_radius_strength_and_size(
    tmp_path: Path, size: int, radius: int, factor: float, expected: list[str]
) -> None:
    fixed = tmp_path / "fixed.nii"
    nib.Nifti1Image(np.zeros((size, 2, 2), np.uint8), np.eye(4)).to_filename(fixed)
    found = peers_ants.script_arguments(radius)(fixed, Path("M"), "out", factor)
    assert set(expected) <= {word.replace(str(fixed), "F") for word in found}


def test_stronger_regularization_lowers_the_spread_of_the_jacobian(known: Known) -> None:
    brain = known.fixed.data[0, 0] > 0
    usual = registration.refine
    spread = []
    for name in ("ours-refine@0.5", "ours-refine", "ours-refine@2"):
        maps = peers.find(name).run(known.task, measures.Meter())
        points = measures.PointMap.of(maps.forward, known.fixed.grid)
        spread.append(measures.deformation(points, brain)["sd_log_jacobian"])
    assert spread == sorted(spread, reverse=True)
    assert spread[2] < 0.9 * spread[0]
    assert registration.refine is usual


def test_factor_of_one_is_the_default_refinement() -> None:
    usual = Refinement()
    scaled = peers.regularization(usual, 1.0)
    for name, value in vars(usual).items():
        assert np.array_equal(getattr(scaled, name), value), name


@pytest.mark.parametrize("name", ["affine@2", "ours-predict@0.5"])
def test_method_without_variable_regularization_cannot_be_scaled(name: str) -> None:
    with pytest.raises(ValueError, match="no variable regularization"):
        peers.find(name)
