"""Pictures of the report."""

from __future__ import annotations

import base64
import io
import os
import re
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from matplotlib import image as mpl_image
from nipype.pipeline import engine as pe

from bids_fcnreg.fcn.spatial.grid import Grid
from bids_fcnreg.fcn.spatial.transform import Affine, Displacement, Transform
from bids_fcnreg.figures.intensity_window import intensity_window
from bids_fcnreg.figures.mosaic import CUTS, Mosaic, slice_positions
from bids_fcnreg.figures.slices import white_matter_level
from bids_fcnreg.interfaces.figures import Deformation, Flicker, Slices
from bids_fcnreg.io.itk import write_transform


@pytest.fixture
def ball(tmp_path) -> Path:
    """A ball of two intensities, and its mask, in an orientation that is not RAS."""
    affine = np.array([[0, -2.0, 0, 30], [-2, 0, 0, 30], [0, 0, 2, -30], [0, 0, 0, 1]])
    points = nib.affines.apply_affine(affine, np.argwhere(np.ones((30, 30, 30))))
    radius = np.linalg.norm(points - [6, 0, 0], axis=1).reshape(30, 30, 30)
    nib.save(nib.Nifti1Image((radius < 20).astype("uint8"), affine), tmp_path / "mask.nii.gz")
    brain = np.where(radius < 20, np.where(radius < 13, 900, 400), 0)
    nib.save(nib.Nifti1Image(brain.astype("float32"), affine), tmp_path / "brain.nii.gz")
    return tmp_path


def draw(folder: Path, name: str, **inputs: str) -> np.ndarray:
    node = pe.Node(
        Slices(
            background=str(folder / "brain.nii.gz"), mask=str(folder / "mask.nii.gz"), **inputs
        ),
        name=name,
        base_dir=str(folder),
    )
    return mpl_image.imread(node.run().outputs.out_file)[..., :3]


def redness(picture: np.ndarray) -> float:
    return float((picture[..., 0] - picture[..., 1:].max(-1)).clip(0).sum())


def test_contours_and_labels_are_visible(ball):
    plain = draw(ball, "plain")
    contours = draw(ball, "contours", contours_of=str(ball / "brain.nii.gz"))
    labels = draw(ball, "labels", labels=str(ball / "mask.nii.gz"))
    assert redness(plain) == 0
    assert redness(contours) > 500
    assert (np.abs(labels - plain).max(-1) > 0.1).mean() > 0.02


def test_a_few_labels_are_named(ball):
    (ball / "lookup.tsv").write_text("index\tname\n1\tbrain\n2\tnot there\n")
    labels = {"labels": str(ball / "mask.nii.gz")}
    plain = draw(ball, "plain_labels", **labels)
    named = draw(ball, "named_labels", lookup=str(ball / "lookup.tsv"), **labels)
    above = len(named) - len(plain)
    assert (named[:above].max(-1) > 0.5).sum() > 200  # the legend, which hides nothing
    assert (np.abs(named[above:] - plain).max(-1) > 0.1).mean() < 0.001


def test_cuts_go_through_the_mask(ball):
    mask = nib.load(ball / "mask.nii.gz")
    cuts = slice_positions(mask.get_fdata() > 0, mask.affine)
    assert np.mean(cuts["x"]) == pytest.approx(6, abs=1)
    assert np.mean(cuts["y"]) == pytest.approx(0, abs=1)
    for axis, centre in zip("xyz", (6, 0, 0), strict=True):
        assert np.abs(np.array(cuts[axis]) - centre).max() < 20
        assert len(cuts[axis]) == 7


def test_white_matter_level_separates_tissues():
    brain = np.repeat([0, 400, 900], [1000, 600, 400])
    brain = np.where(brain > 0, brain + np.random.default_rng(0).normal(0, 30, brain.size), 0)
    assert 400 < white_matter_level(brain, brain > 0) < 900
    # The same, whatever is outside of the brain, and with negative values in it.
    head = np.where(brain > 0, (brain - 700) / 100, 5000)
    head[-1] = np.nan
    assert -3 < white_matter_level(head, brain > 0) < 2
    assert white_matter_level(head, head > np.inf) == 0


def spread(picture: np.ndarray) -> float:
    """Grey values between the tissues of the ball in a picture of it, from 0 to 1."""
    grey = picture.mean(-1)[(picture.max(-1) - picture.min(-1)) < 0.02]
    shown = grey[(grey > 0.02) & (grey < 0.98)]
    return float(np.percentile(shown, 95) - np.percentile(shown, 5)) if shown.size else 0.0


DISTURBED = {
    "plain": lambda head, inside: head,
    "bright skull": lambda head, inside: np.where(inside, head, np.where(head == 7, 9000, 0)),
    "bright vessels": lambda head, inside: np.where(every(97, head) & inside, 20000, head),
    "one bright voxel": lambda head, inside: np.where(every(9999, head), 1e9, head),
    "negative": lambda head, inside: (head - 600) / 200,
    "offset": lambda head, inside: head + 30000,
    "tiny": lambda head, inside: head * 1e-9,
    "NaN": lambda head, inside: np.where(every(50, head), np.nan, head),
    "infinite": lambda head, inside: np.where(every(50, head), np.inf, head),
}


def every(step: int, array: np.ndarray) -> np.ndarray:
    return (np.arange(array.size) % step == step // 2).reshape(array.shape)


@pytest.fixture(params=DISTURBED)
def head(ball, request) -> Path:
    """The ball inside a shell, with something that is not to change how the ball is shown."""
    mask, brain = nib.load(ball / "mask.nii.gz"), nib.load(ball / "brain.nii.gz")
    inside = mask.get_fdata() > 0
    shell = np.roll(inside, 3, 0) | np.roll(inside, -3, 0) | np.roll(inside, 3, 1)
    data = np.where(inside, brain.get_fdata(), np.where(shell, 7, 0))
    data = DISTURBED[request.param](data, inside).astype("float64")
    nib.Nifti1Image(data, mask.affine).to_filename(ball / "brain.nii.gz")
    return ball


def test_tissues_are_separated_in_any_image(head):
    assert spread(draw(head, "slices")) > 0.4


def test_both_images_in_turn_are_windowed_by_the_brain(head):
    node = pe.Node(
        Flicker(
            before=str(head / "brain.nii.gz"),
            after=str(head / "brain.nii.gz"),
            mask=str(head / "mask.nii.gz"),
        ),
        name="turn",
        base_dir=str(head),
    )
    text = Path(node.run().outputs.out_file).read_text()
    shown = re.findall(r'xlink:href="data:image/jpeg;base64,([^"]+)"', text)
    pictures = [mpl_image.imread(io.BytesIO(base64.b64decode(one)), "jpg") for one in shown]
    assert len(pictures) == 2
    for picture in pictures:
        grey = picture / 255
        seen = grey[(grey > 0.02) & (grey < 0.98)]
        assert np.percentile(seen, 95) - np.percentile(seen, 5) > 0.4


@pytest.mark.parametrize("value", [0.0, 5.0, -3.0])
def test_constant_images_are_drawn(ball, value):
    mask = nib.load(ball / "mask.nii.gz")
    data = np.full(mask.shape, value, "float32")
    nib.Nifti1Image(data, mask.affine).to_filename(ball / "brain.nii.gz")
    assert draw(ball, "constant").shape[-1] == 3


@pytest.mark.skipif("BIDS_FCNREG_TEST_DATA" not in os.environ, reason="needs real heads")
@pytest.mark.parametrize(
    "name",
    [
        "wholehead/sub-colin/anat/sub-colin_T1w.nii.gz",
        "heads/sub-retest1/ses-1/anat/sub-retest1_ses-1_T1w.nii.gz",
        "heads/sub-tumour1/anat/sub-tumour1_ce-gd_T1w.nii.gz",
    ],
)
def test_the_brain_of_a_real_head_uses_the_greys(name):
    image = nib.load(Path(os.environ["BIDS_FCNREG_TEST_DATA"]) / name)
    data = image.get_fdata(dtype=np.float32)
    points = nib.affines.apply_affine(image.affine, np.moveaxis(np.indices(data.shape), 0, -1))
    # A ball of 4 cm around the middle of the head is brain.
    head = points[data > np.percentile(data[data > 0], 50)]
    middle = (np.percentile(head, 5, axis=0) + np.percentile(head, 95, axis=0)) / 2
    middle[2] = np.percentile(head[:, 2], 99) - 70
    inside = np.linalg.norm(points - middle, axis=-1) < 40
    darkest, brightest = intensity_window(data, inside)
    shown = np.clip((data[inside] - darkest) / (brightest - darkest), 0, 1)
    assert np.percentile(shown, 98) - np.percentile(shown, 2) > 0.7
    assert ((shown == 0) | (shown == 1)).mean() < 0.04


@pytest.mark.parametrize("axes", [(0, 1, 2), (2, 0, 1)])
@pytest.mark.parametrize("flips", [(1, 1, 1), (-1, 1, -1)])
def test_slices_show_where_things_are_in_the_world(axes, flips):
    """A voxel at the left, front and top is there in the picture, however it is stored."""
    spacing = 2.0
    affine = np.eye(4)
    affine[:3, :3] = 0
    for voxel, (axis, flip) in enumerate(zip(axes, flips, strict=True)):
        affine[axis, voxel] = spacing * flip
        affine[axis, 3] = -30 * flip
    brain = np.zeros((31, 31, 31), np.float32)
    brain[1:30, 1:30, 1:30] = 1
    mosaic = Mosaic(brain > 0, affine)
    points = nib.affines.apply_affine(affine, np.moveaxis(np.indices(brain.shape), 0, -1))
    corner = np.linalg.norm(points - [-14, 14, 14], axis=-1) < 12
    coronal, sagittal, axial = mosaic.sample(corner.astype(np.float32), affine)
    for slices, right, low in ((coronal, False, False), (sagittal, True, False), (axial, 0, 0)):
        row, column = (np.array(slices.max(0) > 0.5).nonzero()[n].mean() for n in (0, 1))
        _, height, width = slices.shape
        assert (column > width / 2) == right and (row > height / 2) == low


def test_slices_show_the_brain_and_little_else():
    inside = np.zeros((60, 50, 40), bool)
    inside[30:40, 2:20, 10:30] = True
    for row in Mosaic(inside, np.diag([2.0, 2, 2, 1])).sample(
        inside.astype(np.float32), np.diag([2.0, 2, 2, 1])
    ):
        assert row.shape[0] == CUTS and (row.max(0) > 0.5).mean() > 0.2


def test_an_empty_mask_shows_all():
    empty = np.zeros((20, 20, 20), bool)
    everything = Mosaic(empty, np.eye(4)).sample(np.ones(empty.shape, np.float32), np.eye(4))
    assert all(row.mean() > 0.3 for row in everything)


def test_shrinking_is_blue_growing_is_red_and_the_affine_part_does_not_count(ball):
    mask = nib.load(ball / "mask.nii.gz")
    grid = Grid(mask.shape, mask.affine)
    away = grid.points() - torch.tensor([6.0, 0, 0])
    growth = 0.3 * away * torch.exp(-away.square().sum(-1, keepdim=True) / 200)
    voxels = torch.as_tensor(np.linalg.inv(grid.affine[:3, :3]))
    field = (growth.double() @ voxels.T).float().movedim(-1, 0)[None]
    middle = {}
    for sign in (1, -1):
        steps = (Displacement(grid, sign * field), Affine(np.diag([2.0, 2, 2, 1])))
        transform = write_transform(ball / f"{sign}.h5", Transform(steps))
        node = pe.Node(
            Deformation(
                background=str(ball / "brain.nii.gz"),
                mask=str(ball / "mask.nii.gz"),
                transform=str(transform),
            ),
            name=f"deformation{sign + 1}",
            base_dir=str(ball),
        )
        picture = mpl_image.imread(node.run().outputs.out_file)[..., :3]
        rows, columns = (size // n for size, n in zip(picture.shape, (3, CUTS), strict=False))
        cut = CUTS // 2  # the slice through the middle of the ball
        shown = picture[:rows, cut * columns : (cut + 1) * columns]
        middle[sign] = shown[rows // 3 : -rows // 3, columns // 3 : -columns // 3].mean((0, 1))
    assert middle[1][0] > middle[1][2] + 0.1
    assert middle[-1][2] > middle[-1][0] + 0.1
