"""Tables of points and of regions as data frames."""

from __future__ import annotations

import subprocess
import sys

import nibabel as nib
import numpy as np
import pandas as pd
import pytest

import bids_fcnreg as fr
from bids_fcnreg.errors import InputError

SHIFT = np.eye(4)
SHIFT[:3, 3] = (4, -3, 2)


def test_points_of_a_data_frame_keep_its_other_columns():
    points = pd.DataFrame(
        {"name": ["ac", "pc"], "z": [0.0, 1.0], "x": [0, 10], "y": [0.0, 20.0]}, index=[7, 9]
    )
    before = points.copy()
    found = fr.map_points(points, SHIFT)
    expected = pd.DataFrame(
        {"name": ["ac", "pc"], "z": [2.0, 3.0], "x": [4.0, 14.0], "y": [-3.0, 17.0]}, index=[7, 9]
    )
    pd.testing.assert_frame_equal(found, expected)
    pd.testing.assert_frame_equal(points, before)


@pytest.mark.parametrize(
    ("points", "message"),
    [
        (pd.DataFrame({"x": [0], "y": [0]}), "has no column z"),
        (pd.DataFrame({"x": [0], "y": [0], "z": ["left"]}), "array .* of finite"),
        (pd.DataFrame({"x": [0], "y": [0], "z": [None]}, dtype=float), "array .* of finite"),
    ],
)
def test_unusable_tables_of_points_are_refused(points, message):
    with pytest.raises(InputError, match=message):
        fr.map_points(points, SHIFT)


@pytest.mark.parametrize(
    "matrix",
    [np.eye(3), np.zeros((4, 4)), np.eye(4) * np.nan, np.ones((4, 4)), np.eye(4) * 1j],
)
def test_matrices_of_no_transform_are_refused(matrix):
    with pytest.raises(InputError, match=r"is not a transform|singular|NaN"):
        fr.map_points([0, 0, 0], matrix)


def test_matrices_are_composed_and_inverted():
    double = np.diag([2.0, 2.0, 2.0, 1.0])
    assert fr.map_points([1, 1, 1], [SHIFT, double]).tolist() == [10, -4, 6]
    assert fr.map_points([10, -4, 6], [(double, True), (SHIFT, True)]).tolist() == [1, 1, 1]


LABELS = np.zeros((4, 4, 4))
LABELS[0], LABELS[1, 0] = 1, 5
IMAGE = nib.Nifti1Image(LABELS, np.diag([2.0, 1.0, 3.0, 1.0]))
EXPECTED = {"index": [1, 3, 5], "name": ["left", "none", "right"], "volume_mm3": [96.0, 0.0, 24.0]}
NAMES = {1: "left", 3: "none", 5: "right"}


@pytest.mark.parametrize("kind", ["mapping", "table", "file"])
def test_volumes_of_regions(kind, tmp_path):
    table = pd.DataFrame({"index": NAMES.keys(), "name": NAMES.values()})
    table.to_csv(tmp_path / "names.tsv", sep="\t", index=False)
    names = {"mapping": NAMES, "table": table, "file": tmp_path / "names.tsv"}[kind]
    pd.testing.assert_frame_equal(fr.region_volumes(IMAGE, names), pd.DataFrame(EXPECTED))


def test_regions_without_names_are_named_by_their_labels():
    assert fr.region_volumes(IMAGE).name.tolist() == ["1", "5"]


def test_images_of_no_labels_have_no_regions():
    with pytest.raises(InputError, match="not integers"):
        fr.region_volumes(nib.Nifti1Image(LABELS + 0.5, IMAGE.affine))


def test_import_loads_none_of_the_large_libraries():
    large = ("torch", "nipype", "pandas", "nibabel", "numpy", "matplotlib", "nilearn", "numba")
    code = f"import sys, bids_fcnreg; print([name for name in {large} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
