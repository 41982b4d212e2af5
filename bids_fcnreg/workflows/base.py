"""Main workflow: a sub-workflow for each subject and session, and its stages."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from niworkflows.engine.workflows import LiterateWorkflow

from bids_fcnreg import __version__
from bids_fcnreg.bids.order import choose_reference
from bids_fcnreg.bids.output_names import CONVERTED
from bids_fcnreg.bids.templates import templates_of
from bids_fcnreg.config import FIRST_LEX, SESSIONWISE, UNBIASED
from bids_fcnreg.workflows.coregister import (
    align_wf_name,
    init_align_wf,
    init_aligned_to_template_wf,
    init_unite_lesions_wf,
)
from bids_fcnreg.workflows.longitudinal import init_base_wf, init_changes_wf
from bids_fcnreg.workflows.outputs import (
    init_anat_outputs_wf,
    init_atlas_outputs_wf,
    init_template_outputs_wf,
)
from bids_fcnreg.workflows.preprocess import extractor, init_preprocess_wf
from bids_fcnreg.workflows.propagate import init_propagate_wf
from bids_fcnreg.workflows.register import init_estimate_node, init_register_wf
from bids_fcnreg.workflows.report import (
    init_anat_report_wf,
    init_atlas_report_wf,
    init_template_report_wf,
)
from bids_fcnreg.workflows.resources import node_name, voxels_of
from bids_fcnreg.workflows.segment import init_segment_wf
from bids_fcnreg.workflows.transform_formats import init_transform_formats_wf

if TYPE_CHECKING:
    from nipype.pipeline import engine as pe

    from bids_fcnreg.bids.atlases import Atlas
    from bids_fcnreg.bids.order import ReferenceSession
    from bids_fcnreg.bids.scan import Scan
    from bids_fcnreg.bids.templates import Template
    from bids_fcnreg.config import Config


def init_fcnreg_wf(
    config: Config,
    scans: Iterable[Scan],
    templates: Sequence[Template],
    atlases: Mapping[str, Sequence[Atlas]],
) -> LiterateWorkflow:
    """Register every subject and session to its templates.

    Parameters
    ----------
    config : Config
        Settings of the run; intermediate results are in `Config.cache_dir`.
    scans : iterable of Scan
        Scans to register; those without an image are skipped.
    templates : sequence of Template
        Skull-stripped brains, with their masks; see `templates_of`.
    atlases : mapping of str to sequence of Atlas
        Atlases to propagate to the subjects, by the template's ``space``.

    Returns
    -------
    LiterateWorkflow
        Contains a workflow `subject_wf_name` for each scan, or, in a longitudinal run, one
        `longitudinal_wf_name` for each participant with several sessions.
    """
    workflow = LiterateWorkflow(name="fcnreg_wf", base_dir=str(config.cache_dir))
    workflow.__desc__ = (
        f"Anatomical images were registered with *bids_fcnreg* {__version__}, "
        "which is built on *Nipype* [@nipype1]. "
    )
    workflow.add_nodes([
        init_single_subject_wf(config, theirs[0], templates_of(theirs[0], templates), atlases)
        if len(theirs) == 1
        else init_longitudinal_wf(config, theirs, templates_of(theirs[0], templates), atlases)
        for theirs in group_scans(config, scans)
    ])  # fmt: skip
    return workflow


def group_scans(config: Config, scans: Iterable[Scan]) -> list[list[Scan]]:
    """Group scans by workflow: single scans, or all sessions of a participant."""
    groups: dict[str, list[Scan]] = {}
    for scan in scans:
        if scan.images:
            groups.setdefault(scan.participant if config.longitudinal else scan.label, []).append(
                scan
            )
    return list(groups.values())


def workflow_labels(config: Config, scans: Iterable[Scan], whole: pe.Workflow) -> dict[str, str]:
    """Return the label of the scans of each sub-workflow of `init_fcnreg_wf`, by its name."""
    labels = {}
    for theirs in group_scans(config, scans):
        if len(theirs) == 1:
            labels[subject_wf_name(theirs[0])] = theirs[0].label
            continue
        name = longitudinal_wf_name(theirs)
        labels[name] = f"sub-{theirs[0].participant}"
        parts = {node.split(".")[0] for node in whole.get_node(name).list_node_names()}
        labels |= {
            part: scan.label for scan in theirs for part in parts if part.startswith(_prefix(scan))
        }
    return labels


def init_single_subject_wf(
    config: Config,
    scan: Scan,
    templates: Sequence[Template],
    atlases: Mapping[str, Sequence[Atlas]],
) -> LiterateWorkflow:
    """Process the images of one subject and session to derivatives and report.

    Parameters as in `init_fcnreg_wf`, with one scan.
    """
    workflow = LiterateWorkflow(name=subject_wf_name(scan))
    anatomy = _add_anatomy(workflow, config, scan, templates)
    if scan.others:
        anatomy = _add_others(workflow, config, scan, anatomy)
    for template in templates:
        register = _connect_template(workflow, config, scan, template, anatomy)
        _connect_others(workflow, config, scan, template, register)
        for atlas in atlases.get(template.space, ()):
            _connect_atlas(workflow, config, scan, template, atlas, anatomy, register)
    return workflow


def init_longitudinal_wf(
    config: Config,
    scans: Sequence[Scan],
    templates: Sequence[Template],
    atlases: Mapping[str, Sequence[Atlas]],
) -> LiterateWorkflow:
    """Process all sessions of one subject to derivatives through an unbiased base.

    Parameters as in `init_fcnreg_wf`, with the sessions of one participant.
    """
    workflow = LiterateWorkflow(name=longitudinal_wf_name(scans))
    base = init_base_wf(config=config, sessions=[scan.label for scan in scans])
    reference = choose_reference(config.bids_dir, scans, config.reference_session)
    anatomies = []
    for number, scan in enumerate(scans, start=1):
        anatomies.append(_add_anatomy(workflow, config, scan, templates, _prefix(scan), reference))
        workflow.connect([
            (anatomies[-1].preprocess, base, [
                ("outputnode.preproc", f"inputnode.image{number}"),
                ("outputnode.mask", f"inputnode.mask{number}"),
            ]),
        ])  # fmt: skip
    for template in templates:
        name = f"base_{node_name(template.space)}"
        estimate = init_estimate_node(config, template, name=name)
        workflow.connect([
            (base, estimate, [("outputnode.base", "moving"), ("outputnode.mask", "moving_mask")]),
        ])  # fmt: skip
        theirs = atlases.get(template.space, ())
        for number, (scan, anatomy) in enumerate(zip(scans, anatomies, strict=True), start=1):
            prefix = _prefix(scan)
            register = _connect_template(
                workflow, config, scan, template, anatomy, prefix, longitudinal=True
            )
            workflow.connect([
                (estimate, register, [
                    ("transform", "inputnode.base_transform"),
                    ("inverse", "inputnode.base_inverse"),
                    ("quality", "inputnode.base_quality"),
                ]),
                (base, register, [
                    (f"outputnode.transform{number}", "inputnode.within_transform"),
                    (f"outputnode.inverse{number}", "inputnode.within_inverse"),
                ]),
            ])  # fmt: skip
            for atlas in theirs:
                _connect_atlas(workflow, config, scan, template, atlas, anatomy, register, prefix)
        for atlas in theirs:
            changes = init_changes_wf(
                config=config,
                scans=scans,
                reference=reference,
                template=template,
                atlas=atlas,
                name=f"changes_{node_name(template.space)}_{node_name(atlas.label)}_wf",
            )
            workflow.connect([
                (estimate, changes, [("inverse", "inputnode.inverse")]),
                (base, changes, [
                    ("outputnode.base", "inputnode.base"),
                    ("outputnode.transforms", "inputnode.transforms"),
                ]),
            ])  # fmt: skip
    return workflow


def subject_wf_name(scan: Scan) -> str:
    """Return the name of the workflow of a subject and session, such as ``sub_01_ses_x_wf``."""
    return f"{node_name(scan.label)}_wf"


def longitudinal_wf_name(scans: Sequence[Scan]) -> str:
    """Return the name of the workflow of all sessions of a subject, such as ``sub_01_wf``."""
    return f"{node_name(f'sub-{scans[0].participant}')}_wf"


@dataclass(frozen=True)
class _Anatomy:
    """Workflows that compute and store results in a scan's native space.

    There is a segmentation if results of it are stored, or the registration needs it. `lesions`
    has all lesions of the scan as output ``exclude``; `other_lesions`, which of those that were
    drawn on other images are used.
    """

    preprocess: LiterateWorkflow
    outputs: LiterateWorkflow
    segment: LiterateWorkflow | None
    lesions: LiterateWorkflow | None = None
    other_lesions: LiterateWorkflow | None = None


def _prefix(scan: Scan) -> str:
    """Return the prefix of the names of a session's workflows in that of all sessions."""
    return f"{node_name(scan.label)}_"


def _add_anatomy(
    workflow: LiterateWorkflow,
    config: Config,
    scan: Scan,
    templates: Sequence[Template],
    prefix: str = "",
    reference: ReferenceSession | None = None,
) -> _Anatomy:
    """Add everything that does not depend on a template."""
    reused = scan.precomputed.preproc
    images = (reused,) if reused else scan.images
    preprocess = init_preprocess_wf(
        n_runs=len(images),
        n_sessions=1 if reused else max(1, len(scan.sessions)),
        skull_strip=config.skull_strip,
        method=extractor(config, scan),
        omp_nthreads=config.omp_nthreads,
        has_lesion=bool(scan.lesions),
        precomputed=scan.precomputed,
        voxels=voxels_of(images[0]),
        name=f"{prefix}preprocess_wf",
    )
    preprocess.inputs.inputnode.images = [str(path) for path in images]
    preprocess.inputs.average.names = [path.name for path in images]
    preprocess.inputs.extract.source = str(images[0])
    if scan.lesions:
        preprocess.inputs.inputnode.lesions = [str(path) for path in scan.lesions]
    outputs = init_anat_outputs_wf(config=config, scan=scan, name=f"{prefix}outputs_wf")
    report = init_anat_report_wf(
        config=config,
        scan=scan,
        templates=templates,
        reference=reference,
        name=f"{prefix}report_wf",
    )
    for consumer in (outputs, report):
        _connect_fields(
            workflow, preprocess, consumer, "preproc", "mask", "skull_stripped", "runs"
        )
    lesions = preprocess if scan.lesions else None
    if scan.is_t1w and not config.makes_everything:
        return _Anatomy(preprocess, outputs, None, lesions)
    segment = init_segment_wf(config=config, scan=scan, name=f"{prefix}segment_wf")
    _connect_fields(workflow, preprocess, segment, "preproc", "mask")
    workflow.connect(outputs, "outputnode.preproc", segment, "inputnode.stored")
    if config.makes_everything:
        _connect_fields(workflow, segment, report, "dseg", "dseg_lookup")
    return _Anatomy(preprocess, outputs, segment, lesions)


def _add_others(
    workflow: LiterateWorkflow, config: Config, scan: Scan, anatomy: _Anatomy
) -> _Anatomy:
    """Add the alignment of the other images of the session, and unite all lesions."""
    assert anatomy.segment is not None
    with_lesions = []
    for other in scan.others:
        align = init_align_wf(config=config, scan=scan, other=other)
        _connect_fields(workflow, anatomy.segment, align, "t1w_like")
        _connect_fields(workflow, anatomy.preprocess, align, "mask")
        workflow.connect(anatomy.outputs, "outputnode.preproc", align, "inputnode.stored")
        if other.lesions:
            with_lesions.append(align)
    if not with_lesions:
        return anatomy
    unite = init_unite_lesions_wf(scan=scan, n_others=len(with_lesions))
    _connect_fields(workflow, anatomy.preprocess, unite, "preproc", "mask")
    if anatomy.lesions is not None:
        _connect_fields(workflow, anatomy.lesions, unite, "exclude")
    for number, align in enumerate(with_lesions, start=1):
        workflow.connect([
            (align, unite, [
                (f"outputnode.{field}", f"inputnode.{field}{number}")
                for field in ("lesions", "used_lesions")
            ]),
        ])  # fmt: skip
    _connect_fields(workflow, unite, workflow.get_node("report_wf"), "used_lesions")
    return replace(anatomy, lesions=unite, other_lesions=unite)


def _connect_others(
    workflow: LiterateWorkflow,
    config: Config,
    scan: Scan,
    template: Template,
    register: LiterateWorkflow,
) -> None:
    """Add the other images of the session on a template's grid."""
    stored = workflow.get_node(f"outputs_{node_name(template.space)}_wf")
    for other in scan.others:
        align = workflow.get_node(align_wf_name(scan, other))
        onto = init_aligned_to_template_wf(
            config=config, scan=scan, other=other, template=template
        )
        fields = ("preproc", "skull_stripped", "transform", "stored_transform")
        _connect_fields(workflow, align, onto, *fields)
        workflow.connect([
            (register, onto, [("outputnode.transform", "inputnode.template_transform")]),
            (stored, onto, [("outputnode.transform", "inputnode.stored_template_transform")]),
        ])  # fmt: skip


def _connect_template(
    workflow: LiterateWorkflow,
    config: Config,
    scan: Scan,
    template: Template,
    anatomy: _Anatomy,
    prefix: str = "",
    longitudinal: bool = False,
) -> LiterateWorkflow:
    """Add the registration to one template, its results and its part of the report."""
    space, preprocess = node_name(template.space), anatomy.preprocess
    register = init_register_wf(
        config=config,
        template=template,
        scan=scan,
        longitudinal=longitudinal,
        name=f"{prefix}register_{space}_wf",
    )
    several_sessions = FIRST_LEX if scan.sessions else SESSIONWISE
    outputs = init_template_outputs_wf(
        config=config,
        scan=scan,
        template=template,
        anatomical_reference=UNBIASED if longitudinal else several_sessions,
        name=f"{prefix}outputs_{space}_wf",
    )
    report = init_template_report_wf(
        config=config, scan=scan, template=template, name=f"{prefix}report_{space}_wf"
    )
    _connect_fields(workflow, preprocess, register, "preproc", "mask")
    if scan.is_t1w:
        _connect_fields(workflow, preprocess, register, "brain")
    else:
        assert anatomy.segment is not None
        workflow.connect(anatomy.segment, "outputnode.t1w_like", register, "inputnode.brain")
    if anatomy.segment is not None:
        workflow.connect(anatomy.segment, "outputnode.quality", register, "inputnode.segmentation")
    if anatomy.lesions is not None and not longitudinal:
        _connect_fields(workflow, anatomy.lesions, register, "exclude")
    if anatomy.other_lesions is not None:
        _connect_fields(workflow, anatomy.other_lesions, outputs, "used_lesions")
    _connect_fields(workflow, preprocess, outputs, "skull_stripped")
    _connect_fields(workflow, anatomy.outputs, outputs, "preproc", "mask")
    results = ("transform", "inverse", "quality", "preproc_std", "mask_std", "log_jacobian")
    _connect_fields(workflow, register, outputs, *results)
    _connect_fields(workflow, register, report, "preproc_std", "transform", "quality")
    if not CONVERTED.keys().isdisjoint(config.xfm_formats):
        formats = init_transform_formats_wf(
            config=config, scan=scan, template=template, name=f"{prefix}outputs_{space}_formats_wf"
        )
        _connect_fields(workflow, outputs, formats, "transform", "inverse")
        _connect_fields(workflow, anatomy.outputs, formats, "preproc")
    return register


def _connect_atlas(
    workflow: LiterateWorkflow,
    config: Config,
    scan: Scan,
    template: Template,
    atlas: Atlas,
    anatomy: _Anatomy,
    register: LiterateWorkflow,
    prefix: str = "",
) -> None:
    """Add the propagation of an atlas, its results and its part of the report."""
    preprocess = anatomy.preprocess
    name = f"{node_name(template.space)}_{node_name(atlas.label)}"
    propagate = init_propagate_wf(
        template=template,
        atlas=atlas,
        voxels=voxels_of(scan.images[0]),
        name=f"{prefix}propagate_{name}_wf",
    )
    outputs = init_atlas_outputs_wf(
        config=config, scan=scan, template=template, atlas=atlas, name=f"{prefix}outputs_{name}_wf"
    )
    report = init_atlas_report_wf(
        config=config, scan=scan, template=template, atlas=atlas, name=f"{prefix}report_{name}_wf"
    )
    stored = workflow.get_node(f"{prefix}outputs_{node_name(template.space)}_wf")
    workflow.connect([
        (preprocess, propagate, [("outputnode.preproc", "inputnode.reference")]),
    ])  # fmt: skip
    _connect_fields(workflow, register, propagate, "inverse")
    _connect_fields(workflow, propagate, outputs, "labels", "lookup", "volumes")
    _connect_fields(workflow, stored, outputs, "inverse")
    _connect_fields(workflow, anatomy.outputs, outputs, "preproc")
    _connect_fields(workflow, preprocess, report, "preproc", "mask")
    _connect_fields(workflow, propagate, report, "labels", "lookup")


def _connect_fields(
    workflow: LiterateWorkflow, source: pe.Workflow, target: pe.Workflow, *fields: str
) -> None:
    """Connect outputs of a workflow to inputs of the same name of another."""
    pairs = [(f"outputnode.{field}", f"inputnode.{field}") for field in fields]
    workflow.connect([(source, target, pairs)])
