"""Segment tissue and structures of a scan, and store them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from nipype.interfaces import utility as niu
from nipype.pipeline import engine as pe
from niworkflows.engine.workflows import LiterateWorkflow

from bids_fcnreg.bids.output_names import preprocessed_uri
from bids_fcnreg.fcn.structures import STRUCTURES, TISSUES
from bids_fcnreg.interfaces.precomputed import ReuseTissue
from bids_fcnreg.interfaces.region_volumes import RegionVolumes
from bids_fcnreg.interfaces.tissue import SegmentTissue
from bids_fcnreg.workflows.outputs import sink
from bids_fcnreg.workflows.resources import (
    PLAIN_GB,
    SEGMENT,
    by_content,
    field_node,
    sized_node,
    voxels_of,
)

if TYPE_CHECKING:
    from bids_fcnreg.bids.scan import Precomputed, Scan
    from bids_fcnreg.config import Config


def init_segment_wf(*, config: Config, scan: Scan, name: str = "segment_wf") -> LiterateWorkflow:
    """Segment tissue and structures in native space.

    Results are stored as sMRIPrep names and numbers them, except with ``--level minimal``.

    Parameters
    ----------
    config : Config
        Settings of the run.
    scan : Scan
        The scan.
    name : str
        Name of the workflow.

    Inputs
    ------
    preproc, mask
        Preprocessed image and brain mask.
    stored
        The preprocessed image in the derivatives.

    Outputs
    -------
    t1w_like
        Brain like that of a T1w image.
    quality
        JSON of the quality metrics of the segmentation.
    dseg, dseg_lookup
        Tissue of each voxel, and the names of the tissues.
    """
    workflow = LiterateWorkflow(name=name)
    workflow.__desc__ = (
        "Brain tissue and structures were segmented by a Gaussian mixture model of intensities "
        "[@unified_segmentation], with prior probabilities of a fully convolutional network that "
        "was trained on simulated images [@synthseg]. "
    )
    inputnode = field_node("inputnode", "preproc", "mask", "stored")
    outputnode = field_node("outputnode", "t1w_like", "quality", "dseg", "dseg_lookup")
    segment = sized_node(
        SegmentTissue(
            make_t1w_like=not scan.is_t1w or bool(scan.others),
        ),
        "segment",
        SEGMENT,
        voxels_of(scan.images[0]),
    )
    workflow.connect([
        (inputnode, segment, [("preproc", "in_file"), ("mask", "mask")]),
        (segment, outputnode, [("t1w_like", "t1w_like"), ("quality", "quality")]),
    ])  # fmt: skip
    reused = scan.precomputed
    tissue = _add_reused_tissue(workflow, reused) if reused.tissue else segment
    workflow.connect([
        (tissue, outputnode, [("dseg", "dseg"), ("dseg_lookup", "dseg_lookup")]),
    ])  # fmt: skip
    if config.makes_everything:
        _store(workflow, config, scan, tissue)
    return workflow


def _add_reused_tissue(workflow: LiterateWorkflow, precomputed: Precomputed) -> pe.Node:
    """Add the existing tissue segmentation."""
    tissue = by_content(pe.Node(ReuseTissue(), name="reuse_tissue", mem_gb=PLAIN_GB))
    if precomputed.dseg is not None:
        tissue.inputs.dseg = str(precomputed.dseg)
        tissue.inputs.labels = list(precomputed.tissue_labels)
    if precomputed.probseg:
        tissue.inputs.probseg = [str(path) for path in precomputed.probseg]
    workflow.connect(workflow.get_node("inputnode"), "preproc", tissue, "in_file")
    origin = precomputed.origins[precomputed.tissue[0]]
    workflow.__desc__ += f"The segmentation of tissue was taken from {origin}. "
    return tissue


def _store(workflow: LiterateWorkflow, config: Config, scan: Scan, tissue: pe.Node) -> None:
    """Store the images and their tables; `tissue` is the node with the segmentation of tissue."""
    inputnode, segment = workflow.get_node("inputnode"), workflow.get_node("segment")
    table = [(label, name) for label, name in STRUCTURES.items() if label]
    measure = pe.Node(RegionVolumes(table=table), name="measure", mem_gb=PLAIN_GB)
    workflow.connect(segment, "structures", measure, "labels")
    anatomy = {"desc": "anatomy", "suffix": "dseg"}
    method = "segmented by intensity, with prior probabilities of the anatomy network"
    reused = scan.precomputed
    tissue_method = f"taken from {reused.origins[reused.tissue[0]]}" if reused.tissue else method
    image = {"Manual": False, "SpatialReference": preprocessed_uri(scan)}
    sinks: dict[tuple[pe.Node, str], dict[str, Any]] = {
        (tissue, "dseg"): {"suffix": "dseg", "Description": f"Tissue, {tissue_method}", **image},
        (tissue, "dseg_lookup"): {"suffix": "dseg"},
        (segment, "structures"): {
            **anatomy, "Description": f"Structures, {method}", **image
        },
        (measure, "lookup"): anatomy,
        (measure, "volumes"): {
            "desc": "anatomyVolumes", "suffix": "dseg", "Description": "Volumes of the structures",
            "SpatialReference": preprocessed_uri(scan),
        },
        **{
            (tissue, label.lower()): {
                "label": label, "suffix": "probseg",
                "Description": f"Probability of {label}, {tissue_method}", **image,
            }
            for label in TISSUES
        },
    }  # fmt: skip
    sources = pe.Node(niu.Merge(2), name="sources_tissue", run_without_submitting=True)
    sources.inputs.in2 = [str(path) for path in reused.tissue]
    workflow.connect(inputnode, "stored", sources, "in1")
    for (node, output), naming in sinks.items():
        store = sink(config, scan, f"ds_{output}", **naming)
        workflow.connect(node, output, store, "in_file")
        if output in ("dseg", "gm", "wm", "csf"):
            workflow.connect(sources, "out", store, "sources")
        elif output in ("structures", "volumes"):
            workflow.connect(inputnode, "stored", store, "sources")
    workflow.get_node("ds_volumes").inputs.meta_dict = {
        "volume_mm3": {
            "Description": f"Volume of the structure in the {scan.suffix} image", "Units": "mm^3"
        }
    }  # fmt: skip
