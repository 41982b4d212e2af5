"""The pairwise benchmark: conventions of every tool, figures, and that nothing is lost."""

from __future__ import annotations

import mmap
import sys
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import nilearn.datasets
import numpy as np
import pytest
import torch

from bids_fcnreg.fcn.spatial.filters import gaussian
from bids_fcnreg.fcn.spatial.grid import Grid, Image
from bids_fcnreg.fcn.spatial.transform import Affine, Displacement, Transform
from bids_fcnreg.io import image

sys.path.append(str(Path(__file__).resolve().parents[2] / "benchmarks"))

import comparison
import dataset
import measures
import pairwise
import peer
import peers
import peers_ants
import peers_torch
import plots
import summary

pytestmark = pytest.mark.slow

SPACING = 5.0


@dataclass(frozen=True)
class Known:
    """A pair whose transform is known."""

    task: peer.Task
    fixed: Image
    moving: Image
    truth: Transform

    def error(self, forward: Transform) -> float:
        """Mean distance to the truth in the fixed brain, mm."""
        points = self.fixed.grid.points()[self.fixed.data[0, 0] > 0]
        return float((forward.map(points) - self.truth.map(points)).norm(dim=-1).mean())


@pytest.fixture(scope="module")
def known(tmp_path_factory: pytest.TempPathFactory) -> Known:
    """A brain on an oblique grid, and the same seen through an affine and a smooth deformation."""
    path = Path(nilearn.datasets.__file__).parent / "data"
    brain = image.read(path / "mni_icbm152_t1_tal_nlin_sym_09a_converted.nii.gz")
    brain = Image(gaussian(brain.data, 2.0), brain.grid)
    moving_grid = brain.grid.with_spacing(SPACING)
    # Other axes, obliquely: LAS, turned by 10 degrees about the first axis.
    c, s = np.cos(np.radians(10)), np.sin(np.radians(10))
    axes = np.array([[-1.0, 0, 0], [0, c, -s], [0, s, c]]) * SPACING
    shape = (42, 50, 45)
    affine = np.eye(4)
    affine[:3, :3] = axes
    affine[:3, 3] = moving_grid.centre + np.array([7, -5, 9]) - axes @ ((np.array(shape) - 1) / 2)
    fixed_grid = Grid(shape, affine)
    linear = np.eye(4)
    linear[:3, :3] = [[1.06, 0.09, 0.0], [-0.08, 0.95, 0.03], [0.02, -0.05, 1.03]]
    linear[:3, 3] = (-6.0, 4.0, 5.0)
    noise = torch.randn(1, 3, *shape, generator=torch.Generator().manual_seed(0))
    smooth = gaussian(noise, 4.0)
    truth = Transform((Displacement(fixed_grid, smooth * (0.5 / smooth.std())), Affine(linear)))
    moving = Transform(()).resample(brain, moving_grid)
    fixed = truth.resample(brain, fixed_grid)
    folder = tmp_path_factory.mktemp("known")
    pair = []
    for name, volume in (("fixed", fixed), ("moving", moving)):
        volume = Image(
            torch.where(volume.data > 0.05 * brain.data.max(), volume.data, 0.0), volume.grid
        )
        image.write(folder / f"{name}.nii", volume)
        pair.append(volume)
    task = peer.Task(folder / "fixed.nii", folder / "moving.nii", folder)
    return Known(task, *pair, truth)


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
    assert known.error(maps.forward) < 0.5 * SPACING
    points = measures.PointMap.of(maps.forward, known.fixed.grid)
    figures = measures.inverse_consistency(points, maps.inverse, known.fixed.data[0, 0] > 0)
    assert figures["inverse_mean_mm"] < 0.2 * SPACING


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
    assert known.error(maps.forward) < 0.5 * SPACING


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
    assert known.error(maps.forward) < 0.5 * SPACING


def test_point_map_is_the_transform_itself(known: Known) -> None:
    points = measures.PointMap.of(known.truth, known.fixed.grid)
    largest = known.moving.data.max()
    for kind in ("linear", "label"):
        direct = known.truth.resample(known.moving, known.fixed.grid, kind)
        apart = (points.resample(known.moving, kind).data - direct.data).abs()
        # Places differ in single precision; votes that are nearly even may turn over.
        assert (apart > 1e-4 * largest).double().mean() < 1e-3
    with pytest.raises(ValueError, match="voxels of its grid"):
        points.map(known.fixed.grid.points()[:2, :2, :2] + 1.0)


def test_deformation_of_affine_deformed_and_folded_maps(known: Known) -> None:
    grid = known.fixed.grid
    brain = known.fixed.data[0, 0] > 0
    linear = measures.PointMap.of(Transform(known.truth.steps[1:]), grid)
    assert measures.deformation(linear, brain)["sd_log_jacobian"] < 1e-4
    whole = measures.deformation(measures.PointMap.of(known.truth, grid), brain)
    # The affine part does not count; `Transform` knows the rest by code of its own.
    alone = Transform(known.truth.steps[:1]).log_jacobian(grid)[0, 0][brain].std()
    assert whole["sd_log_jacobian"] == pytest.approx(float(alone), rel=1e-3)
    assert whole["folds_percent"] == 0
    mirrored = grid.points()
    mirrored[: grid.shape[0] // 2] = mirrored[: grid.shape[0] // 2].flip(0)
    folded = measures.deformation(measures.PointMap(grid, mirrored), torch.ones_like(brain))
    assert folded["folds_percent"] == pytest.approx(50, abs=3)


def test_inverse_consistency_in_mm(known: Known) -> None:
    points = measures.PointMap.of(Transform(known.truth.steps[1:]), known.fixed.grid)
    brain = known.fixed.data[0, 0] > 0
    back = np.linalg.inv(known.truth.steps[1].matrix)
    exact = measures.inverse_consistency(points, Transform((Affine(back),)), brain)
    assert exact["inverse_max_mm"] < 1e-6
    back[0, 3] += 3
    off = measures.inverse_consistency(points, Transform((Affine(back),)), brain)
    assert off["inverse_mean_mm"] == pytest.approx(3)
    assert measures.inverse_consistency(points, None, brain)["inverse_mean_mm"] is None


def test_dice_of_each_label() -> None:
    fixed = torch.tensor([0.0, 1, 1, 2, 2, 3, 0, 0])
    warped = torch.tensor([0.0, 1, 2, 2, 2, 0, 4, 0])
    found = measures.dice(fixed, warped, [1, 2, 3, 4, 5])
    assert found == {1: pytest.approx(2 / 3), 2: pytest.approx(0.8), 3: 0.0, 4: 0.0}


def test_meter_measures_time_and_what_a_block_adds() -> None:
    with measures.Meter() as meter:
        block = mmap.mmap(-1, 64 * 2**20)  # memory that no one has used before
        block.write(bytes(len(block)))
        block.close()
    assert 0.05 < meter.memory_gb < 0.3
    whole = meter.seconds
    meter.deduct(whole / 2)
    assert meter.seconds == pytest.approx(whole / 2)


def test_pairs_use_each_subject_once_before_any_twice() -> None:
    chosen = dataset.choose_pairs(6, 8)
    assert chosen[:3] == [(0, 1), (2, 3), (4, 5)]
    assert sorted(chosen[3:6]) == [(1, 0), (3, 2), (5, 4)]
    assert len(set(chosen)) == 8
    assert len(dataset.choose_pairs(3, 100)) == 6


def fake_data(folder: Path, subjects: int) -> None:
    voxel = nib.Nifti1Image(np.ones((2, 2, 2), np.uint8), np.eye(4))
    for number in range(subjects):
        for place in ("", "derivatives/manual/"):
            anat = folder / f"{place}sub-{number}" / "anat"
            anat.mkdir(parents=True)
            voxel.to_filename(anat / f"sub-{number}_{'dseg' if place else 'T1w'}.nii.gz")
    (folder / "derivatives/manual/dseg.tsv").write_text("index\tname\n7\tPutamen\n")


class FakeTools:
    """Stands in for the processes: says what ran, and breaks where it is told to."""

    def __init__(self, broken: set[str], killed_after: int | None = None) -> None:
        self.broken, self.killed_after, self.ran = broken, killed_after, []

    def __call__(self, options, fixed, moving, method, folder, spacing=None) -> dict:
        if spacing is not None:
            return {}
        if self.killed_after == len(self.ran):
            raise KeyboardInterrupt
        self.ran.append((fixed.name, moving.name, method))
        if method in self.broken:
            return {"error": "it is broken."}
        row = {name: 0.5 for name, _, _ in summary.COLUMNS} | {"gpu_memory_gb": None}
        structures = [{"label": 7, "dice": 0.5, "hd95_mm": 2.0, "fixed_voxels": 8}]
        return {"row": row | {"version": "1"}, "structures": structures}


def start(monkeypatch, tools: FakeTools, *words: object) -> int:
    monkeypatch.setattr(pairwise, "run_job", tools)
    monkeypatch.setattr(sys, "argv", ["pairwise.py", *(str(word) for word in words)])
    return pairwise.main()


def test_failing_method_is_skipped_and_slow_method_runs_on_some_pairs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    fake_data(tmp_path / "data", 6)
    tools = FakeTools(broken={"greedy"})
    words = [tmp_path / "data", "-n", 3, "-o", tmp_path / "out", "--slow-pairs", 1, "--markdown"]
    assert start(monkeypatch, tools, *words, "--methods", "greedy", "syns", "syn") == 0
    assert [method for *_, method in tools.ran] == ["greedy", "syns", "syn", "syn", "syn"]
    shown = capsys.readouterr().out
    assert "left out: it is broken." in shown
    assert "sub-0 <- sub-1" in shown
    assert "Means over 3 pairs\n\n| method |" in shown
    assert "Means over 1 pair on which ANTs SyN[s] ran too" in shown
    assert (tmp_path / "out" / "dice_seconds.png").stat().st_size > 5000
    structures = (tmp_path / "out" / "structures.tsv").read_text().splitlines()
    assert structures[1] == "sub-0\tsub-1\tsyns\t7\tPutamen\t0.5\t2\t8"


def test_killed_run_resumes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    fake_data(tmp_path / "data", 4)
    words = [tmp_path / "data", "-n", 2, "-o", tmp_path / "out", "--methods", "affine", "syn"]
    with pytest.raises(KeyboardInterrupt):
        start(monkeypatch, FakeTools(set(), killed_after=3), *words)
    # Killed between the structures and the row of the pair that was running.
    with (tmp_path / "out" / "structures.tsv").open("a") as file:
        file.write("sub-2\tsub-3\tsyn\t7\tPutamen\t0.5\t2\t8\n")
    assert start(monkeypatch, FakeTools(set()), *words) == 2
    assert "--resume" in capsys.readouterr().out
    assert start(monkeypatch, FakeTools(set()), *words, "--resume", "--threads", 1) == 2
    assert "another threads" in capsys.readouterr().out
    tools = FakeTools(set())
    assert start(monkeypatch, tools, *words, "--resume") == 0
    assert tools.ran == [("sub-2", "sub-3", "syn")]
    for name in ("pairs.tsv", "structures.tsv"):
        assert len((tmp_path / "out" / name).read_text().splitlines()) == 5


def test_means_are_over_pairs_that_all_methods_share() -> None:
    rows = [
        {"fixed": fixed, "moving": "b", "method": method, "dice": dice, "seconds": "1"}
        for fixed, method, dice in [("a", "x", "0.2"), ("c", "x", "0.8"), ("c", "y", "0.6")]
    ]
    (block,) = summary.blocks(rows, {"x": "X", "y": "Y"}, [])
    assert block.title == "Means over 1 pair (of 2: those on which every method ran)"
    assert [line[:2] for line in block.lines] == [["X", "0.8000"], ["Y", "0.6000"]]
