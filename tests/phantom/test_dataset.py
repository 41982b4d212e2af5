"""The phantoms are what they say: valid BIDS, plausible heads, and a truth that is true."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
import torch

from bids_fcnreg.bids.atlases import TISSUE, prepare_atlas, resolve_atlas
from bids_fcnreg.bids.templates import prepare_template, resolve_template
from bids_fcnreg.config import SYMMETRIC_TEMPLATE
from bids_fcnreg.errors import InputError
from bids_fcnreg.fcn.spatial.grid import Image
from bids_fcnreg.fcn.spatial.transform import Affine, Transform
from bids_fcnreg.io import image
from bids_fcnreg.io.itk import read_transform
from bids_fcnreg.phantom import dataset as phantom
from bids_fcnreg.phantom import scan as phantom_scan
from bids_fcnreg.phantom.head import Head
from bids_fcnreg.qc.asymmetry import asymmetry

pytestmark = pytest.mark.slow

LABELS = ("01", "02")


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("template")
    found = prepare_template(resolve_template(SYMMETRIC_TEMPLATE), folder)
    atlas = prepare_atlas(resolve_atlas(TISSUE, found), found, folder)
    return {"t1w": found.t1w, "mask": found.mask, "dseg": atlas.image}


@pytest.fixture(scope="module")
def brain(template: dict[str, Path]) -> torch.Tensor:
    """Some points of the template's brain, (n, 3), RAS+ mm."""
    return phantom.mask_points(image.read(template["mask"]))[::11]


def truth(dataset: Path, label: str, ending: str) -> Path:
    return dataset / "derivatives" / "truth" / f"sub-{label}" / "anat" / f"sub-{label}_{ending}"


def forward(dataset: Path, label: str) -> Path:
    return truth(dataset, label, f"from-T1w_to-{SYMMETRIC_TEMPLATE}_mode-image_xfm.h5")


def inverse(dataset: Path, label: str) -> Path:
    return truth(dataset, label, f"from-{SYMMETRIC_TEMPLATE}_to-T1w_mode-image_xfm.h5")


def scan(dataset: Path, label: str) -> Path:
    return dataset / f"sub-{label}" / "anat" / f"sub-{label}_T1w.nii.gz"


def dice(one: np.ndarray, other: np.ndarray) -> float:
    return 2 * (one & other).sum() / (one.sum() + other.sum())


@pytest.mark.parametrize("sub", ["", "derivatives/truth"])
def test_the_validator_finds_no_error(phantom_dataset: Path, sub: str) -> None:
    validator = Path(sys.executable).with_name("bids-validator-deno")
    done = subprocess.run(
        [validator, phantom_dataset / sub, "--ignoreWarnings"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "ERROR" not in done.stdout


@pytest.mark.parametrize("label", LABELS)
def test_itk_carries_the_template_labels_onto_the_scan(
    phantom_dataset: Path, template: dict[str, Path], label: str
) -> None:
    labels = sitk.ReadImage(str(template["dseg"]))
    reference = sitk.ReadImage(str(scan(phantom_dataset, label)))
    transform = sitk.ReadTransform(str(inverse(phantom_dataset, label)))
    carried = sitk.Resample(labels, reference, transform, sitk.sitkNearestNeighbor)
    carried = sitk.GetArrayFromImage(carried)
    true = sitk.GetArrayFromImage(
        sitk.ReadImage(str(truth(phantom_dataset, label, "dseg.nii.gz")))
    )
    for tissue in (1, 2, 3):
        assert dice(carried == tissue, true == tissue) > (0.85 if tissue == 1 else 0.95)
    mask = truth(phantom_dataset, label, "desc-brain_mask.nii.gz")
    mask = sitk.GetArrayFromImage(sitk.ReadImage(str(mask)))
    assert dice(carried > 0, mask > 0) > 0.99


@pytest.mark.parametrize("label", LABELS)
def test_the_scan_seen_through_the_truth_is_the_template(
    phantom_dataset: Path, template: dict[str, Path], label: str
) -> None:
    """In small blocks, where bias does not matter and contrast is a factor, they correlate."""
    fixed = sitk.ReadImage(str(template["t1w"]), sitk.sitkFloat32)
    moving = sitk.ReadImage(str(scan(phantom_dataset, label)), sitk.sitkFloat32)
    inside = sitk.GetArrayFromImage(sitk.ReadImage(str(template["mask"]))) > 0

    def correlation(transform: sitk.Transform) -> float:
        warped = sitk.GetArrayFromImage(sitk.Resample(moving, fixed, transform))
        values = []
        for centre in np.argwhere(inside[::17, ::17, ::17]) * 17:
            block = tuple(slice(max(0, c - 6), c + 7) for c in centre)
            one, other = warped[block], sitk.GetArrayFromImage(fixed)[block]
            if inside[block].all():
                values.append(np.corrcoef(one.ravel(), other.ravel())[0, 1])
        return float(np.median(values))

    true = sitk.ReadTransform(str(forward(phantom_dataset, label)))
    shifted = sitk.CompositeTransform([true, sitk.TranslationTransform(3, (1.5, 1.5, 1.5))])
    assert correlation(true) > 0.9
    assert correlation(true) > correlation(shifted) + 0.1


@pytest.mark.parametrize("label", LABELS)
def test_there_and_back_is_the_identity(
    phantom_dataset: Path, brain: torch.Tensor, label: str
) -> None:
    there = read_transform(forward(phantom_dataset, label))
    back = read_transform(inverse(phantom_dataset, label))
    assert (there.then(back).map(brain) - brain).norm(dim=-1).max() < 0.1
    native = there.map(brain)
    assert (back.then(there).map(native) - native).norm(dim=-1).max() < 0.1


@pytest.mark.parametrize("label", LABELS)
def test_deformations_are_smooth_and_as_large_as_promised(
    phantom_dataset: Path, brain: torch.Tensor, label: str
) -> None:
    displacement, affine = read_transform(forward(phantom_dataset, label)).steps
    moved = (displacement.map(brain) - brain).norm(dim=-1)
    assert 4 < moved.max() < 10
    assert moved.median() > 1
    log_jacobian = Transform((displacement,)).log_jacobian(displacement.grid)
    assert log_jacobian.exp().min() > 0.2
    assert log_jacobian.exp().max() < 5
    linear = affine.matrix[:3, :3]
    assert (np.abs(np.linalg.svd(linear)[1] - 1) < 0.15).all()
    assert np.linalg.norm(affine.matrix[:3, 3]) <= phantom_scan.SHIFT


def test_scans_differ_in_what_real_scans_differ_in(phantom_dataset: Path) -> None:
    scans = [nib.load(scan(phantom_dataset, label)) for label in LABELS]
    assert [nib.aff2axcodes(s.affine) for s in scans] == [tuple("LAS"), tuple("PIR")]
    assert np.allclose([s.header.get_zooms() for s in scans], [(1, 1, 1), (0.9, 0.9, 1.2)])
    assert nib.affines.obliquity(scans[1].affine).max() > np.deg2rad(1)
    for s in scans:
        assert s.get_data_dtype() == np.int16
        assert s.header["sform_code"] == s.header["qform_code"] == 1
        assert np.allclose(s.get_qform(), s.affine, atol=1e-3)


def test_contrast_bias_and_noise_are_there(phantom_dataset: Path) -> None:
    ratios = []
    for label in LABELS:
        values = nib.load(scan(phantom_dataset, label)).get_fdata()
        tissues = np.asarray(nib.load(truth(phantom_dataset, label, "dseg.nii.gz")).dataobj)
        csf, grey, white = (np.median(values[tissues == n]) for n in (1, 2, 3))
        assert csf < grey < white
        ratios.append(grey / white)
        # White matter is not uniform across the head, and air is not empty.
        blocks = [b[t == 3] for b, t in _blocks(values, tissues)]
        medians = [np.median(b) for b in blocks if b.size > 500]
        assert max(medians) / min(medians) > 1.15
        assert 0 < np.median(values[:5]) < 0.05 * white
    assert abs(ratios[0] - ratios[1]) > 0.01


def _blocks(*arrays: np.ndarray) -> list[tuple[np.ndarray, ...]]:
    corners = np.ndindex(*(n // 24 for n in arrays[0].shape))
    places = [tuple(slice(24 * c, 24 * c + 24) for c in corner) for corner in corners]
    return [tuple(array[place] for array in arrays) for place in places]


def test_a_brain_can_be_extracted(phantom_dataset: Path) -> None:
    from deepbet.bet import BrainExtraction

    _, mask, _ = BrainExtraction(no_gpu=True).run(nib.load(scan(phantom_dataset, "02")))
    true = nib.load(truth(phantom_dataset, "02", "desc-brain_mask.nii.gz"))
    assert dice(np.asarray(mask.dataobj) > 0, np.asarray(true.dataobj) > 0) > 0.95


def test_the_same_seed_gives_the_same_files(phantom_dataset: Path, tmp_path: Path) -> None:
    """One participant of a dataset of one is that of a dataset of two."""
    again = phantom.make_dataset(tmp_path / "again", participants=1, seed=0)
    files = [path.relative_to(again) for path in again.rglob("sub-*/**/*") if path.is_file()]
    assert len(files) == 6
    for path in files:
        first, second = ((folder / path).read_bytes() for folder in (phantom_dataset, again))
        assert hashlib.sha256(first).digest() == hashlib.sha256(second).digest(), path


def test_sessions_differ_by_the_documented_change(template: dict[str, Path]) -> None:
    grid = image.read(template["mask"]).grid
    there, back = phantom_scan.anatomical_change(grid, 1.0)
    grown = Transform((there,)).log_jacobian(there.grid)[0, 0]
    for centre, width, growth in phantom_scan.CHANGES:
        away = (there.grid.points() - torch.tensor(centre)).norm(dim=-1)
        middle = grown[away < 2.5].mean()
        assert float(middle) == pytest.approx(np.log1p(growth), rel=0.12)
        assert grown[away > 5 * width].abs().max() < 0.2
    points = there.grid.points()[8:-8:6, 8:-8:6, 8:-8:6]
    assert (back.map(there.map(points)) - points).abs().max() < 0.05


def test_a_dataset_with_sessions(phantom_dataset: Path, tmp_path: Path) -> None:
    folder = phantom.make_dataset(tmp_path / "visits", participants=1, sessions=2)
    scans = sorted(path.name for path in folder.glob("sub-01/ses-*/anat/*.nii.gz"))
    assert scans == ["sub-01_ses-1_T1w.nii.gz", "sub-01_ses-2_T1w.nii.gz"]
    first = folder / "sub-01" / "ses-1" / "anat" / scans[0]
    assert first.read_bytes() == scan(phantom_dataset, "01").read_bytes()
    truth = folder / "derivatives/truth/sub-01/ses-2/anat"
    name = "sub-01_ses-2_from-T1w_to-MNI152NLin2009aSym_mode-image_xfm.h5"
    assert len(read_transform(truth / name).steps) == 3


@pytest.fixture(scope="module")
def head() -> Head:
    return phantom.build_template_head()


@pytest.mark.parametrize("seed", range(4))
def test_no_phantom_is_a_flipped_brain(head: Head, seed: int) -> None:
    """Half of the random deformations are closer to the asymmetry of a flipped brain."""
    deformation, inverse = phantom_scan.random_diffeomorphism(
        head, 8.0, np.random.default_rng(seed)
    )
    grid, mask = head.template_mask.grid, head.template_mask.data[0, 0].numpy()
    log_jacobian = Transform((deformation,)).log_jacobian(grid)[0, 0].numpy()
    assert asymmetry(log_jacobian, mask) > 0
    assert asymmetry(log_jacobian[::-1], mask[::-1]) < 0
    points = phantom.mask_points(head.template_mask)[::101]
    assert (inverse.map(deformation.map(points)) - points).abs().max() < 0.1


def test_another_seed_gives_another_head() -> None:
    one, other = (phantom_scan.random_affine(np.random.default_rng([seed, 0])) for seed in (0, 1))
    assert np.abs(one - other).max() > 1e-3


def test_registration_error_is_in_native_millimetres(brain: torch.Tensor) -> None:
    true, wrong = np.diag([2.0, 1, 1, 1]), np.diag([2.0, 1, 1, 1])
    wrong[:3, 3] = 3, 4, 0
    steps = [Transform((Affine(matrix),)) for matrix in (true, wrong)]
    error = phantom.registration_error(*steps, brain)
    assert error.shape == brain.shape[:1]
    assert torch.allclose(error, torch.full_like(error, 5.0))


def test_mask_points_are_world_positions(template: dict[str, Path]) -> None:
    grid = image.read(template["mask"]).grid.crop((0, 0, 0), (4, 5, 6))
    data = torch.zeros(1, 1, 4, 5, 6)
    data[0, 0, 1, 2, 3] = 1
    points = phantom.mask_points(Image(data, grid))
    assert np.allclose(points.numpy(), [(grid.affine @ [1, 2, 3, 1])[:3]])


def test_voxel_size_can_be_chosen(tmp_path: Path) -> None:
    made = phantom.make_dataset(tmp_path / "coarse", participants=1, spacing=4)
    for path in (scan(made, "01"), truth(made, "01", "dseg.nii.gz")):
        np.testing.assert_allclose(nib.load(path).header.get_zooms(), 4, rtol=1e-4)


def test_nonempty_folder_is_rejected(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("precious")
    with pytest.raises(InputError, match="not an empty directory"):
        phantom.make_dataset(tmp_path)
    with pytest.raises(InputError, match="at least 1"):
        phantom.make_dataset(tmp_path / "new", participants=0)
    for spacing in (0.1, 50, float("nan")):
        with pytest.raises(InputError, match="cannot be simulated. Choose 0.7 to 5 mm"):
            phantom.make_dataset(tmp_path / "new", spacing=spacing)
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]
