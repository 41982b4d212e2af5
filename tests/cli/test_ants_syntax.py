"""What users of antsApplyTransforms type."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest

from bids_fcnreg.cli import ants_syntax
from bids_fcnreg.cli.fcnreg import build_parser


def read(*words: str) -> argparse.Namespace:
    needed = ["apply", "-i", "a.nii", "-r", "r.nii", "-o", "o.nii"]
    needed += [] if "-t" in words or "--transform" in words else ["-t", "t.h5"]
    return build_parser().parse_args([*needed, *words])


A, B = (Path("a.h5"), False), (Path("b.mat"), False)
BACK = (Path("b.mat"), True)


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        ("-t a.h5 b.mat", [A, B]),
        ("-t a.h5 -t b.mat", [A, B]),
        ("--transform a.h5 --transform b.mat", [A, B]),
        ("-t a.h5 -t [b.mat,1]", [A, BACK]),
        ("-t [b.mat,1] -t a.h5", [BACK, A]),
        ("-t [ b.mat , 1 ] a.h5", [BACK, A]),
        ("-t [b.mat, 1] -t a.h5", [BACK, A]),
        ("-t a.h5 [b.mat ,1]", [A, BACK]),
        ("-t [b.mat,true] [a.h5,0]", [BACK, A]),
        ("-t [b.mat,false]", [B]),
        ("-t b.mat,1", [BACK]),
        ("-t [b.mat]", [B]),
        ("-t identity", [(Path("identity"), False)]),
        ("-t [identity,1] a.h5", [(Path("identity"), True), A]),
    ],
)
def test_transforms(words, wanted, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert read(*words.split()).transforms == wanted


def test_brackets_and_commas_in_names_of_files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("[a,1]", "b,1", "c, d.h5", "[e.h5"):
        Path(name).touch()
        assert read("-t", name, "x.h5").transforms == [(Path(name), False), (Path("x.h5"), False)]
    assert read("-t", "[c, d.h5,1]").transforms == [(Path("c, d.h5"), True)]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("-t [b.mat,2]", "the value after the comma must be 1 (inverse)"),
        ("-t [b.mat,1", "Write [FILE,1]"),
        ("-t [b.mat,a.h5]", "Separate several files by spaces"),
        ("-t []", "Write [FILE,1]"),
        ("-t [fixed.nii,moving.nii,1]", "aligning the centers of two images is not supported"),
        ("-d 2", "images must have 3 dimensions, not 2"),
        ("-d 4", "resampled volume by volume"),
        ("-e 1", "vector images are not supported"),
        ("-e tensor", "tensor images are not supported"),
        ("-e 7", "choose 0 (scalar) or 3 (time-series)"),
        ("-n BSpline[2]", "BSpline[2] interpolation is not supported. Choose linear, cubic"),
        ("-n HammingWindowedSinc", "is not supported. Choose linear, cubic or lanczos"),
        ("-n Gaussian[1,2]", "is not supported. Choose linear"),
        ("-n MultiLabel", "Choose label (GenericLabel) or nearest"),
        ("-n MultiLabel[0.3,4]", "Choose label (GenericLabel) or nearest"),
        ("-n GenericLabel[Gaussian]", "Choose label (GenericLabel) or nearest"),
        ("-n sinc", "Choose linear, cubic or lanczos, or nearest or label"),
        ("-f black", "must be a number"),
        ("--float yes", "must be 0 or 1"),
        ("-v 3", "must be 0 or 1"),
        ("-o [warp.nii.gz,1]", "writing the composed transform is not supported"),
        ("-o Linear[x.mat,1]", "writing the composed transform is not supported"),
    ],
)
def test_unsupported_options_are_refused_with_alternatives(
    words, message, capsys, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as stop:
        read(*words.split())
    assert stop.value.code == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    ("words", "name", "value"),
    [
        ("-n Linear", "interpolation", "linear"),
        ("-n NearestNeighbor", "interpolation", "nearest"),
        ("-n GenericLabel", "interpolation", "label"),
        ("-n BSpline", "interpolation", "cubic"),
        ("-n BSpline[3]", "interpolation", "cubic"),
        ("-n LanczosWindowedSinc", "interpolation", "lanczos"),
        ("-n GenericLabel[Linear]", "interpolation", "label"),
        ("--interpolation nearestneighbor", "interpolation", "nearest"),
        ("-d 3", "dimensionality", 3),
        ("--dimensionality 3", "dimensionality", 3),
        ("-e 0", "input_image_type", "scalar"),
        ("-e 3", "input_image_type", "time-series"),
        ("--input-image-type time-series", "input_image_type", "time-series"),
        ("-f -1024", "default_value", -1024.0),
        ("--default-value 7", "default_value", 7.0),
        ("--float", "float", True),
        ("--float 1", "float", True),
        ("--float 0", "float", False),
        ("-v", "verbose", True),
        ("-v 1", "verbose", True),
        ("--verbose 0", "verbose", False),
        ("--reference-image r.nii", "reference", Path("r.nii")),
    ],
)
def test_supported_syntax(words, name, value):
    assert getattr(read(*words.split()), name) == value


def test_help_lists_all_interpolations():
    assert [ants_syntax.interpolation(name) for name in ("linear", "nearest", "label")] == [
        "linear", "nearest", "label",
    ]  # fmt: skip
