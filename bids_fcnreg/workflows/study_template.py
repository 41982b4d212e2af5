"""Workflow of one iteration of a study template."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from nipype.interfaces import utility as niu
from nipype.pipeline import engine as pe

from bids_fcnreg.interfaces.registration import Resample
from bids_fcnreg.interfaces.study_template import MeanImage, MeanShape
from bids_fcnreg.workflows.register import init_estimate_node
from bids_fcnreg.workflows.resources import RESAMPLE, node_name, sized_node, voxels_of

if TYPE_CHECKING:
    from bids_fcnreg.bids.scan import Scan
    from bids_fcnreg.bids.templates import Template
    from bids_fcnreg.config import Config

#: Name of the workflow of the start, which registers to a template of other scans.
START = "start"


@dataclass(frozen=True)
class Member:
    """Scan that contributes to a study template.

    Attributes
    ----------
    scan : Scan
        Scan of the dataset.
    t1w, mask : Path
        Preprocessed image and brain mask in native space.
    weight : float
        Weight; those of all sessions of a participant add up to 1.
    """

    scan: Scan
    t1w: Path
    mask: Path
    weight: float = 1.0

    @property
    def wf_name(self) -> str:
        """Name of its part of a workflow."""
        return f"{node_name(self.scan.label)}_wf"

    @property
    def resample_wf_name(self) -> str:
        """Name of its second part, which depends on the first part of all members."""
        return f"{node_name(self.scan.label)}_resample_wf"


@dataclass(frozen=True)
class Estimate:
    """Intermediate study template.

    Attributes
    ----------
    t1w, mask : Path
        Image and brain mask.
    sharpness : float
        Mean gradient over mean intensity in the brain, per mm.
    moved_mm : float or None
        RMS displacement from the previous template to the mean shape.
    bias_mm : float or None
        RMS distance of this one from the mean shape of the scans.
    change : float or None
        RMS difference to the previous template, over the mean intensity.
    update, inverse_update : Path or None
        Transform from this template to the previous one, and its inverse.
    transforms, inverses : dict of str to Path
        By label of the scan: transform from the previous template to the scan, and its inverse.
    """

    t1w: Path
    mask: Path
    sharpness: float
    moved_mm: float | None = None
    bias_mm: float | None = None
    change: float | None = None
    update: Path | None = None
    inverse_update: Path | None = None
    transforms: dict[str, Path] = field(default_factory=dict)
    inverses: dict[str, Path] = field(default_factory=dict)


def init_iteration_wf(
    *,
    config: Config,
    members: Sequence[Member],
    template: Template,
    number: int,
    base_dir: Path,
) -> pe.Workflow:
    """Register all scans to a template, and average them in their mean shape.

    Parameters
    ----------
    config : Config
        Mode, threads and settings of the template.
    members : sequence of Member
        The scans.
    template : Template
        The previous estimate, skull-stripped; at the start, a template of other scans.
    number : int
        Number of the iteration; 0 is the start.
    base_dir : Path
        Directory of intermediate results.

    Returns
    -------
    Workflow
        With the nodes ``shape`` (`MeanShape`) and ``mean`` (`MeanImage`), and two workflows for
        each member. After the start, ``mean`` also outputs the change of the template.
    """
    name = f"iteration_{number}" if number else START
    workflow = pe.Workflow(name=name, base_dir=str(base_dir))
    shape, mean = _shape_and_mean(config, members, template.brain_mask, enlarge=not number)
    if number:
        mean.inputs.before = str(template.found[0])
    for member in members:
        part = pe.Workflow(name=member.wf_name)
        register = init_estimate_node(config, template)
        register.inputs.moving = str(member.t1w)
        register.inputs.moving_mask = str(member.mask)
        part.add_nodes([register])
        resample = _init_resample_wf(member, template, config.omp_nthreads)
        workflow.connect(part, "estimate.transform", resample, "chain.in2")
    _connect_averages(workflow, members, shape, mean)
    return workflow


def _shape_and_mean(
    config: Config, members: Sequence[Member], mask: Path, *, enlarge: bool
) -> tuple[pe.Node, pe.Node]:
    """Make the nodes of the mean shape and the mean image."""
    weights = [member.weight for member in members]
    shape = pe.Node(
        MeanShape(
            weights=weights,
            mask=str(mask),
            anchored=config.template_anchored,
            symmetric=config.template_symmetric,
            enlarge=enlarge,
            num_threads=config.omp_nthreads,
        ),
        name="shape",
        mem_gb=1.5,
    )
    mean = pe.Node(
        MeanImage(weights=weights, symmetric=config.template_symmetric), name="mean", mem_gb=1.5
    )
    return shape, mean


def _init_resample_wf(member: Member, template: Template, threads: int) -> pe.Workflow:
    """Resample a scan and its mask to the mean shape: the update acts before the transform."""
    workflow = pe.Workflow(name=member.resample_wf_name)
    chain = pe.Node(niu.Merge(2), name="chain", run_without_submitting=True)
    for name, in_file, interpolation in (
        ("t1w", member.t1w, "linear"),
        ("mask", member.mask, "label"),
    ):
        node = sized_node(
            Resample(
                in_file=str(in_file),
                interpolation=interpolation,
                onto_template=True,
                compress=False,
                num_threads=threads,
            ),
            name,
            RESAMPLE,
            voxels_of(template.t1w),
        )
        workflow.connect(chain, "out", node, "transform")
    return workflow


def _connect_averages(
    workflow: pe.Workflow,
    members: Sequence[Member],
    shape: pe.Node,
    mean: pe.Node,
) -> None:
    """Connect the parts of all scans with the mean shape and the mean image."""
    # Outputs that no other node uses are read after the run.
    workflow.config["execution"]["remove_unnecessary_outputs"] = "false"
    merged = {
        name: pe.Node(niu.Merge(len(members)), name=f"all_{name}", run_without_submitting=True)
        for name in ("transforms", "images", "masks")
    }
    workflow.connect([
        (merged["transforms"], shape, [("out", "transforms")]),
        (merged["images"], mean, [("out", "images")]),
        (merged["masks"], mean, [("out", "masks")]),
    ])  # fmt: skip
    for number, member in enumerate(members, start=1):
        part = workflow.get_node(member.wf_name)
        resample = workflow.get_node(member.resample_wf_name)
        workflow.connect([
            (part, merged["transforms"], [("estimate.transform", f"in{number}")]),
            (resample, merged["images"], [("t1w.out_file", f"in{number}")]),
            (resample, merged["masks"], [("mask.out_file", f"in{number}")]),
            (shape, resample, [
                ("update", "chain.in1"),
                ("grid", "t1w.reference"),
                ("grid", "mask.reference"),
            ]),
        ])  # fmt: skip
