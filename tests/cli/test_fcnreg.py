"""The pairwise command, with real files and in processes of its own."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk

import bids_fcnreg
from bids_fcnreg.cli.fcnreg import main

# The command prints these warnings.
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("default::UserWarning")]

SHAPE = (40, 44, 36)


def brain(shift: tuple[float, float, float] = (0, 0, 0), shear: float = 0.0) -> nib.Nifti1Image:
    """A 5 mm image of a lobed body with a dark core, moved by a shift in mm."""
    affine = np.diag([5.0, 5.0, 5.0, 1.0])
    affine[:3, 3] = [-100, -110, -90]
    affine[0, 1], affine[2, 0] = 5 * shear, -5 * shear
    points = nib.affines.apply_affine(affine, np.moveaxis(np.indices(SHAPE), 0, -1))
    points = points - np.asarray(shift)
    x, y, z = np.moveaxis(points, -1, 0)
    lobes = 1 + 0.15 * np.cos(3 * np.arctan2(y, x)) + 0.1 * z / 60
    radius = np.sqrt((x / 62) ** 2 + (y / 78) ** 2 + (z / 55) ** 2) / lobes
    body = np.clip((1 - radius) * 8, 0, 1)
    core = np.clip((0.45 - np.hypot(radius, (x - 15) / 90)) * 10, 0, 1)
    return nib.Nifti1Image((100 * body - 55 * core).clip(0).astype("float32"), affine)


def call(*words: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "bids_fcnreg.cli.fcnreg", *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True)


def correlation(one: nib.Nifti1Image, other: nib.Nifti1Image) -> float:
    return float(np.corrcoef(one.get_fdata().ravel(), other.get_fdata().ravel())[0, 1])


@pytest.fixture(scope="module")
def pair(tmp_path_factory) -> Path:
    """Folder with a fixed and a moving image, and what `fcnreg register` makes of them."""
    folder = tmp_path_factory.mktemp("pair")
    brain().to_filename(folder / "fixed.nii.gz")
    moving = brain(shift=(12, -8, 6))
    moving.to_filename(folder / "moving.nii.gz")
    labels = nib.Nifti1Image((moving.get_fdata() > 20).astype("int16") * 7, moving.affine)
    labels.to_filename(folder / "labels.nii.gz")
    done = call(
        "register", folder / "fixed.nii.gz", folder / "moving.nii.gz", "-o", folder / "out" / "r_",
        "--labels", folder / "labels.nii.gz", "--device", "cpu", "--report",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    (folder / "printed.txt").write_text(done.stdout)
    return folder


def test_register_aligns_and_prints_quality(pair):
    fixed, moving = nib.load(pair / "fixed.nii.gz"), nib.load(pair / "moving.nii.gz")
    warped = nib.load(pair / "out" / "r_warped.nii.gz")
    assert np.allclose(warped.affine, fixed.affine)
    assert correlation(fixed, warped) > 0.98 > correlation(fixed, moving)
    labels = nib.load(pair / "out" / "r_labels.nii.gz")
    assert labels.get_data_dtype() == np.int16  # as the input
    labels = labels.get_fdata()
    assert set(np.unique(labels)) == {0, 7}
    truth = fixed.get_fdata() > 20
    assert 2 * (truth & (labels == 7)).sum() / (truth.sum() + (labels == 7).sum()) > 0.95
    printed = (pair / "printed.txt").read_text()
    for name in ("Local correlation after registration:", "Overlap of the brain masks (Dice):", "Seconds:", "affine ",
                 "Verdict, by bounds for", "r_labels.nii.gz"):  # fmt: skip
        assert name in printed


def test_the_report_is_one_page_with_everything_in_it(pair):
    page = (pair / "out" / "r_report.html").read_text()
    assert page.count("data:image/png;base64,") >= 2 and "<svg" in page
    for words in (
        "Comparison",
        "Deformation",
        "Local correlation after registration",
        "moving.nii.gz registered to fixed.nii.gz",
    ):
        assert words in page
    assert "<link" not in page and 'src="http' not in page  # it opens without internet
    assert str(pair / "out" / "r_report.html") in (pair / "printed.txt").read_text()


def test_a_report_of_relative_paths(pair, monkeypatch):
    monkeypatch.chdir(pair)
    mask = nib.load("fixed.nii.gz")
    nib.Nifti1Image((mask.get_fdata() > 0).astype("uint8"), mask.affine).to_filename("mask.nii.gz")
    words = ["fixed.nii.gz", "moving.nii.gz", "-o", "near_", "--fixed-mask", "mask.nii.gz"]
    done = call("register", *words, "--mode", "predict", "--device", "cpu", "--report")
    assert done.returncode == 0, done.stderr
    assert done.stderr == "" and "INFO" not in done.stdout
    assert "Comparison" in (pair / "near_report.html").read_text()


def test_both_transforms_are_itk_files_in_the_stated_direction(pair):
    for name, source, target in [("xfm", "moving", "fixed"), ("inverse_xfm", "fixed", "moving")]:
        transform = sitk.ReadTransform(str(pair / "out" / f"r_{name}.h5"))
        image = sitk.ReadImage(str(pair / f"{source}.nii.gz"))
        reference = sitk.ReadImage(str(pair / f"{target}.nii.gz"))
        resampled = sitk.GetArrayFromImage(sitk.Resample(image, reference, transform))
        wanted = sitk.GetArrayFromImage(reference)
        assert np.corrcoef(resampled.ravel(), wanted.ravel())[0, 1] > 0.97


@pytest.mark.parametrize("shear", [2e-4, 0.15])
def test_register_onto_a_sheared_image(tmp_path, shear):
    brain(shear=shear).to_filename(tmp_path / "fixed.nii.gz")
    brain(shift=(12, -8, 6)).to_filename(tmp_path / "moving.nii.gz")
    words = ["fixed.nii.gz", "moving.nii.gz", "-o", "r_", "--mode", "predict", "--device", "cpu"]
    done = subprocess.run(
        [sys.executable, "-m", "bids_fcnreg.cli.fcnreg", "register", *words],
        capture_output=True, text=True, cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    warped, fixed = nib.load(tmp_path / "r_warped.nii.gz"), nib.load(tmp_path / "fixed.nii.gz")
    np.testing.assert_allclose(warped.affine, fixed.affine, atol=1e-5)
    assert correlation(fixed, warped) > 0.97
    lps = np.array([-1, -1, 1])
    points = nib.affines.apply_affine(fixed.affine, np.argwhere(fixed.get_fdata() > 0)[::97])
    for name in ("r_xfm.h5", "r_inverse_xfm.h5"):
        itk = sitk.ReadTransform(str(tmp_path / name))
        theirs = np.array([itk.TransformPoint(point.tolist()) for point in points * lps]) * lps
        ours = bids_fcnreg.map_points(points, [tmp_path / name])
        assert np.abs(theirs - ours).max() < 0.01
    # ITK cannot read an image whose axes are not perpendicular; so it samples point by point.
    moving = sitk.ReadImage(str(tmp_path / "moving.nii.gz"))
    forward = sitk.ReadTransform(str(tmp_path / "r_xfm.h5"))
    there = [forward.TransformPoint(point.tolist()) for point in points * lps]
    sampled = [moving.EvaluateAtPhysicalPoint(point) for point in there]
    places = nib.affines.apply_affine(np.linalg.inv(warped.affine), points).round().astype(int)
    assert np.abs(np.array(sampled) - warped.get_fdata()[tuple(places.T)]).max() < 0.5


def test_register_writes_all_of_its_outputs_or_none(tmp_path):
    script = (
        "import resource, sys\n"
        "import nibabel as nib, bids_fcnreg as fr\n"
        "found = fr.register(*sys.argv[1:3], mode='predict', device='cpu')\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))\n"
        "found.save(sys.argv[3])\n"
    )
    for name, shift in (("fixed", (0, 0, 0)), ("moving", (12, -8, 6))):
        brain(shift).to_filename(tmp_path / f"{name}.nii.gz")
    (tmp_path / "out").mkdir()
    (tmp_path / "out/r_xfm.h5").write_text("of an earlier run")
    words = [tmp_path / "fixed.nii.gz", tmp_path / "moving.nii.gz", tmp_path / "out/r_"]
    done = subprocess.run(
        [sys.executable, "-c", script, *map(str, words)], capture_output=True, text=True
    )
    assert done.returncode != 0 and "File too large" in done.stderr, done.stderr
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["r_xfm.h5"]
    assert (tmp_path / "out/r_xfm.h5").read_text() == "of an earlier run"


def test_register_warns_of_orientation_and_keeps_space_codes(tmp_path, capsys):
    for name, shift in (("fixed", (0, 0, 0)), ("moving", (12, -8, 6))):
        image = brain(shift)
        affine, moved = image.affine, image.affine.copy()
        moved[0, 3] += 7
        image.set_qform(moved, 0 if name == "fixed" else 1)
        image.set_sform(affine, 0 if name == "fixed" else 1)
        image.to_filename(tmp_path / f"{name}.nii.gz")
    labels = nib.Nifti1Image((image.get_fdata() > 20).astype(np.uint8), None, image.header)
    labels.to_filename(tmp_path / "labels.nii.gz")
    fixed, moving, labels = (
        str(tmp_path / f"{name}.nii.gz") for name in ("fixed", "moving", "labels")
    )
    words = ["register", fixed, moving, "-o", str(tmp_path / "r_"), "--labels", labels]
    assert main([*words, "--mode", "predict", "--device", "cpu"]) == 0
    error = capsys.readouterr().err
    assert error.count("fixed.nii.gz has no orientation") == 1
    assert error.count("moving.nii.gz disagree by 7 mm: the sform is used") == 1
    assert ".fcnreg." not in error
    for name in ("warped", "labels"):
        header = nib.load(tmp_path / f"r_{name}.nii.gz").header
        assert (int(header["sform_code"]), int(header["qform_code"])) == (0, 0)
    words = ["apply", "-i", moving, "-r", fixed, "-t", str(tmp_path / "r_xfm.h5")]
    assert main([*words, "-o", str(tmp_path / "a.nii.gz")]) == 0
    error = capsys.readouterr().err
    assert "has no orientation" in error and "disagree by 7 mm" in error


def test_apply_reproduces_the_output_of_register(pair, tmp_path):
    words = ["-r", pair / "fixed.nii.gz", "-t", pair / "out" / "r_xfm.h5"]
    image, labels = tmp_path / "image.nii.gz", tmp_path / "labels.nii.gz"
    done = call("apply", "-i", pair / "moving.nii.gz", *words, "-o", image)
    assert done.returncode == 0, done.stderr
    warped = nib.load(pair / "out" / "r_warped.nii.gz").get_fdata()
    assert np.abs(nib.load(image).get_fdata() - warped).max() < 0.5
    assert main(
        [*map(str, ["apply", "-i", pair / "labels.nii.gz", *words, "-o", labels]),
         "-n", "GenericLabel"]
    ) == 0  # fmt: skip
    assert set(np.unique(nib.load(labels).get_fdata())) == {0, 7}


def test_apply_reads_the_list_as_a_stack(tmp_path):
    """The first listed moves a point of the reference first, as in antsApplyTransforms."""
    scale, move = sitk.AffineTransform(3), sitk.TranslationTransform(3, (10.0, 0.0, 0.0))
    scale.Scale(1.5)
    sitk.WriteTransform(scale, str(tmp_path / "scale.h5"))
    sitk.WriteTransform(move, str(tmp_path / "move.h5"))
    brain().to_filename(tmp_path / "image.nii.gz")
    image = sitk.ReadImage(str(tmp_path / "image.nii.gz"))
    for first, second, names in [(scale, move, "scale move"), (move, scale, "move scale")]:
        files = [str(tmp_path / f"{name}.h5") for name in names.split()]
        out = str(tmp_path / "out.nii.gz")
        path = str(tmp_path / "image.nii.gz")
        assert main(["apply", "-i", path, "-r", path, "-o", out, "-t", *files]) == 0
        # SimpleITK, too, applies the last of a composite to a point first.
        truth = sitk.Resample(image, image, sitk.CompositeTransform([second, first]))
        difference = sitk.GetArrayFromImage(sitk.ReadImage(out)) - sitk.GetArrayFromImage(truth)
        assert np.abs(difference[2:-2, 2:-2, 2:-2]).max() < 0.1


def test_inverses_and_points(pair, tmp_path):
    """What the image moves to, and back; points go the other way than images."""
    forward, image = pair / "out" / "r_xfm.h5", tmp_path / "image.nii.gz"
    words = ["-i", pair / "fixed.nii.gz", "-r", pair / "moving.nii.gz", "-o", image, "-t"]
    assert main([*map(str, ["apply", *words]), f"[{forward},1]"]) == 0
    inverse = nib.load(image)
    assert main([*map(str, ["apply", *words, pair / "out" / "r_inverse_xfm.h5"])]) == 0
    assert correlation(inverse, nib.load(image)) > 0.999
    table, out = tmp_path / "points.csv", tmp_path / "moved.csv"
    table.write_text('name,x,y,z\ncore,15,0,0\n"a, b",-20,30,10\n')
    assert main(["apply", "-i", str(table), "-o", str(out), "-t", str(forward)]) == 0
    header, core, other = out.read_text().splitlines()
    assert header == "name,x,y,z" and core.startswith("core,") and other.startswith('"a, b",')
    found = np.array([line.rsplit(",", 3)[1:] for line in (core, other)], float)
    np.testing.assert_allclose(found, [[27, -8, 6], [-8, 22, 16]], atol=2.5)  # half a voxel
    again = tmp_path / "back.csv"
    assert main(["apply", "-i", str(out), "-o", str(again), "-t", f"[{forward},1]"]) == 0
    back = [line.rsplit(",", 3)[1:] for line in again.read_text().splitlines()[1:]]
    np.testing.assert_allclose(np.array(back, float), [[15, 0, 0], [-20, 30, 10]], atol=0.25)


def test_jacobian_measures_volume_changes(tmp_path):
    scale = sitk.AffineTransform(3)
    scale.Scale(1.5)
    sitk.WriteTransform(scale, str(tmp_path / "scale.h5"))
    brain().to_filename(tmp_path / "image.nii.gz")
    words = ["jacobian", "-r", tmp_path / "image.nii.gz", "-t", tmp_path / "scale.h5", "-o"]
    assert main([*map(str, [*words, tmp_path / "j.nii.gz"])]) == 0
    assert main([*map(str, [*words, tmp_path / "l.nii.gz"]), "--log", "--float32"]) == 0
    np.testing.assert_allclose(nib.load(tmp_path / "j.nii.gz").get_fdata(), 1.5**3, rtol=1e-5)
    np.testing.assert_allclose(
        nib.load(tmp_path / "l.nii.gz").get_fdata(), np.log(1.5**3), rtol=1e-4
    )


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ("register none.nii.gz none.nii.gz -o x_", "none.nii.gz does not exist"),
        ("register MNI152NLin2009cAsym b.nii -o x_", "b.nii does not exist. Check the path"),
        ("register a.nii.gz b.nii.gz -o x_ --device tpu", "--device must be one of"),
        ("register a.nii.gz b.nii.gz -o x_ --model no", "no does not exist"),
        ("apply -i text.nii.gz -r text.nii.gz -t a.h5 -o o.nii.gz", "text.nii.gz cannot be read"),
        ("apply -i text.nii.gz -t a.h5 -o o.nii.gz", "text.nii.gz cannot be read"),
        ("apply -i . -r text.nii.gz -t a.h5 -o o.nii.gz", ". is a directory"),
        ("register a.nii.gz b.nii.gz -o x_ --labels none.nii", "none.nii does not exist"),
        ("register a.nii.gz b.nii.gz -o /proc/x_", "The directory /proc cannot be written"),
        ("apply -i a.csv -t a.h5 -o .", "is a directory. Provide the name of a file"),
        ("apply -i a.csv -t a.h5 -o a.h5/o.csv", "The directory a.h5 cannot be written"),
        ("apply -i a.csv -t a.h5 -o a.csv", "is one of the inputs"),
        ("apply -i none.csv -t a.h5 -o o.csv", "none.csv does not exist"),
        ("apply -i a.nii.gz -r a.nii.gz -t a.h5 -o o.txt", "o.txt must end in .nii"),
        ("train somewhere -o m.safetensors", "somewhere does not exist"),
        ("phantom . --participants 2", "is not an empty directory"),
        ("phantom new --participants 0", "at least 1"),
        ("phantom new --participants 1000000000000", "Choose fewer"),
        ("phantom new --seed -1", "--seed must be a whole number of at least 0"),
        ("register a.nii.gz b.nii.gz -o x_ --seed 9999999999999999999", "of at most"),
        ("apply -i a.nii.gz -r b.nii.gz -t a.h5 -o ./a.nii.gz", "is one of the inputs"),
        ("apply -i a.nii.gz -r b.nii.gz -t text.nii.gz -o text.nii.gz", "is one of the inputs"),
        ("jacobian -r a.nii.gz -t a.h5 -o a.nii.gz", "is one of the inputs"),
        ("register a.nii.gz x_warped.nii.gz -o x_", "x_warped.nii.gz is one of the inputs"),
        (
            "register a.nii.gz b.nii.gz -o d_",
            "d_xfm.h5 is a directory. Provide the name of a file",
        ),
    ],
)
def test_invalid_input_gets_one_message_and_exit_code_2(
    words, sentence, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    for name in ("text.nii.gz", "a.nii.gz", "b.nii.gz", "a.h5", "x_warped.nii.gz"):
        (tmp_path / name).write_text("no image")
    (tmp_path / "a.csv").write_text("x,y,z\n")
    (tmp_path / "d_xfm.h5").mkdir()
    assert main(words.split()) == 2
    error = capsys.readouterr().err
    assert error.startswith("fcnreg: error: ")
    assert error.count("\n") == 1
    assert sentence in error


def test_invalid_labels_are_refused_before_the_registration(tmp_path, capsys):
    brain().to_filename(tmp_path / "brain.nii")
    words = ["register", *[str(tmp_path / "brain.nii")] * 2, "-o", str(tmp_path / "x_")]
    assert main([*words, "--labels", str(tmp_path / "brain.nii")]) == 2
    assert "brain.nii contains non-integer values" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["brain.nii"]


def test_sigterm_leaves_no_partial_output(tmp_path):
    command = [sys.executable, "-m", "bids_fcnreg.cli.fcnreg", "phantom", tmp_path / "new"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    while not list(tmp_path.iterdir()):
        assert process.poll() is None
        time.sleep(0.01)
    process.terminate()
    assert process.communicate()[1] == "fcnreg: terminated by a signal.\n"
    assert process.returncode == 143
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("words", ["", "register a.nii.gz", "apply --fast", "dance"])
def test_invalid_arguments_get_one_line_and_exit_code_2(words):
    done = call(*words.split())
    assert done.returncode == 2
    assert "error: " in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("words", "advice"),
    [
        ("register a.nii b.nii -o x_ --mdoe predict", "did you mean --mode?"),
        ("regster a.nii b.nii -o x_", "did you mean register?"),
    ],
)
def test_misspelled_arguments_get_a_suggestion(words, advice, capsys):
    with pytest.raises(SystemExit):
        main(words.split())
    assert advice in capsys.readouterr().err
