"""Images of different contrasts of one head are aligned, and wrong alignments are recognized."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from bids_fcnreg.errors import InputError
from bids_fcnreg.fcn.spatial.grid import Grid, Image
from bids_fcnreg.fcn.spatial.transform import Affine, Transform
from bids_fcnreg.fcn.within_subject import rigid_to_midpoint
from bids_fcnreg.io import image
from bids_fcnreg.preprocessing.any_contrast import prepare_brain
from bids_fcnreg.preprocessing.coregistration import (
    DOUBTFUL,
    LEAST_SIMILARITY,
    Alignment,
    align_scan,
    check_sides,
    compare_brains,
)

#: Voxels of the displaced scan, in mm.
SPACING = (1.0, 1.2, 3.0)


def rigid(
    degrees: tuple[float, float, float], mm: tuple[float, float, float], centre
) -> np.ndarray:
    """A rotation about a point, then a shift."""
    matrix = np.eye(4)
    matrix[:3, :3] = Rotation.from_euler("xyz", degrees, degrees=True).as_matrix()
    matrix[:3, 3] = centre - matrix[:3, :3] @ centre + mm
    return matrix


@pytest.fixture(scope="module")
def phantom(phantom_dataset) -> Image:
    return image.read(phantom_dataset / "sub-01/anat/sub-01_T1w.nii.gz")


@pytest.fixture(scope="module")
def reference(phantom):
    return prepare_brain(phantom)


@pytest.fixture(scope="module")
def displaced(phantom):
    """The head with inverted contrast and thick slices, and the transform to it."""
    truth = rigid((14, -9, 20), (12, -25, 8), phantom.grid.centre)
    head = phantom.data > 0.1 * phantom.data.max()
    inverted = torch.where(head, 1.2 * phantom.data.max() - phantom.data, 0)
    grid = phantom.grid.straightened(1.0).with_spacing(SPACING)
    grid = Grid(grid.shape, truth @ grid.affine)
    scan = Transform((Affine(np.linalg.inv(truth)),)).resample(
        Image(inverted, phantom.grid), grid
    )  # fmt: skip
    return scan, truth


def distance(one: np.ndarray, other: np.ndarray, mask: Image) -> float:
    """Largest distance in mm of the points of a mask under two transforms."""
    points = mask.grid.points()[mask.data[0, 0] > 0.5]
    apart = Transform((Affine(one),)).map(points) - Transform((Affine(other),)).map(points)
    return float(apart.norm(dim=-1).max())


@pytest.fixture(scope="module")
def aligned(reference, displaced):
    return align_scan(displaced[0], reference.t1w_like, reference.mask)


def test_another_contrast_is_aligned_within_half_a_voxel(reference, displaced, aligned):
    _, found = aligned
    assert distance(found.matrix, displaced[1], reference.mask) < 0.5 * max(SPACING)
    assert found.verdict == "good" and found.coverage > 0.99


@pytest.mark.parametrize(
    ("degrees", "mm", "limit"),
    [
        ((0, 0, 0), (5, 0, 0), LEAST_SIMILARITY),
        ((0, 0, 0), (0, 0, 5), LEAST_SIMILARITY),
        ((0, 0, 0), (0, 10, 0), LEAST_SIMILARITY),
        ((0, 0, 0), (7, 0, 7), LEAST_SIMILARITY),
        ((10, 0, 0), (0, 0, 0), DOUBTFUL),
        ((0, 0, 10), (0, 0, 0), DOUBTFUL),
    ],
)
def test_wrong_alignments_are_not_similar(reference, displaced, aligned, degrees, mm, limit):
    brain, found = aligned
    error = rigid(degrees, mm, reference.mask.grid.centre)
    similarity, _ = compare_brains(
        reference.t1w_like, reference.mask, brain.t1w_like, found.matrix @ error
    )
    assert similarity < limit


def test_a_mirrored_scan_is_not_aligned(reference, displaced):
    scan, _ = displaced
    _, found = align_scan(Image(scan.data.flip(2), scan.grid), reference.t1w_like, reference.mask)
    assert found.mirrored and found.verdict == "failed"
    assert found.similarity_mirrored > DOUBTFUL > found.similarity


def test_sessions_with_exchanged_sides_are_refused(reference):
    brain, mask = reference.image, reference.mask  # with its skull
    turned = rigid((5, 3, -8), (4, 6, 2), brain.grid.centre)
    grid = Grid(brain.grid.shape, turned @ brain.grid.affine)
    names = ["sub-01_ses-a", "sub-01_ses-b"]
    images, masks = ([one, Image(one.data, grid)] for one in (brain, mask))
    check_sides(images, masks, [np.eye(4), turned], names)
    images[1], masks[1] = (Image(one.data.flip(2), grid) for one in (brain, mask))
    matrices = rigid_to_midpoint(images, masks)
    with pytest.raises(InputError, match="sub-01_ses-b: left and right .* in sub-01_ses-a"):
        check_sides(images, masks, matrices, names)


def test_images_that_do_not_overlap_are_not_similar(reference):
    far = rigid((0, 0, 0), (500, 0, 0), np.zeros(3))
    found = compare_brains(reference.t1w_like, reference.mask, reference.t1w_like, far)
    assert found == (0.0, 0.0)


@pytest.mark.parametrize(
    ("similarity", "verdict"), [(0.9, "good"), (0.7, "doubtful"), (0.6, "failed")]
)
def test_verdict(similarity, verdict):
    assert Alignment(np.eye(4), similarity, 1.0).verdict == verdict


@pytest.mark.parametrize("data", [torch.zeros(30, 30, 20), torch.arange(18000.0) % 7])
def test_an_image_without_a_brain_is_refused_or_has_no_similarity(data, reference):
    scan = Image(data.reshape(1, 1, 30, 30, 20), Grid((30, 30, 20), np.diag([3.0, 3, 4, 1])))
    try:
        _, found = align_scan(scan, reference.t1w_like, reference.mask)
    except InputError:
        return
    assert found.verdict == "failed"
