"""Quality numbers tell what is wrong with a registration."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from bids_fcnreg.bids.builtin_templates import nilearn_map
from bids_fcnreg.fcn.pair import Pair, make_pair
from bids_fcnreg.fcn.quality import Quality, assess, lowest_similarity, similarity
from bids_fcnreg.fcn.spatial.displacement import exponentiate
from bids_fcnreg.fcn.spatial.filters import gaussian
from bids_fcnreg.fcn.spatial.grid import Grid, Image
from bids_fcnreg.fcn.spatial.transform import Displacement, Transform, change_grid
from bids_fcnreg.io import image

pytestmark = pytest.mark.slow

SHAPE = (80, 90, 80)


@pytest.fixture(scope="module")
def pair() -> Pair:
    """A textured ball, 130 mm wide, and the same again."""
    grid = Grid(SHAPE, np.diag([2.0, 2.0, 2.0, 1.0]))
    centre = torch.tensor([80.0, 90.0, 80.0])
    inside = (grid.points().float() - centre).norm(dim=-1) < 65
    noise = torch.randn(1, 1, *SHAPE, generator=torch.Generator().manual_seed(0))
    texture = torch.nn.functional.avg_pool3d(noise, 3, 1, 1)
    brain = Image(torch.where(inside, 50 + 40 * texture, 0.0).clamp(min=0), grid)
    mask = Image(inside[None, None].float(), grid)
    return make_pair(brain, brain, np.eye(4), mask, mask)


def spoiled(pair: Pair, part: float) -> torch.Tensor:
    """The moving image with something else in the lowest part of its length along j."""
    warped = pair.moving.clone()
    width = int(part * warped.shape[3])
    warped[:, :, :, :width] = warped[:, :, :, :width].flip(2)
    return warped


def with_moving(pair: Pair, moving: torch.Tensor, **changes: torch.Tensor) -> Pair:
    return replace(pair, images=torch.cat([pair.fixed, moving]), **changes)


def test_lowest_similarity_reveals_a_misaligned_part(pair):
    right, wrong = (lowest_similarity(with_moving(pair, spoiled(pair, part))) for part in (0, 0.4))
    assert right == pytest.approx(1, abs=0.01)
    assert wrong < 0.2
    assert similarity(with_moving(pair, spoiled(pair, 0.4))) > 0.5  # most of it is right


def test_perfect_and_cut_off_brains(pair):
    still = Displacement(pair.grid, torch.zeros(1, 3, *pair.grid.shape))
    quality = Quality("refine", "cpu")
    assess(quality, pair, still, still)
    assert quality.brain_overlap == pytest.approx(1, abs=1e-3)
    assert quality.similarity == pytest.approx(1, abs=0.01)
    assert (quality.folds_percent, quality.sd_log_jacobian) == (0, 0)
    cut = pair.moving.clone()
    cut[..., : cut.shape[-1] // 2] = 0
    half, left = Quality("refine", "cpu"), (cut > 0).float()
    assess(half, with_moving(pair, cut, moving_mask=left), still, still)
    assert half.brain_overlap == pytest.approx(2 / 3, abs=0.05)  # half of one, all of the other
    assert half.similarity_lowest < 0.1


def test_what_is_outside_the_field_of_view_is_not_judged(pair):
    """A quarter of the brain is missing, as the field of view ends there; the rest is perfect."""
    still = Displacement(pair.grid, torch.zeros(1, 3, *pair.grid.shape))
    size = pair.grid.shape[2]
    below = torch.arange(size) < size // 2 - 16  # 32 mm below the centre of the ball of 130 mm
    beyond = below.float().expand(1, 1, *pair.grid.shape)
    inside = 1 - beyond
    cut = with_moving(pair, pair.moving * inside, moving_mask=pair.moving_mask * inside)
    whole, known, unknown = (Quality("refine", "cpu") for _ in range(3))
    assess(whole, pair, still, still)
    assess(unknown, cut, still, still)
    assess(known, replace(cut, beyond=beyond), still, still)
    assert unknown.outside_percent == 0 and unknown.similarity_lowest < 0.5
    share = pair.fixed_mask[..., below].sum() / pair.fixed_mask.sum()
    assert known.outside_percent == pytest.approx(100 * float(share), abs=1)
    # Images are smoothed across the cut.
    assert known.similarity_lowest > whole.similarity_lowest - 0.05
    assert known.brain_overlap == pytest.approx(1, abs=1e-3)
    assert known.similarity == pytest.approx(whole.similarity, abs=0.01)


def test_brains_smaller_than_the_cubes_are_judged_too():
    grid = Grid((14, 14, 14), np.diag([2.0, 2.0, 2.0, 1.0]))
    data = torch.rand(1, 1, 14, 14, 14, generator=torch.Generator().manual_seed(1))
    brain, mask = Image(data, grid), Image(torch.ones_like(data), grid)
    pair = make_pair(brain, brain, np.eye(4), mask, mask)
    assert 0.5 < lowest_similarity(pair) <= 1.0001


@pytest.fixture(scope="module")
def template() -> Image:
    return image.read(nilearn_map("t1"))


def resampled(brain: Image, spacing: float) -> Image:
    """A brain with voxels of another size, as resampling leaves it."""
    sigma = np.where(spacing > 1.01 * brain.grid.spacing, 0.3 * spacing / brain.grid.spacing, 0)
    smooth = Image(gaussian(brain.data, sigma), brain.grid)
    return Transform(()).resample(smooth, brain.grid.with_spacing(spacing))


def field(grid: Grid, sign: float = 1.0) -> Displacement:
    """A smooth displacement of up to some 8 mm, the same on every grid; -1 is its inverse."""
    fine = Grid((20, 24, 20), np.diag([10.0, 10.0, 10.0, 1.0]) + _corner(-100, -130, -80))
    noise = torch.randn(1, 3, *fine.shape, generator=torch.Generator().manual_seed(3))
    velocity = gaussian(noise, 1.5)
    velocity = Displacement(fine, 0.8 * sign * velocity / velocity.abs().max())
    smooth = change_grid(velocity, fine.with_spacing(2.0))
    smooth = Displacement(smooth.grid, gaussian(smooth.field, 4.0))
    return change_grid(Displacement(smooth.grid, exponentiate(smooth.field)), grid)


def _corner(*place: float) -> np.ndarray:
    matrix = np.zeros((4, 4))
    matrix[:3, 3] = place
    return matrix


@pytest.mark.parametrize("fixed_mm", [1.0, 2.0])
@pytest.mark.parametrize("moving_mm", [0.8, 1.0, 1.5, 2.0, 3.0])
def test_a_brain_overlaps_itself_whatever_the_voxel_sizes(template, fixed_mm, moving_mm):
    fixed, moving = (
        template if size == 1 else resampled(template, size) for size in (fixed_mm, moving_mm)
    )
    pair = make_pair(fixed, moving, np.eye(4))
    still = Displacement(pair.grid, torch.zeros(1, 3, *pair.grid.shape))
    quality = Quality("refine", "cpu")
    assess(quality, pair, still, still)
    assert quality.brain_overlap > 0.98
    assert quality.similarity > 0.98 and quality.similarity_lowest > 0.95
    assert quality.sd_log_jacobian == quality.folds_percent == 0


@pytest.fixture(scope="module")
def assessed(template) -> dict[tuple[float, float], Quality]:
    """Metrics of one imperfect registration of a noisy brain, by voxel sizes."""
    true = field(template.grid.with_spacing(1.0), -1.0)
    subject = Transform((true,)).resample(template, template.grid)
    noise = torch.randn(subject.data.shape, generator=torch.Generator().manual_seed(4))
    subject = Image((subject.data + 8 * noise) * (subject.data > 40), subject.grid)
    found = {}
    for sizes in ((1.0, 1.0), (1.5, 1.0), (2.0, 1.0), (3.0, 1.0), (1.0, 2.0), (2.0, 2.0)):
        fixed, moving = (
            one if size == 1 else resampled(one, size)
            for one, size in zip((template, subject), sizes, strict=True)
        )
        pair = make_pair(fixed, moving, np.eye(4))
        found[sizes] = Quality("refine", "cpu")
        there, back = (field(pair.grid, sign) for sign in (0.6, -0.6))
        assess(found[sizes], pair, there, back)
    return found


@pytest.mark.parametrize(
    ("metric", "most"),
    [
        ("similarity_affine", 0.05),
        ("similarity", 0.04),
        ("similarity_lowest", 0.05),
        ("brain_overlap", 0.01),
        ("folds_percent", 0.0),
        ("sd_log_jacobian", 0.01),
        ("inverse_consistency_mm", 0.1),
        ("inverse_consistency_p95_mm", 0.2),
    ],
)
def test_metrics_do_not_depend_on_the_voxel_size(assessed, metric, most):
    values = {sizes: getattr(quality, metric) for sizes, quality in assessed.items()}
    assert max(values.values()) - min(values.values()) <= most, values


def test_the_registration_that_is_assessed_is_imperfect(assessed):
    """Or else its metrics could not differ."""
    quality = assessed[1.0, 1.0]
    assert quality.similarity_affine < quality.similarity < 0.99
    assert 0.03 < quality.sd_log_jacobian < 0.3


@pytest.mark.parametrize("count", [1, 18, 200])
@pytest.mark.parametrize("value", [-1e6, 1e6])
@pytest.mark.parametrize("where", [0.0, 1.0])
def test_metrics_are_robust_to_outliers(template, count, value, where):
    small = resampled(template, 3.0)
    places = ((small.data[0, 0] > 40).float() == where).nonzero().numpy()
    chosen = np.random.default_rng(count).choice(places, count, replace=False)
    data = small.data.clone()
    data[0, 0][tuple(chosen.T)] = value
    found = []
    for moving in (small, Image(data, small.grid)):
        pair = make_pair(small, moving, np.eye(4))
        still = Displacement(pair.grid, torch.zeros(1, 3, *pair.grid.shape))
        found.append(Quality("refine", "cpu"))
        assess(found[-1], pair, still, still)
    clean, spoilt = found
    # Of 1.9 l in voxels of 27 mm³, 200 voxels are one in 350, and each shows in windows of 1 ml.
    assert clean.similarity - spoilt.similarity < 0.0008 * count + 0.005
    assert clean.brain_overlap - spoilt.brain_overlap < 0.005
