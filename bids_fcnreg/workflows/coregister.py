"""Align the other images of a session to the registered one, and store them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from nipype.interfaces import utility as niu
from nipype.pipeline import engine as pe
from niworkflows.engine.workflows import LiterateWorkflow

from bids_fcnreg.bids.output_names import other_label, preprocessed_uri
from bids_fcnreg.interfaces.coregistration import (
    AlignImage,
    AlignmentVerdict,
    DrawAligned,
    MoveLesions,
    ResampleAligned,
    StoreAligned,
)
from bids_fcnreg.interfaces.preprocess import UniteLesions
from bids_fcnreg.workflows.outputs import dismissed_session, skull_metadata, space_entities
from bids_fcnreg.workflows.resources import (
    ALIGN,
    DRAW,
    PLAIN_GB,
    PREPROCESS,
    RESAMPLE,
    by_content,
    field_node,
    node_name,
    sized_node,
    voxels_of,
)

if TYPE_CHECKING:
    from bids_fcnreg.bids.scan import OtherImage, Scan
    from bids_fcnreg.bids.templates import Template
    from bids_fcnreg.config import Config


def align_wf_name(scan: Scan, other: OtherImage) -> str:
    """Return the name of the workflow that aligns an image, such as ``align_acq_hires_T2w_wf``."""
    return f"align_{node_name(other_label(scan, other))}_wf"


def init_align_wf(*, config: Config, scan: Scan, other: OtherImage) -> LiterateWorkflow:
    """Align another image of a session rigidly to the registered one, and store the results.

    An image that cannot be aligned is left out: the outputs are then undefined, except those of
    lesions.

    Parameters
    ----------
    config : Config
        Settings with the directories and the number of threads.
    scan : Scan
        The registered images.
    other : OtherImage
        The image, with the lesion masks that were drawn on it.

    Inputs
    ------
    t1w_like, mask
        Registered image like the brain of a T1w image, and its brain mask.
    stored
        The preprocessed registered image in the derivatives.

    Outputs
    -------
    preproc
        The image, bias-corrected and intensity-normalized, on its own grid.
    skull_stripped
        Whether it was skull-stripped in the input.
    transform
        ITK transform: maps points of the registered image to points of this one.
    stored_transform
        The transform in the derivatives.
    lesions
        Lesion masks in the space of the registered image; only if there are any.
    used_lesions
        Their files in the dataset; none if the image was left out.
    """
    workflow = LiterateWorkflow(name=align_wf_name(scan, other))
    workflow.__desc__ = (
        "The other anatomical images of each session were rigidly aligned to the registered one, "
        "by images like T1w brains that were made from the tissue probabilities of both. "
    )
    inputnode = field_node("inputnode", "t1w_like", "mask", "stored")
    results = ("preproc", "skull_stripped", "transform", "stored_transform")
    outputnode = field_node("outputnode", *results, "lesions", "used_lesions")
    align = by_content(
        sized_node(
            AlignImage(in_file=str(other.path)),
            "align",
            ALIGN,
            voxels_of(other.path),
        )
    )
    workflow.connect([
        (inputnode, align, [("t1w_like", "reference"), ("mask", "mask")]),
        (align, outputnode, [
            (name, name) for name in ("preproc", "skull_stripped", "transform")
        ]),
    ])  # fmt: skip
    _store(workflow, config, scan, other)
    _add_report(workflow, config, scan, other)
    if other.lesions:
        move = by_content(
            pe.Node(
                MoveLesions(in_files=[str(path) for path in other.lesions]),
                name="move_lesions",
                mem_gb=PLAIN_GB,
            )
        )
        workflow.connect([
            (align, move, [("inverse", "inverse")]),
            (move, outputnode, [("out_files", "lesions"), ("used", "used_lesions")]),
        ])  # fmt: skip
    return workflow


def _store(workflow: LiterateWorkflow, config: Config, scan: Scan, other: OtherImage) -> None:
    """Store the transform, its inverse, the quality, and the image on the reference's grid."""
    inputnode, align, outputnode = map(workflow.get_node, ("inputnode", "align", "outputnode"))
    of_other, of_scan = f"points of the {other.suffix} image", f"points of the {scan.suffix} image"
    forward = {"from": other.suffix, "to": scan.suffix, "mode": "image", "suffix": "xfm"}
    rigid = "ITK transform, rigid, that maps"
    sinks: dict[str, dict[str, Any]] = {
        "transform": {**forward, "Description": f"{rigid} {of_scan} to {of_other}"},
        "quality": {**forward, "desc": "alignment"},
        "aligned": {
            "space": scan.suffix,
            "desc": "preproc",
            "suffix": other.suffix,
            "SpatialReference": preprocessed_uri(scan),
            "Description": f"{other.suffix} image, bias-corrected, intensity-normalized, and "
            f"linearly resampled once to the grid of the {scan.suffix} image",
        },
    }
    if other.suffix != scan.suffix:  # otherwise, both would have the same name
        sinks["inverse"] = {
            **forward,
            "from": scan.suffix,
            "to": other.suffix,
            "Description": f"{rigid} {of_other} to {of_scan}",
        }
    both = pe.Node(niu.Merge(2), name="sources", run_without_submitting=True)
    both.inputs.in1 = str(other.path)
    workflow.connect(inputnode, "stored", both, "in2")
    for output, naming in sinks.items():
        store = _sink(config, scan, other, f"ds_{output}", **naming)
        workflow.connect([
            (align, store, [(output, "in_file")]),
            (both, store, [("out", "sources")]),
        ])  # fmt: skip
    aligned, transform = workflow.get_node("ds_aligned"), workflow.get_node("ds_transform")
    workflow.connect([
        (align, aligned, [(("skull_stripped", skull_metadata), "meta_dict")]),
        (transform, outputnode, [("out_file", "stored_transform")]),
    ])  # fmt: skip


def _add_report(workflow: LiterateWorkflow, config: Config, scan: Scan, other: OtherImage) -> None:
    """Add the figure of the aligned image, and the verdict."""
    inputnode, align = workflow.get_node("inputnode"), workflow.get_node("align")
    draw = sized_node(DrawAligned(), "draw", DRAW, voxels_of(scan.images[0]))
    verdict = pe.Node(
        AlignmentVerdict(name=f"{other_label(scan, other)} to {scan.suffix}"),
        name="verdict",
        run_without_submitting=True,
    )
    naming = {"datatype": "figures", "space": scan.suffix, "suffix": other.suffix}
    ds_figure = _sink(config, scan, other, "ds_figure", desc="aligned", **naming)
    ds_verdict = _sink(config, scan, other, "ds_verdict", desc="alignment", **naming)
    workflow.connect([
        (inputnode, draw, [("mask", "mask"), ("t1w_like", "contours_of")]),
        (align, draw, [("aligned", "background")]),
        (align, verdict, [("quality", "quality")]),
        (draw, ds_figure, [("out_file", "in_file")]),
        (verdict, ds_verdict, [("out_file", "in_file")]),
    ])  # fmt: skip


def init_aligned_to_template_wf(
    *, config: Config, scan: Scan, other: OtherImage, template: Template
) -> LiterateWorkflow:
    """Resample an aligned image to a template with one interpolation, and store it.

    Inputs
    ------
    preproc, skull_stripped, transform, stored_transform
        Outputs of `init_align_wf`.
    template_transform, stored_template_transform
        ITK transform that maps points of the template to points of the registered image, and the
        same file in the derivatives.
    """
    key = node_name(other_label(scan, other))
    workflow = LiterateWorkflow(name=f"align_{key}_to_{node_name(template.space)}_wf")
    fields = ("preproc", "skull_stripped", "transform", "stored_transform")
    of_template = ("template_transform", "stored_template_transform")
    inputnode = field_node("inputnode", *fields, *of_template)
    chain = pe.Node(niu.Merge(2), name="chain", run_without_submitting=True)
    resample = sized_node(
        ResampleAligned(reference=str(template.t1w)),
        "resample",
        RESAMPLE,
        voxels_of(template.t1w),
    )
    sources = pe.Node(niu.Merge(3), name="sources", run_without_submitting=True)
    sources.inputs.in1 = str(other.path)
    store = _sink(
        config,
        scan,
        other,
        "ds_aligned_std",
        desc="preproc",
        suffix=other.suffix,
        Description=f"{other.suffix} image, linearly resampled once from its own grid",
        **space_entities(template),
    )
    workflow.connect([
        (inputnode, chain, [("template_transform", "in1"), ("transform", "in2")]),
        (inputnode, resample, [("preproc", "in_file")]),
        (inputnode, sources, [("stored_template_transform", "in2"), ("stored_transform", "in3")]),
        (inputnode, store, [(("skull_stripped", skull_metadata), "meta_dict")]),
        (chain, resample, [("out", "transform")]),
        (resample, store, [("out_file", "in_file")]),
        (sources, store, [("out", "sources")]),
    ])  # fmt: skip
    return workflow


def init_unite_lesions_wf(
    *, scan: Scan, n_others: int, name: str = "unite_lesions_wf"
) -> LiterateWorkflow:
    """Unite the lesion masks of the registered image with those of the other images.

    Parameters
    ----------
    scan : Scan
        The registered images.
    n_others : int
        Number of other images with lesion masks.
    name : str
        Name of the workflow.

    Inputs
    ------
    exclude
        United lesion masks of the registered image, if it has any.
    lesions1, lesions2, …
        Lesion masks of each other image, in the space of the registered one.
    used_lesions1, used_lesions2, …
        Their files in the dataset, if they are used.
    preproc, mask
        Registered image, and its brain mask.

    Outputs
    -------
    exclude
        All lesions.
    used_lesions
        Files of all masks of other images that are used.
    """
    workflow = LiterateWorkflow(name=name)
    lesions = [f"lesions{number}" for number in range(1, n_others + 1)]
    files = [f"used_{field}" for field in lesions]
    inputnode = field_node("inputnode", "exclude", *lesions, *files, "preproc", "mask")
    outputnode = field_node("outputnode", "exclude", "used_lesions")
    used = pe.Node(niu.Merge(n_others), name="used", run_without_submitting=True)
    merge = pe.Node(niu.Merge(n_others + 1), name="merge", run_without_submitting=True)
    unite = sized_node(UniteLesions(), "unite", PREPROCESS, voxels_of(scan.images[0]))
    workflow.connect([
        (inputnode, merge, [
            (field, f"in{number}") for number, field in enumerate(("exclude", *lesions), start=1)
        ]),
        (inputnode, unite, [("preproc", "reference"), ("mask", "mask")]),
        (merge, unite, [("out", "in_files")]),
        (unite, outputnode, [("out_file", "exclude")]),
        (inputnode, used, [
            (field, f"in{number}") for number, field in enumerate(files, start=1)
        ]),
        (used, outputnode, [("out", "used_lesions")]),
    ])  # fmt: skip
    return workflow


def _sink(config: Config, scan: Scan, other: OtherImage, name: str, **naming: Any) -> pe.Node:
    """Make a node that stores a result of an image, unless it was left out."""
    interface = StoreAligned(
        base_directory=str(config.output_dir),
        bids_dir=str(config.bids_dir),
        source_file=[str(other.path)],
        checksums=other.sources,
        dismiss_entities=dismissed_session(scan),
        **naming,
    )
    return pe.Node(interface, name=name, mem_gb=0.2, run_without_submitting=True)
