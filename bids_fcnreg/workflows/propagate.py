"""Label propagation: atlas labels in the subject's space, and regional volumes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nipype.pipeline import engine as pe
from niworkflows.engine.workflows import LiterateWorkflow

from bids_fcnreg.interfaces.region_volumes import RegionVolumes
from bids_fcnreg.interfaces.registration import Resample
from bids_fcnreg.workflows.resources import (
    DEFAULT_VOXELS,
    PLAIN_GB,
    PROPAGATE,
    field_node,
    sized_node,
)

if TYPE_CHECKING:
    from bids_fcnreg.bids.atlases import Atlas
    from bids_fcnreg.bids.templates import Template


def init_propagate_wf(
    *,
    template: Template,
    atlas: Atlas,
    voxels: int = DEFAULT_VOXELS,
    name: str = "propagate_wf",
) -> LiterateWorkflow:
    """Propagate the labels of an atlas to a subject and compute regional volumes.

    Parameters
    ----------
    template : Template
        Space of the atlas.
    atlas : Atlas
        Label image and names of its labels.
    voxels : int
        Number of voxels of the T1w.
    name : str
        Name of the workflow.

    Inputs
    ------
    inverse
        ITK .h5 that resamples the template onto the T1w.
    reference
        Image on the grid of the T1w.

    Outputs
    -------
    labels
        Labels on the grid of the T1w.
    lookup
        TSV of index and name of the regions.
    volumes
        TSV of index, name and volume (mm³) of the regions.
    """
    workflow = LiterateWorkflow(name=name)
    workflow.__desc__ = (
        f"Labels of the {atlas.label} atlas were propagated from {template.title} to the space of "
        "the T1w through the inverse transform, with the label of the largest trilinear weight in "
        "each voxel, and the volume of every region was computed there. "
    )
    inputnode = field_node("inputnode", "inverse", "reference")
    outputnode = field_node("outputnode", "labels", "lookup", "volumes")
    resample = sized_node(
        Resample(in_file=str(atlas.image), interpolation="label"),
        "resample",
        PROPAGATE,
        voxels,
    )
    measure = pe.Node(RegionVolumes(table=list(atlas.labels)), name="measure", mem_gb=PLAIN_GB)
    workflow.connect([
        (inputnode, resample, [("inverse", "transform"), ("reference", "reference")]),
        (resample, measure, [("out_file", "labels")]),
        (resample, outputnode, [("out_file", "labels")]),
        (measure, outputnode, [("lookup", "lookup"), ("volumes", "volumes")]),
    ])  # fmt: skip
    return workflow
