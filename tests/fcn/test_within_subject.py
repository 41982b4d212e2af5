"""Images of one person, made from one brain by known moves and changes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from bids_fcnreg.fcn.quality import Quality
from bids_fcnreg.fcn.register import Registration
from bids_fcnreg.fcn.spatial.displacement import exponentiate
from bids_fcnreg.fcn.spatial.filters import gaussian
from bids_fcnreg.fcn.spatial.grid import Grid, Image
from bids_fcnreg.fcn.spatial.transform import Affine, Displacement, Transform
from bids_fcnreg.fcn.within_subject import (
    register_through_base,
    register_within_subject,
    rigid_to_midpoint,
    warped_volumes,
)

pytestmark = pytest.mark.slow

SPACING = 3.0
GRID = Grid(
    (56, 64, 52),
    np.array(
        [[SPACING, 0, 0, -82.5], [0, SPACING, 0, -94.5], [0, 0, SPACING, -76.5], [0, 0, 0, 1]]
    ),
)


def brain() -> tuple[Image, Image]:
    """A lobed body of texture, and its mask."""
    x, y, z = GRID.points().float().unbind(-1)
    lobes = 1 + 0.15 * torch.cos(3 * torch.atan2(y, x)) + 0.1 * z / 60
    inside = ((x / 60) ** 2 + (y / 75) ** 2 + (z / 52) ** 2).sqrt() / lobes < 1
    noise = torch.randn(1, 1, *GRID.shape, generator=torch.Generator().manual_seed(0))
    texture = gaussian(noise, 1.5)
    values = 60 + 25 * texture / texture.std()
    mask = inside[None, None].float()
    return Image(values.clamp(min=5) * mask, GRID), Image(mask, GRID)


def moved(angle: float, shift: tuple[float, float, float]) -> np.ndarray:
    matrix = np.eye(4)
    matrix[:3, :3] = Rotation.from_rotvec(angle * np.array([0.6, 0.0, 0.8])).as_matrix()
    matrix[:3, 3] = shift
    return matrix


def growth(amount: float) -> torch.Tensor:
    """Velocity (1, 3, i, j, k) in voxels that enlarges what is around a point."""
    away = GRID.points().float() - torch.tensor([15.0, -10.0, 5.0])
    near = torch.exp(-away.square().sum(-1, keepdim=True) / (2 * 18.0**2))
    return (amount / 3 * away * near / SPACING).movedim(-1, 0)[None]


@pytest.fixture(scope="module")
def sessions():
    """Three sessions, moved, the second and third grown; the transforms from the brain to each."""
    image, mask = brain()
    moves = [moved(0.1, (4, -3, 2)), moved(-0.15, (-5, 2, 0)), moved(0.02, (0, 3, -6))]
    truths, backs = [], []
    for move, amount in zip(moves, (0.0, 0.15, 0.3), strict=True):
        there, back = (exponentiate(sign * growth(amount)) for sign in (1, -1))
        truths.append(Transform((Displacement(GRID, there), Affine(move))))
        backs.append(Transform((Affine(np.linalg.inv(move)), Displacement(GRID, back))))
    images = [back.resample(image, GRID) for back in backs]
    masks = [back.resample(mask, GRID, "label") for back in backs]
    return images, masks, truths, backs


@pytest.fixture(scope="module")
def within(sessions):
    return register_within_subject(*sessions[:2], rigid_to_midpoint(*sessions[:2]))


def middle() -> torch.Tensor:
    """Points well inside the brain."""
    return GRID.points()[16:-16:3, 16:-16:3, 16:-16:3].reshape(-1, 3)


def test_rigid_transforms_are_halved(sessions):
    images, masks, *_ = sessions
    one, two = rigid_to_midpoint(images[:2], masks[:2])
    angles = [Rotation.from_matrix(m[:3, :3]).as_rotvec() for m in (one, two)]
    np.testing.assert_allclose(angles[0], -angles[1], atol=1e-6)
    assert np.linalg.norm(angles[0]) == pytest.approx(0.125, abs=0.02)


def test_the_way_from_session_to_session_is_the_true_one(sessions, within):
    _, _, truths, backs = sessions
    for one, other in ((0, 1), (1, 2), (2, 0)):
        start = truths[one].map(middle())
        expected = truths[other].map(backs[one].map(start))
        found = within.forward[other].map(within.inverse[one].map(start))
        error = (found - expected).norm(dim=-1)
        assert error.median() < 0.06 * SPACING
        assert error.quantile(0.95) < 0.15 * SPACING


def test_the_order_of_sessions_does_not_matter(sessions, within):
    images, masks, truths, _ = sessions
    backwards = images[::-1], masks[::-1]
    turned = register_within_subject(*backwards, rigid_to_midpoint(*backwards))
    start = truths[0].map(middle())
    found = within.forward[2].map(within.inverse[0].map(start))
    other = turned.forward[0].map(turned.inverse[2].map(start))
    assert (found - other).norm(dim=-1).median() < 0.01 * SPACING


def test_volumes_between_sessions(sessions, within):
    """What grew by a known amount, measured in the base's space."""
    _, _, truths, _ = sessions
    ball = (GRID.points().float() - torch.tensor([15.0, -10.0, 5.0])).norm(dim=-1) < 15
    labels = Image(ball[None, None].float(), GRID)
    true = [warped_volumes(labels, truth, [1])[0] for truth in truths]
    assert true[2] > 1.15 * true[0]
    back = Transform((*within.forward[0].steps, *sessions[3][0].steps))
    in_base = back.resample(labels, within.base.grid, "label")
    found = [warped_volumes(in_base, one, [1])[0] for one in within.forward]
    assert found[1] / found[0] == pytest.approx(true[1] / true[0], abs=0.03)
    assert found[2] / found[0] == pytest.approx(true[2] / true[0], abs=0.04)


def test_through_the_base_to_a_template(sessions, within):
    images, masks, truths, _ = sessions
    image, mask = brain()
    # The template is the brain itself: what leads from it to the base is known for session 1.
    there = truths[0].then(within.inverse[0])
    back = within.forward[0].then(sessions[3][0])
    base = Registration(there, back, Quality("refine", "cpu"))
    ways = (within.forward[2], within.inverse[2])
    found = register_through_base(image, mask, images[2], masks[2], base, ways)
    assert [type(step) for step in found.forward.steps] == [Displacement, Affine]
    error = (found.forward.map(middle()) - truths[2].map(middle())).norm(dim=-1)
    assert error.median() < 0.3 * SPACING
    assert found.quality.similarity > 0.6
    assert found.quality.folds_percent == 0
    assert found.quality.inverse_consistency_mm < 0.3 * SPACING
