"""Atlases: the built-in tissues, TemplateFlow's names, files with tables."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from bids_fcnreg import apply
from bids_fcnreg.app.atlases import choose_atlases
from bids_fcnreg.bids.atlases import default_atlases, prepare_atlas, resolve_atlas
from bids_fcnreg.bids.templates import Template, prepare_template, resolve_template
from bids_fcnreg.errors import InputError
from bids_fcnreg.fcn.spatial.transform import Affine, Transform
from bids_fcnreg.io.itk import write_transform

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
    template = prepare_template(resolve_template("MNI152NLin2009aSym"), tmp_path)
    (atlas,) = default_atlases(template)
    assert atlas == resolve_atlas("tissue", template)
    assert atlas.labels == ((1, "CSF"), (2, "GM"), (3, "WM"))
    made = prepare_atlas(atlas, template, tmp_path)
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
    assert prepare_atlas(atlas, template, tmp_path) == made


def test_tissues_belong_to_the_builtin_template(template):
    assert default_atlases(template) == []
    with pytest.raises(InputError, match="belongs to the built-in template"):
        resolve_atlas("tissue", template)


def test_templateflow_atlas_with_its_table(template):
    atlas = resolve_atlas("Sch:desc-100P", template)
    assert (atlas.label, atlas.pairs) == ("Sch100P", "atlas-Sch_seg-100P")
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
        ("Sch", "ambiguous. Choose one of Sch:desc-100P, Sch:desc-200P"),
        ("Sch:desc-300P", "Available: Sch:desc-100P, Sch:desc-200P"),
        ("AAL", "Available: Sch:desc-100P, Sch:desc-200P, aseg, carpet"),
        ("Sch:size-3", "modifier 'size-3' is invalid"),
        ("none.nii.gz", "does not exist"),
    ],
)
def test_missing_items_are_refused(template, spec, words):
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
    assert resolve_atlas(str(path), template).pairs == "atlas-AAL3_seg-v1"


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ("id\tname\n1\tone\n", "no column index"),
        ("index,name\n1,one\n", "no column index"),
        ("index\tname\n1\ta\nx\tb\n", "has the index 'x', which is not a whole number"),
        ("index\tname\n1\ta\n1\tb\n", "index 1 twice"),
    ],
)
def test_invalid_lookup_tables_are_refused(template, tmp_path, table, words):
    path = save(tmp_path / "a.nii.gz")
    (tmp_path / "a.tsv").write_text(table)
    with pytest.raises(InputError, match=words):
        resolve_atlas(str(path), template)


@pytest.mark.parametrize("data", [LABELS / 2, -LABELS])
def test_values_that_are_not_labels_are_refused(template, tmp_path, data):
    with pytest.raises(InputError, match="not whole numbers"):
        resolve_atlas(str(save(tmp_path / "a.nii.gz", data)), template)
    with pytest.raises(InputError, match="cannot be read"):
        resolve_atlas(f"{save(tmp_path / 'b.nii.gz')}:{tmp_path / 'none.tsv'}", template)


def test_labels_outside_the_brain_are_refused(template, tmp_path):
    affine = np.eye(4)
    affine[:3, 3] = 50
    nib.save(nib.Nifti1Image(LABELS.astype("float32"), affine), tmp_path / "far.nii.gz")
    with pytest.raises(InputError, match=r"100% of the atlas .* lie outside the brain of Kids"):
        resolve_atlas(str(tmp_path / "far.nii.gz"), template)


def test_an_image_that_is_no_label_image_is_refused(template, tmp_path):
    values = np.arange(12**3).reshape(12, 12, 12)
    save(tmp_path / "t1w.nii.gz", values)
    with pytest.raises(InputError, match="1728 different values but has no lookup table"):
        resolve_atlas(str(tmp_path / "t1w.nii.gz"), template)


def scaled(path: Path, dtype: str, slope: float, inter: float, data: np.ndarray = LABELS) -> Path:
    """Store values in whole steps of a size, as other software does it."""
    steps = data if dtype.startswith("float") else np.rint((data - inter) / slope)
    header = nib.Nifti1Image(steps.astype(dtype), np.eye(4)).header
    header["scl_slope"], header["scl_inter"] = slope, inter
    stored = header.copy()
    stored["vox_offset"] = 352
    content = stored.binaryblock + bytes(4) + steps.astype(dtype).tobytes(order="F")
    path.write_bytes(content)
    return path


@pytest.mark.parametrize(
    ("dtype", "slope", "inter"),
    [
        ("float32", 65536 / 65535, 0.0),
        ("int16", 65536 / 65535, 0.0),
        ("int16", 300 / 65000, 150.0),
        ("uint8", 300 / 255, 0.0),
        ("uint8", 0.5, 0.0),
        ("uint16", 300 / 65534, 0.0),
        ("float32", 1.0, 0.0),
        ("float32", 1.0, 1e-6),
    ],
)
def test_labels_with_traces_of_a_scaling_are_labels(template, tmp_path, dtype, slope, inter):
    data = np.where(LABELS == 300, 100, LABELS) if dtype == "uint8" and slope < 1 else LABELS
    if slope > 1 and dtype == "uint8":
        data = np.where(LABELS == 0, 0, 300)  # the others lie between two steps
    path = scaled(tmp_path / "a.nii", dtype, slope, inter, data)
    atlas = resolve_atlas(str(path), template)
    assert [value for value, _ in atlas.labels] == sorted(set(data.ravel().astype(int)) - {0})


def test_labels_of_one_volume_are_labels(template, tmp_path):
    nib.save(nib.Nifti1Image(LABELS[..., None].astype("int16"), np.eye(4)), tmp_path / "a.nii")
    labels = resolve_atlas(str(tmp_path / "a.nii"), template).labels
    assert labels == ((1, "1"), (2, "2"), (300, "300"))


@pytest.mark.parametrize(
    ("dtype", "slope", "top"),
    [("uint8", 1 / 255, 1), ("int16", 1 / 32767, 1), ("float32", 1.0, 1), ("uint8", 0.4, 100)],
)
def test_probabilities_are_no_labels(template, tmp_path, dtype, slope, top):
    ramp = top * np.linspace(0, 1, LABELS.size).reshape(LABELS.shape)
    path = scaled(tmp_path / "p.nii", dtype, slope, 0.0, ramp)
    with pytest.raises(InputError, match="not whole numbers"):
        resolve_atlas(str(path), template)
    several = np.stack([ramp, 1 - ramp], -1)
    nib.save(nib.Nifti1Image(several, np.eye(4)), tmp_path / "several.nii")
    with pytest.raises(InputError, match="not that of a 3D volume"):
        resolve_atlas(str(tmp_path / "several.nii"), template)


def test_rounded_labels_are_carried_as_whole_numbers(tmp_path):
    path = scaled(tmp_path / "a.nii", "float32", 65536 / 65535, 0.0)
    transform = write_transform(tmp_path / "stay.h5", Transform((Affine(np.eye(4)),)))
    carried = apply(path, path, [transform], interpolation="label")
    assert set(np.unique(carried.dataobj)) == {0, 1, 2, 300}


@pytest.mark.filterwarnings("ignore:TemplateFlow. repository not found:ResourceWarning")
def test_atlases_of_an_own_folder_are_those_in_it(tmp_path, monkeypatch):
    monkeypatch.setenv("TEMPLATEFLOW_HOME", str(tmp_path / "flow"))
    folder = tmp_path / "tpl-My_Study"
    for name in ("res-1_T1w", "res-1_desc-brain_mask", "cohort-1_T1w", "res-high_atlas-A-1_dseg"):
        save(folder / f"tpl-My_Study_{name}.nii.gz", (LABELS > 0) + LABELS)
    save(folder / "cohort-1/tpl-My_Study_cohort-1_atlas-Kids_dseg.nii.gz")
    template = resolve_template(f"{folder}:res-1")
    assert resolve_atlas("A-1", template).name == "A1"
    with pytest.raises(
        InputError, match=r"tpl-My_Study has no atlas Kids .* Available: A-1. Choose one of these"
    ):
        resolve_atlas("Kids", template)
    save(folder / "tpl-My_Study_T1w.nii.gz", (LABELS > 0) + LABELS)
    alone = resolve_template(str(folder / "tpl-My_Study_T1w.nii.gz"))
    with pytest.raises(InputError, match="no atlas A-1 for the template MyStudy, which is not"):
        resolve_atlas("A-1", alone)


def test_an_atlas_file_goes_with_the_template_of_its_name(tmp_path):
    image = save(tmp_path / "t1.nii.gz")
    names = (("Kids", "1"), ("Kids", "2"), ("MyStudy", None))
    templates = [Template(name, cohort, None, image, None) for name, cohort in names]

    def goes_to(name: str) -> list[str]:
        chosen = choose_atlases([str(save(tmp_path / name))], templates)
        return [space for space, atlases in chosen.items() if atlases]

    assert goes_to("tpl-Kids_cohort-2_atlas-A_dseg.nii.gz") == ["Kids+2"]
    assert goes_to("tpl-My_Study_atlas-A_dseg.nii.gz") == ["MyStudy"]
    for name in ("tpl-Kids_atlas-A_dseg.nii.gz", "A_dseg.nii.gz", "tpl-Kids_cohort-3_dseg.nii.gz"):
        with pytest.raises(InputError, match="does not contain the name of one of the templates"):
            goes_to(name)


def test_atlases_that_differ_in_nothing_but_capitals_are_refused(template, tmp_path):
    specs = [str(save(tmp_path / name)) for name in ("AAL.nii.gz", "a-a-l.nii.gz")]
    with pytest.raises(InputError, match="Two of the atlases are called aal"):
        choose_atlases(specs, [template])
