"""Existing masks and segmentations, in any orientation of the axes."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from bids_fcnreg.bids.scan import Precomputed
from bids_fcnreg.interfaces.precomputed import ReuseMask, ReuseTissue
from bids_fcnreg.io import nifti
from bids_fcnreg.workflows.preprocess import init_preprocess_wf

ORDERS = [[[0, 1], [1, 1], [2, 1]], [[0, -1], [1, 1], [2, -1]], [[2, 1], [0, -1], [1, 1]]]


def head(shape: tuple[int, int, int] = (60, 70, 64)) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Intensities of a head with a lopsided brain in it, its brain mask, and its tissues."""
    x, y, z = np.indices(shape)
    away = np.sqrt(((x - 28) / 16) ** 2 + ((y - 37) / 22) ** 2 + ((z - 34) / 17) ** 2)
    tissue = np.select([away < 0.4, away < 0.7, away < 1], [2, 1, 3], 0).astype("uint8")
    data = np.array([0, 70, 100, 30], "float32")[tissue] + 60 * ((away > 1.2) & (away < 1.5))
    return data.astype("float32"), (tissue > 0).astype("uint8"), tissue


def write(path: Path, data: np.ndarray, order: list[list[int]]) -> str:
    affine = np.array([[3.0, 0, 0, -80], [0, 3, 0, -110], [0, 0, 3, -90], [0, 0, 0, 1]])
    return str(nifti.write(path, nib.Nifti1Image(data, affine).as_reoriented(order)))


def read(path: str) -> np.ndarray:
    return np.asanyarray(nib.load(path).dataobj)


@pytest.mark.parametrize("order", ORDERS)
def test_mask_and_tissue_are_on_the_grid_of_the_image(tmp_path, monkeypatch, order):
    monkeypatch.chdir(tmp_path)
    data, mask, tissue = head()
    image = write(tmp_path / "image.nii.gz", data, ORDERS[0])
    found = ReuseMask(in_file=image, mask=write(tmp_path / "m.nii.gz", mask, order)).run().outputs
    assert np.array_equal(read(found.mask), mask) and not found.skull_stripped
    brain = write(tmp_path / "brain.nii.gz", data * mask, ORDERS[0])
    again = ReuseMask(in_file=brain, mask=write(tmp_path / "m.nii.gz", mask, order)).run().outputs
    assert again.skull_stripped

    # Labels 2, 3 and 1 in the file are those of GM, WM and CSF.
    stored = write(tmp_path / "dseg.nii.gz", np.array([0, 2, 3, 1], "uint8")[tissue], order)
    done = ReuseTissue(in_file=image, dseg=stored, labels=[2, 3, 1]).run().outputs
    assert np.array_equal(read(done.dseg), tissue)
    for number, path in enumerate((done.gm, done.wm, done.csf), start=1):
        assert np.allclose(read(path), tissue == number)
    maps = [write(tmp_path / f"{n}.nii.gz", np.float32(0.8) * (tissue == n), order)
            for n in (1, 2, 3)]  # fmt: skip
    done = ReuseTissue(in_file=image, probseg=maps).run().outputs
    assert np.array_equal(read(done.dseg), tissue)
    assert np.allclose(read(done.wm), 0.8 * (tissue == 2), atol=0.01)


@pytest.mark.parametrize("reuse", ["mask", "preproc", "both"])
def test_what_exists_is_not_computed_again(tmp_path, reuse):
    data, mask, _ = head()
    image = write(tmp_path / "sub-01_T1w.nii.gz", data, ORDERS[1])
    paths = {
        "preproc": write(tmp_path / "sub-01_desc-preproc_T1w.nii.gz", 7 * data, ORDERS[0]),
        "mask": write(tmp_path / "sub-01_desc-brain_mask.nii.gz", mask, ORDERS[2]),
    }
    used = {key: Path(path) for key, path in paths.items() if reuse in (key, "both")}
    precomputed = Precomputed(**used, origins=dict.fromkeys(used.values(), "fmriprep"))
    workflow = init_preprocess_wf(
        n_runs=1,
        skull_strip="skip",
        method="deepbet",
        omp_nthreads=1,
        has_lesion=False,
        precomputed=precomputed,
    )
    names = workflow.list_node_names()
    assert ("debias" in names) == (reuse == "mask")
    text = workflow.visit_desc()
    assert ("N4" in text) == (reuse == "mask")
    assert ("brain mask was taken from fmriprep" in text) == (reuse != "preproc")
    assert ("image was taken from fmriprep" in text) == (reuse != "mask")
    assert ("skull-stripped already" in text) == (reuse == "preproc")
    workflow.base_dir = tmp_path / "work"
    workflow.inputs.inputnode.images = [str(used.get("preproc", image))]
    done = {node.name: node.result.outputs for node in workflow.run("Linear").nodes}
    values = read(done["scale"].out_file)
    if reuse != "preproc":
        assert np.array_equal(read(done["extract"].mask), mask)
        assert not done["extract"].skull_stripped
    if reuse == "both":  # only scaled
        assert np.allclose(values, data * values.max() / data.max(), atol=0.02)
        assert np.percentile(values[mask > 0], 98) == pytest.approx(100, abs=1)
