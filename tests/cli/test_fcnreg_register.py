"""`fcnreg register`: kinds of transforms, initial transforms, lesions, templates, several images."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk

import bids_fcnreg as fr
from bids_fcnreg.cli.fcnreg import main
from bids_fcnreg.errors import InputError
from bids_fcnreg.fcn.spatial.grid import Grid
from bids_fcnreg.fcn.spatial.transform import Affine, Transform
from bids_fcnreg.io.formats import table
from bids_fcnreg.io.formats.image_grids import ImageGrids

# The command prints these warnings.
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("default::UserWarning")]

SHAPE, AFFINE = (40, 44, 36), np.diag([5.0, 5.0, 5.0, 1.0])
AFFINE[:3, 3] = [-100, -110, -90]

#: Fixed to moving points, RAS+ mm.
TRUTH = {
    "rigid": np.eye(3),
    "similarity": 1.12 * np.eye(3),
    "affine": np.array([[1.1, 0.06, 0], [0, 0.95, -0.05], [0.03, 0, 1.05]]),
}


def truth(kind: str) -> np.ndarray:
    matrix = np.eye(4)
    matrix[:3, :3] = nib.eulerangles.euler2mat(0.2, -0.1, 0.15) @ TRUTH[kind]
    matrix[:3, 3] = (12, -8, 6)
    return matrix


def brain(matrix: np.ndarray | None = None) -> nib.Nifti1Image:
    """A lobed body with a dark core; `matrix` maps points of the original body to its own."""
    points = nib.affines.apply_affine(AFFINE, np.moveaxis(np.indices(SHAPE), 0, -1))
    if matrix is not None:
        points = nib.affines.apply_affine(np.linalg.inv(matrix), points)
    x, y, z = np.moveaxis(points, -1, 0)
    lobes = 1 + 0.15 * np.cos(3 * np.arctan2(y, x)) + 0.1 * z / 60
    radius = np.sqrt((x / 56) ** 2 + (y / 70) ** 2 + (z / 50) ** 2) / lobes
    body = np.clip((1 - radius) * 8, 0, 1)
    core = np.clip((0.45 - np.hypot(radius, (x - 15) / 90)) * 10, 0, 1)
    return nib.Nifti1Image((100 * body - 55 * core).clip(0).astype("float32"), AFFINE)


def inside() -> np.ndarray:
    """Points of the original body (n, 3), RAS+ mm."""
    return nib.affines.apply_affine(AFFINE, np.argwhere(brain().get_fdata() > 20)[::31])


def distance(found: np.ndarray, expected: np.ndarray) -> float:
    points = [nib.affines.apply_affine(one, inside()) for one in (found, expected)]
    return float(np.linalg.norm(points[0] - points[1], axis=1).mean())


def register(*words: object) -> int:
    return main(["register", *map(str, words), "--device", "cpu"])


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Folder with a fixed image, and moving ones that are named by their transform."""
    made = tmp_path_factory.mktemp("images")
    brain().to_filename(made / "fixed.nii.gz")
    for kind in TRUTH:
        brain(truth(kind)).to_filename(made / f"{kind}.nii.gz")
    return made


@pytest.mark.parametrize("kind", TRUTH)
def test_linear_transforms_are_found_and_are_files_of_itk(folder, tmp_path, kind, capsys):
    moving, prefix = folder / f"{kind}.nii.gz", tmp_path / "r_"
    assert register(folder / "fixed.nii.gz", moving, "-o", prefix, "--transform", kind) == 0
    printed = capsys.readouterr().out
    assert f"Mode: {kind}" in printed and "unknown: the bounds are those of deformable" in printed
    lps = np.diag([-1.0, -1, 1, 1])
    affine = sitk.AffineTransform(sitk.ReadTransform(str(tmp_path / "r_affine.mat")))
    found = np.eye(4)
    found[:3, :3], found[:3, 3] = np.reshape(affine.GetMatrix(), (3, 3)), affine.GetTranslation()
    found = lps @ found @ lps
    assert distance(found, truth(kind)) < 1
    stretch = np.linalg.svd(found[:3, :3], compute_uv=False)
    if kind == "rigid":
        np.testing.assert_allclose(stretch, 1, atol=1e-9)
    if kind == "similarity":
        np.testing.assert_allclose(stretch, stretch.mean(), atol=1e-9)
    points = inside() * [-1, -1, 1]
    forward, inverse = (
        sitk.ReadTransform(str(tmp_path / f"r_{name}.h5")) for name in ("xfm", "inverse_xfm")
    )
    for point in points[:50].tolist():
        there = forward.TransformPoint(point)
        np.testing.assert_allclose(there, affine.TransformPoint(point), atol=1e-6)
        np.testing.assert_allclose(inverse.TransformPoint(there), point, atol=1e-6)
    image, reference = (sitk.ReadImage(str(path)) for path in (moving, folder / "fixed.nii.gz"))
    theirs = sitk.GetArrayFromImage(sitk.Resample(image, reference, affine)).T
    warped = nib.load(tmp_path / "r_warped.nii.gz").get_fdata()
    assert np.quantile(np.abs(theirs - warped), 0.999) < 0.1


def test_a_deformable_registration_writes_its_affine(folder, tmp_path):
    words = ["-o", tmp_path / "r_", "--mode", "predict", "--report"]
    assert register(folder / "fixed.nii.gz", folder / "affine.nii.gz", *words) == 0
    composite = table.read(tmp_path / "r_xfm.h5")
    (alone,) = table.read(tmp_path / "r_affine.mat").steps
    np.testing.assert_allclose(alone.matrix, composite.steps[-1].matrix, atol=1e-6)


def test_a_linear_registration_has_a_report(folder, tmp_path):
    words = ["-o", tmp_path / "r_", "--transform", "rigid", "--report"]
    assert register(folder / "fixed.nii.gz", folder / "rigid.nii.gz", *words) == 0
    assert "Comparison" in (tmp_path / "r_report.html").read_text()


def test_initial_transforms_of_any_format(folder, tmp_path):
    """Initial transforms of all formats lead to the same result, within 1 mm of the truth."""
    fixed, moving = folder / "fixed.nii.gz", folder / "affine.nii.gz"
    start, grid = truth("affine"), Grid(SHAPE, AFFINE)
    start[:3, 3] += 8
    found = []
    for name, ending in (("itk", "mat"), ("fsl", "mat"), ("freesurfer", "lta"), ("afni", "1D")):
        path = tmp_path / f"{name}.{ending}"
        table.write(path, Transform((Affine(start),)), name, ImageGrids(grid, grid))
        result = fr.register(fixed, moving, transform="affine", initial=path, device="cpu")
        found.append(result.affine)
    np.testing.assert_allclose(found, np.broadcast_to(found[0], (4, 4, 4)), atol=1e-4)
    assert distance(found[0], truth("affine")) < 1
    back = tmp_path / "back.tfm"
    table.write(back, Transform((Affine(np.linalg.inv(start)),)), "itk")
    words = ["-o", tmp_path / "r_", "--transform", "affine", "--initial", f"[{back},1]"]
    assert register(fixed, moving, *words) == 0
    inverted = table.read(tmp_path / "r_affine.mat").steps[0].matrix
    np.testing.assert_allclose(inverted, found[0], atol=1e-4)


def test_an_initial_chain_of_a_displacement_field_and_an_affine(folder, tmp_path):
    points = nib.affines.apply_affine(AFFINE, np.moveaxis(np.indices(SHAPE), 0, -1))
    field = np.zeros((*SHAPE, 1, 3), "f4")
    field[..., 0, 1] = 6 * np.exp(-(points**2).sum(axis=-1) / 40**2)  # LPS+ mm
    warp = nib.Nifti1Image(field, AFFINE)
    warp.header.set_intent("vector")
    warp.to_filename(tmp_path / "w.nii.gz")
    start = truth("affine")
    start[:3, 3] += 3
    table.write(tmp_path / "a.mat", Transform((Affine(start),)), "itk")
    fixed, moving = folder / "fixed.nii.gz", folder / "affine.nii.gz"
    words = ["-o", tmp_path / "r_", "--initial", tmp_path / "w.nii.gz", tmp_path / "a.mat"]
    assert register(fixed, moving, *words, "--mode", "predict", "--report") == 0
    ends = fr.map_points(inside(), tmp_path / "r_xfm.h5")
    expected = nib.affines.apply_affine(truth("affine"), inside())
    assert np.median(np.linalg.norm(ends - expected, axis=1)) < 2
    with pytest.raises(InputError, match="would make the rigid transform nonlinear"):
        fr.register(fixed, moving, transform="rigid", initial=tmp_path / "w.nii.gz")


def test_lesion_masks_of_both_images(folder, tmp_path, capsys):
    """On another grid than the image; the metrics report the share of the moving one."""
    mask = np.zeros((20, 22, 18), "u1")
    mask[9:12, 12:14, 8:11] = 1
    grid = AFFINE @ np.diag([2, 2, 2, 1.0])
    nib.Nifti1Image(mask, grid).to_filename(tmp_path / "lesion.nii.gz")
    nib.Nifti1Image(1 - mask, grid).to_filename(tmp_path / "inverted.nii.gz")
    nib.Nifti1Image(0 * mask, grid).to_filename(tmp_path / "none.nii.gz")
    fixed, moving = brain(), brain(truth("rigid"))
    lesion = tmp_path / "lesion.nii.gz"
    both = fr.register(
        fixed, moving, transform="rigid", fixed_exclude=lesion, moving_exclude=nib.load(lesion)
    )
    assert distance(both.affine, truth("rigid")) < 1
    assert 0 < both.quality["excluded_percent"] < 10
    empty = fr.register(fixed, moving, transform="rigid", moving_exclude=tmp_path / "none.nii.gz")
    assert empty.quality["excluded_percent"] == 0
    words = [folder / "fixed.nii.gz", folder / "rigid.nii.gz", "-o", tmp_path / "r_"]
    for option in ("--fixed-exclude", "--moving-exclude"):
        assert register(*words, option, tmp_path / "inverted.nii.gz") == 2
        assert "so it may be inverted" in capsys.readouterr().err


def test_several_moving_images(folder, tmp_path, capsys):
    """One failure does not stop the others; the exit code tells."""
    (tmp_path / "text.nii.gz").write_text("no image")
    moving = [folder / "rigid.nii.gz", tmp_path / "text.nii.gz", folder / "affine.nii.gz"]
    words = ["-o", f"{tmp_path}/out/", "--transform", "affine"]
    assert register(folder / "fixed.nii.gz", *moving, *words) == 1
    printed = capsys.readouterr()
    assert "text.nii.gz was not registered" in printed.err
    assert "1 of 3 images were not registered" in printed.err
    assert "affine.nii.gz (3 of 3)" in printed.out
    endings = ("affine.mat", "inverse_xfm.h5", "warped.nii.gz", "xfm.h5")
    names = sorted(f"{one}_{end}" for one in ("rigid", "affine") for end in endings)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == names
    for kind in ("rigid", "affine"):
        found = table.read(tmp_path / f"out/{kind}_affine.mat").steps[0].matrix
        assert distance(found, truth(kind)) < 1
    (tmp_path / "text.nii.gz").rename(tmp_path / "fixed.nii.gz")
    assert register(tmp_path / "fixed.nii.gz", *moving[::2], *words) == 2
    assert "fixed.nii.gz cannot be" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("a.nii b.nii --labels l.nii", "--labels has 1 value for 2 moving images"),
        ("a.nii b.nii --moving-mask l.nii l.nii l.nii", "--moving-mask has 3 values for 2"),
        ("a.nii b.nii --initial a.mat b.mat c.mat", "--initial has 3 values for 2"),
        ("a.nii other/a.nii.gz", "Two moving images are called a, by which"),
        ("a.nii --transform rigid --fail-on-qc", "--fail-on-qc cannot be used with --transform"),
        ("a.nii --transform rigid --model l.nii", "--model cannot be used with --transform rigid"),
        ("a.nii --initial none.mat", "none.mat does not exist"),
    ],
)
def test_unsuitable_options_are_refused(folder, tmp_path, monkeypatch, words, message, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "other").mkdir()
    for name in ("a.nii", "b.nii", "l.nii", "other/a.nii.gz"):
        brain().to_filename(name)
    assert register(folder / "fixed.nii.gz", *words.split(), "-o", "r_") == 2
    assert message in capsys.readouterr().err


@pytest.fixture
def templateflow(tmp_path, monkeypatch) -> Path:
    """A TEMPLATEFLOW_HOME with a template: a head, and the mask of its brain."""
    home = tmp_path / "templateflow/tpl-Lobed"
    home.mkdir(parents=True)
    data = brain().get_fdata()
    head = np.where(data > 0, data, 60).astype("f4")
    for number, step in (("01", 1), ("02", 2)):
        affine = AFFINE @ np.diag([step, step, step, 1.0])
        for ending, values in (("T1w", head), ("desc-brain_mask", (data > 0).astype("u1"))):
            path = home / f"tpl-Lobed_res-{number}_{ending}.nii.gz"
            nib.Nifti1Image(values[::step, ::step, ::step], affine).to_filename(path)
    (home / "template_description.json").write_text(json.dumps({"Name": "Lobed"}))
    monkeypatch.setenv("TEMPLATEFLOW_HOME", str(home.parent))
    return home


def test_the_fixed_image_may_be_a_template(folder, tmp_path, templateflow, monkeypatch, capsys):
    """Its brain mask is its own. A file of that name comes first."""
    monkeypatch.chdir(tmp_path)
    moving, words = folder / "rigid.nii.gz", ["-o", "r_", "--transform", "rigid"]
    for name, shape in (("Lobed", SHAPE), ("Lobed:res-2", (20, 22, 18)), (templateflow, SHAPE)):
        assert register(name, moving, *words) == 0
        assert nib.load("r_warped.nii.gz").shape == shape
        found = table.read("r_affine.mat").steps[0].matrix
        assert distance(found, truth("rigid")) < 2
    assert fr.jacobian("r_xfm.h5", "Lobed:res-2").shape == (20, 22, 18)
    capsys.readouterr()
    assert register("Lobbed", moving, *words) == 2
    assert "The template Lobbed is neither a file nor" in capsys.readouterr().err
    (tmp_path / "Lobed").write_text("a file")
    assert register("Lobed", moving, *words) == 2
    assert "Lobed cannot be" in capsys.readouterr().err
