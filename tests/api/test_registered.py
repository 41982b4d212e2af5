"""What a registration in memory offers: metrics, plots, transforms."""

from __future__ import annotations

import matplotlib
import nibabel as nib
import numpy as np
import pytest
from nilearn.plotting.displays import OrthoSlicer

import bids_fcnreg as fr
from bids_fcnreg.qc.metrics import REGISTRATION_METRICS

pytestmark = pytest.mark.slow


def brain(shift: float = 0.0) -> nib.Nifti1Image:
    """A 6 mm image of a lobed body with a dark core."""
    affine = np.diag([6.0, 6.0, 6.0, 1.0])
    affine[:3, 3] = -95
    x, y, z = nib.affines.apply_affine(affine, np.moveaxis(np.indices((32,) * 3), 0, -1)).T
    x = x - shift
    lobes = 1 + 0.15 * np.cos(3 * np.arctan2(y, x)) + 0.1 * z / 60
    radius = np.sqrt((x / 62) ** 2 + (y / 78) ** 2 + (z / 55) ** 2) / lobes
    core = np.clip((0.45 - np.hypot(radius, (x - 15) / 90)) * 10, 0, 1)
    values = 100 * np.clip((1 - radius) * 8, 0, 1) - 55 * core
    image = nib.Nifti1Image(values.T.clip(0).astype("float32"), affine)
    image.set_sform(affine, code=4)
    image.set_qform(affine, code=4)
    return image


@pytest.fixture(scope="module")
def result() -> fr.Registered:
    return fr.register(brain(), brain(12.0), mode="predict")


def test_metrics_are_a_table_by_name(result):
    assert set(result.metrics.index) <= {metric.key for metric in REGISTRATION_METRICS}
    for key, value in result.metrics["value"].items():
        assert value == result.quality[key]
    assert result.metrics.unit["inverse_consistency_mm"] == "mm"
    assert result.metrics.meaning["similarity"] == "Local correlation after registration"


def test_header_of_the_warped_image_is_that_of_the_fixed_image(result):
    header = result.warped.header
    assert header.get_xyzt_units()[0] == "mm"
    assert (header["sform_code"], header["qform_code"]) == (4, 4)
    np.testing.assert_allclose(header.get_best_affine(), brain().affine)


@pytest.mark.parametrize("before", [False, True])
def test_plot_is_a_display_of_nilearn(result, before, tmp_path):
    assert matplotlib.get_backend().lower() == "agg"
    display = result.plot(before=before, cut_coords=(0, 0, 0))
    try:
        assert isinstance(display, OrthoSlicer)
        shown = display.axes["z"].ax.images
        assert len(shown) == 3  # background, image and edges
    finally:
        display.close()
    assert result.plot(before=before, output_file=tmp_path / "plot.png") is None
    assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG")


def test_plots_before_and_after_show_different_images(result):
    pictures = []
    for before in (True, False):
        display = result.plot(before=before, cut_coords=(0, 0, 0))
        pictures.append(np.asarray(display.axes["z"].ax.images[1].get_array().filled(0)))
        display.close()
    assert np.abs(pictures[0] - pictures[1]).max() > 10


def test_notebooks_show_verdict_and_metrics(result):
    page = result._repr_html_()
    assert f"Verdict: {result.quality['verdict']}" in page
    assert "Local correlation after registration" in page


def test_transforms_in_memory_are_those_of_the_files(result, tmp_path):
    result.save(tmp_path / "pair_")
    points = np.random.default_rng(0).uniform(-40, 40, (50, 3))
    for memory, file in (("forward", "pair_xfm.h5"), ("inverse", "pair_inverse_xfm.h5")):
        transform = getattr(result, memory)
        from_file = fr.map_points(points, tmp_path / file)
        np.testing.assert_allclose(fr.map_points(points, transform), from_file, atol=0.02)
    warped = fr.apply(brain(12.0), brain(), result.forward).get_fdata()
    np.testing.assert_array_equal(warped, result.warped.get_fdata())
    back = fr.map_points(fr.map_points(points, result.forward), (result.forward, True))
    assert np.abs(back - points).max() < 0.5


def test_a_registration_starts_from_a_matrix():
    shift = np.eye(4)
    shift[0, 3] = 12
    found = fr.register(brain(), brain(12.0), transform="rigid", initial=shift)
    np.testing.assert_allclose(found.affine, shift, atol=0.3)
