"""Visual report: figures of each subject, assembled to one HTML file."""

from __future__ import annotations

import json
import platform
from collections.abc import Iterable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nipype.pipeline import engine as pe
from niworkflows.engine.workflows import LiterateWorkflow

from bids_fcnreg import __version__
from bids_fcnreg.atomic import replacing
from bids_fcnreg.bids.order import natural_key
from bids_fcnreg.fcn.modes import MODES
from bids_fcnreg.interfaces.pictures import Deformation, Flicker, Slices
from bids_fcnreg.interfaces.quality import QualityTable
from bids_fcnreg.interfaces.reports import Summary, write_errors
from bids_fcnreg.workflows.outputs import sink
from bids_fcnreg.workflows.resources import DEFORMATION, DRAW, field_node, sized_node, voxels_of

if TYPE_CHECKING:
    from nireports.assembler.report import Report

    from bids_fcnreg.bids.atlases import Atlas
    from bids_fcnreg.bids.order import ReferenceSession
    from bids_fcnreg.bids.scan import Scan
    from bids_fcnreg.bids.templates import Template
    from bids_fcnreg.config import Config

_DATA = Path(__file__).parents[1] / "data"
#: Specification of the figures in the report, and template of the page.
SPECIFICATION, PAGE = _DATA / "reports-spec.yml", _DATA / "report.html.j2"


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
        Scan with its T1w images.
    templates : iterable of Template
        Templates it is registered to.
    reference : ReferenceSession, optional
        The session that changes are relative to.
    name : str
        Name of the workflow.

    Inputs
    ------
    preproc, mask
        Preprocessed T1w and brain mask.
    skull_stripped
        Whether the T1w was skull-stripped in the input.
    runs
        Sidecar fields about the averaged runs; see
        `bids_fcnreg.preprocessing.runs.describe_average`.
    """
    workflow = LiterateWorkflow(name=name)
    inputnode = field_node("inputnode", "preproc", "mask", "skull_stripped", "runs")
    summary = pe.Node(
        Summary(
            t1w=[path.name for path in scan.t1w],
            templates=[template.space for template in templates],
            mode=config.mode,
            weights=_weights(config),
            device=config.device,
            versions={"bids_fcnreg": __version__, "Python": platform.python_version()}
            | {name: version(name) for name in ("torch", "nipype")},
        ),
        name="summary",
        run_without_submitting=True,
    )
    if scan.session is not None:
        summary.inputs.session = scan.session
    if reference is not None:
        summary.inputs.reference = reference.description
    if scan.lesions:
        summary.inputs.lesions = [path.name for path in scan.lesions]
    outline = sized_node(Slices(), "mask_outline", DRAW, voxels_of(scan.t1w[0]))
    ds_summary = _figure_sink(config, scan, "ds_summary", desc="summary", suffix="T1w")
    ds_outline = _figure_sink(config, scan, "ds_mask_outline", desc="brain", suffix="mask")
    workflow.connect([
        (inputnode, summary, [("skull_stripped", "skull_stripped"), ("runs", "runs")]),
        (inputnode, outline, [("preproc", "background"), ("mask", "mask")]),
        (summary, ds_summary, [("out_file", "in_file")]),
        (outline, ds_outline, [("out_file", "in_file")]),
    ])  # fmt: skip
    return workflow


def init_template_report_wf(
    *, config: Config, scan: Scan, template: Template, name: str = "report_template_wf"
) -> LiterateWorkflow:
    """Make the figures of a registration, and the table of quality metrics.

    Inputs
    ------
    preproc_std
        T1w on the template's grid.
    transform
        ITK .h5 of the registration.
    quality
        JSON of the quality metrics.
    """
    workflow = LiterateWorkflow(name=name)
    inputnode = field_node("inputnode", "preproc_std", "transform", "quality")
    voxels = voxels_of(template.t1w)
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
        Deformation(mask=str(template.mask), num_threads=config.omp_nthreads),
        "deformation",
        DEFORMATION,
        voxels,
    )
    table = pe.Node(QualityTable(space=template.space), name="table", run_without_submitting=True)
    workflow.connect([
        (inputnode, flicker, [("preproc_std", "before")]),
        (inputnode, deformation, [("preproc_std", "background"), ("transform", "transform")]),
        (inputnode, contours, [("preproc_std", "background")]),
        (inputnode, table, [("quality", "quality")]),
    ])  # fmt: skip
    for made, output, name, desc, suffix in (
        (contours, "out_file", "ds_contours", "contours", "T1w"),
        (flicker, "out_file", "ds_flicker", "flicker", "T1w"),
        (deformation, "out_file", "ds_deformation", "deformation", "T1w"),
        (table, "out_file", "ds_table", "quality", "xfm"),
        (table, "verdict", "ds_verdict", "verdict", "xfm"),
    ):
        store = _figure_sink(config, scan, name, space=template.space, desc=desc, suffix=suffix)
        workflow.connect(made, output, store, "in_file")
    return workflow


def init_atlas_report_wf(
    *, config: Config, scan: Scan, template: Template, atlas: Atlas, name: str = "report_atlas_wf"
) -> LiterateWorkflow:
    """Make the figure of atlas labels on the subject's T1w.

    Inputs
    ------
    preproc, mask, labels
        T1w, brain mask and labels, on the same grid.
    lookup
        TSV of index and name of the labels.
    """
    workflow = LiterateWorkflow(name=name)
    inputnode = field_node("inputnode", "preproc", "mask", "labels", "lookup")
    overlay = sized_node(Slices(), "overlay", DRAW, voxels_of(scan.t1w[0]))
    ds_overlay = _figure_sink(
        config, scan, "ds_overlay", segmentation=atlas.name, desc=template.space, suffix="dseg"
    )
    workflow.connect([
        (inputnode, overlay, [
            ("preproc", "background"),
            *((name, name) for name in ("mask", "labels", "lookup")),
        ]),
        (overlay, ds_overlay, [("out_file", "in_file")]),
    ])  # fmt: skip
    return workflow


def run_reports(
    config: Config,
    scans: Iterable[Scan],
    failures: Mapping[str, str] | None = None,
    crash_files: Mapping[str, Path] | None = None,
) -> list[Path]:
    """Assemble the visual report of every participant from the figures in the derivatives.

    Parameters
    ----------
    config : Config
        Settings with the derivatives folder.
    scans : iterable of Scan
        One report per participant, with all sessions.
    failures : mapping of str to str, optional
        Error messages by label of the scan.
    crash_files : mapping of str to Path, optional
        Crash files of unexpected errors.

    Returns
    -------
    list of Path
        The reports: ``sub-<label>.html`` in the derivatives.
    """
    by_participant: dict[str, list[Scan]] = {}
    for scan in scans:
        by_participant.setdefault(scan.participant, []).append(scan)
    return [
        _run_report(config.output_dir, participant, theirs, failures or {}, crash_files or {})
        for participant, theirs in by_participant.items()
    ]


def _run_report(
    output_dir: Path,
    participant: str,
    scans: list[Scan],
    failures: Mapping[str, str],
    crash_files: Mapping[str, Path],
) -> Path:
    """Assemble one participant's report."""
    root = output_dir / f"sub-{participant}"
    figures = root / "figures"
    figures.mkdir(parents=True, exist_ok=True)
    errors = figures / f"sub-{participant}_desc-errors_T1w.html"
    errors.unlink(missing_ok=True)
    failed = {scan.label: failures[scan.label] for scan in scans if scan.label in failures}
    if failed:
        write_errors(errors, failed, crash_files)
    path = output_dir / f"sub-{participant}.html"
    with replacing(path) as temporary:
        report = _report_class([scan.session for scan in scans])(
            output_dir,
            run_uuid=None,
            bootstrap_file=SPECIFICATION,
            out_filename=temporary.name,
            # Folder of one subject: indexing all subjects for each report would be quadratic.
            reportlets_dir=root,
            # Inserted into YAML verbatim, so quoted.
            metadata={"page": json.dumps(str(PAGE)), "logs": json.dumps(str(output_dir / "logs"))},
            subject=participant,
        )
        if not any(figures.glob("*_desc-verdict_xfm.html")):
            _remove_sections(report, "Methods")  # there is nothing to describe
        report.generate_report()
    return path


def _report_class(sessions: Sequence[str | None]) -> type[Report]:
    """Return a class of reports with sessions in this order, and others after them."""
    from nireports.assembler.report import Report

    class OrderedReport(Report):
        @staticmethod
        def _process_orderings(orderings: Any, hits: Any) -> tuple[Any, Any]:
            entities, found = Report._process_orderings(orderings, hits)

            def sort_key(values: tuple[str | None, ...]) -> tuple[object, ...]:
                known = [sessions.index(v) if v in sessions else len(sessions) for v in values]
                return *known, *(natural_key(value or "") for value in values)

            return entities, sorted(found, key=sort_key)

    return OrderedReport


def _remove_sections(report: Report, title: str) -> None:
    """Remove the parts with a title from a report."""
    for section in report.sections:
        section.reportlets = [one for one in section.reportlets if one.title != title]


def _weights(config: Config) -> str:
    """Describe the initial weights of a run's network."""
    if not MODES[config.mode].trained:
        return f"{config.network}, trained from scratch on each pair"
    return str(config.model) if config.model else f"{config.network}, weights of the package"


def _figure_sink(config: Config, scan: Scan, name: str, **naming: str) -> pe.Node:
    return sink(config, scan, name, datatype="figures", **naming)
