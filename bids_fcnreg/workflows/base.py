"""The whole workflow: one part for each subject and session, and how its stages join."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from niworkflows.engine.workflows import LiterateWorkflow

from bids_fcnreg import __version__
from bids_fcnreg.workflows.outputs import (
    init_anat_outputs_wf,
    init_atlas_outputs_wf,
    init_template_outputs_wf,
)
from bids_fcnreg.workflows.preprocess import init_preprocess_wf
from bids_fcnreg.workflows.propagate import init_propagate_wf
from bids_fcnreg.workflows.register import init_register_wf
from bids_fcnreg.workflows.report import (
    init_anat_report_wf,
    init_atlas_report_wf,
    init_template_report_wf,
)

if TYPE_CHECKING:
    from nipype.pipeline import engine as pe

    from bids_fcnreg.bids.atlases import Atlas
    from bids_fcnreg.bids.dataset import Scan
    from bids_fcnreg.bids.templates import Template
    from bids_fcnreg.config import Config


def init_fcnreg_wf(
    config: Config,
    scans: Iterable[Scan],
    templates: Sequence[Template],
    atlases: Mapping[str, Sequence[Atlas]],
) -> LiterateWorkflow:
    """Register every subject and session to every template.

    Parameters
    ----------
    config : Config
        Settings of the run; ``work_dir`` is where intermediate results go.
    scans : iterable of Scan
        What to register; those without a T1w are left out.
    templates : sequence of Template
        Brains without skull, with their masks.
    atlases : mapping of str to sequence of Atlas
        Atlases to bring into the subjects' space, by the template's ``space``.

    Returns
    -------
    LiterateWorkflow
        Holds a workflow called `subject_wf_name` for each scan.
    """
    workflow = LiterateWorkflow(name="fcnreg_wf", base_dir=str(config.work_dir))
    workflow.__desc__ = (
        f"T1-weighted (T1w) images were registered with *bids_fcnreg* {__version__}, "
        "which is built on *Nipype* [@nipype1]. "
    )
    subjects = [
        init_single_subject_wf(config, scan, templates, atlases) for scan in scans if scan.t1w
    ]
    workflow.add_nodes(subjects)
    return workflow


def init_single_subject_wf(
    config: Config,
    scan: Scan,
    templates: Sequence[Template],
    atlases: Mapping[str, Sequence[Atlas]],
) -> LiterateWorkflow:
    """Take the T1w images of one subject and session all the way to derivatives and report.

    Parameters are those of `init_fcnreg_wf`, with one scan.
    """
    workflow = LiterateWorkflow(name=subject_wf_name(scan))
    preprocess = init_preprocess_wf(
        n_runs=len(scan.t1w),
        skull_strip=config.skull_strip,
        omp_nthreads=config.omp_nthreads,
        has_lesion=bool(scan.lesions),
    )
    preprocess.inputs.inputnode.t1w = [str(path) for path in scan.t1w]
    if scan.lesions:
        preprocess.inputs.inputnode.lesions = [str(path) for path in scan.lesions]
    outputs = init_anat_outputs_wf(config=config, scan=scan)
    report = init_anat_report_wf(config=config, scan=scan, templates=templates)
    for consumer in (outputs, report):
        _join(workflow, preprocess, consumer, "preproc", "mask", "skull_stripped")
    for template in templates:
        register = _connect_template(workflow, config, scan, template, preprocess, outputs)
        for atlas in atlases.get(template.space, ()):
            _connect_atlas(workflow, config, scan, template, atlas, preprocess, register)
    return workflow


def subject_wf_name(scan: Scan) -> str:
    """Name of the workflow of a subject and session, such as ``sub_01_ses_x_wf``."""
    return f"{_identifier(scan.label)}_wf"


def _connect_template(
    workflow: LiterateWorkflow,
    config: Config,
    scan: Scan,
    template: Template,
    preprocess: LiterateWorkflow,
    anat_outputs: LiterateWorkflow,
) -> LiterateWorkflow:
    """Add the registration to one template, its results and its part of the report."""
    space = _identifier(template.space)
    register = init_register_wf(
        config=config,
        template=template,
        has_lesion=bool(scan.lesions),
        name=f"register_{space}_wf",
    )
    outputs = init_template_outputs_wf(
        config=config, scan=scan, template=template, name=f"outputs_{space}_wf"
    )
    report = init_template_report_wf(
        config=config, scan=scan, template=template, name=f"report_{space}_wf"
    )
    _join(workflow, preprocess, register, "preproc", "brain", "mask")
    if scan.lesions:
        _join(workflow, preprocess, register, "exclude")
    _join(workflow, preprocess, outputs, "skull_stripped")
    _join(workflow, anat_outputs, outputs, "preproc", "mask")
    results = ("transform", "inverse", "quality", "preproc_std", "mask_std", "log_jacobian")
    _join(workflow, register, outputs, *results)
    _join(workflow, register, report, "preproc_std", "quality")
    return register


def _connect_atlas(
    workflow: LiterateWorkflow,
    config: Config,
    scan: Scan,
    template: Template,
    atlas: Atlas,
    preprocess: LiterateWorkflow,
    register: LiterateWorkflow,
) -> None:
    """Add an atlas carried from one template, its results and its part of the report."""
    name = f"{_identifier(template.space)}_{_identifier(atlas.name)}"
    propagate = init_propagate_wf(
        template=template,
        atlas=atlas,
        omp_nthreads=config.omp_nthreads,
        name=f"propagate_{name}_wf",
    )
    outputs = init_atlas_outputs_wf(
        config=config, scan=scan, template=template, atlas=atlas, name=f"outputs_{name}_wf"
    )
    report = init_atlas_report_wf(
        config=config, scan=scan, template=template, atlas=atlas, name=f"report_{name}_wf"
    )
    stored = workflow.get_node(f"outputs_{_identifier(template.space)}_wf")
    workflow.connect([
        (preprocess, propagate, [("outputnode.preproc", "inputnode.reference")]),
    ])  # fmt: skip
    _join(workflow, register, propagate, "inverse")
    _join(workflow, propagate, outputs, "labels", "lookup", "volumes")
    _join(workflow, stored, outputs, "inverse")
    _join(workflow, workflow.get_node("outputs_wf"), outputs, "preproc")
    _join(workflow, preprocess, report, "preproc", "mask")
    _join(workflow, propagate, report, "labels")


def _join(
    workflow: LiterateWorkflow, source: pe.Workflow, target: pe.Workflow, *fields: str
) -> None:
    """Connect fields of the same name from one workflow's end to another's start."""
    pairs = [(f"outputnode.{field}", f"inputnode.{field}") for field in fields]
    workflow.connect([(source, target, pairs)])


def _identifier(label: str) -> str:
    """A label as part of the name of a node."""
    return re.sub(r"\W", "_", label.replace("-", "_"))
