"""Which runs are averaged: those of the same head, and of one kind."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from scipy import ndimage
from scipy.spatial.transform import Rotation

from bids_fcnreg.errors import InputError
from bids_fcnreg.fcn.spatial.grid import Grid, Image
from bids_fcnreg.io import image
from bids_fcnreg.preprocessing.runs import MIN_SIMILARITY, average_runs, describe_average

#: Coarse voxels, so that a test takes seconds.
STEP = 4


def _thin(path: Path, step: int = STEP) -> Image:
    return _thinned(image.read(path), step)


def _thinned(whole: Image, step: int) -> Image:
    data = whole.data[..., ::step, ::step, ::step].contiguous()
    affine = whole.grid.affine @ np.diag([step, step, step, 1.0])
    return Image(data, Grid(tuple(data.shape[2:]), affine))


def _like(run: Image, data: np.ndarray | torch.Tensor) -> Image:
    return Image(torch.as_tensor(data, dtype=torch.float32).reshape(run.data.shape), run.grid)


def _again(run: Image, gain: float = 1.0, noise: float = 0.03, seed: int = 0) -> Image:
    """The same head again: turned by 8 degrees and moved, with another gain and noise."""
    move = np.eye(4)
    move[:3, :3] = Rotation.from_euler("xyz", [8, -3, 4], degrees=True).as_matrix()
    move[:3, 3] = 4, -6, 5
    bright = float(np.percentile(run.data.numpy(), 98))
    spread = np.random.default_rng(seed).normal(0, noise * bright, run.data.shape)
    data = gain * (run.data + torch.from_numpy(spread).float())
    return Image(data, Grid(run.grid.shape, move @ run.grid.affine))


@pytest.fixture(scope="module")
def heads(phantom_dataset) -> list[Image]:
    """Two different heads."""
    names = [f"sub-{n}/anat/sub-{n}_T1w.nii.gz" for n in ("01", "02")]
    return [_thin(phantom_dataset / name) for name in names]


@pytest.fixture(scope="module")
def stripped(phantom_dataset, heads) -> Image:
    """The first head without its skull."""
    path = next(phantom_dataset.rglob("sub-01_desc-brain_mask.nii.gz"))
    mask = np.asarray(nib.load(path).dataobj)[::STEP, ::STEP, ::STEP] > 0
    return _like(heads[0], np.where(mask, heads[0].data[0, 0].numpy(), 0))


def _reasons(*runs: Image) -> list[str | None]:
    return [one.reason for one in average_runs(runs).comparisons]


@pytest.mark.parametrize("gain", [1e-3, 1.0, 1e4])
def test_runs_of_one_head_are_averaged_whatever_their_intensity_scale(heads, gain):
    found = average_runs([heads[0], _again(heads[0], gain)])
    assert found.comparisons[0].reason is None
    assert found.comparisons[0].similarity > MIN_SIMILARITY + 0.2
    signal = heads[0].data > heads[0].data.mean()
    error = (found.image.data - heads[0].data)[signal].abs().mean()
    assert error < 0.1 * heads[0].data[signal].mean()


def test_runs_of_one_head_with_other_voxels_are_averaged(phantom_dataset, heads):
    finer = _thin(phantom_dataset / "sub-01/anat/sub-01_T1w.nii.gz", 2)
    assert _reasons(heads[0], _again(finer)) == [None]
    assert _reasons(finer, _again(heads[0])) == [None]


def test_a_part_of_the_same_head_is_averaged(heads):
    run = heads[0]
    cut = run.data.shape[4] // 4
    affine = run.grid.affine.copy()
    affine[:3, 3] += cut * affine[:3, 2]
    data = run.data[..., cut:].contiguous()
    assert _reasons(run, Image(data, Grid(tuple(data.shape[2:]), affine))) == [None]


def test_another_person_is_left_out(heads):
    found = average_runs([heads[0], heads[1]])
    assert "is not similar to the first run" in found.comparisons[0].reason
    torch.testing.assert_close(found.image.data, heads[0].data)


def test_other_people_are_left_out_of_brains_too(heads, stripped, phantom_dataset):
    path = next(phantom_dataset.rglob("sub-02_desc-brain_mask.nii.gz"))
    mask = np.asarray(nib.load(path).dataobj)[::STEP, ::STEP, ::STEP] > 0
    other = _like(heads[1], np.where(mask, heads[1].data[0, 0].numpy(), 0))
    assert _reasons(stripped, _again(stripped)) == [None]
    assert "is not similar to the first run" in _reasons(stripped, other)[0]


def test_noise_and_a_head_blurred_by_motion_are_left_out(heads):
    run = heads[0]
    noise = np.random.default_rng(0).random(run.data.shape) * float(run.data.max())
    assert _reasons(run, _like(run, noise)) != [None]
    ghosts = sum(np.roll(run.data.numpy(), 5 * n, axis=3) for n in range(6))
    assert _reasons(run, _like(run, ghosts)) != [None]


def test_a_run_far_from_where_its_header_says_is_left_out_or_aligned(heads):
    turn = np.eye(4)
    turn[1:3, 1:3] = [[-1, 0], [0, -1]]
    turned = Image(heads[0].data, Grid(heads[0].grid.shape, turn @ heads[0].grid.affine))
    found = average_runs([heads[0], turned])
    assert (found.comparisons[0].reason is None) == (
        found.comparisons[0].similarity >= MIN_SIMILARITY
    )
    smooth = ndimage.gaussian_filter(heads[0].data[0, 0].numpy(), 1)
    mean = ndimage.gaussian_filter(found.image.data[0, 0].numpy(), 1)
    assert np.corrcoef(smooth.ravel(), mean.ravel())[0, 1] > 0.95


def test_heads_and_brains_are_not_mixed(heads, stripped):
    first = average_runs([heads[0], _again(heads[0]), stripped])
    assert [one.reason is None for one in first.comparisons] == [True, False]
    assert first.comparisons[1].reason.startswith("it is skull-stripped and the first run is not")
    first = average_runs([stripped, heads[0], _again(stripped)])
    assert [one.reason is None for one in first.comparisons] == [False, True]
    assert "first run is skull-stripped and this one is not" in first.comparisons[0].reason


@pytest.mark.parametrize("data", ["phantom", "real"])
def test_a_mirrored_run_is_left_out(data, heads, request):
    """Its voxels are stored from right to left, which its header does not say."""
    first = heads[0]
    if data == "real":
        path = request.getfixturevalue("real_data") / "ds002748/sub-01/anat/sub-01_T1w.nii.gz"
        first = _thin(path, 2)
    again = _again(first)
    axis = 2 + int(np.abs(first.grid.affine[0, :3]).argmax())
    (reason,) = _reasons(first, Image(again.data.flip(axis), again.grid))
    assert reason is not None and reason.startswith(("left and right are", "it is not similar"))
    assert _reasons(first, again) == [None]


def test_a_first_run_that_is_like_no_other_is_refused(heads):
    with pytest.raises(InputError, match="No other run is similar to the first"):
        average_runs([heads[1], heads[0], _again(heads[0])])


def test_excluded_runs_are_described_by_name(heads):
    names = ["run-1.nii", "run-2.nii", "run-3.nii"]
    fields = describe_average(average_runs([heads[0], _again(heads[0]), heads[1]]), names)
    assert list(fields["RunSimilarity"]) == names[1:]
    assert list(fields["RunsLeftOut"]) == ["run-3.nii"]
    fields = describe_average(average_runs([heads[0], _again(heads[0])]), names[:2])
    assert "RunsLeftOut" not in fields


def test_real_scans_of_one_head_are_averaged_and_of_others_not(real_data):
    def read(label: str) -> Image:
        path = next((real_data / "heads").rglob(f"{label}_T1w.nii.gz"))
        return image.read(path)

    for label in ("sub-retest1", "sub-ms1", "sub-poses"):
        assert _reasons(read(f"{label}_ses-1"), read(f"{label}_ses-2")) == [None], label
    assert _reasons(read("sub-retest1_ses-1"), read("sub-adult1")) != [None]
    assert _reasons(read("sub-ms1_ses-1"), read("sub-adult1")) != [None]
    brains = [next((real_data / f"ds002748/sub-{n}").rglob("*_T1w.nii.gz")) for n in ("01", "03")]
    first, other = (_thin(path, 2) for path in brains)
    assert _reasons(first, _again(first)) == [None]
    assert _reasons(first, other) != [None]
