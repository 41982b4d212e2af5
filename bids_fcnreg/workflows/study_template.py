"""A study template: its start from linear alignment, one iteration, and what comes out."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nipype.interfaces import utility as niu
from nipype.pipeline import engine as pe
from nipype.pipeline.engine.utils import load_resultfile

from bids_fcnreg.interfaces.registration import Resample
from bids_fcnreg.interfaces.study_template import Align, MeanImage, MeanShape
from bids_fcnreg.workflows.register import init_estimate_node
from bids_fcnreg.workflows.resources import RESAMPLE, sized_node, voxels_of

if TYPE_CHECKING:
    from bids_fcnreg.bids.scan import Scan
    from bids_fcnreg.bids.templates import Template
    from bids_fcnreg.config import Config

#: Name of the workflow of the linear start.
START = "start"


@dataclass(frozen=True)
class Member:
    """A scan of which a study template is made.

    Attributes
    ----------
    scan : Scan
        As it is in the dataset.
    t1w, mask : Path
        Preprocessed image and brain mask in its own space.
    weight : float
        How much it counts: all sessions of a participant together count as one.
    """

    scan: Scan
    t1w: Path
    mask: Path
    weight: float = 1.0

    @property
    def wf_name(self) -> str:
        """Name of its part of a workflow."""
        return f"{self._identifier}_wf"

    @property
    def resample_wf_name(self) -> str:
        """Name of its second part, which waits for the first part of all others."""
        return f"{self._identifier}_resample_wf"

    @property
    def _identifier(self) -> str:
        return re.sub(r"\W", "_", self.scan.label.replace("-", "_"))


@dataclass(frozen=True)
class Estimate:
    """A study template on its way.

    Attributes
    ----------
    t1w, mask : Path
        Image and brain mask.
    sharpness : float
        Mean gradient over mean intensity in the brain, per mm.
    moved_mm : float or None
        How far the template before was moved to the mean shape (RMS).
    bias_mm : float or None
        How far this one is from the mean shape of the scans (RMS).
    change : float or None
        RMS difference to the template before, over the mean intensity.
    update, inverse_update : Path or None
        Points of this template to points of the one before, and back.
    transforms, inverses : dict of str to Path
        By the label of the scan: template before to scan, and back.
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


def init_start_wf(
    *, config: Config, members: Sequence[Member], anchor: Template, base_dir: Path
) -> pe.Workflow:
    """Align all scans to an anchor linearly, and average them in the mean of their sizes.

    Parameters
    ----------
    config : Config
        Threads, and how the template is to be.
    members : sequence of Member
        The scans.
    anchor : Template
        Gives orientation, voxels and, if asked for, the scale; a brain without skull.
    base_dir : Path
        Where intermediate results go.

    Returns
    -------
    Workflow
        With the nodes ``shape`` (`MeanShape`) and ``mean`` (`MeanImage`), and two workflows for
        each member.
    """
    workflow = pe.Workflow(name=START, base_dir=str(base_dir))
    shape, mean = _shape_and_mean(config, members, anchor.brain_mask, enlarge=True)
    threads = config.omp_nthreads
    for member in members:
        part = pe.Workflow(name=member.wf_name)
        align = pe.Node(
            Align(
                fixed=str(anchor.t1w),
                fixed_mask=str(anchor.mask),
                moving=str(member.t1w),
                moving_mask=str(member.mask),
                num_threads=threads,
            ),
            name="align",
            mem_gb=1.0,
        )
        part.add_nodes([align])
        _join(workflow, part, "align", _init_resample_wf(member, anchor, threads))
    _gather(workflow, members, "align", shape, mean)
    return workflow


def init_iteration_wf(
    *,
    config: Config,
    members: Sequence[Member],
    template: Template,
    mode: str,
    number: int,
    base_dir: Path,
) -> pe.Workflow:
    """Register all scans to a template, and average them in their mean shape.

    Parameters
    ----------
    config, members, base_dir
        As in `init_start_wf`.
    template : Template
        The estimate before, without skull.
    mode : {"predict", "refine", "optimize"}
        How scans are registered to it.
    number : int
        Of the iteration, from 1.

    Returns
    -------
    Workflow
        As `init_start_wf`; ``mean`` also tells how much the template changed.
    """
    workflow = pe.Workflow(name=f"iteration_{number}", base_dir=str(base_dir))
    shape, mean = _shape_and_mean(config, members, template.brain_mask, enlarge=False)
    mean.inputs.before = str(template.found[0])
    for member in members:
        part = pe.Workflow(name=member.wf_name)
        register = init_estimate_node(config, template, mode)
        register.inputs.moving = str(member.t1w)
        register.inputs.moving_mask = str(member.mask)
        part.add_nodes([register])
        resample = _init_resample_wf(member, template, config.omp_nthreads)
        _join(workflow, part, "estimate", resample)
    _gather(workflow, members, "estimate", shape, mean)
    return workflow


def _shape_and_mean(
    config: Config, members: Sequence[Member], mask: Path, *, enlarge: bool
) -> tuple[pe.Node, pe.Node]:
    """The nodes that bring together what was found for each scan."""
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
    """Bring a scan and its mask into the mean shape: the update acts first, then its transform."""
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


def _join(
    workflow: pe.Workflow, part: pe.Workflow, registration: str, resample: pe.Workflow
) -> None:
    """Add both parts of a member: what registers it, and what waits for all registrations."""
    workflow.connect(part, f"{registration}.transform", resample, "chain.in2")


def _gather(
    workflow: pe.Workflow,
    members: Sequence[Member],
    registration: str,
    shape: pe.Node,
    mean: pe.Node,
) -> None:
    """Join the parts of all scans with what is made of them together."""
    # What no other node needs is read in the end, by `read_estimate`.
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
            (part, merged["transforms"], [(f"{registration}.transform", f"in{number}")]),
            (resample, merged["images"], [("t1w.out_file", f"in{number}")]),
            (resample, merged["masks"], [("mask.out_file", f"in{number}")]),
            (shape, resample, [
                ("update", "chain.in1"),
                ("grid", "t1w.reference"),
                ("grid", "mask.reference"),
            ]),
        ])  # fmt: skip


def read_estimate(workflow: pe.Workflow, members: Sequence[Member]) -> Estimate:
    """What `init_start_wf` or `init_iteration_wf`, having run, has found."""
    shape, mean = (_outputs(workflow, name) for name in ("shape", "mean"))
    start = workflow.name == START
    found = (
        {}
        if start
        else {m.scan.label: _outputs(workflow, f"{m.wf_name}.estimate") for m in members}
    )
    return Estimate(
        t1w=Path(mean.t1w),
        mask=Path(mean.mask),
        sharpness=mean.sharpness,
        moved_mm=shape.moved_mm,
        bias_mm=shape.bias_mm,
        change=None if start else mean.change,
        update=Path(shape.update),
        inverse_update=Path(shape.inverse_update),
        transforms={label: Path(one.transform) for label, one in found.items()},
        inverses={label: Path(one.inverse) for label, one in found.items()},
    )


def _outputs(workflow: pe.Workflow, node: str) -> Any:
    """Outputs of a node that has run, as Nipype keeps them in the work folder."""
    folder = Path(workflow.base_dir, workflow.name, *node.split("."))
    return load_resultfile(str(folder / f"result_{folder.name}.pklz")).outputs
