"""Lookup tables that do not fit their atlas."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from bids_fcnreg.bids.atlases import resolve_atlas
from bids_fcnreg.bids.templates import resolve_template
from bids_fcnreg.errors import InputError

SHAPE = (24, 24, 24)
AFFINE = np.diag([6.0, 6, 6, 1])
TRUE = {1: "left", 2: "right", 5: "spot"}


@pytest.fixture(scope="module")
def template(tmp_path_factory):
    distance = np.linalg.norm(np.indices(SHAPE) - 11.5, axis=0)
    data = np.where(distance < 10, 100 + distance, 0).astype("float32")
    path = tmp_path_factory.mktemp("template") / "tpl-Ball_T1w.nii.gz"
    nib.Nifti1Image(data, AFFINE).to_filename(path)
    return resolve_template(str(path))


@pytest.fixture
def atlas(template, tmp_path):
    """Resolves an atlas with labels 1, 2 and 5 and the table that is given."""
    labels = np.zeros(SHAPE, "int16")
    labels[6:12, 6:18, 6:18], labels[12:18, 6:18, 6:18] = 1, 2
    labels[11:13, 11:13, 11:13] = 5
    nib.Nifti1Image(labels, AFFINE).to_filename(tmp_path / "a.nii.gz")

    def resolve(header: str, rows: dict):
        text = header + "".join(f"\n{index}\t{name}" for index, name in rows.items())
        (tmp_path / "a.tsv").write_text(text + "\n")
        return resolve_atlas(str(tmp_path / "a.nii.gz"), template)

    return resolve


@pytest.mark.parametrize("column", ["name", "Name", "label", "LABEL"])
def test_consistent_table_gives_no_warning(atlas, column):
    found = atlas(f"index\t{column}", TRUE)
    assert dict(found.labels) == TRUE
    assert found.doubts == ()


@pytest.mark.parametrize("column", ["index", "Index", "INDEX"])
@pytest.mark.parametrize("form", ["{}", "{}.0", "{}.", "0{}", "+{}", " {} "])
def test_an_index_is_read_as_it_is_often_written(atlas, column, form):
    found = atlas(f"{column}\tname", {form.format(index): name for index, name in TRUE.items()})
    assert dict(found.labels) == TRUE and found.doubts == ()


@pytest.mark.parametrize("index", ["1.5", "1_0", "1e1", "x", "", "n/a"])
def test_an_index_that_is_no_whole_number_is_refused(atlas, index):
    with pytest.raises(InputError, match="is not a whole number"):
        atlas("index\tname", {**TRUE, index: "other"})


@pytest.mark.parametrize(
    "zero", ["Background", "Unknown", "Clear Label", "no_label", "BG", "???", "none", "n/a", ""]
)
def test_a_background_may_have_a_name(atlas, zero):
    assert atlas("index\tname", {0: zero, **TRUE}).doubts == ()


def test_indices_from_zero_give_a_warning(atlas):
    doubts = atlas("index\tname", {0: "left", 1: "right", 2: "spot"}).doubts
    assert "calls label 0 'left'" in doubts[0] and "shifted by one" in doubts[0]
    assert "1 of 3 labels" in doubts[1] and "(5)" in doubts[1]


def test_named_background_gives_a_warning_if_all_labels_have_names(atlas):
    (doubt,) = atlas("index\tname", {0: "hippocampus", **TRUE}).doubts
    assert "calls label 0 'hippocampus'" in doubt


def test_names_without_labels_and_labels_without_names_give_warnings(atlas):
    (doubt,) = atlas("index\tname", {**TRUE, 7: "x", 8: "y"}).doubts
    assert "2 of 5 names" in doubt and "(7, 8)" in doubt and Path("a.tsv").name in doubt
    (doubt,) = atlas("index\tname", {1: "left"}).doubts
    assert "2 of 3 labels" in doubt and "(2, 5)" in doubt


@pytest.mark.parametrize("rows", [{11: "left", 12: "right"}, {0: "left"}, {-1: "a", 1001: "b"}])
def test_a_table_of_another_atlas_is_refused(atlas, rows):
    with pytest.raises(InputError, match=r"No index of the lookup table .*a\.tsv occurs in"):
        atlas("index\tname", rows)


@pytest.mark.parametrize("header", ["index\tregion", "index\tlabel"])
def test_table_without_names_gives_a_warning(atlas, header):
    found = atlas(header, {1: 1, 2: 2, 5: 5})
    assert dict(found.labels) == {1: "1", 2: "2", 5: "5"}
    assert "has no column name" in found.doubts[0]


def test_a_column_of_numbers_called_name_holds_names(atlas):
    assert atlas("index\tname", {1: "17", 2: "18", 5: "19"}).doubts == ()


def parcels(size: int, noise: float = 0) -> np.ndarray:
    """Cubes of a size in voxels, or intensities that rise across the volume."""
    i, j, k = np.indices((48, 48, 48)) // size
    if noise:
        random = np.random.default_rng(0).normal(0, noise, i.shape)
        return np.clip(100 + np.indices(i.shape).sum(0) + random, 1, 255).round()
    return 1 + (i * (48 // size) + j) * (48 // size) + k


@pytest.mark.parametrize(
    ("values", "doubtful"),
    [
        (parcels(48), False),
        (parcels(16), False),
        (parcels(8), False),
        (parcels(6), False),
        (
            np.where(np.indices((48, 48, 48)).sum(0) % 7 == 0, parcels(6), 0),
            False,
        ),  # single voxels
        (parcels(1, noise=1), True),
        (parcels(1, noise=10), True),
        (parcels(1, noise=0.01), True),
    ],
)
def test_an_intensity_image_instead_of_an_atlas_gives_a_warning(tmp_path, values, doubtful):
    affine = np.diag([2.5, 2.5, 2.5, 1])
    brain = np.zeros((48, 48, 48), "float32")
    brain[4:-4, 4:-4, 4:-4] = 100 + np.indices((40, 40, 40))[0]
    nib.Nifti1Image(brain, affine).to_filename(tmp_path / "tpl-Cube_T1w.nii.gz")
    values = np.where(brain > 0, values, 0).astype("int16")
    nib.Nifti1Image(values, affine).to_filename(tmp_path / "a.nii.gz")
    template = resolve_template(str(tmp_path / "tpl-Cube_T1w.nii.gz"))
    doubts = resolve_atlas(str(tmp_path / "a.nii.gz"), template).doubts
    assert [("looks like an intensity image" in doubt) for doubt in doubts] == [True] * doubtful
