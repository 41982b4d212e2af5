"""Pairs of a cohort: any two, either way round, changed but still brains."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from bids_fcnreg.fcn.spatial.displacement import jacobian_determinant
from bids_fcnreg.fcn.spatial.filters import gaussian
from bids_fcnreg.fcn.spatial.grid import Grid
from bids_fcnreg.fcn.training_pairs import Augmentation, Cohort

NONE = Augmentation(0, 0, 0, 0, 0, 0)
SHAPE = (20, 24, 18)


@pytest.fixture(scope="module")
def cohort() -> Cohort:
    """Four smooth bodies of 4 mm voxels in half precision; axis k runs from left to right."""
    noise = torch.randn(4, 1, *SHAPE, generator=torch.Generator().manual_seed(0))
    axes = [torch.linspace(-1, 1, n) for n in SHAPE]
    radius = torch.stack(torch.meshgrid(*axes, indexing="ij")).norm(dim=0)
    images = (0.6 + gaussian(noise, 1.5)).clamp(0.1, 1) * (radius < 0.75)
    affine = np.zeros((4, 4))
    affine[0, 2], affine[1, 0], affine[2, 1], affine[3, 3] = -4, 4, 4, 1
    return Cohort(images.half(), Grid(SHAPE, affine))


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def which(cohort: Cohort, image: torch.Tensor) -> tuple[int, bool]:
    """Number of an image of the cohort, and whether it is mirrored along k."""
    for n, one in enumerate(cohort.images.float()):
        for mirrored in (False, True):
            if torch.equal(image[0], one.flip(3) if mirrored else one):
                return n, mirrored
    raise AssertionError("not an image of the cohort")


def test_pairs_are_any_two_either_way_and_mirrored_together(cohort):
    random, seen, mirrors = generator(), set(), set()
    for _ in range(150):
        pair = cohort.random_pair(NONE, random)
        fixed, moving = which(cohort, pair.fixed), which(cohort, pair.moving)
        assert fixed[1] == moving[1]
        seen.add((fixed[0], moving[0]))
        mirrors.add(fixed[1])
    assert seen == {(a, b) for a in range(4) for b in range(4) if a != b}
    assert mirrors == {False, True}


def test_held_out_pairs_are_a_circle_and_always_the_same(cohort):
    for _ in range(2):
        numbers = [
            (which(cohort, pair.fixed)[0], which(cohort, pair.moving)[0])
            for pair in cohort.subset([3, 0, 2]).all_pairs()
        ]
        assert numbers == [(3, 0), (0, 2), (2, 3)]


def test_both_brains_and_two_voxels_around_them_count(cohort):
    pair = cohort.pair(0, 1)
    brain = ((pair.fixed > 0) | (pair.moving > 0)).float()
    assert pair.weight[brain > 0].all()
    assert 1.2 * brain.sum() < pair.weight.sum() < 3 * brain.sum()


def test_coarser_preserves_content(cohort):
    coarse = cohort.coarser(8.0)
    assert coarse.images.dtype == cohort.images.dtype
    assert coarse.images.shape == (4, 1, 10, 12, 9)
    np.testing.assert_allclose(coarse.grid.spacing, 8)
    mass = [float(one.images.float().sum()) * 4**3 for one in (cohort, coarse)]
    mass[1] *= 2**3
    assert mass[1] == pytest.approx(mass[0], rel=0.02)
    assert cohort.coarser(4.0) is cohort


def test_the_generator_decides(cohort):
    one, other, third = (cohort.random_pair(Augmentation(), generator(seed)) for seed in (5, 5, 6))
    assert torch.equal(one.fixed, other.fixed) and torch.equal(one.moving, other.moving)
    assert not torch.equal(one.fixed, third.fixed)


def test_a_changed_image_is_still_that_brain(cohort):
    image, random = cohort.images[:1].float(), generator()
    for _ in range(10):
        changed = Augmentation()(image, cohort.grid, random)
        assert changed.shape == image.shape
        assert changed.isfinite().all() and changed.min() >= 0
        assert 0.7 < (changed > 0).sum() / (image > 0).sum() < 1.4
        assert not torch.equal(changed, image)
        inside = (changed > 0) & (image > 0)
        assert np.corrcoef(changed[inside], image[inside])[0, 1] > 0.3


def test_each_augmentation_has_the_documented_size(cohort):
    image = cohort.images[:1].float()
    noisy = Augmentation(0, 0, 0, 0, 0, 0.05)(image, cohort.grid, generator())
    assert (noisy - image)[image > 0.3].std() == pytest.approx(0.05, rel=0.1)
    for gamma in (0.5, 1.0):
        powers = [
            Augmentation(0, 0, 0, gamma, 0, 0)(torch.full_like(image, 0.5), cohort.grid, random)
            for random in map(generator, range(30))
        ]
        powers = torch.stack(powers)[:, 0, 0, 10, 12, 9].log2().neg()
        assert 1 / (1 + gamma) - 1e-3 <= powers.min() < powers.max() <= 1 + gamma + 1e-3
    moved = Augmentation(0.06, 2.0, 1.5, 0, 0, 0)._displacement(image, cohort.grid, generator())
    assert 0.3 < (4 * moved).abs().max() < 15  # mm
    assert jacobian_determinant(moved).min() > 0.3
