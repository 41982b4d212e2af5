"""Store results in the derivatives, with their provenance."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from nipype.interfaces import utility as niu
from nipype.pipeline import engine as pe
from niworkflows.engine.workflows import LiterateWorkflow

from bids_fcnreg.atomic import checksum
from bids_fcnreg.bids.output_names import preprocessed_uri
from bids_fcnreg.bids.scan import session_title
from bids_fcnreg.config import SESSIONWISE
from bids_fcnreg.interfaces.outputs import DerivativesDataSink
from bids_fcnreg.workflows.resources import field_node

if TYPE_CHECKING:
    from bids_fcnreg.bids.atlases import Atlas
    from bids_fcnreg.bids.scan import Scan
    from bids_fcnreg.bids.templates import Template
    from bids_fcnreg.config import Config


#: Field of the sidecar of a transform: value of ``--subject-anatomical-reference``.
REFERENCE_FIELD = "AnatomicalReference"
#: Entities of an image that only results of other images keep; see `select_others`.
_DISMISSED = ("run", "echo", "part")


def sink(
    config: Config,
    scan: Scan,
    name: str,
    sources: Mapping[str, str] | None = None,
    /,
    **naming: Any,
) -> pe.Node:
    """Make a node that stores a file in the derivatives.

    Parameters
    ----------
    config : Config
        Settings with the input and the output directory.
    scan : Scan
        Scan of the result.
    name : str
        Name of the node.
    sources : mapping of str to str, optional
        SHA-256 of external sources, by path or URL.
    **naming
        Entities of the file name, and capitalized sidecar fields.
    """
    interface = DerivativesDataSink(
        base_directory=str(config.output_dir),
        bids_dir=str(config.bids_dir),
        source_file=[str(path) for path in scan.images],
        checksums={**scan.sources, **(sources or {})},
        dismiss_entities=[*_DISMISSED, *dismissed_session(scan)],
        **naming,
    )
    return pe.Node(interface, name=name, mem_gb=0.2, run_without_submitting=True)


def dismissed_session(scan: Scan) -> list[str]:
    """Return the entity that results of several sessions do not have, if a scan has several."""
    return ["session"] if scan.sessions else []


def init_anat_outputs_wf(
    *, config: Config, scan: Scan, name: str = "outputs_wf"
) -> LiterateWorkflow:
    """Store results in the subject's native space.

    Inputs
    ------
    preproc, mask
        Preprocessed image and brain mask.
    skull_stripped
        Whether the image was skull-stripped in the input.
    runs
        Sidecar fields about the averaged runs.

    Outputs
    -------
    preproc, mask
        The files in the derivatives.
    """
    workflow = LiterateWorkflow(name=name)
    inputnode = field_node("inputnode", "preproc", "mask", "skull_stripped", "runs")
    fields = pe.Node(
        niu.Function(function=anatomy_metadata, input_names=["skull_stripped", "runs"]),
        name="fields",
        run_without_submitting=True,
    )
    outputnode = field_node("outputnode", "preproc", "mask")
    preproc = sink(
        config,
        scan,
        "ds_preproc",
        desc="preproc",
        suffix=scan.suffix,
        Description=f"{scan.suffix} image, {_average(scan)}, bias-corrected and "
        "intensity-normalized",
    )
    mask = sink(
        config,
        scan,
        "ds_mask",
        desc="brain",
        suffix="mask",
        Type="Brain",
        Description=f"Brain mask of the {scan.suffix} image",
        SpatialReference=preprocessed_uri(scan),
    )
    reused = scan.precomputed
    if reused.images:  # the mask is a source of the image, too: of its scale
        preproc.inputs.sources = [str(path) for path in (*scan.images, *reused.images)]
        mask.inputs.sources = [str(path) for path in (*scan.images, reused.mask or reused.preproc)]
    workflow.connect([
        (inputnode, fields, [("skull_stripped", "skull_stripped"), ("runs", "runs")]),
        (inputnode, preproc, [("preproc", "in_file")]),
        (fields, preproc, [("out", "meta_dict")]),
        (inputnode, mask, [("mask", "in_file")]),
        (preproc, outputnode, [("out_file", "preproc")]),
        (mask, outputnode, [("out_file", "mask")]),
    ])  # fmt: skip
    return workflow


def init_template_outputs_wf(
    *,
    config: Config,
    scan: Scan,
    template: Template,
    anatomical_reference: str = SESSIONWISE,
    name: str = "outputs_template_wf",
) -> LiterateWorkflow:
    """Store a registration: transforms, quality metrics, and resampled images.

    Parameters
    ----------
    config : Config
        Settings with the input and the output directory.
    scan : Scan
        The scan.
    template : Template
        The template that it is registered to.
    anatomical_reference : {"sessionwise", "first-lex", "unbiased"}
        How the sessions of the participant were treated.
    name : str
        Name of the workflow.

    Inputs
    ------
    transform, inverse, quality, preproc_std, mask_std, log_jacobian
        Outputs of `init_register_wf`.
    skull_stripped
        Whether the image was skull-stripped in the input.
    preproc, mask
        Registered image and mask: the files in the derivatives.
    used_lesions
        Lesion masks of other images that were used; optional.

    Outputs
    -------
    transform, inverse
        The files in the derivatives.
    """
    workflow = LiterateWorkflow(name=name)
    results = ("transform", "inverse", "quality", "preproc_std", "mask_std", "log_jacobian")
    further = ("skull_stripped", "preproc", "mask", "used_lesions")
    inputnode = field_node("inputnode", *results, *further)
    outputnode = field_node("outputnode", "transform", "inverse")
    found = dict(template.sources)
    if config.model is not None:
        found[str(config.model)] = checksum(config.model)
    if affine := scan.precomputed.affines.get(template.space):
        found[str(affine)] = checksum(affine)
    forward = transform_entities(scan, template)
    backward = forward | {"from": template.space, "to": scan.suffix}
    of_template, of_scan = f"points of {template.space}", f"points of the {scan.suffix} image"
    sinks = {
        "transform": sink(
            config,
            scan,
            "ds_transform",
            found,
            **forward,
            **_registration(config, f"{of_template} to {of_scan}", anatomical_reference),
        ),
        "inverse": sink(
            config,
            scan,
            "ds_inverse",
            found,
            **backward,
            **_registration(config, f"{of_scan} to {of_template}", anatomical_reference),
        ),
        "quality": sink(config, scan, "ds_quality", found, desc="quality", **forward),
    }
    for result, node in sinks.items():
        workflow.connect(inputnode, result, node, "in_file")
    registered = pe.Node(niu.Merge(4), name="registered", run_without_submitting=True)
    registered.inputs.in3 = [*found, *map(str, scan.lesions)]
    workflow.connect([
        (inputnode, registered, [("preproc", "in1"), ("mask", "in2"), ("used_lesions", "in4")]),
        (registered, sinks["transform"], [("out", "sources")]),
        (registered, sinks["inverse"], [("out", "sources")]),
        (registered, sinks["quality"], [("out", "sources")]),
        (sinks["transform"], outputnode, [("out_file", "transform")]),
        (sinks["inverse"], outputnode, [("out_file", "inverse")]),
    ])  # fmt: skip
    if config.makes_everything:
        _add_resampled(workflow, config, scan, template)
    return workflow


def _add_resampled(
    workflow: LiterateWorkflow, config: Config, scan: Scan, template: Template
) -> None:
    """Store the images on the template's grid."""
    inputnode = workflow.get_node("inputnode")
    transform = workflow.get_node("ds_transform")
    in_space = space_entities(template)
    sinks = {
        "preproc_std": sink(
            config,
            scan,
            "ds_preproc_std",
            desc="preproc",
            suffix=scan.suffix,
            Description=f"{scan.suffix} image, linearly resampled once from native space",
            **in_space,
        ),
        "mask_std": sink(
            config,
            scan,
            "ds_mask_std",
            desc="brain",
            suffix="mask",
            Type="Brain",
            Description=f"Brain mask of the {scan.suffix} image, resampled once from native space",
            **in_space,
        ),
        "log_jacobian": sink(
            config,
            scan,
            "ds_log_jacobian",
            desc="logjacobian",
            Description="Natural logarithm of the Jacobian determinant (local volume in the "
            f"{scan.suffix} image over that in the template), including the affine part; 0 away "
            "from the template's brain",
            SpatialReference=template.reference,
            **transform_entities(scan, template),
        ),
    }
    for result, node in sinks.items():
        workflow.connect(inputnode, result, node, "in_file")
    workflow.connect([
        (inputnode, sinks["preproc_std"], [(("skull_stripped", skull_metadata), "meta_dict")]),
        (transform, sinks["log_jacobian"], [("out_file", "sources")]),
    ])  # fmt: skip
    for result, original in (("preproc_std", "preproc"), ("mask_std", "mask")):
        both = pe.Node(niu.Merge(2), name=f"sources_{result}", run_without_submitting=True)
        workflow.connect([
            (inputnode, both, [(original, "in1")]),
            (transform, both, [("out_file", "in2")]),
            (both, sinks[result], [("out", "sources")]),
        ])  # fmt: skip


def space_entities(template: Template) -> dict[str, Any]:
    """Return the entities and the sidecar field of an image on a template's grid."""
    resolution = {"resolution": template.resolution} if template.resolution else {}
    return {"space": template.space, "SpatialReference": template.reference, **resolution}


def transform_entities(scan: Scan, template: Template) -> dict[str, str]:
    """Return the entities of the transform to a template, and of what describes it."""
    return {"from": scan.suffix, "to": template.space, "mode": "image", "suffix": "xfm"}


def init_atlas_outputs_wf(
    *, config: Config, scan: Scan, template: Template, atlas: Atlas, name: str = "outputs_atlas_wf"
) -> LiterateWorkflow:
    """Store the labels of an atlas in the subject's space, with names and volumes.

    Inputs
    ------
    labels, lookup, volumes
        Outputs of `init_propagate_wf`.
    inverse, preproc
        Transform and image of the propagation: the files in the derivatives.
    """
    workflow = LiterateWorkflow(name=name)
    inputnode = field_node("inputnode", "labels", "lookup", "volumes", "inverse", "preproc")
    naming = {**atlas.entities, "suffix": "dseg"}
    reference = preprocessed_uri(scan)
    labels = sink(
        config,
        scan,
        "ds_labels",
        atlas.sources,
        desc=template.space,
        Manual=False,
        Description=f"Labels of the atlas {atlas.label} propagated from {template.space}",
        SpatialReference=reference,
        **naming,
    )
    lookup = sink(config, scan, "ds_lookup", desc=template.space, **naming)
    volumes = sink(
        config,
        scan,
        "ds_volumes",
        desc=f"{template.space}Volumes",
        Description=f"Volumes of the regions of the atlas {atlas.label}",
        SpatialReference=reference,
        **naming,
    )
    volumes.inputs.meta_dict = {
        "volume_mm3": {
            "Description": f"Volume of the region in the {scan.suffix} image",
            "Units": "mm^3",
        }
    }
    sources = pe.Node(niu.Merge(3), name="sources_labels", run_without_submitting=True)
    sources.inputs.in3 = list(atlas.sources)
    workflow.connect([
        (inputnode, labels, [("labels", "in_file")]),
        (inputnode, lookup, [("lookup", "in_file")]),
        (inputnode, volumes, [("volumes", "in_file")]),
        (inputnode, sources, [("preproc", "in1"), ("inverse", "in2")]),
        (sources, labels, [("out", "sources")]),
        (labels, volumes, [("out_file", "sources")]),
    ])  # fmt: skip
    return workflow


def skull_metadata(skull_stripped: bool) -> dict[str, bool]:
    """Return the sidecar field that BIDS requires for an image in derivatives."""
    return {"SkullStripped": bool(skull_stripped)}


def anatomy_metadata(skull_stripped: bool, runs: dict[str, object]) -> dict[str, object]:
    """Return the sidecar fields of the preprocessed image."""
    return {"SkullStripped": bool(skull_stripped), **runs}


def _average(scan: Scan) -> str:
    """Describe where the image of a scan comes from."""
    if reused := scan.precomputed.preproc:
        return f"taken from {scan.precomputed.origins[reused]}"
    if scan.sessions:
        return f"averaged over sessions in the space of {session_title(scan.first_session)}"
    return "averaged over runs"


def _registration(config: Config, maps: str, anatomical_reference: str) -> dict[str, Any]:
    """Return the sidecar fields of a transform."""
    return {
        "Description": f"ITK transform, an affine and a displacement field, that maps {maps}",
        "RegistrationMode": config.mode,
        "RandomSeed": config.seed,
        REFERENCE_FIELD: anatomical_reference,
    }
