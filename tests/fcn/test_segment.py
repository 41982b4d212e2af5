import numpy as np
import pytest
import torch
from scipy import ndimage
from scipy.spatial.transform import Rotation

from bids_fcnreg.errors import InputError
from bids_fcnreg.fcn.masks import bounding_box
from bids_fcnreg.fcn.nets import checkpoint
from bids_fcnreg.fcn.nets.anatomy import (
    AnatomyFCN,
    normalize_intensities,
    segmentation_loss,
)
from bids_fcnreg.fcn.segment import Anatomy, segment
from bids_fcnreg.fcn.spatial.grid import Grid, Image
from bids_fcnreg.fcn.spatial.transform import Transform
from bids_fcnreg.fcn.structures import STRUCTURES
from bids_fcnreg.io import image

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    return AnatomyFCN(widths=(4, 8, 8)).eval()


def bright_ball(shape, affine, centre=(0.0, 0.0, 0.0)):
    grid = Grid(shape, affine)
    distance = (grid.points() - torch.tensor(centre, dtype=torch.float64)).norm(dim=-1)
    noise = torch.rand(shape, generator=torch.Generator().manual_seed(0))
    return Image((100 * (distance < 40) + 5 * noise)[None, None].float(), grid)


def test_normalized_intensities_do_not_depend_on_scale_and_offset():
    image = bright_ball((40, 44, 48), np.diag([2.0, 2, 2, 1])).data
    expected = normalize_intensities(image)
    for scale, offset in ((0.01, 0.0), (1e4, 0.0), (1.0, -300.0), (3.0, 1e3)):
        found = normalize_intensities(image * scale + offset)
        assert torch.allclose(found, expected, atol=2e-3)


def test_constant_image_has_normalized_intensities_of_zero():
    assert not normalize_intensities(torch.full((1, 1, 8, 8, 8), 3.0)).any()


def test_posteriors_add_up_to_one_around_the_scan(network):
    affine = np.diag([1.5, 2.0, 3.0, 1.0])
    affine[:3, 3] = (-50, -60, -70)
    scan = bright_ball((61, 55, 47), affine)
    anatomy = segment(scan, network)
    assert anatomy.posteriors.shape == (1, len(STRUCTURES), *anatomy.grid.shape)
    assert torch.allclose(anatomy.posteriors.sum(dim=1), torch.ones(()), atol=1e-4)
    assert np.allclose(anatomy.grid.centre, scan.grid.centre, atol=2.0)


def test_orientation_of_the_voxel_axes_does_not_matter(network):
    scan = bright_ball((60, 64, 68), np.diag([2.0, 2, 2, 1]), centre=(50, 60, 70))
    flip = np.diag([-1.0, 1, 1, 1])
    flip[0, 3] = 59
    turned = Image(
        scan.data.flip(2).permute(0, 1, 4, 2, 3).contiguous(),
        Grid((68, 60, 64), (scan.grid.affine @ flip)[:, [2, 0, 1, 3]]),
    )
    expected, found = segment(scan, network), segment(turned, network)
    assert found.grid.matches(expected.grid)
    assert torch.allclose(found.posteriors, expected.posteriors, atol=1e-3)


def test_a_tiny_image_is_segmented_too(network):
    scan = bright_ball((5, 6, 7), np.diag([2.0, 2, 2, 1]))
    assert segment(scan, network).posteriors.shape[2:] == (5, 6, 7)


@pytest.mark.parametrize("affine", [np.diag([4.0, 4, 4, 1]), np.diag([-4.0, 4, -4, 1])])
def test_only_what_is_around_a_brain_is_segmented(network, affine):
    scan = bright_ball((60, 60, 60), affine, centre=affine[:3, :3] @ [30, 15, 30])
    mask = Image((scan.data > 50).float(), scan.grid)
    whole, around = segment(scan, network), segment(scan, network, brain=mask)
    # The ball has 80 mm; behind it, the field of view ends after 20 mm.
    assert whole.grid.shape == (120, 120, 120)
    assert np.allclose(2 * np.array(around.grid.shape), [156, 136, 156], atol=8)
    corners = around.grid.points()[[0, -1], [0, -1], [0, -1]].numpy().mean(axis=0)
    assert np.allclose(corners[[0, 2]], affine[:3, :3].diagonal()[[0, 2]] * 30, atol=4)
    empty = Image(torch.zeros_like(mask.data), mask.grid)
    assert segment(scan, network, brain=empty).grid.matches(whole.grid)


def test_a_field_of_view_that_is_too_large_for_a_head_is_refused(network):
    wide = Image(torch.ones(1, 1, 50, 50, 60), Grid((50, 50, 60), np.diag([10.0, 9, 10, 1])))
    with pytest.raises(InputError, match="500 × 450 × 600 mm, is too large for a head"):
        segment(wide, network)


def test_flipped_average_is_symmetric(network):
    scan = bright_ball((64, 64, 64), np.diag([2.0, 2, 2, 1]), centre=(63, 60, 70))
    mirrored = Image(scan.data.flip(2), scan.grid)
    one, other = (segment(s, network, flip=True) for s in (scan, mirrored))
    names = list(STRUCTURES.values())
    left, right = names.index("Left-Thalamus"), names.index("Right-Thalamus")
    assert torch.allclose(one.posteriors[:, left], other.posteriors[:, right].flip(1), atol=1e-4)


def test_brain_mask_is_one_part_without_holes():
    posteriors = torch.zeros(1, len(STRUCTURES), 20, 20, 20)
    posteriors[:, 1, 4:12, 4:12, 4:12] = 1
    posteriors[:, 1, 7, 7, 7] = 0  # a hole
    posteriors[:, 1, 15, 15, 15] = 1  # another part
    posteriors[:, -1, 12, 4:12, 4:12] = 0.4  # less than half
    posteriors[:, 0] = 1 - posteriors.sum(dim=1)
    grid = Grid((20, 20, 20), np.diag([2.0, 2, 2, 1]))
    expected = torch.zeros(20, 20, 20)
    expected[4:12, 4:12, 4:12] = 1
    assert torch.equal(Anatomy(posteriors, grid).brain_mask(grid).data[0, 0], expected)


def test_loss_is_lowest_for_the_truth_and_falls_with_training():
    torch.manual_seed(0)
    target = torch.randint(0, len(STRUCTURES), (500,))
    weight = torch.ones(500)
    right = 20 * torch.nn.functional.one_hot(target, len(STRUCTURES)).float()
    wrong = right.roll(1, dims=1)
    losses = [segmentation_loss(x, target, weight).item() for x in (right, right / 20, wrong)]
    assert losses == sorted(losses)
    assert losses[0] < 0.1


def test_anatomy_weights_are_kept_and_refused_for_registration(network, tmp_path):
    path = tmp_path / "anatomy.safetensors"
    checkpoint.save(network, path)
    loaded, _ = checkpoint.load(path, ["anatomy"])
    weights = loaded.state_dict()
    assert all(torch.equal(weights[name], value) for name, value in network.state_dict().items())
    with pytest.raises(InputError, match="was not written by `fcnreg train`"):
        checkpoint.load(path)


@pytest.mark.parametrize("value", [0.0, -3.0, 1e6])
def test_an_image_without_contrast_is_background(value: float):
    scan = Image(
        torch.full((1, 1, 40, 44, 42), value), Grid((40, 44, 42), np.diag([4, 4, 4, 1.0]))
    )
    anatomy = segment(scan)
    assert (anatomy.posteriors[:, 0] == 1).all()
    assert not anatomy.brain_mask(scan.grid).data.any()


def turned(scan: Image, rotation: np.ndarray) -> Image:
    """Turn a head about its center, in its header."""
    center = scan.grid.affine[:3] @ [*((np.array(scan.grid.shape) - 1) / 2), 1]
    turn = np.eye(4)
    turn[:3, :3], turn[:3, 3] = rotation, center - rotation @ center
    return Image(scan.data, Grid(scan.grid.shape, turn @ scan.grid.affine))


def labels_of(scan: Image) -> np.ndarray:
    """Segment a scan; return the channel of each of its voxels."""
    anatomy = segment(scan)
    posteriors = Image(anatomy.posteriors, anatomy.grid)
    return Transform(()).resample(posteriors, scan.grid).data[0].argmax(dim=0).numpy()


def test_a_head_that_its_header_turns_is_segmented_upright(real_data):
    rotation = Rotation.random(random_state=1).as_matrix()  # 49° from all quarters of a turn
    name = "sub-stroke1/anat/sub-stroke1_T2w"
    scan = image.read(real_data / "heads" / f"{name}.nii.gz")
    brain = ndimage.binary_dilation(segment(scan).brain_mask(scan.grid).data[0, 0], iterations=15)
    box = bounding_box(brain)
    scan = Image(
        scan.data[(..., *box)].contiguous(),
        scan.grid.crop([along.start for along in box], [along.stop for along in box]),
    )
    expected, found = labels_of(scan), labels_of(turned(scan, rotation))
    overlap = [
        2
        * ((found == one) & (expected == one)).sum()
        / sum((one == part).sum() for part in (found, expected))
        for one in range(1, len(STRUCTURES))
    ]
    assert np.mean(overlap) > 0.85 and np.min(overlap) > 0.6
