"""The templates that come with the package: grids, brains, tissues, and what is preferred."""

from __future__ import annotations

import socket

import nibabel as nib
import numpy as np
import pytest
from scipy import ndimage

from bids_fcnreg.bids.atlases import default_atlases, prepare_atlas, resolve_atlas
from bids_fcnreg.bids.builtin_templates import BUILTIN_FILES
from bids_fcnreg.bids.templates import prepare_template, resolve_template
from bids_fcnreg.config import ASYMMETRIC_TEMPLATE, BUILTIN_TEMPLATES
from bids_fcnreg.errors import InputError

STEM = f"tpl-{ASYMMETRIC_TEMPLATE}/tpl-{ASYMMETRIC_TEMPLATE}_res-"


def values(path) -> np.ndarray:
    return nib.load(path).get_fdata(dtype=np.float32)


@pytest.fixture
def offline(tmp_path, monkeypatch):
    """No internet, and TemplateFlow's directory as the package makes it: files are empty."""

    def refuse(*_):
        raise OSError("no internet")

    monkeypatch.setattr(socket, "create_connection", refuse)
    monkeypatch.setattr(socket.socket, "connect", refuse)
    home = tmp_path / "flow"
    for res in ("01", "02"):
        for ending in ("T1w", "desc-brain_T1w", "desc-brain_mask"):
            path = home / f"{STEM}{res}_{ending}.nii.gz"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
    monkeypatch.setenv("TEMPLATEFLOW_HOME", str(home))
    return home


def put_head(home, res: str, size: float) -> None:
    """Download a head, that is a ball in a box, and its brain mask."""
    ball = ((np.indices((24, 24, 24)) - 11.5) ** 2).sum(axis=0) < 64
    for ending, data in (("T1w", np.where(ball, 100, 40)), ("desc-brain_mask", ball)):
        image = nib.Nifti1Image(data.astype("uint8"), np.diag([size, size, size, 1]))
        image.to_filename(home / f"{STEM}{res}_{ending}.nii.gz")


def test_names_are_those_of_the_settings():
    assert tuple(BUILTIN_FILES) == BUILTIN_TEMPLATES


@pytest.mark.parametrize("spec", ["", ":res-1", ":res-01"])
@pytest.mark.parametrize("name", BUILTIN_TEMPLATES)
def test_resolves_without_internet(offline, tmp_path, name, spec):
    template = resolve_template(f"{name}{spec}")
    assert template.builtin and template.space == name
    assert template.resolution == ("1" if spec else None)
    made = prepare_template(template, tmp_path / "cache")
    assert not (values(made.t1w)[values(made.brain_mask) == 0]).any()
    (uri, sha), *others = template.sources.items()
    assert uri.startswith(("https://", "pkg:")) and len(sha) == 64 and not others
    assert made.sources == template.sources and made.reference == template.reference


def test_reference_is_the_same_as_that_of_the_files_of_templateflow(offline):
    packaged = resolve_template(ASYMMETRIC_TEMPLATE)
    put_head(offline, "01", 4)
    downloaded = resolve_template(ASYMMETRIC_TEMPLATE)
    assert packaged.reference == downloaded.reference
    assert packaged.sources != downloaded.sources


def test_downloaded_files_of_templateflow_are_preferred(offline, tmp_path):
    put_head(offline, "02", 8)
    assert not resolve_template(ASYMMETRIC_TEMPLATE).t1w.is_relative_to(offline)  # finer
    assert resolve_template(f"{ASYMMETRIC_TEMPLATE}:res-2").t1w.is_relative_to(offline)
    put_head(offline, "01", 4)
    for spec in (ASYMMETRIC_TEMPLATE, f"{ASYMMETRIC_TEMPLATE}:res-1"):
        found = resolve_template(spec)
        assert found.t1w == offline / f"{STEM}01_T1w.nii.gz"
        assert found.mask == offline / f"{STEM}01_desc-brain_mask.nii.gz"
        assert found.builtin
        assert [atlas.name for atlas in default_atlases(found)] == ["tissue"]
    (offline / f"{STEM}01_desc-brain_mask.nii.gz").write_bytes(b"")
    assert not resolve_template(ASYMMETRIC_TEMPLATE).t1w.is_relative_to(offline)


def test_tissues_are_on_the_packaged_grid_at_any_resolution(offline, tmp_path):
    put_head(offline, "02", 8)
    template = prepare_template(
        resolve_template(f"{ASYMMETRIC_TEMPLATE}:res-2"), tmp_path / "cache"
    )
    atlas = prepare_atlas(resolve_atlas("tissue", template), template, tmp_path / "cache")
    assert nib.load(atlas.label_image).shape == (193, 229, 193)


def test_an_own_directory_of_this_name_is_not_built_in(tmp_path):
    (tmp_path / STEM).parent.mkdir()
    put_head(tmp_path, "01", 4)
    own = resolve_template(str(tmp_path / f"tpl-{ASYMMETRIC_TEMPLATE}"))
    assert not own.builtin
    with pytest.raises(InputError, match="belongs to the built-in templates"):
        resolve_atlas("tissue", own)


def test_grid_is_that_of_templateflow():
    for kind in ("t1", "mask", "gm", "wm"):
        image = nib.load(BUILTIN_FILES[ASYMMETRIC_TEMPLATE].path(kind))
        assert image.shape == (193, 229, 193)
        expected = np.eye(4)
        expected[:3, 3] = -96, -132, -78
        np.testing.assert_array_equal(image.affine, expected)
        codes = int(image.header["qform_code"]), int(image.header["sform_code"])
        assert codes == (4, 4)  # MNI


def test_brain_is_one_piece_and_its_left_is_on_the_left():
    files = BUILTIN_FILES[ASYMMETRIC_TEMPLATE]
    brain, mask = values(files.path("t1")), values(files.path("mask"))
    assert set(np.unique(mask)) == {0, 1} and ndimage.label(mask)[1] == 1
    assert not (ndimage.binary_fill_holes(mask) ^ (mask > 0)).any()
    np.testing.assert_array_equal(brain != 0, mask > 0)
    assert mask.sum() == 1_886_574
    # The right frontal and the left occipital lobe protrude (Yakovlevian torque).
    right, left = mask[97:], mask[:96]
    front, back = np.s_[:, 192:], np.s_[:, :46]
    assert right[front].sum() > left[front].sum()
    assert left[back].sum() > right[back].sum()


@pytest.mark.parametrize("name", BUILTIN_TEMPLATES)
def test_tissue_maps_are_probabilities_of_plausible_volumes(name):
    files = BUILTIN_FILES[name]
    brain = values(files.path("t1"))
    gray, white = (values(files.path(kind)) / files.certain for kind in ("gm", "wm"))
    fluid = 1 - gray - white
    for one in (gray, white, fluid[brain > 0]):
        assert one.min() > -1e-6 and one.max() < 1 + 1e-6
    assert gray[brain == 0].max() < 0.01 or name != ASYMMETRIC_TEMPLATE
    millilitres = [one[brain > 0].sum() / 1000 for one in (fluid, gray, white)]
    assert 150 < millilitres[0] < 300 < millilitres[2] < 800 < millilitres[1] < 1100
    means = [np.average(brain, weights=one * (brain > 0)) for one in (fluid, gray, white)]
    assert means[0] < 0.8 * means[1] < 0.8 * 0.9 * means[2]


def test_tissue_labels_of_both_templates_have_the_same_shares(tmp_path):
    shares = []
    for name in BUILTIN_TEMPLATES:
        template = prepare_template(resolve_template(name), tmp_path)
        atlas = prepare_atlas(default_atlases(template)[0], template, tmp_path)
        labels = np.asarray(nib.load(atlas.label_image).dataobj)
        np.testing.assert_array_equal(labels > 0, values(template.brain_mask) > 0)
        shares.append(np.bincount(labels[labels > 0], minlength=4)[1:] / (labels > 0).sum())
    np.testing.assert_allclose(*shares, atol=0.02)


def test_a_downloaded_head_gives_the_packaged_brain(offline, tmp_path):
    """Registrations to both are then equal."""
    packaged = resolve_template(ASYMMETRIC_TEMPLATE)
    brain, mask = nib.load(packaged.t1w), nib.load(packaged.mask)
    around = ndimage.binary_dilation(mask.get_fdata() > 0, iterations=8) & (mask.get_fdata() == 0)
    head = np.where(around, 60, brain.get_fdata()).astype("float32")
    for ending, data in (("T1w", head), ("desc-brain_mask", np.asarray(mask.dataobj))):
        image = nib.Nifti1Image(data, brain.affine)
        image.to_filename(offline / f"{STEM}01_{ending}.nii.gz")
    made = prepare_template(resolve_template(ASYMMETRIC_TEMPLATE), tmp_path / "cache")
    assert made.found[0].is_relative_to(offline)
    for one, other in ((made.t1w, packaged.t1w), (made.mask, packaged.mask)):
        np.testing.assert_array_equal(values(one), values(other))
        np.testing.assert_array_equal(nib.load(one).affine, nib.load(other).affine)
