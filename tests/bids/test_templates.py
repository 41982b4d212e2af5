"""Templates from everywhere: built in, TemplateFlow's folder, files, folders; without internet."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from scipy import ndimage

from bids_fcnreg.bids.templates import prepare_template, resolve_template, resolve_templates
from bids_fcnreg.errors import InputError

BALL = ((np.indices((24, 24, 24)) - 11.5) ** 2).sum(axis=0) < 64
HEAD = np.where(BALL, 100, 40)


def save(path: Path, data: np.ndarray, zoom: float = 4.0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(data.astype("float32"), np.diag([zoom, zoom, zoom, 1])), path)
    return path


def values(path: Path) -> np.ndarray:
    return np.asarray(nib.load(path).dataobj)


@pytest.fixture
def archive(tmp_path, monkeypatch):
    """A TEMPLATEFLOW_HOME that holds one template of two cohorts and two resolutions."""
    home = tmp_path / "flow"
    monkeypatch.setenv("TEMPLATEFLOW_HOME", str(home))
    for cohort in (1, 2):
        folder = home / "tpl-Kids" / f"cohort-{cohort}"
        for res in (1, 2):
            stem = f"tpl-Kids_cohort-{cohort}_res-0{res}"
            save(folder / f"{stem}_T1w.nii.gz", HEAD * cohort)
            save(folder / f"{stem}_desc-brain_mask.nii.gz", BALL)
            save(folder / f"{stem}_desc-head_mask.nii.gz", BALL)
    return home


@pytest.fixture(scope="module")
def builtin(tmp_path_factory):
    return prepare_template(
        resolve_template("MNI152NLin2009aSym"), tmp_path_factory.mktemp("built")
    )


def test_builtin_is_a_brain_of_one_piece(builtin):
    assert builtin.space == "MNI152NLin2009aSym"
    assert builtin.builtin
    mask, image = values(builtin.mask), values(builtin.t1w)
    assert mask.shape == image.shape == (197, 233, 189)
    assert set(np.unique(mask)) == {0, 1}
    assert ndimage.label(mask)[1] == 1
    assert not (ndimage.binary_fill_holes(mask) ^ mask.astype(bool)).any()
    assert 1.7e6 < mask.sum() < 2.0e6
    assert not image[mask == 0].any()
    np.testing.assert_array_equal(nib.load(builtin.mask).affine, nib.load(builtin.t1w).affine)


def test_builtin_mask_is_made_once(builtin):
    folder = builtin.mask.parent
    before = builtin.mask.stat().st_mtime_ns
    again = prepare_template(resolve_template("MNI152NLin2009aSym:res-1"), folder)
    assert again.mask == builtin.mask
    assert again.mask.stat().st_mtime_ns == before
    assert [path.name for path in folder.iterdir()] == [builtin.mask.name]


def test_damaged_mask_is_recomputed(builtin):
    whole = builtin.mask.read_bytes()
    builtin.mask.write_bytes(whole[:999])
    assert prepare_template(resolve_template("MNI152NLin2009aSym"), builtin.mask.parent) == builtin
    assert builtin.mask.read_bytes() == whole


def test_name_with_cohort_and_resolution(archive):
    template = resolve_template("Kids:cohort-2:res-2")
    assert template.t1w.name == "tpl-Kids_cohort-2_res-02_T1w.nii.gz"
    assert template.mask.name == "tpl-Kids_cohort-2_res-02_desc-brain_mask.nii.gz"
    assert (template.space, template.resolution) == ("Kids+2", "2")
    assert template.reference == (
        "bids:templateflow:tpl-Kids/cohort-2/tpl-Kids_cohort-2_res-02_T1w.nii.gz"
    )


def test_finest_resolution_unless_asked(archive):
    template = resolve_template("Kids:cohort-01")
    assert template.t1w.name == "tpl-Kids_cohort-1_res-01_T1w.nii.gz"
    assert template.resolution is None


def test_head_loses_what_is_outside_its_mask(archive, tmp_path):
    found = resolve_template("Kids:cohort-1")
    made = prepare_template(found, tmp_path / "cache")
    np.testing.assert_array_equal(values(made.t1w), np.where(BALL, 100, 0))
    assert made.mask == found.mask
    assert made.reference == found.reference
    assert prepare_template(made, tmp_path / "cache").t1w == made.t1w
    assert prepare_template(found, tmp_path / "cache") == made


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ("Kids", "requires one of its cohorts. Choose from Kids:cohort-1, Kids:cohort-2"),
        ("Kids:cohort-9", "requires one of its cohorts"),
        ("Kids:cohort-1:res-3", "Available: res-1, res-2"),
        ("Kids:colour-1", "modifier 'colour-1' is invalid"),
        ("Adults", r"Check the name \(known: Kids\), or use the built-in MNI152NLin2009aSym"),
        ("not/there", "neither a NIfTI file nor a directory"),
        ("not/there.nii.gz", "does not exist"),
        ("a b", "is neither a file nor the name"),
    ],
)
def test_missing_items_are_refused(archive, spec, words):
    with pytest.raises(InputError, match=words):
        resolve_template(spec)


def test_failed_download_is_reported_quickly(archive):
    wanted = archive / "tpl-Nowhere" / "tpl-Nowhere_res-01_T1w.nii.gz"
    wanted.parent.mkdir()
    wanted.touch()
    start = time.monotonic()
    with pytest.raises(InputError, match="needs no download") as caught:
        resolve_template("Nowhere")
    assert time.monotonic() - start < 30
    assert wanted.name in str(caught.value)
    assert str(wanted.parent) in str(caught.value)


def test_unwritable_templateflow_home_is_reported(tmp_path):
    (tmp_path / "file").touch()
    code = (
        "from bids_fcnreg.bids.templates import resolve_template\n"
        "from bids_fcnreg.errors import InputError\n"
        "resolve_template('MNI152NLin2009aSym')\n"
        "try: resolve_template('Kids')\n"
        "except InputError as why: print(why)"
    )
    home = tmp_path / "file" / "flow"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "TEMPLATEFLOW_HOME": str(home)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert f"({home}) is empty and cannot be written" in done.stdout


def test_file_with_mask_beside_it(tmp_path):
    path = save(tmp_path / "My_study-T1.nii.gz", HEAD)
    with pytest.raises(InputError, match=r"My_study-T1_desc-brain_mask\.nii\.gz"):
        resolve_template(str(path))
    mask = save(tmp_path / "My_study-T1_desc-brain_mask.nii.gz", BALL)
    template = resolve_template(str(path))
    assert (template.name, template.space, template.mask) == ("MystudyT1", "MystudyT1", mask)
    assert template.reference == path.as_uri()


def test_file_named_like_a_template(tmp_path):
    path = save(tmp_path / "tpl-Study_cohort-3_res-1_T1w.nii.gz", HEAD)
    mask = save(tmp_path / "tpl-Study_cohort-3_res-1_desc-brain_mask.nii.gz", BALL)
    template = resolve_template(str(path))
    assert (template.space, template.mask) == ("Study+3", mask)


@pytest.mark.parametrize("entities", ["desc-brain", "label-brain"])
def test_a_folder_with_a_brain_only(tmp_path, entities):
    folder = tmp_path / "tpl-Old"
    brain = save(folder / f"tpl-Old_{entities}_T1w.nii.gz", np.where(BALL, 100, 0))
    assert resolve_template(str(folder)).t1w == brain


def test_a_folder_with_other_derived_images_only(tmp_path):
    folder = tmp_path / "tpl-Old"
    save(folder / "tpl-Old_desc-brain_seg-x_T1w.nii.gz", np.where(BALL, 100, 0))
    with pytest.raises(InputError, match="has no plain T1w image"):
        resolve_template(str(folder))


def test_extracted_file_needs_no_mask(tmp_path):
    data = np.where(BALL, 100, 0)
    data[12, 12, 12] = 0  # a hole
    data[0, 0, 0] = 5  # a speck
    path = save(tmp_path / "brain.nii.gz", data)
    made = prepare_template(resolve_template(str(path)), tmp_path / "cache")
    np.testing.assert_array_equal(values(made.mask), BALL)
    assert values(made.t1w)[0, 0, 0] == 0
    save(path, data / 2)
    os.utime(path, (1, 1))
    changed = prepare_template(resolve_template(str(path)), tmp_path / "cache")
    assert changed.mask != made.mask


def test_large_head_on_zero_background_is_no_brain(tmp_path):
    path = save(tmp_path / "head.nii.gz", np.where(BALL, HEAD + np.eye(24), 0), zoom=12)
    with pytest.raises(InputError, match="is not skull-stripped"):
        resolve_template(str(path))


def test_empty_mask_is_refused(tmp_path):
    path = save(tmp_path / "x_T1w.nii.gz", HEAD)
    save(tmp_path / "x_desc-brain_mask.nii.gz", -1.0 * BALL)
    with pytest.raises(InputError, match=r"x_desc-brain_mask\.nii\.gz has no voxel above 0\.5"):
        prepare_template(resolve_template(str(path)), tmp_path / "cache")


def test_mask_on_another_grid(tmp_path):
    path = save(tmp_path / "x_T1w.nii.gz", HEAD)
    save(tmp_path / "x_desc-brain_mask.nii.gz", BALL, zoom=3)
    with pytest.raises(InputError, match=r"is not on the grid .* \(they lie up to \d+"):
        prepare_template(resolve_template(str(path)), tmp_path / "cache")


@pytest.mark.parametrize(("off", "taken"), [(1e-3, True), (0.02, True), (1.0, False)])
def test_mask_whose_header_is_rounded(tmp_path, off, taken):
    path = save(tmp_path / "x_T1w.nii.gz", HEAD)
    mask = nib.load(save(tmp_path / "x_desc-brain_mask.nii.gz", BALL))
    affine = mask.affine.copy()
    affine[0, 3] += off
    values = np.asarray(mask.dataobj)
    nib.Nifti1Image(values, affine).to_filename(tmp_path / "x_desc-brain_mask.nii.gz")
    if taken:
        made = prepare_template(resolve_template(str(path)), tmp_path / "cache")
        np.testing.assert_array_equal(nib.load(made.t1w).get_fdata()[values == 0], 0)
    else:
        with pytest.raises(InputError, match=r"lie up to 1 mm apart"):
            prepare_template(resolve_template(str(path)), tmp_path / "cache")


def test_folder(tmp_path):
    folder = tmp_path / "tpl-Study"
    save(folder / "tpl-Study_T1w.nii.gz", HEAD)
    save(folder / "tpl-Study_desc-brain_mask.nii.gz", BALL)
    template = resolve_template(str(folder))
    assert (template.space, template.cohort, template.resolution) == ("Study", None, None)
    assert template.mask == folder / "tpl-Study_desc-brain_mask.nii.gz"
    with pytest.raises(InputError, match="directory named tpl-NAME"):
        resolve_template(str(tmp_path))


def test_two_of_one_space_are_refused(archive):
    assert len(resolve_templates(["Kids:cohort-1", "Kids:cohort-2", "Kids:cohort-1"])) == 2
    with pytest.raises(InputError, match=r"called Kids\+1"):
        resolve_templates(["Kids:cohort-1", "Kids:cohort-1:res-2"])


def study(folder: Path, *names: str, zoom: float = 4.0) -> Path:
    """A template's folder with images of heads and their masks, by what follows ``tpl-NAME_``."""
    for name in names:
        place, _, begin = name.rpartition("/")
        start = folder / place / f"{folder.name}_{begin}"
        save(Path(f"{start}T1w.nii.gz"), HEAD, zoom)
        save(Path(f"{start}desc-brain_mask.nii.gz"), BALL, zoom)
    return folder


def test_own_folder_with_cohorts_and_resolutions(tmp_path):
    names = [f"cohort-{c}/cohort-{c}_res-0{r}_" for c in (1, 2) for r in (1, 2)]
    folder = study(tmp_path / "tpl-Own", *names)
    template = resolve_template(f"{folder}:cohort-2:res-02")
    assert template.t1w.name == "tpl-Own_cohort-2_res-02_T1w.nii.gz"
    assert (template.space, template.resolution) == ("Own+2", "2")
    for spec in (folder / "cohort-2", f"{folder}/cohort-2:res-1", f"{folder}/:cohort-2"):
        found = resolve_template(str(spec))
        assert found.t1w.name == "tpl-Own_cohort-2_res-01_T1w.nii.gz", spec
    with pytest.raises(InputError, match="requires one of its cohorts") as caught:
        resolve_template(str(folder))
    advised = str(caught.value).rpartition("Choose from ")[2].rstrip(".").split(", ")
    assert [resolve_template(spec).space for spec in advised] == ["Own+1", "Own+2"]
    with pytest.raises(InputError, match=r"no such resolution. Available: res-1, res-2"):
        resolve_template(f"{folder}:cohort-1:res-3")
    with pytest.raises(InputError, match="modifier 'size-3' is invalid"):
        resolve_template(f"{folder}:size-3")


def test_own_folder_named_by_its_place_without_cohort_in_the_names(tmp_path):
    folder = study(tmp_path / "tpl-Own", "cohort-1/", "cohort-2/")
    assert resolve_template(f"{folder}:cohort-2").t1w.parent.name == "cohort-2"
    study(folder, "cohort-1/cohort-2_")
    with pytest.raises(InputError, match="differs from that of its directory"):
        resolve_template(f"{folder}:cohort-1")


def test_finest_of_an_own_folder_goes_by_voxels(tmp_path):
    folder = study(tmp_path / "tpl-Own", "res-low_", "res-1_", zoom=6)
    study(folder, "res-high_", "res-2_", zoom=4)
    assert resolve_template(str(folder)).t1w.name == "tpl-Own_res-2_T1w.nii.gz"
    study(folder, "res-high_", zoom=3)
    assert resolve_template(str(folder)).t1w.name == "tpl-Own_res-high_T1w.nii.gz"
    assert resolve_template(f"{folder}:res-low").t1w.name == "tpl-Own_res-low_T1w.nii.gz"


@pytest.mark.parametrize(
    ("name", "space"),
    [
        ("my-study", "mystudy"),
        ("My_Study", "MyStudy"),
        ("my_study_v1.2", "mystudyv12"),
        ("Größe 3", "Gre3"),
        ("res-2_x", "res2x"),
    ],
)
def test_labels_of_own_folders_and_files_are_legal(tmp_path, name, space):
    folder = study(tmp_path / f"tpl-{name}", "", "res-2_")
    assert resolve_template(f"{folder}:res-2").space == space
    file = folder / f"tpl-{name}_T1w.nii.gz"
    assert resolve_template(str(file)).space == space


def test_labels_that_cannot_be_used_are_refused(tmp_path):
    for name in ("研究", "x" * 101):
        with pytest.raises(InputError, match="Rename it, with 1 to 100 letters"):
            resolve_template(str(study(tmp_path / f"tpl-{name}", "")))
    with pytest.raises(InputError, match="modifier 'res-é' is invalid"):
        resolve_template(f"{study(tmp_path / 'tpl-Own', '')}:res-é")


def test_labels_that_differ_in_nothing_but_capitals_are_refused(tmp_path):
    specs = [str(study(tmp_path / f"tpl-{name}", "")) for name in ("My_Study", "mystudy")]
    with pytest.raises(InputError, match="Two of the templates are called mystudy"):
        resolve_templates(specs)


def test_files_of_another_template_or_in_other_folders_are_not_used(tmp_path):
    folder = study(tmp_path / "tpl-Own", "old/")
    study(tmp_path / "tpl-Other", "")
    (tmp_path / "tpl-Other/tpl-Other_T1w.nii.gz").rename(folder / "tpl-Other_T1w.nii.gz")
    with pytest.raises(InputError, match=r"no T1w image. Name its files tpl-Own_…_T1w"):
        resolve_template(str(folder))


def test_two_files_for_one_thing_are_refused(tmp_path):
    folder = study(tmp_path / "tpl-Own", "")
    save(folder / "tpl-Own_T1w.nii", HEAD)
    with pytest.raises(InputError, match=r"is ambiguous: it has .*T1w\.nii and .*T1w\.nii\.gz"):
        resolve_template(str(folder))


def test_linked_folder_is_the_folder(tmp_path):
    folder = study(tmp_path / "tpl-Own", "")
    (tmp_path / "link").symlink_to(folder)
    assert resolve_template(str(tmp_path / "link")).space == "Own"


def test_directory_in_the_cwd_does_not_hide_a_template_name(archive, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "Kids").mkdir()
    assert resolve_template("Kids:cohort-1").space == "Kids+1"
