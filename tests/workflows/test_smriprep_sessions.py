"""sMRIPrep finds the results of several sessions as fMRIPrep 25.2 asks for them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from bids_fcnreg.bids.combined_sessions import combine_sessions
from bids_fcnreg.bids.output_names import output_names
from bids_fcnreg.bids.scan import Scan
from bids_fcnreg.bids.templates import resolve_template

SPACE = "MNI152NLin2009cAsym"
#: What fMRIPrep asks for: (subject, sessions) of its ``_create_processing_groups``.
SESSIONWISE = [["a"], ["b"]]  # --subject-anatomical-reference sessionwise
TRACKED = [["a", "b"]]  # its default: first-lex, with --track-sessions
UNTRACKED = [None]  # first-lex with --no-track-sessions

collect_derivatives = pytest.importorskip("smriprep.utils.bids").collect_derivatives


def write_results(root: Path, sessions: list[str], reference: str) -> Path:
    """Write a dataset, and images named as all results of its sessions; return the results."""
    image = nib.Nifti1Image(np.ones((4, 4, 4), "uint8"), np.eye(4))
    scans = []
    for session in sessions:
        path = root / f"bids/sub-01/ses-{session}/anat/sub-01_ses-{session}_T1w.nii.gz"
        path.parent.mkdir(parents=True)
        image.to_filename(path)
        scans.append(Scan("01", session, (path,)))
    if reference == "first-lex":
        scans, _ = combine_sessions(scans, {"01"})
    description = {"Name": "x", "BIDSVersion": "1.10.0"}
    for name in ("bids", "out"):
        (root / name).mkdir(exist_ok=True)
        (root / name / "dataset_description.json").write_text(json.dumps(description))
    template = replace(resolve_template(SPACE), resolution="1")
    for scan in scans:
        anat = root.joinpath("out", *scan.label.split("_"), "anat")
        anat.mkdir(parents=True)
        for name in output_names(scan, [template], {}):
            if name.endswith(".nii.gz"):
                image.to_filename(anat / name)
            else:
                (anat / name).write_text("{}")
    return root / "out"


@pytest.mark.parametrize(
    ("sessions", "reference", "asked", "expected"),
    [
        (["a", "b"], "sessionwise", SESSIONWISE, ["sub-01_ses-a", "sub-01_ses-b"]),
        (["a", "b"], "unbiased", SESSIONWISE, ["sub-01_ses-a", "sub-01_ses-b"]),
        (["a", "b"], "sessionwise", TRACKED, [None]),
        (["a", "b"], "sessionwise", UNTRACKED, [None]),
        (["a", "b"], "first-lex", UNTRACKED, ["sub-01"]),
        (["a", "b"], "first-lex", TRACKED, [None]),
        (["a"], "sessionwise", [["a"]], ["sub-01_ses-a"]),
        (["a"], "first-lex", [["a"]], ["sub-01_ses-a"]),
        (["a"], "first-lex", TRACKED, ["sub-01_ses-a"]),
        (["a"], "first-lex", UNTRACKED, ["sub-01_ses-a"]),
    ],
)  # fmt: skip
def test_one_result_of_each_kind_is_found(tmp_path, sessions, reference, asked, expected):
    """None: not found, or several images where one is needed; see the documentation."""
    out = write_results(tmp_path, sessions, reference)
    for session, label in zip(asked, expected, strict=True):
        found = collect_derivatives(out, "01", [SPACE], session_id=session)
        if label is None:
            assert not isinstance(found.get("t1w_preproc"), str)
            continue
        paths = [found[f"t1w_{key}"] for key in ("preproc", "mask", "dseg")]
        paths += [*found["t1w_tpms"], *found["transforms"][SPACE].values()]
        prefix = out.joinpath(*label.split("_"), "anat", label)
        assert len(paths) == 8 and all(isinstance(one, str) for one in paths)
        assert all(one.startswith(f"{prefix}_") and "ses-" not in one[len(str(prefix)) :]
                   for one in paths)  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize(("reference", "asked"), [("first-lex", []), ("sessionwise", ["a"])])
def test_smriprep_needs_no_registration_of_its_own(tmp_path, reference, asked):
    out = write_results(tmp_path, ["a", "b"], reference)
    script = Path(__file__).with_name("smriprep_graph.py")
    done = subprocess.run(
        [sys.executable, str(script), str(tmp_path / "bids"), str(out), SPACE, *asked],
        env=os.environ | {"TEMPLATEFLOW_HOME": str(tmp_path / "templateflow")},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr
    nodes = json.loads(done.stdout.splitlines()[-1])
    theirs = ("brain_extraction_wf", "register_template_wf", "fast", "anat_template_wf")
    assert all(any(node.startswith(name) for node in nodes["without"]) for name in theirs)
    assert not [node for node in nodes["with"] if node.startswith(theirs)]
