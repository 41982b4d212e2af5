"""Linear alignment against transforms that are known."""

from __future__ import annotations

from collections.abc import Callable
from itertools import permutations, product
from pathlib import Path

import nibabel as nib
import nilearn.datasets
import numpy as np
import pytest
import torch

from bids_fcnreg.errors import InputError
from bids_fcnreg.fcn.linear.align import align
from bids_fcnreg.fcn.linear.initialization import rotations
from bids_fcnreg.fcn.spatial.grid import Grid, Image, apply_affine
from bids_fcnreg.fcn.spatial.transform import Affine, Transform

pytestmark = pytest.mark.slow

HEAD = Grid(
    (58, 66, 54), np.array([[3.0, 0, 0, -85], [0, 3, 0, -98], [0, 0, 3, -80], [0, 0, 0, 1]])
)


def brain(points: torch.Tensor) -> torch.Tensor:
    """A smooth thing of the size of a brain, without symmetry, as a function of RAS mm."""
    rng = np.random.default_rng(3)
    x, y, z = (points / torch.tensor([62.0, 80.0, 56.0], dtype=torch.float64)).unbind(-1)
    radius = (x**2 + y**2 + (z + 0.25 * y**2) ** 2).sqrt()
    value = torch.sigmoid(30 * (1 - radius)) * 0.6
    for _ in range(40):
        centre = torch.from_numpy(rng.uniform(-1, 1, 3) * [48, 62, 40])
        width, height = rng.uniform(7, 14), rng.uniform(-0.35, 0.35)
        blob = torch.exp(-0.5 * ((points - centre) ** 2).sum(-1) / width**2)
        value = value + height * blob * torch.sigmoid(30 * (1 - radius))
    return torch.where(value > 0.02, value, 0.0)


def seen(
    scene: Callable[[torch.Tensor], torch.Tensor], grid: Grid, truth: np.ndarray | None = None
) -> Image:
    """The scene on a grid, exactly; `truth` takes the grid's world to the scene's."""
    matrix = torch.from_numpy(np.eye(4) if truth is None else truth)
    points = grid.points() @ matrix[:3, :3].T + matrix[:3, 3]
    return Image(scene(points).float()[None, None], grid)


def moved_by(
    angles: tuple[float, ...], shift: tuple[float, ...], linear: np.ndarray
) -> np.ndarray:
    matrix = np.eye(4)
    for axis, angle in enumerate(np.radians(angles)):
        a, b = (axis + 1) % 3, (axis + 2) % 3
        turn = np.eye(3)
        turn[[a, a, b, b], [a, b, a, b]] = (
            np.cos(angle),
            -np.sin(angle),
            np.sin(angle),
            np.cos(angle),
        )
        matrix[:3, :3] = matrix[:3, :3] @ turn
    matrix[:3, :3] = matrix[:3, :3] @ linear
    matrix[:3, 3] = shift
    return matrix


def covering(truth: np.ndarray, spacing: tuple[float, ...] = (3, 3, 3)) -> Grid:
    """A grid around the brain as it lies in a world that `truth` takes to the brain's own."""
    corners = np.array(list(product(*[(-1, 1)] * 3))) * [72, 92, 75]
    corners = apply_affine(np.linalg.inv(truth), corners)
    affine = np.diag([*spacing, 1.0])
    affine[:3, 3] = corners.min(0)
    return Grid(tuple(np.ceil(np.ptp(corners, axis=0) / spacing).astype(int) + 1), affine)


def error(found: np.ndarray, truth: np.ndarray) -> float:
    """Mean distance in mm over the brain; both take the fixed world to the moving world."""
    inside = np.array(list(product(*[np.linspace(-1, 1, 9)] * 3)))
    inside = inside[np.linalg.norm(inside, axis=1) <= 1] * [62, 80, 56]
    fixed = apply_affine(np.linalg.inv(truth), inside)
    return float(np.linalg.norm(apply_affine(found, fixed) - inside, axis=1).mean())


SKEW = np.array([[1.06, 0.05, -0.03], [0.02, 0.93, 0.06], [0.04, -0.05, 1.1]])
CASES = {
    "rigid": moved_by((40, -35, 30), (45, -50, 30), np.eye(3)),
    "similarity": moved_by((-45, 20, 45), (-50, 40, 50), 1.25 * np.eye(3)),
    "affine": moved_by((30, 40, -45), (50, 50, -50), 0.82 * SKEW),
}


@pytest.mark.parametrize("dof", CASES)
def test_large_motions_are_found_to_a_fraction_of_a_millimetre(dof: str) -> None:
    truth = CASES[dof]
    found = align(seen(brain, covering(truth), truth), seen(brain, HEAD), dof=dof)
    assert error(found, truth) < 0.3
    assert found.dtype == np.float64
    size = {"rigid": 1.0, "similarity": np.cbrt(np.linalg.det(found[:3, :3]))}.get(dof)
    if size:  # rotations and shifts, nothing else
        np.testing.assert_allclose(found[:3, :3].T @ found[:3, :3], size**2 * np.eye(3), atol=1e-9)


def test_every_wrong_orientation_of_the_header_is_found() -> None:
    """The 24 rotations by right angles: the voxels are right, the header says otherwise."""
    fixed = seen(brain, HEAD)
    rotations = [
        np.eye(3)[list(order)] * np.array(signs)[:, None]
        for order in permutations(range(3))
        for signs in product((1, -1), repeat=3)
    ]
    rotations = [turn for turn in rotations if np.linalg.det(turn) > 0]
    assert len(rotations) == 24
    for turn in rotations[1::5]:
        lie = np.eye(4)
        lie[:3, :3] = turn
        moving = Image(fixed.data, Grid(HEAD.shape, lie @ HEAD.affine))
        assert error(np.linalg.inv(lie) @ align(fixed, moving), np.eye(4)) < 0.3


@pytest.mark.parametrize("codes", ["LAS", "PIR"])
def test_storage_orientation_makes_no_difference(codes: str) -> None:
    truth = moved_by((10, -8, 5), (4, 6, -3), np.eye(3))
    moving = seen(brain, HEAD)
    stored = nib.Nifti1Image(moving.data[0, 0].numpy(), HEAD.affine)
    turn = nib.orientations.axcodes2ornt(codes)
    stored = stored.as_reoriented(
        nib.orientations.ornt_transform(nib.orientations.io_orientation(HEAD.affine), turn)
    )
    turned = Image(
        torch.from_numpy(np.ascontiguousarray(stored.get_fdata(dtype=np.float32)))[None, None],
        Grid(stored.shape, stored.affine),
    )
    fixed = seen(brain, covering(truth), truth)
    assert error(align(fixed, turned, dof="rigid"), truth) < 0.2


def test_thick_slices_and_a_cut_off_field_of_view() -> None:
    truth = moved_by((15, -10, 20), (20, -15, 10), 1.08 * np.eye(3))
    thick = covering(truth, (1.5, 1.5, 5.0))
    assert error(align(seen(brain, thick, truth), seen(brain, HEAD)), truth) < 0.5
    grid = covering(truth)
    low = (0, 0, grid.shape[2] // 3)
    slab = seen(brain, grid.crop(low, grid.shape), truth)
    assert error(align(slab, seen(brain, HEAD)), truth) < 0.5
    assert error(np.linalg.inv(align(seen(brain, HEAD), slab)), truth) < 0.5


def test_the_template_is_found_through_contrast_bias_and_noise() -> None:
    folder = Path(nilearn.datasets.__file__).parent / "data"
    stored = nib.load(folder / "mni_icbm152_t1_tal_nlin_sym_09a_converted.nii.gz")
    data = np.asarray(stored.dataobj, dtype=np.float32, order="C") / 255
    template = Image(torch.from_numpy(data)[None, None], Grid(stored.shape, stored.affine))
    truth = moved_by((-40, 25, 35), (30, -45, 20), 0.9 * SKEW)
    grid = covering(truth, (2, 2, 2))
    fixed = Transform((Affine(truth),)).resample(template, grid).data
    noise = torch.randn(fixed.shape, generator=torch.Generator().manual_seed(0))
    bias = torch.linspace(0.7, 1.4, grid.shape[1])[:, None]
    fixed = ((fixed.clamp(min=0) ** 1.7 + 0.04 * noise) * bias * (fixed > 0.05)).clamp(min=0)
    assert error(align(Image(300 * fixed, grid), template), truth) < 0.5


def test_two_runs_give_the_same_bits() -> None:
    truth = CASES["affine"]
    pair = seen(brain, covering(truth), truth), seen(brain, HEAD)
    assert align(*pair).tobytes() == align(*pair).tobytes()


def test_excluded_voxels_exert_no_force() -> None:
    """A bright lump in the moving brain, left out of the similarity, makes no difference."""
    truth = moved_by((8, -5, 6), (5, 5, -5), np.eye(3))
    fixed = seen(brain, covering(truth), truth)
    clean = seen(brain, HEAD)
    gap = (HEAD.points() - torch.tensor([30.0, 20.0, 15.0], dtype=torch.float64)).norm(dim=-1)
    lump = (gap < 26)[None, None]
    lesion = Image(torch.where(lump, 2.5, clean.data), HEAD)
    excluded = align(fixed, lesion, moving_exclude=Image(lump.float(), HEAD))
    assert error(excluded, truth) < 0.3
    assert error(align(fixed, lesion), truth) > 2 * error(excluded, truth)
    back = np.linalg.inv(truth)
    excluded = align(lesion, fixed, fixed_exclude=Image(lump.float(), HEAD))
    assert error(excluded, back) < 0.3


def test_a_mask_takes_a_skull_away() -> None:
    truth = moved_by((20, 10, -15), (15, 0, 10), np.eye(3))

    def head(points: torch.Tensor) -> torch.Tensor:
        x, y, z = (points / torch.tensor([78.0, 98.0, 82.0], dtype=torch.float64)).unbind(-1)
        shell = ((x**2 + y**2 + z**2).sqrt() - 1.05).abs()
        return brain(points) + 1.2 * torch.sigmoid(60 * (0.05 - shell))

    grid = covering(truth)
    naked = seen(brain, HEAD)
    skull = seen(head, grid, truth)
    mask = Image((seen(brain, grid, truth).data > 0).float(), grid)
    both = align(skull, naked, fixed_mask=mask, moving_mask=Image((naked.data > 0).float(), HEAD))
    assert error(both, truth) < 0.3
    assert error(align(skull, naked, fixed_mask=mask), truth) < 0.5


def test_left_and_right_are_never_exchanged() -> None:
    fixed = seen(brain, HEAD)
    assert np.linalg.det(align(fixed, Image(fixed.data.flip(2), HEAD))[:3, :3]) > 0


def test_rotations_cover_all_orientations() -> None:
    matrices = rotations(1200)
    np.testing.assert_allclose(
        matrices @ matrices.transpose(0, 2, 1), np.eye(3)[None] + 0 * matrices, atol=1e-9
    )
    assert np.linalg.det(matrices).min() > 0.999
    asked = rotations(77)
    traces = np.einsum("aij,bij->ab", asked, matrices).max(1)
    assert np.degrees(np.arccos(np.clip((traces - 1) / 2, -1, 1))).max() < 25


def test_invalid_images_and_masks_raise_input_error() -> None:
    image = seen(brain, HEAD)
    empty = Image(torch.zeros_like(image.data), HEAD)
    with pytest.raises(InputError, match="fixed image is empty"):
        align(empty, image)
    with pytest.raises(InputError, match="moving image is empty"):
        align(image, empty)
    with pytest.raises(InputError, match="mask of the moving image is empty"):
        align(image, image, moving_mask=empty)
    with pytest.raises(InputError, match="covers the whole moving image"):
        align(image, image, moving_exclude=Image(torch.ones_like(image.data), HEAD))
    with pytest.raises(InputError, match=r"object in the moving image has 4\.\d ml"):
        align(image, Image(image.data, Grid(HEAD.shape, HEAD.affine @ np.diag([0.15] * 3 + [1]))))
    other = Grid(HEAD.shape, HEAD.affine @ np.diag([2, 2, 2, 1.0]))
    with pytest.raises(InputError, match=r"mask of the fixed image lie up to \d+ mm apart"):
        align(image, image, fixed_mask=Image(image.data, other))


@pytest.mark.parametrize("dof", ["rigid", "similarity", "affine"])
def test_an_initial_transform_is_optimized(dof) -> None:
    """From 8 degrees and 6 mm away, of another kind: the nearest of the kind is the start."""
    linear = {"rigid": np.eye(3), "similarity": 1.1 * np.eye(3), "affine": SKEW}[dof]
    truth = moved_by((100, -30, 60), (20, -15, 10), linear)
    start = truth @ moved_by((8, 0, 0), (6, 0, 0), np.diag([1.05, 0.97, 1.0]))
    found = align(seen(brain, covering(truth), truth), seen(brain, HEAD), dof=dof, initial=start)
    assert error(found, truth) < 0.3
    stretch = np.linalg.svd(found[:3, :3], compute_uv=False)
    if dof != "affine":
        np.testing.assert_allclose(stretch, 1.1 if dof == "similarity" else 1, rtol=0.01)


def test_an_initial_transform_replaces_the_search() -> None:
    truth = moved_by((0, 0, 170), (0, 0, 0), np.eye(3))
    pair = seen(brain, covering(truth), truth), seen(brain, HEAD)
    assert error(align(*pair, dof="rigid"), truth) < 0.3
    assert error(align(*pair, dof="rigid", initial=np.eye(4)), truth) > 20


def test_an_initial_reflection_is_refused() -> None:
    image = seen(brain, HEAD)
    with pytest.raises(InputError, match="exchanges left and right"):
        align(image, image, initial=np.diag([-1.0, 1.0, 1.0, 1.0]))
