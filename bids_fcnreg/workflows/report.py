"""Figures of the visual report of each subject."""

from __future__ import annotations

import platform
from collections.abc import Iterable
from typing import TYPE_CHECKING

from nipype.interfaces import utility as niu
from nipype.pipeline import engine as pe
from niworkflows.engine.workflows import LiterateWorkflow

from bids_fcnreg import __version__
from bids_fcnreg.bids.scan import session_title
from bids_fcnreg.fcn.modes import MODES
from bids_fcnreg.interfaces.figures import Deformation, Flicker, Slices
from bids_fcnreg.interfaces.quality import QualityTable
from bids_fcnreg.interfaces.reports import Summary
from bids_fcnreg.workflows.outputs import sink
from bids_fcnreg.workflows.preprocess import extractor
from bids_fcnreg.workflows.resources import (
    DEFORMATION,
    DRAW,
    field_node,
    sized_node,
    version_of,
    voxels_of,
)

if TYPE_CHECKING:
    from bids_fcnreg.bids.atlases import Atlas
    from bids_fcnreg.bids.order import ReferenceSession
    from bids_fcnreg.bids.scan import Scan
    from bids_fcnreg.bids.templates import Template
    from bids_fcnreg.config import Config


def init_anat_report_wf(
    *,
    config: Config,
    scan: Scan,
    templates: Iterable[Template],
    reference: ReferenceSession | None = None,
    name: str = "report_wf",
) -> LiterateWorkflow:
    """Make the summary of a subject, and the figure of the brain mask.

    Parameters
    ----------
    config : Config
        Settings of the run.
    scan : Scan
        Scan with its images.
    templates : iterable of Template
        Templates it is registered to.
    reference : ReferenceSession, optional
        The session that changes are relative to.
    name : str
        Name of the workflow.

    Inputs
    ------
    preproc, mask
        Preprocessed image and brain mask.
    skull_stripped
        Whether the image was skull-stripped in the input.
    runs
        Sidecar fields about the averaged runs; see
        `bids_fcnreg.preprocessing.runs.describe_average`.
    dseg, dseg_lookup
        Tissue of each voxel, and the names of the tissues.
    used_lesions
        Lesion masks of other images that were used; optional.
    """
    workflow = LiterateWorkflow(name=name)
    images = ("preproc", "mask", "dseg", "dseg_lookup")
    inputnode = field_node("inputnode", *images, "skull_stripped", "runs", "used_lesions")
    summary = pe.Node(
        Summary(
            images=[path.name for path in scan.images],
            method=extractor(config, scan),
            templates=[template.space for template in templates],
            mode=config.mode,
            weights=_weights(config),
            device=config.device,
            versions={"bids_fcnreg": __version__, "Python": platform.python_version()}
            | {name: version_of(name) for name in ("torch", "nipype")},
        ),
        name="summary",
        run_without_submitting=True,
    )
    if scan.sessions:
        titles = ", ".join(map(session_title, scan.sessions))
        summary.inputs.session = f"{titles}, averaged in the space of the first of them"
    elif scan.session is not None:
        summary.inputs.session = scan.session
    if reference is not None:
        summary.inputs.reference = reference.description
    lesions = pe.Node(niu.Merge(2), name="lesions", run_without_submitting=True)
    lesions.inputs.in1 = [str(path) for path in scan.lesions]
    summary.inputs.reused = scan.precomputed.descriptions
    if scan.others:
        summary.inputs.others = [other.path.name for other in scan.others]
    ds_summary = _figure_sink(config, scan, "ds_summary", desc="summary", suffix=scan.suffix)
    workflow.connect([
        (inputnode, lesions, [("used_lesions", "in2")]),
        (lesions, summary, [("out", "lesions")]),
        (inputnode, summary, [("skull_stripped", "skull_stripped"), ("runs", "runs")]),
        (summary, ds_summary, [("out_file", "in_file")]),
    ])  # fmt: skip
    if config.makes_everything:
        outline = sized_node(Slices(), "mask_outline", DRAW, voxels_of(scan.images[0]))
        ds_outline = _figure_sink(config, scan, "ds_mask_outline", desc="brain", suffix="mask")
        workflow.connect([
            (inputnode, outline, [("preproc", "background"), ("mask", "mask")]),
            (outline, ds_outline, [("out_file", "in_file")]),
        ])  # fmt: skip
        tissue = sized_node(Slices(), "tissue", DRAW, voxels_of(scan.images[0]))
        ds_tissue = _figure_sink(config, scan, "ds_tissue", desc="tissue", suffix="probseg")
        workflow.connect([
            (inputnode, tissue, [
                ("preproc", "background"), ("mask", "mask"), ("dseg", "labels"),
                ("dseg_lookup", "lookup"),
            ]),
            (tissue, ds_tissue, [("out_file", "in_file")]),
        ])  # fmt: skip
    return workflow


def init_template_report_wf(
    *, config: Config, scan: Scan, template: Template, name: str = "report_template_wf"
) -> LiterateWorkflow:
    """Make the figures of a registration, and the table of quality metrics.

    Inputs
    ------
    preproc_std
        Image on the template's grid.
    transform
        ITK .h5 of the registration.
    quality
        JSON of the quality metrics.
    """
    workflow = LiterateWorkflow(name=name)
    inputnode = field_node("inputnode", "preproc_std", "transform", "quality")
    table = pe.Node(QualityTable(space=template.space), name="table", run_without_submitting=True)
    workflow.connect(inputnode, "quality", table, "quality")
    stored = [
        (table, "out_file", "ds_table", "quality", "xfm"),
        (table, "verdict", "ds_verdict", "verdict", "xfm"),
    ]
    if config.makes_everything:
        stored += _add_figures(workflow, config, scan, template)
    for made, output, name, desc, suffix in stored:
        store = _figure_sink(config, scan, name, space=template.space, desc=desc, suffix=suffix)
        workflow.connect(made, output, store, "in_file")
    return workflow


def _add_figures(
    workflow: LiterateWorkflow, config: Config, scan: Scan, template: Template
) -> list[tuple[pe.Node, str, str, str, str]]:
    """Add the figures; return node, output, and name, ``desc-`` and suffix of the stored file."""
    inputnode, voxels = workflow.get_node("inputnode"), voxels_of(template.t1w)
    flicker = sized_node(
        Flicker(
            after=str(template.t1w),
            mask=str(template.mask),
            before_label=scan.label,
            after_label=template.space,
        ),
        "flicker",
        DRAW,
        voxels,
    )
    contours = sized_node(
        Slices(mask=str(template.mask), contours_of=str(template.t1w)), "contours", DRAW, voxels
    )
    deformation = sized_node(
        Deformation(mask=str(template.mask)),
        "deformation",
        DEFORMATION,
        voxels,
    )
    workflow.connect([
        (inputnode, flicker, [("preproc_std", "before")]),
        (inputnode, deformation, [("preproc_std", "background"), ("transform", "transform")]),
        (inputnode, contours, [("preproc_std", "background")]),
    ])  # fmt: skip
    return [
        (contours, "out_file", "ds_contours", "contours", scan.suffix),
        (flicker, "out_file", "ds_flicker", "flicker", scan.suffix),
        (deformation, "out_file", "ds_deformation", "deformation", scan.suffix),
    ]


def init_atlas_report_wf(
    *, config: Config, scan: Scan, template: Template, atlas: Atlas, name: str = "report_atlas_wf"
) -> LiterateWorkflow:
    """Make the figure of atlas labels on the subject's image.

    Inputs
    ------
    preproc, mask, labels
        Image, brain mask and labels, on the same grid.
    lookup
        TSV of index and name of the labels.
    """
    workflow = LiterateWorkflow(name=name)
    inputnode = field_node("inputnode", "preproc", "mask", "labels", "lookup")
    overlay = sized_node(Slices(), "overlay", DRAW, voxels_of(scan.images[0]))
    ds_overlay = _figure_sink(
        config, scan, "ds_overlay", **atlas.entities, desc=template.space, suffix="dseg"
    )
    workflow.connect([
        (inputnode, overlay, [
            ("preproc", "background"),
            *((name, name) for name in ("mask", "labels", "lookup")),
        ]),
        (overlay, ds_overlay, [("out_file", "in_file")]),
    ])  # fmt: skip
    return workflow


def _weights(config: Config) -> str:
    """Describe the initial weights of a run's network."""
    if not MODES[config.mode].trained:
        return f"{config.network}, trained from scratch on each pair"
    return str(config.model) if config.model else f"{config.network}, weights of the package"


def _figure_sink(config: Config, scan: Scan, name: str, **naming: str) -> pe.Node:
    return sink(config, scan, name, datatype="figures", **naming)
