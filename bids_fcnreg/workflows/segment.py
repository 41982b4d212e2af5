"""Segment tissue and structures of a scan, and store them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from nipype.pipeline import engine as pe
from niworkflows.engine.workflows import LiterateWorkflow

from bids_fcnreg.bids.output_names import preprocessed_uri
from bids_fcnreg.fcn.structures import STRUCTURES
from bids_fcnreg.interfaces.region_volumes import RegionVolumes
from bids_fcnreg.interfaces.tissue import SegmentTissue
from bids_fcnreg.workflows.outputs import sink
from bids_fcnreg.workflows.resources import PLAIN_GB, SEGMENT, field_node, sized_node, voxels_of

if TYPE_CHECKING:
    from bids_fcnreg.bids.scan import Scan
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
    outputnode = field_node("outputnode", "t1w_like", "dseg", "dseg_lookup")
    segment = sized_node(
        SegmentTissue(
            num_threads=config.omp_nthreads,
            make_t1w_like=not scan.is_t1w or bool(scan.others),
        ),
        "segment",
        SEGMENT,
        voxels_of(scan.images[0]),
    )
    workflow.connect([
        (inputnode, segment, [("preproc", "in_file"), ("mask", "mask")]),
        (segment, outputnode, [(field, field) for field in ("t1w_like", "dseg", "dseg_lookup")]),
    ])  # fmt: skip
    if config.makes_everything:
        _store(workflow, config, scan)
    return workflow


def _store(workflow: LiterateWorkflow, config: Config, scan: Scan) -> None:
    """Store the images and their tables."""
    inputnode, segment = workflow.get_node("inputnode"), workflow.get_node("segment")
    table = [(label, name) for label, name in STRUCTURES.items() if label]
    measure = pe.Node(RegionVolumes(table=table), name="measure", mem_gb=PLAIN_GB)
    workflow.connect(segment, "structures", measure, "labels")
    anatomy = {"desc": "anatomy", "suffix": "dseg"}
    method = "segmented by intensity, with prior probabilities of the anatomy network"
    image = {"Manual": False, "SpatialReference": preprocessed_uri(scan)}
    sinks: dict[tuple[pe.Node, str], dict[str, Any]] = {
        (segment, "dseg"): {
            "suffix": "dseg", "Description": f"Tissue, {method}", **image
        },
        (segment, "dseg_lookup"): {"suffix": "dseg"},
        (segment, "structures"): {
            **anatomy, "Description": f"Structures, {method}", **image
        },
        (measure, "lookup"): anatomy,
        (measure, "volumes"): {
            "desc": "anatomyVolumes", "suffix": "dseg", "Description": "Volumes of the structures",
            "SpatialReference": preprocessed_uri(scan),
        },
        **{
            (segment, tissue.lower()): {
                "label": tissue, "suffix": "probseg",
                "Description": f"Probability of {tissue}, {method}", **image,
            }
            for tissue in ("GM", "WM", "CSF")
        },
    }  # fmt: skip
    for (node, output), naming in sinks.items():
        store = sink(config, scan, f"ds_{output}", **naming)
        workflow.connect(node, output, store, "in_file")
        if output in ("dseg", "structures", "gm", "wm", "csf", "volumes"):
            workflow.connect(inputnode, "stored", store, "sources")
    workflow.get_node("ds_volumes").inputs.meta_dict = {
        "volume_mm3": {
            "Description": f"Volume of the structure in the {scan.suffix} image", "Units": "mm^3"
        }
    }  # fmt: skip
