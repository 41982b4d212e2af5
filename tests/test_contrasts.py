"""Images of different contrasts are registered to each other."""

from __future__ import annotations

import json
import re
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch

import bids_fcnreg as fr
from bids_fcnreg.bids.builtin_templates import nilearn_map
from bids_fcnreg.cli.fcnreg import main
from bids_fcnreg.fcn.spatial.displacement import exponentiate
from bids_fcnreg.fcn.spatial.filters import gaussian
from bids_fcnreg.fcn.spatial.grid import Image
from bids_fcnreg.fcn.spatial.transform import Affine, Displacement, Transform
from bids_fcnreg.interfaces.registration import Register
from bids_fcnreg.io import image
from tests.infants import of_an_infant

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("default::UserWarning")]


@pytest.fixture(scope="module")
def brains(tmp_path_factory):
    """Folder with a T1w brain at 3 mm, and a T2w-like one, moved and deformed by a known truth."""
    template = image.read(nilearn_map("t1"))
    blurred = Image(gaussian(template.data, 1.2), template.grid)
    t1w = Transform(()).resample(blurred, template.grid.with_spacing(3.0))
    t1w = Image(t1w.data * (t1w.data > 10), t1w.grid)
    noise = torch.randn(1, 3, *t1w.grid.shape, generator=torch.Generator().manual_seed(5))
    velocity = gaussian(noise, 5.0)
    field = exponentiate(2.0 * velocity / velocity.abs().max())
    matrix = np.eye(4)
    matrix[:3, :3] = [[1.03, 0.08, 0.0], [-0.08, 0.99, 0.1], [0.0, -0.1, 1.0]]
    matrix[:3, 3] = 9, -7, 6
    truth = Transform((Displacement(t1w.grid, field), Affine(matrix)))
    moved = truth.resample(t1w, t1w.grid)
    inside = moved.data > 10
    top = 1.05 * float(np.quantile(moved.data[inside].numpy(), 0.98))
    t2w = Image(torch.where(inside, (top - moved.data).clamp(min=3), 0.0), t1w.grid)
    folder = tmp_path_factory.mktemp("contrasts")
    image.write(folder / "sub-01_T1w.nii.gz", t1w)
    image.write(folder / "sub-01_T2w.nii.gz", t2w)
    points = t1w.grid.points()[moved.data[0, 0] > 10][::7]
    return folder, points, truth.map(points)


def test_t2w_and_t1w_images_are_registered_to_each_other(brains, capsys):
    folder, points, targets = brains
    files = [str(folder / f"sub-01_{contrast}.nii.gz") for contrast in ("T2w", "T1w")]
    prefix = str(folder / "r_")
    code = main(["register", *files, "-o", prefix, "--mode", "predict", "--report",
                 "--device", "cpu"])  # fmt: skip
    printed = capsys.readouterr().out
    assert code == 0
    message = "Registered as a T1w-like image: fixed."
    assert message in printed and message in (folder / "r_report.html").read_text()
    assert re.search("Verdict.*: (unknown|doubtful)", printed)
    assert re.search(r"Seconds: segment \d", printed)
    found = fr.map_points(points.numpy(), [prefix + "xfm.h5"])
    errors = np.linalg.norm(found - targets.numpy(), axis=1)
    before = np.linalg.norm(points - targets, axis=1)
    assert np.median(before) > 8
    assert np.median(errors) < 2.5 and np.percentile(errors, 95) < 7
    # The image itself is resampled, not its T1w-like image.
    warped = nib.load(prefix + "warped.nii.gz").get_fdata()
    assert warped.max() == pytest.approx(nib.load(files[1]).get_fdata().max(), rel=0.05)


@pytest.mark.parametrize(
    ("contrast", "replaced", "warned"),
    [("auto", ["moving"], True), ("other", ["moving"], False), ("T1w", [], False)],
)
def test_contrast_of_an_image_in_memory(brains, recwarn, contrast, replaced, warned):
    folder, _, _ = brains
    t2w = nib.load(folder / "sub-01_T2w.nii.gz")
    t2w = nib.Nifti1Image(t2w.get_fdata(dtype="float32"), t2w.affine)
    result = fr.register(
        folder / "sub-01_T1w.nii.gz", t2w, mode="predict", moving_contrast=contrast, device="cpu"
    )
    assert result.quality["t1w_like"] == list(result.t1w_like) == replaced
    assert ("segment" in result.quality["seconds"]) is bool(replaced)
    assert any("moving_contrast='T1w'" in str(one.message) for one in recwarn) is warned
    assert result.moving.data.max() == pytest.approx(t2w.get_fdata().max())
    if replaced:
        assert result.quality["verdict"] != "good"


@pytest.fixture(scope="module")
def infant(brains):
    """The T1w brain with the contrast of an infant's, as a file."""
    t1w = image.read(brains[0] / "sub-01_T1w.nii.gz")
    return image.write(brains[0] / "sub-02_T1w.nii.gz", of_an_infant(t1w))


@pytest.mark.parametrize(
    ("contrast", "replaced"), [("auto", ["fixed", "moving"]), ("T1w", ["moving"])]
)
def test_beside_a_t1w_like_image_that_of_an_infant_is_replaced(
    brains, infant, recwarn, contrast, replaced
):
    t2w = brains[0] / "sub-01_T2w.nii.gz"
    result = fr.register(infant, t2w, transform="rigid", fixed_contrast=contrast)
    assert result.quality["t1w_like"] == replaced
    warned = any("fixed_contrast='T1w'" in str(one.message) for one in recwarn)
    assert warned is ("fixed" in replaced)


def test_template_of_infants_is_replaced_for_a_t1w_like_image(brains, infant, tmp_path):
    register = Register(
        fixed=str(infant),
        moving=str(brains[0] / "sub-01_T1w.nii.gz"),
        to_t1w_like=True,
        mode="predict",
        device="cpu",
    )
    outputs = register.run(cwd=tmp_path).outputs
    assert json.loads(Path(outputs.quality).read_text())["t1w_like"] == ["fixed"]


def test_an_invalid_contrast_is_refused(capsys):
    with pytest.raises(SystemExit):
        main(["register", "a.nii", "b.nii", "-o", "x", "--moving-contrast", "T2w"])
    assert "--moving-contrast" in capsys.readouterr().err
