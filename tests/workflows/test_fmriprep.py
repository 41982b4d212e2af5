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
from bids_fcnreg.bids.combined_sessions import combine_sessions
from bids_fcnreg.bids.derivatives import prepare_output
from bids_fcnreg.bids.output_names import output_names
from bids_fcnreg.bids.scan import OtherImage, Scan
from bids_fcnreg.bids.templates import Template

SPACE = "MNI152NLin2009cAsym"


def make_study(folder: Path, sessions: list[str | None], reference: str) -> SimpleNamespace:
    """Write a dataset with T1w and BOLD images, and empty files with the names of all outputs."""
    bids, out = folder / "bids", folder / "out"
    scans = [_write_session(bids, session) for session in sessions]
    content = {"Name": "x", "BIDSVersion": "1.10.0"}
    (bids / "dataset_description.json").write_text(json.dumps(content))
    prepare_output(out, bids)
    if reference == "first-lex":
        scans, _ = combine_sessions(scans, {"01"})
    template = Template(SPACE, None, "1", scans[0].images[0], None)
    atlases = {SPACE: [Atlas("tissue", None, ()), Atlas("A", None, (), segmentation="B")]}
    for scan in scans:
        anat = out.joinpath(*scan.label.split("_"), "anat")
        anat.mkdir(parents=True)
        for name in output_names(scan, [template], atlases):
            if not name.endswith((".svg", ".png", ".html")):
                (anat / name).write_text("{}" if name.endswith(".json") else "")
    return SimpleNamespace(bids=bids, out=out, anat=out / "sub-01" / "anat", folder=folder)


def _write_session(bids: Path, session: str | None) -> Scan:
    label = f"sub-01_ses-{session}" if session else "sub-01"
    directory = bids.joinpath(*label.split("_"))
    images = {"anat": "T1w", "func": "task-rest_bold"}
    for kind, ending in images.items():
        path = directory / kind / f"{label}_{ending}.nii.gz"
        path.parent.mkdir(parents=True)
        shape = (8, 8, 8, 9) if kind == "func" else (8, 8, 8)
        nifti = nib.Nifti1Image(np.ones(shape, np.float32), np.diag([4, 4, 4, 1]))
        nifti.header.set_zooms((4, 4, 4, 2)[: len(shape)])
        nifti.header.set_xyzt_units("mm", "sec")
        nib.save(nifti, path)
    sidecar = {"TaskName": "rest", "RepetitionTime": 2.0, "PhaseEncodingDirection": "j-"}
    path.with_name(f"{label}_task-rest_bold.json").write_text(json.dumps(sidecar))
    other = OtherImage(Path(f"{label}_T2w.nii.gz"), "T2w")
    t1w = directory / "anat" / f"{label}_T1w.nii.gz"
    return Scan("01", session, (t1w,), others=(other,))


def test_smriprep_finds_its_files_among_all_outputs(tmp_path):
    study = make_study(tmp_path, [None], "sessionwise")
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


#: Parts of the anatomical workflow that results of ours replace.
REPLACED = ("brain_extraction_wf", "register_template_wf", "fast", "anat_template_wf")
NO_SESSIONS = "--no-track-sessions"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("sessions", "ours", "options", "workflows"),
    [
        ([None], "sessionwise", [], ["sub_01_wf"]),
        (["a", "b"], "first-lex", ["first-lex", NO_SESSIONS], ["sub_01_wf"]),
        (["a", "b"], "first-lex", ["unbiased", NO_SESSIONS], ["sub_01_wf"]),
        (["a", "b"], "sessionwise", ["sessionwise"], ["sub_01_ses_a_wf", "sub_01_ses_b_wf"]),
    ],
    ids=["one", "first-lex", "unbiased", "sessionwise"],
)
def test_fmriprep_drops_its_anatomical_registration(tmp_path, sessions, ours, options, workflows):
    pytest.importorskip("fmriprep")
    study = make_study(tmp_path, sessions, ours)
    given = ["--subject-anatomical-reference", *options] if options else []
    graphs = build_graphs(study, given)
    for graph in graphs.values():
        assert {name.partition(".")[0] for name in graph} == set(workflows)
    for workflow in workflows:
        anatomical = {
            name: {
                node.partition("anat_fit_wf.")[2]: program
                for node, program in graph.items()
                if node.startswith(f"{workflow}.anat_fit_wf.")
            }
            for name, graph in graphs.items()
        }
        assert all(any(n.startswith(one) for n in anatomical["without"]) for one in REPLACED)
        assert not [node for node in anatomical["with"] if node.startswith(REPLACED)]
        assert set(anatomical["with"].values()) <= {"", "antsApplyTransforms"}


def build_graphs(study: SimpleNamespace, options: list[str]) -> dict[str, dict[str, str]]:
    """Return the programs of the nodes of fMRIPrep's workflows with and without derivatives."""
    script = Path(__file__).with_name("fmriprep_graph.py")
    template = BUILTIN_FILES[SPACE].path("t1")
    environment = {"TEMPLATEFLOW_HOME": str(study.folder / "templateflow"), "NIPYPE_NO_ET": "1"}
    done = subprocess.run(
        [sys.executable, str(script), str(study.bids), str(study.out), str(template), *options],
        env=os.environ | environment | {"NO_ET": "1"},
        cwd=study.folder,
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])
