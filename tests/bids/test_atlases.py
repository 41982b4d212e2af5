"""Atlases: the built-in tissues, TemplateFlow's names, files with tables."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from bids_fcnreg.bids.atlases import default_atlases, materialise_atlas, resolve_atlas
from bids_fcnreg.bids.templates import Template, materialise, resolve_template
from bids_fcnreg.errors import InputError

LABELS = np.zeros((6, 6, 6))
LABELS[1], LABELS[2], LABELS[3] = 1, 2, 300


def save(path: Path, data: np.ndarray = LABELS) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(data.astype("float32"), np.eye(4)), path)
    return path


@pytest.fixture
def template(tmp_path, monkeypatch):
    """A template of TemplateFlow that has atlases."""
    home = tmp_path / "flow"
    monkeypatch.setenv("TEMPLATEFLOW_HOME", str(home))
    folder = home / "tpl-Kids"
    for res in (1, 2):
        for parcels in (100, 200):
            name = f"tpl-Kids_res-0{res}_atlas-Sch_desc-{parcels}P_dseg.nii.gz"
            save(folder / name, LABELS + parcels)
    table = "index\tname\n" + "".join(f"{v}\tregion {v}\n" for v in (100, 101, 102, 400))
    (folder / "tpl-Kids_atlas-Sch_desc-100P_dseg.tsv").write_text(table)
    save(folder / "tpl-Kids_res-01_seg-aseg_dseg.nii.gz")
    save(folder / "tpl-Kids_res-02_desc-carpet_dseg.nii.gz")
    return Template("Kids", None, None, save(folder / "tpl-Kids_res-01_T1w.nii.gz"), None)


def test_builtin_tissues(tmp_path):
    template = materialise(resolve_template("MNI152NLin2009aSym"), tmp_path)
    (atlas,) = default_atlases(template)
    assert atlas == resolve_atlas("tissue", template)
    assert atlas.labels == ((1, "CSF"), (2, "GM"), (3, "WM"))
    made = materialise_atlas(atlas, template, tmp_path)
    tissue = np.asarray(nib.load(made.image).dataobj)
    mask = np.asarray(nib.load(template.mask).dataobj)
    np.testing.assert_array_equal(tissue > 0, mask > 0)
    litres = np.bincount(tissue.ravel())[1:] / 1e6
    assert 0.1 < litres[0] < 0.35
    assert 0.9 < litres[1] < 1.2
    assert 0.5 < litres[2] < 0.75
    # World coordinates (mm): lateral ventricle, thalamus, centrum semiovale.
    to_voxel = np.linalg.inv(nib.load(made.image).affine)
    for point, label in (((-8, -4, 20), 1), ((10, -18, 8), 2), ((26, -10, 34), 3)):
        voxel = tuple(np.rint(to_voxel @ [*point, 1]).astype(int)[:3])
        assert tissue[voxel] == label, point
    assert materialise_atlas(atlas, template, tmp_path) == made


def test_tissues_belong_to_the_builtin_template(template):
    assert default_atlases(template) == []
    with pytest.raises(InputError, match="belongs to the built-in template"):
        resolve_atlas("tissue", template)


def test_templateflow_atlas_with_its_table(template):
    atlas = resolve_atlas("Sch:desc-100P", template)
    assert atlas.name == "Sch100P"
    assert atlas.image.name == "tpl-Kids_res-01_atlas-Sch_desc-100P_dseg.nii.gz"
    assert atlas.labels == tuple((v, f"region {v}") for v in (100, 101, 102, 400))
    other = resolve_atlas("Sch:desc-200P:res-02", template)
    assert other.image.name == "tpl-Kids_res-02_atlas-Sch_desc-200P_dseg.nii.gz"
    assert other.labels == tuple((v, str(v)) for v in (200, 201, 202, 500))


@pytest.mark.parametrize(
    ("spec", "file"),
    [
        ("aseg", "tpl-Kids_res-01_seg-aseg_dseg.nii.gz"),
        ("carpet", "tpl-Kids_res-02_desc-carpet_dseg.nii.gz"),
    ],
)
def test_templateflow_segmentation_and_description(template, spec, file):
    atlas = resolve_atlas(spec, template)
    assert (atlas.name, atlas.image.name) == (spec, file)
    assert atlas.labels == ((1, "1"), (2, "2"), (300, "300"))


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ("Sch", "ambiguous: choose one of Sch:desc-100P, Sch:desc-200P"),
        ("Sch:desc-300P", "it has Sch:desc-100P, Sch:desc-200P"),
        ("AAL", "it has Sch:desc-100P, Sch:desc-200P, aseg, carpet"),
        ("Sch:size-3", "modifier 'size-3' is not understood"),
        ("none.nii.gz", "does not exist"),
    ],
)
def test_what_is_not_there(template, spec, words):
    with pytest.raises(InputError, match=words):
        resolve_atlas(spec, template)


def test_file_with_table_beside_it_or_named(template, tmp_path):
    path = save(tmp_path / "my_atlas.nii.gz")
    assert resolve_atlas(str(path), template).labels == ((1, "1"), (2, "2"), (300, "300"))
    (tmp_path / "my_atlas.tsv").write_text("index\tname\tcolor\n0\tnone\tx\n1\tone\tx\n2\t\tx\n")
    atlas = resolve_atlas(str(path), template)
    assert (atlas.name, atlas.image) == ("myatlas", path)
    assert atlas.labels == ((1, "one"), (2, "2"), (300, "300"))
    (tmp_path / "my_atlas.tsv").write_text('index\tname\n1\t"Left one\n2\t"two"\n')
    assert resolve_atlas(str(path), template).labels[:2] == ((1, "Left one"), (2, "two"))
    other = tmp_path / "other.tsv"
    other.write_text("index\n1\n7\n")
    labels = resolve_atlas(f"{path}:{other}", template).labels
    assert labels == ((1, "1"), (2, "2"), (7, "7"), (300, "300"))


def test_file_named_like_an_atlas(template, tmp_path):
    path = save(tmp_path / "tpl-X_atlas-AAL3_desc-v1_dseg.nii")
    assert resolve_atlas(str(path), template).name == "AAL3v1"


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ("id\tname\n1\tone\n", "no column named index"),
        ("index,name\n1,one\n", "no column named index"),
        ("index\tname\n1\ta\nx\tb\n", "has the index 'x': it must"),
        ("index\tname\n1\ta\n1\tb\n", "index 1 twice"),
    ],
)
def test_wrong_tables(template, tmp_path, table, words):
    path = save(tmp_path / "a.nii.gz")
    (tmp_path / "a.tsv").write_text(table)
    with pytest.raises(InputError, match=words):
        resolve_atlas(str(path), template)


@pytest.mark.parametrize("data", [LABELS / 2, -LABELS])
def test_values_that_are_no_labels(template, tmp_path, data):
    with pytest.raises(InputError, match="not whole numbers"):
        resolve_atlas(str(save(tmp_path / "a.nii.gz", data)), template)
    with pytest.raises(InputError, match="cannot be read"):
        resolve_atlas(f"{save(tmp_path / 'b.nii.gz')}:{tmp_path / 'none.tsv'}", template)


def test_labels_elsewhere_are_refused(template, tmp_path):
    affine = np.eye(4)
    affine[:3, 3] = 50
    nib.save(nib.Nifti1Image(LABELS.astype("float32"), affine), tmp_path / "far.nii.gz")
    with pytest.raises(InputError, match="100% lie outside the brain of Kids"):
        resolve_atlas(str(tmp_path / "far.nii.gz"), template)


def test_an_image_that_is_no_label_image_is_refused(template, tmp_path):
    values = np.arange(12**3).reshape(12, 12, 12)
    save(tmp_path / "t1w.nii.gz", values)
    with pytest.raises(InputError, match="1728 different values and has no table"):
        resolve_atlas(str(tmp_path / "t1w.nii.gz"), template)
