"""The wiring: what there is for each subject, and what feeds what."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from nipype.pipeline.engine.utils import generate_expanded_graph

from bids_fcnreg.bids.atlases import default_atlases, prepare_atlas
from bids_fcnreg.bids.scan import Scan
from bids_fcnreg.config import Config
from bids_fcnreg.workflows.base import (
    init_fcnreg_wf,
    init_single_subject_wf,
    subject_wf_name,
    workflow_labels,
)


def make_scan(
    config: Config, session: str | None = None, lesion: bool = False, suffix: str = "T1w"
) -> Scan:
    """A scan whose files exist, small."""
    label = "sub-01" + (f"_ses-{session}" if session else "")
    folder = config.bids_dir.joinpath(*label.split("_"), "anat")
    folder.mkdir(parents=True)
    files = [folder / f"{label}_{suffix}.nii.gz", folder / f"{label}_label-lesion_mask.nii.gz"]
    for path in files:
        nib.save(nib.Nifti1Image(np.ones((4, 4, 4), "uint8"), np.eye(4)), path)
    return Scan("01", session, (files[0],), (files[1],) if lesion else ())


def feeds(workflow) -> set[tuple[str, str, str, str]]:
    """Every connection between nodes that do something: from node, output, to node, input."""
    flat = generate_expanded_graph(workflow._create_flat_graph())
    return {
        (source.fullname, output if isinstance(output, str) else output[0], target.fullname, field)
        for source, target, data in flat.edges(data=True)
        for output, field in data["connect"]
    }


def test_one_workflow_for_each_subject_and_session(config, builtin, tmp_path):
    scans = [make_scan(config), make_scan(config, "x"), Scan("02", None, ())]
    workflow = init_fcnreg_wf(config, scans, [builtin], {})
    names = {name.split(".")[0] for name in workflow.list_node_names()}
    assert names == {"sub_01_wf", "sub_01_ses_x_wf"}
    assert names == {subject_wf_name(scan) for scan in scans if scan.images}
    assert workflow.base_dir == str(config.cache_dir)


def test_two_templates_and_an_atlas(config, builtin, tmp_path):
    other = replace(builtin, name="Other", cohort="3", builtin=False)
    atlas = prepare_atlas(default_atlases(builtin)[0], builtin, tmp_path)
    scan = make_scan(config)
    workflow = init_single_subject_wf(config, scan, [builtin, other], {builtin.space: [atlas]})
    names = set(workflow.list_node_names())
    assert {"register_MNI152NLin2009aSym_wf.estimate", "register_Other_3_wf.estimate"} <= names
    propagated = {name.split(".")[0] for name in names if name.startswith("propagate")}
    assert propagated == {f"propagate_MNI152NLin2009aSym_{atlas.name}_wf"}
    forward = workflow.get_node("outputs_Other_3_wf.ds_transform").interface.inputs
    assert (getattr(forward, "from"), forward.to) == ("T1w", "Other+3")
    labels = workflow.get_node(f"propagate_MNI152NLin2009aSym_{atlas.name}_wf.resample")
    assert labels.interface.inputs.interpolation == "label"
    assert labels.interface.inputs.in_file == str(atlas.image)


def test_sessions_go_to_the_template_by_way_of_their_base(config, builtin, tmp_path):
    config = replace(config, subject_anatomical_reference="unbiased")
    atlas = prepare_atlas(default_atlases(builtin)[0], builtin, tmp_path)
    scans = [make_scan(config, "a"), make_scan(config, "b"), Scan("02", None, ())]
    whole = init_fcnreg_wf(config, scans, [builtin], {builtin.space: [atlas]})
    edges = feeds(whole)
    top = "fcnreg_wf.sub_01_wf"
    base = f"{top}.base_MNI152NLin2009aSym"
    assert {s for s, o, t, f in edges if t == base and f == "moving"} == {
        f"{top}.base_wf.sessions"
    }
    for session in ("a", "b"):
        register = f"{top}.sub_01_ses_{session}_register_MNI152NLin2009aSym_wf"
        sources = {(s, o, f) for s, o, t, f in edges if t == f"{register}.estimate"}
        assert {
            (base, "transform", "base_transform"),
            (base, "inverse", "base_inverse"),
        } <= sources
        fed = {s for s, _, t, f in edges if t == f"{register}.to_template" and f == "transform"}
        assert fed == {f"{register}.estimate"}
    labels = workflow_labels(config, scans, whole)
    assert labels["sub_01_wf"] == "sub-01"
    assert labels["sub_01_ses_b_preprocess_wf"] == "sub-01_ses-b"


def test_a_single_session_needs_no_base(config, builtin):
    config = replace(config, subject_anatomical_reference="unbiased")
    whole = init_fcnreg_wf(config, [make_scan(config, "a")], [builtin], {})
    assert {name.split(".")[0] for name in whole.list_node_names()} == {"sub_01_ses_a_wf"}


def test_everything_is_resampled_from_the_original_through_the_one_transform(
    config, builtin, tmp_path
):
    atlas = prepare_atlas(default_atlases(builtin)[0], builtin, tmp_path)
    scan = make_scan(config)
    workflow = init_single_subject_wf(config, scan, [builtin], {builtin.space: [atlas]})
    edges = feeds(workflow)
    top = subject_wf_name(scan)
    register = f"{top}.register_MNI152NLin2009aSym_wf"
    resample = f"{top}.propagate_MNI152NLin2009aSym_{atlas.name}_wf.resample"
    uses = {
        f"{register}.to_template": "transform",
        resample: "inverse",
    }
    for node, output in uses.items():
        sources = {(s, o) for s, o, t, f in edges if t == node and f == "transform"}
        assert sources == {(f"{register}.estimate", output)}
    for field in ("preproc", "mask"):
        (source,) = {s for s, _, t, f in edges if (t, f) == (f"{register}.to_template", field)}
        assert source.startswith(f"{top}.preprocess_wf.")
    to_report = {s for s, o, t, _ in edges if t.endswith("ds_contours")}
    assert to_report == {f"{top}.report_MNI152NLin2009aSym_wf.contours"}


@pytest.mark.parametrize("lesion", [False, True])
def test_lesion_is_left_out_of_the_similarity(config, builtin, lesion):
    scan = make_scan(config, lesion=lesion)
    workflow = init_single_subject_wf(config, scan, [builtin], {})
    targets = {(t.rsplit(".", 1)[-1], f) for _, _, t, f in feeds(workflow)}
    assert (("estimate", "moving_exclude") in targets) == lesion


@pytest.mark.parametrize(
    ("suffix", "is_builtin", "checked"),
    [("T1w", False, False), ("T2w", False, True), ("FLAIR", True, False)],
)
def test_contrast_of_the_template_is_checked_for_t1w_like_images(
    config, builtin, suffix, is_builtin, checked
):
    """The contrast of the built-in templates is known."""
    template = replace(builtin, builtin=is_builtin)
    workflow = init_single_subject_wf(config, make_scan(config, suffix=suffix), [template], {})
    estimate = workflow.get_node("register_MNI152NLin2009aSym_wf.estimate")
    assert estimate.inputs.to_t1w_like is checked


@pytest.mark.parametrize(("device", "gpu"), [("cpu", False), ("cuda:0", True)])
def test_registration_takes_one_gpu_slot(config, builtin, device, gpu):
    config = replace(config, device=device)
    workflow = init_single_subject_wf(config, make_scan(config), [builtin], {})
    node = workflow.get_node("register_MNI152NLin2009aSym_wf.estimate")
    assert node.is_gpu_node() == gpu
    assert node.n_procs == (1 if gpu else 2)
    assert 1 < node.mem_gb < 8


def test_methods_text_is_the_same_for_one_and_many_subjects(config, builtin):
    first, second = make_scan(config), make_scan(config, "x")
    one = init_fcnreg_wf(config, [first], [builtin], {}).visit_desc()
    two = init_fcnreg_wf(config, [first, second], [builtin], {}).visit_desc()
    assert one == two
    assert (
        "MNI152NLin2009aSym" in one and "symmetric optimization of local cross-correlation" in one
    )


def test_inputs_do_not_change_between_runs(config, builtin):
    """Nodes know by the hash of their inputs whether they have run."""
    scan = make_scan(config)

    def hashes() -> dict[str, str]:
        workflow = init_fcnreg_wf(config, [scan], [builtin], {})
        nodes = [workflow.get_node(name) for name in workflow.list_node_names()]
        return {node.fullname: node.inputs.get_hashval(hash_method="content")[1] for node in nodes}

    assert hashes() == hashes()
    assert Path(config.work_dir).exists() is False
