"""fMRIPrep and sMRIPrep find our derivatives by their names, and use nothing else of them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import nibabel as nib
import numpy as np
import pytest

from bids_fcnreg.bids.atlases import Atlas
from bids_fcnreg.bids.builtin_templates import BUILTIN_FILES
from bids_fcnreg.bids.derivatives import prepare_output
from bids_fcnreg.bids.output_names import output_names
from bids_fcnreg.bids.scan import OtherImage, Scan
from bids_fcnreg.bids.templates import Template

SPACE = "MNI152NLin2009cAsym"


@pytest.fixture
def study(tmp_path):
    """A dataset with a T1w and a BOLD image, and empty files with the names of all outputs."""
    bids, out = tmp_path / "bids", tmp_path / "out"
    images = {"anat/sub-01_T1w": (8, 8, 8), "func/sub-01_task-rest_bold": (8, 8, 8, 9)}
    for name, shape in images.items():
        path = bids / "sub-01" / f"{name}.nii.gz"
        path.parent.mkdir(parents=True)
        nifti = nib.Nifti1Image(np.ones(shape, np.float32), np.diag([4, 4, 4, 1]))
        nifti.header.set_zooms((4, 4, 4, 2)[: len(shape)])
        nifti.header.set_xyzt_units("mm", "sec")
        nib.save(nifti, path)
    sidecar = {"TaskName": "rest", "RepetitionTime": 2.0, "PhaseEncodingDirection": "j-"}
    path.with_name("sub-01_task-rest_bold.json").write_text(json.dumps(sidecar))
    content = {"Name": "x", "BIDSVersion": "1.10.0"}
    (bids / "dataset_description.json").write_text(json.dumps(content))
    prepare_output(out, bids)
    t1w = bids / "sub-01" / "anat" / "sub-01_T1w.nii.gz"
    other = OtherImage(Path("sub-01_T2w.nii.gz"), "T2w")
    template = Template(SPACE, None, "1", t1w, None)
    atlases = {SPACE: [Atlas("tissue", None, ()), Atlas("A", None, (), segmentation="B")]}
    anat = out / "sub-01" / "anat"
    anat.mkdir(parents=True)
    for name in output_names(Scan("01", None, (t1w,), others=(other,)), [template], atlases):
        if not name.endswith((".svg", ".png", ".html")):
            (anat / name).write_text("{}" if name.endswith(".json") else "")
    return SimpleNamespace(bids=bids, out=out, anat=anat, folder=tmp_path)


def test_smriprep_finds_its_files_among_all_outputs(study):
    collect = pytest.importorskip("smriprep.utils.bids").collect_derivatives
    found = collect(study.out, "01", [SPACE])
    names = {
        "t1w_preproc": "desc-preproc_T1w.nii.gz",
        "t1w_mask": "desc-brain_mask.nii.gz",
        "t1w_dseg": "dseg.nii.gz",
    }
    for key, name in names.items():
        assert found[key] == str(study.anat / f"sub-01_{name}")
    assert len(found["t1w_tpms"]) == 3
    assert found["transforms"][SPACE] == {
        "forward": str(study.anat / f"sub-01_from-T1w_to-{SPACE}_mode-image_xfm.h5"),
        "reverse": str(study.anat / f"sub-01_from-{SPACE}_to-T1w_mode-image_xfm.h5"),
    }
    assert "t2w_preproc" not in found  # ours is on the grid of the T1w image


def test_fmriprep_drops_its_anatomical_registration(study):
    pytest.importorskip("fmriprep")
    script = Path(__file__).with_name("fmriprep_graph.py")
    template = BUILTIN_FILES[SPACE].path("t1")
    environment = {"TEMPLATEFLOW_HOME": str(study.folder / "templateflow"), "NIPYPE_NO_ET": "1"}
    done = subprocess.run(
        [sys.executable, str(script), str(study.bids), str(study.out), str(template)],
        env=os.environ | environment | {"NO_ET": "1"},
        cwd=study.folder,
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert done.returncode == 0, done.stderr
    graphs = json.loads(done.stdout.splitlines()[-1])
    anatomical = {
        name: {node.partition("anat_fit_wf.")[2]: program for node, program in graph.items()}
        for name, graph in graphs.items()
    }
    theirs = ("brain_extraction_wf", "register_template_wf", "fast", "anat_template_wf")
    assert all(any(n.startswith(one) for n in anatomical["without"]) for one in theirs)
    assert not [node for node in anatomical["with"] if node.startswith(theirs)]
    assert set(anatomical["with"].values()) <= {"", "antsApplyTransforms"}
