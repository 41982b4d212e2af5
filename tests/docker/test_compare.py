"""Two folders of results are equal within a stated tolerance, or bit for bit on demand."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path

import h5py
import nibabel as nib
import numpy as np
import pytest
from safetensors.numpy import save_file

SCRIPT = Path(__file__).parents[2] / "docker" / "compare.py"


def load_script():
    """The script as a module."""
    spec = importlib.util.spec_from_file_location("compare_derivatives", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # for dataclasses
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def compare(tmp_path, monkeypatch, capsys):
    """Write a file into each of two folders and compare these: exit code and what is printed."""
    script = load_script()
    folders = tmp_path / "one", tmp_path / "other"
    for folder in folders:
        folder.mkdir()

    def run(write, name, one, other, *words):
        for folder, content in zip(folders, (one, other), strict=True):
            write(folder / name, content)
        monkeypatch.setattr(sys, "argv", [str(SCRIPT), *map(str, folders), *words])
        code = script.main()
        printed = capsys.readouterr()
        assert printed.err == ""
        return code, printed.out

    return run


def write_image(path, content):
    data, affine = content
    nib.Nifti1Image(data, affine).to_filename(path)


def write_transform(path, content):
    with h5py.File(path, "w") as file:
        for name, value in content.items():
            file[name] = value


def write_json(path, content):
    path.write_text(json.dumps(content))


def write_table(path, content):
    path.write_text("\n".join("\t".join(row) for row in content) + "\n")


def write_weights(path, content):
    save_file(content, path)


VOXELS = np.random.default_rng(0).normal(100, 10, (8, 9, 10)).astype("float32")
LABELS = np.random.default_rng(0).integers(0, 5, (20, 20, 20)).astype("int16")
EYE = np.eye(4)
PARTIAL = VOXELS.copy()
PARTIAL[0] = np.nan


def changed(array, place, value):
    array = array.copy()
    array[place] = value
    return array


FIELD = {"TransformGroup/0/TransformParameters": np.linspace(-3, 3, 300).astype("float32")}
MATRIX = {"TransformGroup/1/TransformParameters": np.arange(12.0)}
KIND = {"TransformGroup/1/TransformType": "AffineTransform_double_3_3"}
#: Pairs that are equal within the tolerance, not bit for bit.
NEAR = {
    "affine": (write_image, "a.nii.gz", (VOXELS, EYE), (VOXELS, EYE + 9e-16)),
    "voxels": (write_image, "a.nii.gz", (VOXELS, EYE), (VOXELS * np.float32(1 + 1e-6), EYE)),
    "NaN": (write_image, "a.nii", (PARTIAL, EYE), (PARTIAL + np.float32(1e-5), EYE)),
    "a label at a border": (
        write_image, "a.nii.gz", (LABELS, EYE), (changed(LABELS, (3, 3, 3), 9), EYE)),
    "field": (write_transform, "a.h5", FIELD, {k: v + np.float32(1e-3) for k, v in FIELD.items()}),
    "one of many displacements": (
        write_transform, "a.h5", {"Parameters": np.zeros(3000)},
        {"Parameters": changed(np.zeros(3000), 5, 0.7)}),
    "one of many voxels": (
        write_image, "a.nii.gz", (LABELS / 3, EYE), (changed(LABELS / 3, (3, 3, 3), 9), EYE)),
    "log-Jacobian": (
        write_image, "a_desc-logjacobian_xfm.nii.gz", (LABELS / 9, EYE), (LABELS / 9 + 0.015, EYE)),
    "checksum of a result": (
        write_json, "a.json", {"SHA": {"bids::a": "1"}}, {"SHA": {"bids::a": "2"}}),
    "matrix": (write_transform, "a.h5", MATRIX, {k: v + 1e-9 for k, v in MATRIX.items()}),
    "number": (write_json, "a.json", {"a": {"b": [1, 0.5]}}, {"a": {"b": [1, 0.5000001]}}),
    "whole": (write_json, "a.json", {"a": 1.0}, {"a": 1.0000001}),
    "cell": (write_table, "a.tsv", [["a", "b"], ["x", "0.5"]], [["a", "b"], ["x", "0.50001"]]),
    "weights": (write_weights, "a.safetensors", {"w": VOXELS}, {"w": VOXELS + np.float32(1e-5)}),
}  # fmt: skip
#: Pairs that differ, and a word that says where.
FAR = {
    "affine": (write_image, "a.nii.gz", (VOXELS, EYE), (VOXELS, EYE + 1e-3), "affine"),
    "flip": (
        write_image, "a.nii.gz", (VOXELS, EYE), (VOXELS, np.diag([-1, 1, 1, 1.0])), "affine"),
    "voxel": (
        write_image, "a.nii.gz", (VOXELS, EYE), (changed(VOXELS, (0, 0), 0), EYE), "by up to"),
    "NaN": (write_image, "a.nii.gz", (VOXELS, EYE), (PARTIAL, EYE), "NaN"),
    "infinite": (
        write_image, "a.nii", (PARTIAL, EYE), (changed(PARTIAL, (0, 0, 0), np.inf), EYE), "NaN"),
    "log-Jacobian": (
        write_image, "a_desc-logjacobian_xfm.nii.gz", (LABELS / 9, EYE), (LABELS / 9 + 0.025, EYE),
        "by up to"),
    "shape": (write_image, "a.nii.gz", (VOXELS, EYE), (VOXELS[1:], EYE), "shape"),
    "type": (write_image, "a.nii.gz", (VOXELS, EYE), (VOXELS.astype("float64"), EYE), "type"),
    "labels": (write_image, "a.nii.gz", (LABELS, EYE), (LABELS[::-1], EYE), "labelled voxels"),
    "field": (write_transform, "a.h5", FIELD, {k: v + 0.1 for k, v in FIELD.items()}, "Param"),
    "displacement": (
        write_transform, "a.h5", FIELD, {k: changed(v, slice(9), 3) for k, v in FIELD.items()}, "Param"),
    "source": (
        write_json, "a.json", {"SHA": {"bids:raw:a": "1"}}, {"SHA": {"bids:raw:a": "2"}}, "top.SHA"),
    "matrix": (write_transform, "a.h5", MATRIX, {k: v + 1e-3 for k, v in MATRIX.items()}, "Param"),
    "text": (write_transform, "a.h5", KIND, dict.fromkeys(KIND, "Euler3DTransform"), "Type"),
    "dataset": (write_transform, "a.h5", MATRIX, MATRIX | KIND, "only one has"),
    "missing key": (write_json, "a.json", {"a": 1, "b": 2}, {"a": 1}, "top.b"),
    "deep": (write_json, "a.json", {"a": [{"b": 1.0}]}, {"a": [{"b": 1.1}]}, "top.a[0].b"),
    "list": (write_json, "a.json", [1, 2], [1, 2, 3], "2 and 3 items"),
    "NaN in JSON": (write_json, "a.json", {"a": 0.5}, {"a": float("nan")}, "nan"),
    "count": (write_json, "a.json", {"a": 10000}, {"a": 10001}, "10001"),
    "flag": (write_json, "a.json", {"a": True}, {"a": 1.0}, "True"),
    "null": (write_json, "a.json", {"a": None}, {"a": 0.0}, "None"),
    "cell": (write_table, "a.tsv", [["a"], ["0.5"]], [["a"], ["0.6"]], "line 2, a"),
    "text cell": (write_table, "a.tsv", [["a"], ["n/a"]], [["a"], ["0"]], "line 2, a"),
    "columns": (write_table, "a.tsv", [["a", "b"], ["1", "2"]], [["b", "a"], ["2", "1"]], "col"),
    "rows": (write_table, "a.tsv", [["a"], ["1"]], [["a"], ["1"], ["2"]], "lines"),
    "ragged": (write_table, "a.tsv", [["a"], ["1"]], [["a"], ["1", "2"]], "cells"),
    "weights": (write_weights, "a.safetensors", {"w": VOXELS}, {"w": VOXELS + 1}, "w by"),
    "names": (write_weights, "a.safetensors", {"w": VOXELS}, {"v": VOXELS}, "names"),
}  # fmt: skip


@pytest.mark.parametrize("case", NEAR)
def test_rounding_is_tolerated_unless_bits_are_asked_for(compare, case):
    code, printed = compare(*NEAR[case])
    assert (code, "1 compared, 0 differ" in printed) == (0, True), printed
    assert "numbers within 0.001 (relative)" in printed
    code, printed = compare(*NEAR[case], "--exact")
    assert code == 1 and "differs: a" in printed


@pytest.mark.parametrize("case", FAR)
def test_differences_are_reported(compare, case):
    *pair, word = FAR[case]
    for words in ((), ("--exact",)):
        code, printed = compare(*pair, *words)
        assert code == 1
        assert "differs: a" in printed
    assert word in compare(*pair)[1]


@pytest.mark.parametrize(("largest_mean", "code"), [(200.0, 0), (50.0, 1)])
def test_a_standard_deviation_is_as_exact_as_its_images(compare, tmp_path, largest_mean, code):
    for folder in ("one", "other"):
        mean = np.full((3, 3, 3), largest_mean, np.float32), np.eye(4)
        write_image(tmp_path / folder / "space-T_desc-mean_T1w.nii.gz", mean)
    contents = [(np.full((3, 3, 3), value, np.float32), np.eye(4)) for value in (10.0, 10.1)]
    assert compare(write_image, "space-T_desc-sd_T1w.nii.gz", *contents)[0] == code


@pytest.mark.parametrize("case", [*NEAR, *FAR])
def test_equal_files_are_equal_bit_for_bit(compare, case):
    write, name, one, *_ = (NEAR | FAR)[case]
    assert compare(write, name, one, one, "--exact")[0] == 0


def test_time_paths_and_software_are_ignored(compare):
    one, other = ({"seconds": s, "a": {"GeneratedBy": s}} for s in (1, 2))
    assert compare(write_json, "a.json", one, other, "--exact")[0] == 0


def test_damaged_and_missing_files_differ(compare, tmp_path):
    code, printed = compare(lambda path, text: path.write_text(text), "a.json", "{}", "{")
    assert code == 1 and "cannot be read" in printed
    code, printed = compare(lambda path, text: path.write_bytes(b""), "b.nii.gz", "", "")
    assert code == 1 and "differs: b.nii.gz: cannot be read" in printed
    (tmp_path / "one" / "c.json").write_text("{}")
    assert f"only in {tmp_path / 'one'}: c.json" in compare(write_json, "d.json", 1, 1)[1]
