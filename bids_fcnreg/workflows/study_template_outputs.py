"""Results of a study template: transforms of each scan, and to known templates."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from nipype.pipeline import engine as pe

from bids_fcnreg.fcn.structures import TISSUES
from bids_fcnreg.interfaces.study_template import CollapseTransforms, TissueMaps
from bids_fcnreg.workflows.group_report import publish_node
from bids_fcnreg.workflows.outputs import sink
from bids_fcnreg.workflows.register import init_estimate_node
from bids_fcnreg.workflows.resources import node_name

if TYPE_CHECKING:
    from bids_fcnreg.bids.templates import Template
    from bids_fcnreg.config import Config
    from bids_fcnreg.workflows.study_template import Estimate, Member


def init_transforms_wf(
    *,
    config: Config,
    members: Sequence[Member],
    estimate: Estimate,
    space: str,
    reference: Path,
    base_dir: Path,
) -> pe.Workflow:
    """Write the transforms between each scan and the finished template.

    Parameters
    ----------
    config, members, base_dir
        As in `study_template.init_iteration_wf`.
    estimate : Estimate
        Result of the last iteration.
    space : str
        Name of the template.
    reference : Path
        Its image.
    """
    workflow = pe.Workflow(name="transforms", base_dir=str(base_dir))
    for member in members:
        label = member.scan.label
        part = pe.Workflow(name=member.wf_name)
        collapse = pe.Node(
            CollapseTransforms(
                transforms=[str(estimate.update), str(estimate.transforms[label])],
                inverses=[str(estimate.inverses[label]), str(estimate.inverse_update)],
                reference=str(estimate.t1w),
                num_threads=config.omp_nthreads,
            ),
            name="collapse",
            mem_gb=2.0,
        )
        naming = {"mode": "image", "suffix": "xfm"}
        sources = [str(member.t1w), str(member.mask), str(reference)]
        forward = sink(
            config,
            member.scan,
            "ds_transform",
            **{"from": "T1w", "to": space},
            Description=f"Maps points of {space} to points of the T1w image",
            **naming,
        )
        backward = sink(
            config,
            member.scan,
            "ds_inverse",
            **{"from": space, "to": "T1w"},
            Description=f"Maps points of the T1w image to points of {space}",
            **naming,
        )
        forward.inputs.sources = backward.inputs.sources = sources
        part.connect([
            (collapse, forward, [("transform", "in_file")]),
            (collapse, backward, [("inverse", "in_file")]),
        ])  # fmt: skip
        workflow.add_nodes([part])
    return workflow


def init_finish_wf(
    *,
    config: Config,
    template: Template,
    anchors: Sequence[Template],
    directory: Path,
    base_dir: Path,
) -> pe.Workflow:
    """Register known templates to the finished one, and resample the built-in tissue maps.

    Parameters
    ----------
    config, base_dir
        As in `study_template.init_iteration_wf`.
    template : Template
        The finished template, skull-stripped.
    anchors : sequence of Template
        A built-in template, and the one that defined the orientation if different.
    directory : Path
        Output directory ``tpl-NAME``.
    """
    workflow = pe.Workflow(name="finish", base_dir=str(base_dir))
    name = template.name
    for anchor in anchors:
        space = node_name(anchor.space)
        register = init_estimate_node(config, template, name=f"register_{space}")
        register.inputs.moving = str(anchor.t1w)
        register.inputs.moving_mask = str(anchor.mask)
        ending = "mode-image_xfm.h5"
        from_anchor = publish_node(
            directory / f"tpl-{name}_from-{anchor.space}_{ending}", f"put_from_{space}"
        )
        to_anchor = publish_node(
            directory / f"tpl-{name}_from-{name}_to-{anchor.space}_{ending}", f"put_to_{space}"
        )
        workflow.connect([
            (register, from_anchor, [("transform", "in_file")]),
            (register, to_anchor, [("inverse", "in_file")]),
        ])  # fmt: skip
        if not anchor.builtin:
            continue
        tissue = pe.Node(
            TissueMaps(mask=str(template.mask), builtin=anchor.name), name="tissue", mem_gb=1.0
        )
        workflow.connect(register, "transform", tissue, "transform")
        for label in TISSUES:
            put = publish_node(
                directory / f"tpl-{name}_res-01_label-{label}_probseg.nii.gz", f"put_{label}"
            )
            workflow.connect(tissue, label.lower(), put, "in_file")
    return workflow
