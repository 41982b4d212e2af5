import json

import nibabel as nib
import pytest
import torch

from bids_fcnreg.fcn.nets import checkpoint
from bids_fcnreg.training.anatomy import Schedule, train
from tests.training.test_simulation import ellipsoid_head

pytestmark = pytest.mark.slow


def test_training_resumes_where_it_ended(tmp_path):
    maps, output = tmp_path / "maps", tmp_path / "out"
    maps.mkdir()
    nib.save(ellipsoid_head(), maps / "one.nii.gz")
    train(maps, output, steps=1)
    first, _ = checkpoint.load(output / "anatomy.safetensors", ["anatomy"])
    train(maps, output, steps=1)  # there is nothing left to do
    again, _ = checkpoint.load(output / "anatomy.safetensors", ["anatomy"])
    train(maps, output, steps=2)
    second, _ = checkpoint.load(output / "anatomy.safetensors", ["anatomy"])
    assert torch.load(output / "checkpoint.pt", weights_only=True)["step"] == 2
    pairs = list(zip(first.parameters(), again.parameters(), second.parameters(), strict=True))
    assert all(torch.equal(a, b) for a, b, _ in pairs)
    assert any(not torch.equal(a, c) for a, _, c in pairs)


def test_training_continues_weights_without_a_checkpoint(tmp_path):
    maps, first, second = tmp_path / "maps", tmp_path / "first", tmp_path / "second"
    maps.mkdir()
    nib.save(ellipsoid_head(), maps / "one.nii.gz")
    train(maps, first, steps=1)
    train(maps, second, steps=2, weights=first / "anatomy.safetensors")
    assert json.loads((second / "anatomy.json").read_text())["steps"] == 2
    assert torch.load(second / "checkpoint.pt", weights_only=True)["start"] == 1


def test_learning_rate_warms_up_and_falls():
    schedule = Schedule(steps=1000, peak=1.0)
    rates = [schedule.rate(step) for step in range(0, 1000, 50)]
    assert rates[0] < 0.05
    assert max(rates) > 0.9
    assert rates[-1] < 0.05


def test_learning_rate_falls_with_time_where_it_is_limited():
    schedule = Schedule(steps=1_000_000, peak=1.0, seconds=60)
    rates = [schedule.rate(500, elapsed) for elapsed in (0, 30, 60)]
    assert rates == sorted(rates, reverse=True)
    assert rates[0] > 0.9 and rates[-1] < 0.05
