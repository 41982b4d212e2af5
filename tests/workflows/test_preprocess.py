"""The preprocessing workflow, run for real on small images."""

from __future__ import annotations

import nibabel as nib
import numpy as np
import pytest
from nilearn.datasets import load_mni152_template

from bids_fcnreg.io import nifti
from bids_fcnreg.workflows.preprocess import METHODS, describe_extraction, init_preprocess_wf


@pytest.mark.parametrize("n_runs", [1, 2])
@pytest.mark.parametrize("has_lesion", [False, True])
def test_graph_is_complete(n_runs, has_lesion):
    workflow = init_preprocess_wf(
        n_runs=n_runs,
        skull_strip="auto",
        method="deepbet",
        omp_nthreads=3,
        has_lesion=has_lesion,
    )
    connected = {
        target
        for _, node, edge in workflow._graph.edges(data=True)
        if node.name == "outputnode"
        for _, target in edge["connect"]
    }
    wanted = {"preproc", "brain", "mask", "skull_stripped", "runs"} | (
        {"exclude"} if has_lesion else set()
    )
    assert connected == wanted
    assert workflow.get_node("extract").n_procs == 3
    assert workflow.get_node("debias").n_procs == 1  # its result depends on that
    assert workflow.get_node("average").n_procs == (3 if n_runs > 1 else 1)
    text = workflow.visit_desc()
    assert ("averaged" in text) == (n_runs > 1)
    assert ("Lesions" in text) == has_lesion
    assert "deepbet" in text


def test_brain_with_lesion_from_end_to_end(tmp_path):
    template = load_mni152_template(resolution=3)
    data = (template.get_fdata() * 800).astype(np.int16)
    shifted = np.roll(data, 2, axis=0)
    lesion = np.zeros(data.shape, np.uint8)
    lesion[20:24, 30:34, 30:34] = 1
    paths = {}
    for name, values in (("run-1", data), ("run-2", shifted), ("roi", lesion)):
        scan = nib.Nifti1Image(values, template.affine).as_reoriented([[1, -1], [0, 1], [2, -1]])
        paths[name] = str(nifti.write(tmp_path / f"{name}.nii.gz", scan))
    workflow = init_preprocess_wf(
        n_runs=2, skull_strip="skip", method="anatomy", omp_nthreads=2, has_lesion=True
    )
    workflow.base_dir = tmp_path / "work"
    workflow.inputs.inputnode.images = [paths["run-1"], paths["run-2"]]
    workflow.inputs.inputnode.lesions = [paths["roi"]]
    done = {node.name: node.result.outputs for node in workflow.run("Linear").nodes}
    preproc, brain = nib.load(done["scale"].out_file), nib.load(done["scale"].brain)
    mask = np.asanyarray(nib.load(done["extract"].mask).dataobj) > 0
    exclude = nib.load(done["unite_lesions"].out_file)
    for result in (preproc, brain, exclude):
        assert result.shape == mask.shape == data.shape
        np.testing.assert_allclose(result.affine, template.affine, atol=1e-3)
    np.testing.assert_array_equal(np.asanyarray(exclude.dataobj), lesion)
    assert done["extract"].skull_stripped is True
    assert np.percentile(preproc.get_fdata()[mask], 98) == pytest.approx(100, abs=0.1)
    # The second run, two voxels to the side, was aligned: the average still looks like the first.
    assert np.corrcoef(preproc.get_fdata()[mask], data[mask])[0, 1] > 0.97


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    ("stripped", "sentence"),
    [
        ([], "The brain was extracted with {}, unless the image"),
        ([False, False], "The brain was extracted with {}. Intensity"),
        ([True], "The images were skull-stripped already. Intensity"),
        ([True, False, False], "extracted with {} in 2 of 3 images; the others"),
    ],
)
def test_the_methods_text_says_whose_brain_was_extracted(stripped, sentence, method):
    workflow = init_preprocess_wf(
        n_runs=1, skull_strip="auto", method=method, omp_nthreads=1, has_lesion=False
    )
    text = describe_extraction(workflow.visit_desc(), stripped)
    assert sentence.format(METHODS[method]) in text
    assert ("unless" in text) == (not stripped)
