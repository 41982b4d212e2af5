"""`fcnreg convert` and transforms of other software in `fcnreg apply`."""

from __future__ import annotations

from pathlib import Path

import h5py
import nibabel as nib
import numpy as np
import pytest

import bids_fcnreg as fr
from bids_fcnreg.cli.fcnreg import main

SHAPE = (20, 22, 18)
FIXED = np.array([[-3.0, 0.2, 0, 30], [0.2, 3.0, 0, -30], [0, 0, 3.5, -28], [0, 0, 0, 1]])
MOVING = np.diag([2.5, 3.0, 3.0, 1.0])
MOVING[:3, 3] = (-25, -33, -27)
MATRIX = np.eye(4)
MATRIX[:3, :3] = nib.eulerangles.euler2mat(0.1, -0.05, 0.08)
MATRIX[:3, 3] = (2, -3, 1)
POINTS = np.random.default_rng(0).uniform(-15, 15, (50, 3))


@pytest.fixture
def files(tmp_path, monkeypatch) -> Path:
    """Images, and transforms between them in ITK's format; the current folder."""
    monkeypatch.chdir(tmp_path)
    x, y, z = np.moveaxis(
        nib.affines.apply_affine(MOVING, np.moveaxis(np.indices(SHAPE), 0, -1)), -1, 0
    )
    data = 100 * np.exp(-((x / 12) ** 2) - (y / 15) ** 2 - (z / 13) ** 2) + 5 * np.sin(x / 6) + 10
    nib.Nifti1Image(data.astype("f4"), MOVING).to_filename("moving.nii.gz")
    nib.Nifti1Image(np.ones(SHAPE, "f4"), FIXED).to_filename("fixed.nii.gz")
    points = nib.affines.apply_affine(FIXED, np.moveaxis(np.indices(SHAPE), 0, -1))
    fade = np.exp(-((points / 14) ** 2).sum(-1))[..., None]
    warp = nib.Nifti1Image((fade * [4, -3, 2]).astype("f4")[:, :, :, None], FIXED)
    warp.header.set_intent("vector")
    warp.to_filename("warp.nii.gz")
    row = " ".join(f"{n:.9f}" for n in (np.diag([-1, -1, 1, 1]) @ MATRIX @ np.diag([-1, -1, 1, 1]))[:3].ravel()[[0, 1, 2, 4, 5, 6, 8, 9, 10, 3, 7, 11]])  # fmt: skip
    Path("affine.txt").write_text(
        "#Insight Transform File V1.0\n#Transform 0\nTransform: AffineTransform_double_3_3\n"
        f"Parameters: {row}\nFixedParameters: 0 0 0\n"
    )
    return tmp_path


GRIDS = ["-r", "fixed.nii.gz", "-m", "moving.nii.gz"]


def convert(*words: str) -> int:
    return main(["convert", *words])


#: Format, file of a linear and of a nonlinear transform.
FORMATS = {
    "itk": ("out.mat", "out.h5"),
    "ants": ("out_", "out_"),
    "fsl": ("out.mat", "out.nii.gz"),
    "freesurfer": ("out.lta", "out.m3z"),
    "afni": ("out.aff12.1D", "out.nii.gz"),
    "x5": ("out.x5", "out.x5"),
}


@pytest.mark.parametrize("nonlinear", [False, True])
@pytest.mark.parametrize("name", FORMATS)
def test_there_and_back(files, capsys, name, nonlinear):
    given = ["warp.nii.gz", "affine.txt"] if nonlinear else ["affine.txt"]
    out = FORMATS[name][nonlinear]
    back = "back.h5"
    assert convert(*given, "-o", out, "--to", name, *GRIDS) == 0
    assert "written: out" in capsys.readouterr().out
    assert convert(out, "-o", back, "--to", "itk", *GRIDS) == 0
    expected = fr.map_points(POINTS, given)
    assert np.linalg.norm(expected - POINTS, axis=1).max() > 3
    assert np.linalg.norm(fr.map_points(POINTS, [back]) - expected, axis=1).max() <= 0.01


@pytest.mark.parametrize("name", sorted(set(FORMATS) - {"ants"}))
def test_apply_takes_the_grids_from_its_images(files, name):
    given = ["warp.nii.gz", "affine.txt"]
    out = FORMATS[name][1]
    fr.convert(given, out, name, reference="fixed.nii.gz", moving="moving.nii.gz")
    expected = fr.apply("moving.nii.gz", "fixed.nii.gz", given).get_fdata()
    found = fr.apply("moving.nii.gz", "fixed.nii.gz", [out]).get_fdata()
    inner = (slice(2, -2),) * 3
    assert np.abs(found - expected)[inner].max() < 0.1


def test_inverses_are_written_between_exchanged_images(files):
    exchanged = ["-r", "moving.nii.gz", "-m", "fixed.nii.gz"]
    assert convert("affine.txt", "-o", "there.mat", "--to", "fsl", *GRIDS) == 0
    assert convert("[there.mat,1]", "-o", "back.mat", "--to", "fsl", *exchanged) == 0
    product = np.loadtxt("there.mat") @ np.loadtxt("back.mat")
    np.testing.assert_allclose(product, np.eye(4), atol=1e-9)


def test_apply_exchanges_the_grids_for_an_inverse(files):
    fr.convert("affine.txt", "x.mat", "fsl", reference="fixed.nii.gz", moving="moving.nii.gz")
    expected = fr.apply("fixed.nii.gz", "moving.nii.gz", [("affine.txt", True)]).get_fdata()
    found = fr.apply("fixed.nii.gz", "moving.nii.gz", [("x.mat", True)]).get_fdata()
    assert expected.mean() > 0.3
    np.testing.assert_allclose(found, expected, atol=1e-3)


def test_what_is_ambiguous_is_named(files, capsys):
    """A matrix in text, and vectors of unknown origin, are of no format until one is named."""
    Path("x.txt").write_text(ROWS)
    field(np.zeros((*SHAPE, 3), "f4"), 0)
    for name in ("x.txt", "x.nii.gz"):
        assert convert(name, "-o", "o.h5", "--to", "itk", *GRIDS) == 2
        assert convert(name, "--from", "fsl", "-o", "o.h5", "--to", "itk", *GRIDS) == 0
    field(np.zeros((*SHAPE, 1, 3), "f4"), 0)
    assert convert("x.nii.gz", "-o", "o.h5", "--to", "itk", *GRIDS) == 2
    assert "fcnreg convert --from FORMAT" in capsys.readouterr().err
    image = nib.load("x.nii.gz")
    image.header.extensions.append(nib.nifti1.Nifti1Extension(4, b"<AFNI_attributes/>"))
    nib.Nifti1Image(np.asarray(image.dataobj), FIXED, image.header).to_filename("afni.nii.gz")
    assert convert("afni.nii.gz", "-o", "o.h5", "--to", "itk", *GRIDS) == 0


def field(values: np.ndarray, code: int) -> None:
    image = nib.Nifti1Image(values, FIXED)
    image.header["intent_code"] = code
    image.to_filename("x.nii.gz")


def x5_without_chain() -> None:
    for name in ("a", "b"):
        fr.convert("affine.txt", f"{name}.x5", "x5")
    with h5py.File("a.x5", "r+") as one, h5py.File("b.x5") as other:
        other.copy("TransformGroup/0", one, "TransformGroup/1")


LTA = "type = {}\nnxforms = {}\nmean = 0 0 0\nsigma = 1\n1 4 4\n{}src volume info\nvalid = 0\n"
ROWS = "1 0 0 0\n0 1 0 0\n0 0 1 0\n0 0 0 1\n"

#: What is made, arguments, and a part of the message.
REFUSED = {
    "no file": (None, ["no.mat", "-o", "o.mat", "--to", "fsl"], "no.mat does not exist"),
    "no moving image": (
        None, ["affine.txt", "-o", "o.mat", "--to", "fsl", "-r", "fixed.nii.gz"],
        "o.mat: FSL stores voxel coordinates, and the moving image is unknown. Provide it with "
        "--moving",
    ),
    "no fixed image": (
        None, ["affine.txt", "-o", "o.1D", "--to", "afni", "-m", "moving.nii.gz"],
        "o.1D: AFNI ignores the obliquity of images, and the fixed image is unknown",
    ),
    "no grid": (
        None, ["affine.txt", "-o", "o.nii.gz", "--to", "itk"],
        "sampled on the grid of an image, and the fixed image is unknown",
    ),
    "another ending": (
        None, ["affine.txt", "-o", "o.lta", "--to", "fsl"], "must end in .mat, .txt, .nii.gz, .nii",
    ),
    "nonlinear in a matrix": (
        None, ["warp.nii.gz", "-o", "o.lta", "--to", "freesurfer", *GRIDS],
        "o.lta can store a linear one only. Choose an output that ends in .m3z",
    ),
    "an input": (
        None, ["affine.txt", "-o", "affine.txt", "--to", "itk"], "is one of the inputs",
    ),
    "unknown text": (
        lambda: Path("x.mat").write_text("nothing"), ["x.mat", "-o", "o.h5", "--to", "itk"],
        "x.mat cannot be read as an ITK transform",
    ),
    "rows of a series": (
        lambda: Path("x.mat").write_text(ROWS + ROWS),
        ["x.mat", "--from", "fsl", "-o", "o.h5", "--to", "itk", *GRIDS],
        "x.mat is not a FLIRT matrix",
    ),
    "volumes of a series": (
        lambda: Path("x.1D").write_text("1 0 0 0 0 1 0 0 0 0 1 0\n" * 2),
        ["x.1D", "-o", "o.h5", "--to", "itk", *GRIDS], "it has 2 rows of numbers, not 12 numbers",
    ),
    "singular": (
        lambda: Path("x.mat").write_text(ROWS.replace("0 1 0 0\n", "0 0 0 0\n")),
        ["x.mat", "-o", "o.h5", "--to", "itk", *GRIDS], "x.mat contains a singular affine",
    ),
    "NaN in a matrix": (
        lambda: Path("x.mat").write_text(ROWS.replace("1 0 0 0\n", "nan 0 0 0\n", 1)),
        ["x.mat", "-o", "o.h5", "--to", "itk", *GRIDS], "x.mat contains infinite values or NaN",
    ),
    "NaN in a warp": (
        lambda: field(np.full((*SHAPE, 3), np.nan, "f4"), 2006),
        ["x.nii.gz", "-o", "o.h5", "--to", "itk", *GRIDS], "contains infinite values or NaN",
    ),
    "another shape": (
        lambda: field(np.zeros((*SHAPE, 2), "f4"), 2006),
        ["x.nii.gz", "-o", "o.h5", "--to", "itk", *GRIDS], "a warp of FSL has shape (i, j, k, 3)",
    ),
    "another basis": (
        lambda: field(np.zeros((*SHAPE, 3), "f4"), 2008),
        ["x.nii.gz", "-o", "o.h5", "--to", "itk", *GRIDS], "another basis than cubic splines",
    ),
    "another reference of fnirt": (
        lambda: field(np.zeros((*SHAPE, 3), "f4"), 2007),
        ["x.nii.gz", "-o", "o.h5", "--to", "itk", *GRIDS], "belongs to a fixed image of",
    ),
    "a series of LTA": (
        lambda: Path("x.lta").write_text(LTA.format(1, 2, ROWS)),
        ["x.lta", "-o", "o.h5", "--to", "itk"], "x.lta contains 2 transforms",
    ),
    "a type of LTA": (
        lambda: Path("x.lta").write_text(LTA.format(14, 1, ROWS)),
        ["x.lta", "-o", "o.h5", "--to", "itk"], "x.lta is of type 14",
    ),
    "no geometry": (
        lambda: Path("x.lta").write_text(LTA.format(0, 1, ROWS) + "dst volume info\nvalid = 0\n"),
        ["x.lta", "-o", "o.h5", "--to", "itk"], "it lacks the source volume",
    ),
    "half an LTA": (
        lambda: Path("x.lta").write_text(LTA.format(1, 1, ROWS)[:50]),
        ["x.lta", "-o", "o.h5", "--to", "itk"], "cannot be read as a transform of FreeSurfer",
    ),
    "no morph": (
        lambda: Path("x.m3z").write_bytes(b"no morph at all, but more than a header"),
        ["x.m3z", "-o", "o.h5", "--to", "itk"], "cannot be read as a transform of FreeSurfer",
    ),
    "no X5": (
        lambda: Path("x.x5").write_text("nothing"), ["x.x5", "-o", "o.h5", "--to", "itk"],
        "x.x5 cannot be read as a transform of nitransforms",
    ),
    "no chain": (
        x5_without_chain, ["a.x5", "-o", "o.h5", "--to", "itk"],
        "a.x5 contains 2 transforms that do not form one chain",
    ),
    "a stack": (
        lambda: Path("x.mat").write_text(ROWS),
        ["x.mat", "affine.txt", "-o", "o.h5", "--to", "itk", *GRIDS],
        "several transforms are listed, convert this one to ITK first",
    ),
    "no prefix": (
        None, ["no_", "--from", "ants", "-o", "o.h5", "--to", "itk"], "no_ does not exist",
    ),
    "a warp of this prefix": (
        lambda: Path("out_1Warp.nii.gz").write_text(""),
        ["affine.txt", "-o", "out_", "--to", "ants"], "does not belong to this linear transform",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_refusals_say_what_to_do_and_leave_nothing(files, capsys, case):
    make, words, message = REFUSED[case]
    if make is not None:
        make()
    before = sorted(files.iterdir())
    assert convert(*words) == 2
    output, error = capsys.readouterr()
    assert message in error and error.startswith("fcnreg: error: ") and not output
    assert sorted(files.iterdir()) == before


def test_a_sheared_grid_is_no_grid_of_itk(files, capsys):
    sheared = FIXED.copy()
    sheared[0, 1] = 1.5
    nib.Nifti1Image(np.ones(SHAPE, "f4"), sheared).to_filename("sheared.nii.gz")
    words = ["affine.txt", "-r", "sheared.nii.gz", "--to", "itk"]
    assert convert(*words, "-o", "o.nii.gz") == 2
    assert "the axes of the grid are sheared" in capsys.readouterr().err
    assert convert(*words, "-o", "o.h5") == 0


@pytest.mark.parametrize("content", [b"", b"\x1f\x8b\x08", b"\x00" * 400])
@pytest.mark.parametrize("name", ["x.m3z", "x.lta", "x.x5", "x.1D", "x.mat", "x.nii.gz", "x.h5"])
def test_damaged_files_are_reported(files, capsys, name, content):
    Path(name).write_bytes(content)
    assert convert(name, "-o", "o.h5", "--to", "itk", *GRIDS) == 2
    assert name in capsys.readouterr().err
