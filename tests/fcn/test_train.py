"""Training: it finds what is there, can be stopped and gone on with, and repeats itself."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from bids_fcnreg.errors import InputError
from bids_fcnreg.fcn.losses.objective import Objective
from bids_fcnreg.fcn.nets.li_fan_2017 import FCN2017
from bids_fcnreg.fcn.nets.mdregnet import DiffeomorphicFCN
from bids_fcnreg.fcn.train import Trainer, Training, optimize

pytestmark = pytest.mark.slow

SMOOTH = Objective(regularity="diffusion", strength=0.1)


def diffeomorphic() -> DiffeomorphicFCN:
    torch.manual_seed(3)
    return DiffeomorphicFCN(spacings=(2.0, 1.0), passes=(2, 2), widths=(8, 16))


@pytest.fixture(scope="module")
def pairs(make_random_pair):
    """Three training pairs and a held-out one, 2 mm and 1 mm voxels."""
    fine = [make_random_pair((20, 16, 16), seed=seed) for seed in range(4)]
    return [[pair.coarser(2.0) for pair in fine], fine]


def trainer_of(pairs, network, **changes) -> Trainer:
    """Two stages on pairs drawn at random."""

    def draw(stage, generator):
        return pairs[stage][int(torch.randint(3, (), generator=generator))]

    settings = Training(steps=(6, 4), learning_rate=1e-3, objective=SMOOTH, check_every=2)
    return Trainer(network, replace(settings, **changes), draw, lambda stage: [pairs[stage][3]])


@pytest.mark.parametrize(
    ("network", "settings"),
    [
        (lambda: FCN2017((8, 16, 16), spacing=1.0), Training(steps=(60,))),
        (diffeomorphic, Training(steps=(20, 10), learning_rate=1e-3, objective=SMOOTH)),
    ],
    ids=["2017", "diffeomorphic"],
)
def test_optimizing_one_pair_recovers_its_shift(make_random_pair, network, settings):
    torch.manual_seed(0)
    pair = make_random_pair((24, 24, 24))
    forward, inverse = optimize(network(), pair, settings).compose()
    middle = pair.weight[0, 0] > 0
    for displacement, wanted in ((forward, 2.0), (inverse, -2.0)):
        found = displacement.field[0][:, middle].median(dim=1).values
        torch.testing.assert_close(found, torch.tensor([wanted, 0.0, 0.0]), atol=0.4, rtol=0)


def test_training_lowers_the_cost_of_held_out_pairs(pairs):
    trainer = trainer_of(pairs, diffeomorphic(), steps=(20, 10))
    trainer.run()
    for stage in range(2):
        held_out = [r.held_out for r in trainer.records if r.stage == stage]
        assert min(held_out[1:]) < held_out[0]


@pytest.mark.parametrize("trained", [False, True])
def test_a_level_that_was_never_trained_follows_the_coarser_one(pairs, trained):
    """Fine-tuning continues the weights of a level of its own, and renews a copy."""
    network = diffeomorphic()
    if not trained:
        network.initialize_stage(1)
    before = [{n: v.clone() for n, v in level.state_dict().items()} for level in network.levels]
    settings = Training(steps=(4, 0), learning_rate=1e-3, objective=SMOOTH)
    Trainer(network, settings, lambda stage, _: pairs[stage][0], reinitialize=False).run()
    coarse, fine = (level.state_dict() for level in network.levels)
    assert not all(torch.equal(coarse[name], value) for name, value in before[0].items())
    expected = before[1] if trained else coarse
    assert all(torch.equal(fine[name], value) for name, value in expected.items())


def test_records_contain_the_learning_curves(pairs):
    told = []
    trainer = trainer_of(pairs, diffeomorphic())
    trainer.run(told.append)
    assert told == trainer.records
    assert [(r.stage, r.step) for r in told] == [
        (0, 0), (0, 2), (0, 4), (0, 6), (1, 0), (1, 2), (1, 4),
    ]  # fmt: skip
    assert [math.isnan(r.cost) for r in told] == [r.step == 0 for r in told]
    assert [r.seconds for r in told] == sorted(r.seconds for r in told)


def test_the_best_weights_are_kept(pairs):
    """With steps that are far too long every stage ends early, with what it began with."""
    network = diffeomorphic()
    trainer = trainer_of(
        pairs, network, steps=(50, 50), learning_rate=3.0, check_every=1, patience=2
    )
    trainer.run()
    assert trainer.finished
    assert len(trainer.records) < 40
    for stage in range(2):
        best = min(r.held_out for r in trainer.records if r.stage == stage)
        cost = network.cost(pairs[stage][3], SMOOTH, stage)
        assert float(cost.detach()) == pytest.approx(best, abs=1e-5)


class Killed(Exception):
    pass


@pytest.mark.parametrize("after", [1, 2, 4, 5, 7])
def test_going_on_ends_with_the_same_weights(pairs, tmp_path, after):
    """Killed after any record, at the end of a stage too."""
    whole = trainer_of(pairs, diffeomorphic())
    whole.run()

    def report(_):
        if len(begun.records) == after:
            raise Killed

    begun, checkpoint = trainer_of(pairs, diffeomorphic()), tmp_path / "checkpoint.pt"
    with pytest.raises(Killed):
        begun.run(report, checkpoint)
    gone_on = trainer_of(pairs, diffeomorphic())
    gone_on.run(checkpoint=checkpoint)
    assert [replace(r, seconds=0) for r in gone_on.records if r.step] == [
        replace(r, seconds=0) for r in whole.records if r.step
    ]
    states = whole.network.state_dict(), gone_on.network.state_dict()
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


def test_a_pair_without_a_usable_gradient_changes_nothing(pairs):
    broken = replace(pairs[1][0], images=torch.full_like(pairs[1][0].images, math.nan))
    torch.manual_seed(0)
    network = FCN2017((4, 8), spacing=1.0)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    Trainer(network, Training(steps=(2,)), lambda *_: broken).run()
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())


def test_damaged_checkpoint_is_rejected(pairs, tmp_path):
    (tmp_path / "checkpoint.pt").write_bytes(b"no checkpoint")
    with pytest.raises(InputError, match=r"checkpoint\.pt is damaged. Delete"):
        trainer_of(pairs, diffeomorphic()).run(checkpoint=tmp_path / "checkpoint.pt")
