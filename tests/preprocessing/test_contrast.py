"""Contrasts are recognized by names and, where these say nothing, by intensities."""

from __future__ import annotations

import re
import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch

from bids_fcnreg.bids.builtin_templates import nilearn_map
from bids_fcnreg.errors import InputError
from bids_fcnreg.fcn.spatial.filters import gaussian
from bids_fcnreg.fcn.spatial.grid import Grid, Image
from bids_fcnreg.fcn.spatial.transform import Transform
from bids_fcnreg.io import image
from bids_fcnreg.preprocessing.contrast import (
    RegistrationInput,
    comparable_input,
    contrast_of_name,
    describe_replaced,
    looks_t2w,
    registration_input,
)
from tests.infants import of_an_infant

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(
    ("contrast", "names"),
    {
        "T1w": (
            "sub-01_T1w.nii.gz", "sub-01_ses-T2w_T1w.nii", "data/FLAIR/sub-1_UNIT1.nii.gz",
            "sub-01_inv-1_MP2RAGE.nii.gz", "T1w.nii.gz", "sub-01_space-T2w_desc-preproc_T1w.mgz",
            "sub-01_inplaneT1.nii.gz", "C:\\scans\\t1w.nii", "patient-t1w.nii.gz",
        ),
        "other": (
            "sub-01_T2w.nii.gz", "sub-01_FLAIR.nii.gz", "a/T1w/sub-01_space-T1w_PDw.nii",
            "sub-01_T2starw.nii.gz", "sub-01_PDT2.nii.gz", "sub-01_inplaneT2.nii", "T2w.nii.gz",
            "sub-01_T1map.nii.gz", "sub-01_task-rest_boldref.nii.gz", "patient-flair.nii.gz",
        ),
        None: (
            "", "brain.nii.gz", "visit_T2.nii.gz", "sub-01_T2wbrain.nii.gz", "notT2w.nii.gz",
            "sub-01_T2w_brain.nii.gz", "T2w/brain.nii.gz", "sub-01_desc-FLAIR_mask.nii.gz",
            "template.T1w.minc.nii.gz",
        ),
    }.items(),
)  # fmt: skip
def test_the_suffix_of_a_name_states_the_contrast(contrast, names):
    assert {name: contrast_of_name(name) for name in names} == dict.fromkeys(names, contrast)


@pytest.fixture(scope="module")
def t1w() -> Image:
    """The built-in template with voxels of 2 mm."""
    template = image.read(nilearn_map("t1"))
    blurred = Image(gaussian(template.data, 0.8), template.grid)
    coarse = Transform(()).resample(blurred, template.grid.with_spacing(2.0))
    return replace(coarse, data=coarse.data * (coarse.data > 10))


def inverted(brain: Image) -> Image:
    """The brain with bright CSF and dark white matter on a black background."""
    inside = brain.data > 0
    top = 1.05 * float(np.quantile(brain.data[inside].numpy(), 0.98))
    return replace(brain, data=torch.where(inside, (top - brain.data).clamp(min=3), 0.0))


def biased(brain: Image) -> Image:
    """The brain, three times brighter at its rim than in the centre."""
    away = (brain.grid.points() - torch.tensor(brain.grid.centre)).norm(dim=-1).float()
    return replace(brain, data=brain.data * (1 + 2 * (away / 80).square()))


def with_wide_ventricles(brain: Image) -> Image:
    away = (brain.grid.points() - torch.tensor(brain.grid.centre)).norm(dim=-1)
    return replace(brain, data=torch.where(away < 35, brain.data.clamp(max=60), brain.data))


def with_bright_background(brain: Image) -> Image:
    return replace(brain, data=brain.data.max() - brain.data)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda brain: brain, False),
        (lambda brain: replace(brain, data=brain.data * 30 - 1000), False),
        (biased, False),
        (with_wide_ventricles, False),
        (with_bright_background, False),  # inverted back when intensities are standardized
        (lambda brain: replace(brain, data=(brain.data > 0).float()), False),
        (inverted, True),
        (lambda brain: biased(inverted(brain)), True),
        (lambda brain: replace(brain, data=inverted(brain).data * 30), True),
    ],
)
def test_t2w_brains_are_recognized(t1w, change, expected):
    assert looks_t2w(change(t1w)) is expected


def test_t2w_brain_in_a_head_is_recognized_in_its_mask(t1w):
    brain = inverted(t1w)
    mask = Image((brain.data > 0).float(), brain.grid)
    scalp = 40 * (1 + torch.rand(brain.data.shape, generator=torch.Generator().manual_seed(0)))
    head = replace(brain, data=torch.where(mask.data > 0, brain.data, scalp))
    assert looks_t2w(head, mask)
    assert not looks_t2w(replace(head, data=torch.where(mask.data > 0, t1w.data, scalp)), mask)


@pytest.mark.parametrize("contrast", ["auto", "T1w"])
def test_t1w_brains_are_registered_as_they_are(t1w, contrast):
    found = registration_input("moving", t1w, None, contrast)
    assert found.image is t1w and found.mask is None and not found.replaced


@pytest.mark.parametrize(
    ("contrast", "file"),
    [("other", ""), ("other", "sub-01_T1w.nii.gz"), ("auto", "sub-01_T2w.nii.gz")],
)
def test_other_contrasts_are_replaced_by_t1w_like_images(t1w, contrast, file):
    found = registration_input("fixed", inverted(t1w), None, contrast, file)
    assert found.replaced and found.image.grid.matches(t1w.grid)
    inside = t1w.data > 0
    assert np.corrcoef(found.image.data[inside], t1w.data[inside])[0, 1] > 0.6
    overlap = 2 * (inside & (found.mask.data > 0)).sum() / (inside.sum() + found.mask.data.sum())
    assert overlap > 0.93


def test_given_mask_is_kept(t1w):
    mask = Image((t1w.data > 0).float(), t1w.grid)
    assert registration_input("fixed", inverted(t1w), mask, "other").mask is mask


def test_intensities_replace_an_image_with_a_warning_that_names_the_option(t1w):
    with pytest.warns(UserWarning, match="Use --moving-contrast T1w") as given:
        assert registration_input("moving", inverted(t1w), None, "auto", "brain.nii").replaced
    assert "The moving image brain.nii does not look like a T1w image" in str(given[0].message)
    assert not registration_input("moving", inverted(t1w), None, "auto", "a_T1w.nii").replaced
    assert not registration_input("moving", inverted(t1w), None, "T1w").replaced


def test_brain_of_an_infant_is_made_comparable_to_a_t1w_like_image(t1w):
    found = comparable_input(RegistrationInput(of_an_infant(t1w), None))
    inside = t1w.data > 0
    assert found.replaced and found.mask is not None
    assert np.corrcoef(found.image.data[inside], t1w.data[inside])[0, 1] > 0.6


def test_brain_of_an_adult_is_comparable_to_a_t1w_like_image(t1w):
    mask = Image((t1w.data > 0).float(), t1w.grid)
    given = RegistrationInput(t1w, mask)
    assert comparable_input(given) is given


def test_what_is_no_brain_is_left_as_it_is(t1w):
    nothing = replace(t1w, data=torch.zeros_like(t1w.data))
    given = RegistrationInput(nothing, None)
    assert comparable_input(given) is given


@pytest.fixture(scope="module")
def head(phantom_dataset) -> tuple[Image, Image]:
    """T1w image of a simulated head with voxels of 2 mm, and its true brain mask."""
    names = ("anat/sub-01_T1w", "anat/sub-01_desc-brain_mask")
    folders = ("sub-01", "derivatives/truth/sub-01")
    scan, mask = (
        image.read(phantom_dataset / folder / f"{name}.nii.gz")
        for folder, name in zip(folders, names, strict=True)
    )
    grid = scan.grid.with_spacing(2.0)
    blurred = Image(gaussian(scan.data, 1.0), scan.grid)
    return Transform(()).resample(blurred, grid), Transform(()).resample(mask, grid, "nearest")


@pytest.mark.parametrize("contrast", ["auto", "T1w"])
def test_brain_of_a_t1w_head_is_extracted(head, contrast):
    scan, truth = head
    found = registration_input("moving", scan, None, contrast, "head.nii.gz")
    assert found.extracted and not found.replaced
    brain, wanted = found.mask.data > 0.5, truth.data > 0.5
    assert 2 * (brain & wanted).sum() / (brain.sum() + wanted.sum()) > 0.95
    values = torch.stack([found.image.data[brain], scan.data[brain]])
    assert torch.corrcoef(values)[0, 1] > 0.95  # but for the bias field
    assert comparable_input(found) is found  # beside a T1w-like image, too


def test_a_head_of_another_contrast_is_recognized_without_its_name(head):
    scan, brain = head
    inside = brain.data > 0.5
    inverted_head = replace(scan, data=torch.where(inside, inverted(scan).data, scan.data))
    with pytest.warns(UserWarning, match="head.nii does not look like a T1w image"):
        found = registration_input("moving", inverted_head, None, "auto", "head.nii")
    assert found.replaced and not found.extracted
    as_it_is = registration_input("moving", inverted_head, None, "T1w")
    assert as_it_is.extracted and not as_it_is.replaced
    beside_another = comparable_input(as_it_is)
    assert beside_another.replaced and not beside_another.extracted


@pytest.mark.parametrize("suffix", ["T1w", "T2w", "FLAIR"])
def test_real_heads_are_told_apart_without_their_names(real_data, suffix):
    """Those whose brains `looks_t2w` does not recognize, too."""
    scan = image.read(real_data / f"heads/sub-ms1/ses-1/anat/sub-ms1_ses-1_{suffix}.nii.gz")
    with warnings.catch_warnings(record=True) as given:
        warnings.simplefilter("always")
        found = registration_input("moving", scan, None, "auto", "head.nii")
    assert (found.extracted, found.replaced) == (suffix == "T1w", suffix != "T1w")
    assert len(given) == int(suffix != "T1w")


def test_t1w_head_without_a_brain_is_refused_with_both_ways_out(t1w):
    corner = t1w.grid.crop((0, 0, 0), (8, 8, 8))
    nothing = Image(torch.linspace(1, 2, 512).reshape(1, 1, 8, 8, 8), corner)
    with pytest.raises(InputError, match="No brain was found in the moving image") as refusal:
        registration_input("moving", nothing, None, "auto", "legs.nii.gz")
    for advice in ("legs.nii.gz", "voxel size", "--moving-mask", "moving_mask"):
        assert advice in str(refusal.value)


def test_mask_on_another_grid_is_left_to_the_registration(t1w):
    mask = Image(torch.ones(1, 1, 5, 5, 5), Grid((5, 5, 5), np.eye(4)))
    assert registration_input("moving", t1w, mask, "auto").mask is mask


def test_image_without_brain_is_refused(t1w):
    corner = t1w.grid.crop((0, 0, 0), (8, 8, 8))
    small = Image(torch.rand(1, 1, 8, 8, 8, generator=torch.Generator().manual_seed(0)), corner)
    with pytest.raises(InputError, match="No brain was found in the fixed image x_T2w.nii"):
        registration_input("fixed", small, None, "auto", "x_T2w.nii")


def test_unknown_contrast_is_refused(t1w):
    with pytest.raises(InputError, match=re.escape("There is no contrast 'T2w'. Choose auto or")):
        registration_input("fixed", t1w, None, "T2w")


@pytest.mark.parametrize(
    ("which", "expected"),
    [
        ([], ""),
        (["fixed"], "Registered as a T1w-like image: fixed. The quality metrics refer to it."),
        (["fixed", "moving"], "Registered as T1w-like images: fixed and moving. The quality"),
    ],
)
def test_replaced_images_are_described(which, expected):
    assert describe_replaced(which).startswith(expected)
