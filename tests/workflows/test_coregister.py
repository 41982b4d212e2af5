"""Alignment of the other images of a session, in the workflow."""

from __future__ import annotations

from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest

from bids_fcnreg.bids.output_names import check_output_names, output_names
from bids_fcnreg.bids.scan import OtherImage, Scan
from bids_fcnreg.bids.templates import resolve_template
from bids_fcnreg.config import Config
from bids_fcnreg.interfaces.coregistration import StoreAligned
from bids_fcnreg.workflows.base import init_single_subject_wf
from tests.workflows.test_base import feeds

SPACE = "MNI152NLin2009aSym"
OTHERS = ("T2w", "acq-hi_run-2_FLAIR", "ce-gd_T1w", "echo-1_part-mag_T2starw")


@pytest.fixture
def scan(config) -> Scan:
    """A scan with other images; two of them have lesion masks."""
    folder = config.bids_dir / "sub-01" / "ses-x" / "anat"
    folder.mkdir(parents=True)

    def write(ending: str):
        path = folder / f"sub-01_ses-x_{ending}.nii.gz"
        nib.save(nib.Nifti1Image(np.ones((4, 4, 4), "uint8"), np.eye(4)), path)
        return path

    lesions = {ending: (write(f"{ending}_label-lesion_mask"),) for ending in OTHERS[:2]}
    others = tuple(OtherImage(write(ending), lesions.get(ending, ())) for ending in OTHERS)
    return Scan("01", "x", (write("run-1_T1w"),), (write("label-lesion_mask"),), others=others)


@pytest.fixture
def workflow(config, scan, builtin):
    return init_single_subject_wf(config, scan, [builtin], {})


def test_an_image_reaches_a_template_in_one_interpolation(workflow):
    edges = feeds(workflow)
    top = workflow.name
    for key in ("T2w", "acq_hi_run_2_FLAIR", "ce_gd_T1w"):
        onto = f"{top}.align_{key}_to_{SPACE}_wf"
        chain = {f: (s, o) for s, o, t, f in edges if t == f"{onto}.chain"}
        assert chain == {
            "in1": (f"{top}.register_{SPACE}_wf.estimate", "transform"),
            "in2": (f"{top}.align_{key}_wf.align", "transform"),
        }
        fed = {(s, o) for s, o, t, f in edges if (t, f) == (f"{onto}.resample", "in_file")}
        assert fed == {(f"{top}.align_{key}_wf.align", "preproc")}


def test_lesions_of_all_images_are_excluded(workflow):
    edges = feeds(workflow)
    top = workflow.name
    excluded = {s for s, _, t, f in edges if f == "moving_exclude"}
    assert excluded == {f"{top}.unite_lesions_wf.unite"}
    united = {s for s, _, t, f in edges if t == f"{top}.unite_lesions_wf.merge"}
    moved = {f"{top}.align_{key}_wf.move_lesions" for key in ("T2w", "acq_hi_run_2_FLAIR")}
    assert united == {f"{top}.preprocess_wf.unite_lesions", *moved}


def test_without_lesions_nothing_is_excluded(config, scan, builtin):
    others = tuple(replace(other, lesions=()) for other in scan.others)
    scan = replace(scan, lesions=(), others=others)
    workflow = init_single_subject_wf(config, scan, [builtin], {})
    assert not [t for _, _, t, f in feeds(workflow) if f == "moving_exclude"]


def test_stored_files_have_the_planned_names(config, scan, workflow, builtin, tmp_path):
    """Every result of an other image, and no other file, is stored under a name of the list."""
    endings = {"quality": ".json", "transform": ".txt", "inverse": ".txt", "verdict": ".html"}
    names = set()
    for name in workflow.list_node_names():
        node = workflow.get_node(name)
        if not isinstance(node.interface, StoreAligned):
            continue
        kind = name.rpartition("ds_")[2]
        path = tmp_path / f"made{endings.get(kind, '.png' if kind == 'figure' else '.nii.gz')}"
        path.write_text("{}")
        node.interface.inputs.in_file = str(path)
        stored = node.interface.run().outputs.out_file
        names.add(stored.rpartition("/")[2])
    planned = set(output_names(scan, [builtin], {}))
    assert names <= planned
    of_others = planned - set(output_names(replace(scan, others=()), [builtin], {}))
    assert {name for name in of_others if not name.endswith((".json", ".svg"))} == {
        name for name in names if not name.endswith(".json")
    }
    assert {
        "sub-01_ses-x_space-T1w_desc-preproc_T2w.nii.gz",
        "sub-01_ses-x_from-T2w_to-T1w_mode-image_xfm.txt",
        "sub-01_ses-x_from-T1w_to-T2w_mode-image_xfm.txt",
        "sub-01_ses-x_from-T2w_to-T1w_mode-image_desc-alignment_xfm.json",
        f"sub-01_ses-x_acq-hi_run-2_space-{SPACE}_desc-preproc_FLAIR.nii.gz",
        "sub-01_ses-x_ce-gd_from-T1w_to-T1w_mode-image_xfm.txt",
        "sub-01_ses-x_echo-1_part-mag_space-T1w_desc-preproc_T2starw.nii.gz",
        "sub-01_ses-x_space-T1w_desc-aligned_T2w.png",
    } <= names
    check_output_names(scan, [resolve_template(SPACE)], {}, tmp_path)


@pytest.mark.parametrize(
    ("options", "aligns"),
    [
        ({}, True),
        ({"other_images": "ignore"}, False),
        ({"processing_level": "minimal"}, False),
    ],
)
def test_alignment_is_part_of_a_full_run_unless_it_is_switched_off(config, options, aligns):
    assert replace(config, **options).aligns_others == aligns
    assert isinstance(config, Config)


def test_methods_text_mentions_other_images_once(workflow, config, scan, builtin):
    text = workflow.visit_desc()
    assert text.count("other anatomical images of each session were rigidly aligned") == 1
    without = init_single_subject_wf(config, replace(scan, others=()), [builtin], {})
    assert "rigidly aligned" not in without.visit_desc()


def test_names_of_results_of_combined_sessions_have_no_session(config, scan, builtin, tmp_path):
    other = scan.images[0].with_name("sub-01_ses-y_run-1_T1w.nii.gz")
    other.write_bytes(scan.images[0].read_bytes())
    combined = replace(
        scan,
        session=None,
        images=(*scan.images, other),
        sessions=("x", "y"),
        others=scan.others[:1],
    )
    workflow = init_single_subject_wf(config, combined, [builtin], {})
    names = output_names(combined, [builtin], {})
    made = tmp_path / "made.nii.gz"
    nib.save(nib.Nifti1Image(np.ones((4, 4, 4), "uint8"), np.eye(4)), made)
    for name in ("align_T2w_wf.ds_aligned", "outputs_wf.ds_mask", "segment_wf.ds_dseg"):
        sink = workflow.get_node(name).interface
        sink.inputs.in_file = str(made)
        path = sink.run().outputs.out_file
        assert path.startswith(f"{config.output_dir}/sub-01/anat/sub-01_")
        assert path.rpartition("/")[2] in names
