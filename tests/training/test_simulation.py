import nibabel as nib
import numpy as np
import pytest
import torch

from bids_fcnreg.fcn.structures import STRUCTURES
from bids_fcnreg.training.simulation import CONTRASTS, MERGED, PAIRS, LabelMap, simulate

pytestmark = pytest.mark.slow

CHANNEL = {label: channel for channel, label in enumerate(STRUCTURES)}


def ellipsoid_head(axcodes="RAS"):
    """Label map of nested ellipsoids: skull, cortex and white matter of both hemispheres."""
    centred = np.indices((160, 180, 160)) - np.array([80, 90, 80])[:, None, None, None]
    radius = np.sqrt(
        sum((part / axis) ** 2 for part, axis in zip(centred, (65, 80, 62), strict=True))
    )
    left = centred[0] < 0
    labels = np.zeros(radius.shape, np.int32)
    for edge, on_left, on_right in (
        (1.15, 507, 507), (1.0, 24, 24), (0.95, 3, 42), (0.8, 2, 41), (0.3, 4, 43),
    ):  # fmt: skip
        inside = radius < edge
        labels[inside & left], labels[inside & ~left] = on_left, on_right
    nifti = nib.Nifti1Image(labels, np.eye(4))
    turn = nib.orientations.ornt_transform(
        nib.orientations.axcodes2ornt("RAS"), nib.orientations.axcodes2ornt(axcodes)
    )
    return nifti.as_reoriented(turn)


@pytest.fixture(scope="module")
def anatomy(tmp_path_factory):
    path = tmp_path_factory.mktemp("maps") / "map.nii.gz"
    nib.save(ellipsoid_head(), path)
    return LabelMap.read(path)


def test_label_map_is_read_in_ras_orientation(anatomy, tmp_path):
    nib.save(ellipsoid_head("LIA"), tmp_path / "map.nii.gz")
    other = LabelMap.read(tmp_path / "map.nii.gz")
    assert torch.equal(other.indices, anatomy.indices)
    assert np.allclose(other.centre, anatomy.centre)


def test_equal_seeds_give_equal_images_and_others_differ(anatomy):
    first, second, other = (simulate(anatomy, np.random.default_rng(s)) for s in (1, 1, 2))
    assert torch.equal(first[0], second[0])
    assert torch.equal(first[1], second[1])
    assert first[0].shape != other[0].shape or not torch.equal(first[0], other[0])


def test_left_stays_left_in_flipped_anatomies(anatomy):
    for seed in range(8):
        _, channels = simulate(anatomy, np.random.default_rng(seed))
        left, right = (
            (channels[0, 0] == CHANNEL[label]).nonzero().double().mean(dim=0)[0]
            for label in (3, 42)
        )
        assert left < right


def test_image_is_finite_and_shows_the_anatomy_of_its_channels(anatomy):
    explained = []
    for seed in range(12):
        image, channels = simulate(anatomy, np.random.default_rng(seed))
        assert image.shape == channels.shape
        assert image.dtype == torch.float32
        assert image.isfinite().all()
        within = sum(
            image[channels == channel].var(correction=0) * (channels == channel).float().mean()
            for channel in channels.unique()
        )
        explained.append(1 - float(within / image.var(correction=0)))
    # Lesions, bias, noise and the background's own structures explain the rest.
    assert np.median(explained) > 0.15


def test_labels_are_where_the_label_map_has_them(anatomy):
    """Structures of an image lie at the points of the label map that it was rendered from."""
    centres = anatomy.centre + np.array([[-30, 0, 0], [30, 0, 0]])  # left and right white matter
    found = [int(anatomy.indices[0, 0, *np.round(point).astype(int)]) for point in centres]
    assert anatomy.labels[found].tolist() == [2, 41]


def test_every_label_of_a_pair_and_of_a_merge_has_a_channel():
    for left, right in PAIRS:
        assert MERGED.get(left, left) in CHANNEL
        assert MERGED.get(right, right) in CHANNEL
    opposite = dict(PAIRS)
    for label, whole in MERGED.items():
        if label in opposite:
            assert MERGED[opposite[label]] == opposite.get(whole, whole)


@pytest.mark.parametrize("name", CONTRASTS)
def test_contrasts_have_the_order_of_the_real_ones(name):
    white, grey, fluid = (CONTRASTS[name][label] for label in (2, 3, 24))
    order = {
        "T1w": white > grey > fluid,
        "T2w": fluid > grey > white,
        "FLAIR": grey > white > fluid,
        "PDw": fluid > grey > white,
    }
    assert order[name]
