"""Group-level report from the results of the participant level."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from nipype.interfaces import utility as niu
from nipype.pipeline import engine as pe

from bids_fcnreg.interfaces.group import (
    Publish,
    StudyImages,
    StudyPage,
    StudyQuality,
    StudyVolumes,
)
from bids_fcnreg.study.tables import included_in_mean
from bids_fcnreg.workflows.resources import field_node, node_name

if TYPE_CHECKING:
    from bids_fcnreg.bids.results import Result
    from bids_fcnreg.config import Config
    from bids_fcnreg.study.tables import Row

#: Directory in the derivatives for study-level results.
DIRECTORY = "group"


def init_group_report_wf(
    *, config: Config, dataset: str, rows: Mapping[str, Sequence[Row]], results: Sequence[Result]
) -> pe.Workflow:
    """Make tables, mean images and quality plots of all scans.

    Parameters
    ----------
    config : Config
        Settings with the derivatives directory and the work directory.
    dataset : str
        Name of the study.
    rows : mapping of str to sequence of Row
        All scans, with or without results, by template space.
    results : sequence of Result
        Files of scans with results.

    Returns
    -------
    Workflow
        Contains a workflow for each space. Writes ``group.html``, and to ``group/`` the tables
        with their data dictionaries and the mean images.
    """
    workflow = pe.Workflow(name="group_wf", base_dir=str(config.cache_dir))
    page = pe.Node(StudyPage(dataset=dataset, spaces=list(rows)), name="page")
    gathered = {}
    for field in ("rows", "means", "distributions"):
        gathered[field] = pe.Node(
            niu.Merge(len(rows)), name=f"all_{field}", run_without_submitting=True
        )
        workflow.connect(gathered[field], "out", page, field)
    for number, (space, theirs) in enumerate(rows.items(), start=1):
        done = [result for result in results if result.space == space]
        part = init_space_wf(
            config=config, space=space, rows=theirs, results=done, name=f"{node_name(space)}_wf"
        )
        for field, merge in gathered.items():
            workflow.connect(part, f"outputnode.{field}", merge, f"in{number}")
    put = publish_node(config.output_dir / "group.html", "put_page")
    workflow.connect(page, "page", put, "in_file")
    return workflow


def init_space_wf(
    *, config: Config, space: str, rows: Sequence[Row], results: Sequence[Result], name: str
) -> pe.Workflow:
    """Make tables, mean images and figures of one template space.

    Parameters as in `init_group_report_wf`, for one space.

    Outputs
    -------
    rows
        JSON of the rows with metrics and outliers.
    means, distributions
        Figures.
    """
    workflow = pe.Workflow(name=name)
    directory = config.output_dir / DIRECTORY
    outputnode = field_node("outputnode", "rows", "means", "distributions")
    verdicts = {result.label: result.verdict for result in results}
    fields = [asdict(row) | {"verdict": verdicts.get(row.label)} for row in rows]
    quality = pe.Node(
        StudyQuality(rows=fields, done=[result.label for result in results], space=space),
        name="quality",
        mem_gb=0.5,
    )
    _put_table(workflow, quality, directory / f"space-{space}_quality.tsv", "quality")
    workflow.connect(quality, "rows", outputnode, "rows")
    quality.inputs.quality = [str(result.quality) for result in results]
    images = pe.Node(
        StudyImages(
            t1w=[str(result.t1w) for result in results],
            masks=[str(result.mask) for result in results],
            log_jacobian=[str(result.log_jacobian) for result in results],
            included=included_in_mean([result.verdict for result in results]),
        ),
        name="images",
        mem_gb=2.0,
    )
    workflow.connect([
        (images, quality, [("similarity", "similarity")]),
        (images, outputnode, [("picture", "means")]),
        (quality, outputnode, [("picture", "distributions")]),
    ])  # fmt: skip
    names = {
        "t1w_mean": "desc-mean_T1w",
        "t1w_sd": "desc-sd_T1w",
        "log_jacobian_mean": "desc-mean_logjacobian",
        "log_jacobian_sd": "desc-sd_logjacobian",
        "mask": "desc-brain_mask",
    }
    for field, ending in names.items():
        put = publish_node(directory / f"space-{space}_{ending}.nii.gz", f"put_{field}")
        workflow.connect(images, field, put, "in_file")
    for atlas in sorted({atlas for result in results for atlas in result.volumes}):
        theirs = [result for result in results if atlas in result.volumes]
        volumes = pe.Node(
            StudyVolumes(
                rows=fields,
                done=[result.label for result in theirs],
                volumes=[str(result.volumes[atlas]) for result in theirs],
                masks=[str(result.native_mask) for result in theirs],
                atlas=atlas,
                space=space,
            ),
            name=f"volumes_{atlas}",
            mem_gb=0.5,
        )
        _put_table(
            workflow, volumes, directory / f"space-{space}_atlas-{atlas}_volumes.tsv", volumes.name
        )
    return workflow


def _put_table(workflow: pe.Workflow, made: pe.Node, path: Path, name: str) -> None:
    """Publish a table and its data dictionary in the derivatives."""
    table = publish_node(path, f"put_{name}_table")
    dictionary = publish_node(path.with_suffix(".json"), f"put_{name}_dictionary")
    workflow.connect([
        (made, table, [("table", "in_file")]),
        (made, dictionary, [("dictionary", "in_file")]),
    ])  # fmt: skip


def publish_node(path: Path, name: str) -> pe.Node:
    """Make a node that publishes a file."""
    return pe.Node(Publish(out_file=str(path)), name=name, run_without_submitting=True)
