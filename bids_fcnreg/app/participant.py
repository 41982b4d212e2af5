"""The participant level: register every scan to every template."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from nipype import Workflow
from rich.console import Console

from bids_fcnreg.app import preflight
from bids_fcnreg.app.anatomical_reference import report_mixed_references
from bids_fcnreg.app.cohorts import choose_cohorts
from bids_fcnreg.app.methods_text import write_methods
from bids_fcnreg.app.other_images import alignment_warnings, remove_outdated_figures
from bids_fcnreg.app.precomputed import add_precomputed
from bids_fcnreg.app.provenance import list_planned, report_outdated, report_replaced
from bids_fcnreg.app.reference_sessions import report_reference_sessions
from bids_fcnreg.app.reports import make_reports
from bids_fcnreg.app.summary import (
    Failure,
    lesion_warnings,
    print_summary,
    quality_warnings,
    read_crash_files,
    read_quality_by_space,
)
from bids_fcnreg.bids.atlas_descriptions import write_atlas_descriptions
from bids_fcnreg.bids.atlases import Atlas
from bids_fcnreg.bids.derivatives import write_json
from bids_fcnreg.bids.desc_labels import describe_labels, write_descriptions
from bids_fcnreg.bids.output_names import check_output_names, output_names
from bids_fcnreg.bids.precomputed import parse_derivatives
from bids_fcnreg.bids.results import FAILURES
from bids_fcnreg.bids.scan import Scan
from bids_fcnreg.bids.templates import Template, templates_of
from bids_fcnreg.config import UNBIASED_OPTION, Config
from bids_fcnreg.errors import InputError
from bids_fcnreg.execution.progress import ProgressDisplay
from bids_fcnreg.execution.run import configure, run_workflow
from bids_fcnreg.io.header import check_file
from bids_fcnreg.io.nifti import orientation_warning
from bids_fcnreg.preprocessing.lesions import lesion_position_warning, lesion_value_warning
from bids_fcnreg.qc.verdict import UNUSABLE
from bids_fcnreg.workflows.base import group_scans, workflow_labels
from bids_fcnreg.workflows.resources import scans_at_once

DONE, SUBJECT_FAILED = 0, 1


def run(config: Config, console: Console) -> int:
    """Register every scan of the dataset to every template, or the cohorts for its age.

    Returns
    -------
    int
        0, or 1 if a subject failed or was registered to some of its templates only.

    Raises
    ------
    FcnregError
        If nothing can be run.
    """
    if not config.reports_only:
        parse_derivatives(config.derivatives)  # before the dataset is read
        preflight.check_weights(config)
        preflight.check_device(config)
    scans = preflight.read_input_dataset(config, console)
    _check_lesions(config, scans)
    if config.reports_only:
        return _report_existing(config, scans, console)
    choice = choose_cohorts(config, scans, console)
    templates, atlases = preflight.find_templates(config, choice)
    scans, unsuitable = add_precomputed(config, scans, templates, console)
    unusable = {
        **_find_unusable(config, scans, templates, atlases),
        **choice.failures,
        **unsuitable,
    }
    usable = [scan for scan in scans if scan.label not in unusable]
    preflight.check_programs(config, usable)
    report_reference_sessions(config, usable, console)
    _warn_of_doubts(scans, templates, atlases, console)
    report_mixed_references(config, usable, console)
    report_outdated(config, scans, console)
    if config.dry_run:
        list_planned(config, scans, templates, atlases, unusable, console)
        return DONE
    report_replaced(config, scans, templates, atlases, unusable, console)
    config = config.with_threads(scans_at_once(config, len(usable), templates))
    run_dir = preflight.make_directories(config)
    _describe_names(config, templates, atlases)
    people = {f"sub-{scan.participant}" for scan in scans}
    preflight.remove_stale_files(config, *(config.output_dir / person for person in people))

    log_file = configure(config, run_dir)
    parts = () if config.boilerplate_only else people
    with preflight.locked_directories(config, parts, console):
        return _process(
            config,
            scans,
            unusable,
            choice.incomplete,
            templates,
            atlases,
            run_dir,
            log_file,
            console,
        )


def _describe_names(
    config: Config, templates: Sequence[Template], atlases: Mapping[str, Sequence[Atlas]]
) -> None:
    """Describe labels in the names of the results: those of ``desc-`` and of atlases."""
    spaces = [template.space for template in templates]
    labels = describe_labels(spaces, config.xfm_formats, config.longitudinal)
    write_descriptions(config.output_dir, labels)
    write_atlas_descriptions(
        config.output_dir, [one for space in spaces for one in atlases[space]]
    )


def _check_lesions(config: Config, scans: Sequence[Scan]) -> None:
    """Refuse lesion masks of sessions that are registered to each other: they would be ignored."""
    if not config.longitudinal:
        return
    several = [scan for theirs in group_scans(config, scans) if len(theirs) > 1 for scan in theirs]
    lesions = [scan.label for scan in several if scan.lesions]
    if lesions:
        raise InputError(
            f"Lesion masks are not supported with {UNBIASED_OPTION} ({', '.join(lesions)}). Omit "
            "that option, or exclude these participants."
        )


def _process(
    config: Config,
    scans: Sequence[Scan],
    unusable: Mapping[str, Failure],
    incomplete: Mapping[str, Failure],
    templates: Sequence[Template],
    atlases: Mapping[str, Sequence[Atlas]],
    run_dir: Path,
    log_file: Path,
    console: Console,
) -> int:
    """Build the workflow, run it and report the outcome.

    `unusable` scans are not processed; `incomplete` ones lack some of the templates.
    """
    usable = [scan for scan in scans if scan.label not in unusable]
    if not any(scan.images for scan in usable):
        raise InputError(next(iter(unusable.values())).message)
    with preflight.validated_input(config, run_dir, console):
        workflow = preflight.build_workflow(config, usable, templates, atlases)
    methods = write_methods(config, workflow, usable)
    if config.write_graph:
        _write_graph(workflow, console)
    if config.boilerplate_only:
        console.print(f"Methods text: {methods}")
        return DONE
    labels = workflow_labels(config, usable, workflow)
    display, stopped = run_workflow(config, workflow, labels, log_file, console)
    failures = {**_collect_failures(config, scans, display, stopped, run_dir), **unusable}
    write_methods(config, workflow, [one for one in scans if one.label not in failures])
    return _report_outcome(
        config, scans, templates, display, failures, incomplete, run_dir, console
    )


def _find_unusable(
    config: Config,
    scans: Sequence[Scan],
    templates: Sequence[Template],
    atlases: Mapping[str, Sequence[Atlas]],
) -> dict[str, Failure]:
    """Find the scans that cannot be read, or whose results cannot be written, and why."""
    found = {}
    for scan in scans:
        try:
            for path in (*scan.images, *scan.lesions):  # of other images, at reading
                check_file(path)
            if scan.images:
                theirs = templates_of(scan, templates)
                check_output_names(scan, theirs, atlases, config.output_dir)
        except InputError as why:
            found[scan.label] = Failure(str(why))
        if file := _conflicting_file(config, scan):
            found[scan.label] = Failure(
                f"{file} conflicts with the directory of the results. Move it."
            )
    return found


def _conflicting_file(config: Config, scan: Scan) -> Path | None:
    """Return a file whose path is that of a directory for the results of a scan, if any."""
    directory = config.output_dir.joinpath(*scan.label.split("_"), "anat")
    figures = config.output_dir / f"sub-{scan.participant}" / "figures"
    directories = (directory, figures, *directory.parents)
    return next(
        (path for path in directories if os.path.lexists(path) and not path.is_dir()), None
    )


def _warn_of_doubts(
    scans: Sequence[Scan],
    templates: Sequence[Template],
    atlases: Mapping[str, Sequence[Atlas]],
    console: Console,
) -> None:
    """Warn of doubtful orientations of images, lesion mask values and names of atlas labels."""
    paths = [path for scan in scans for path in (*scan.images, *scan.all_lesions)]
    paths += [other.path for scan in scans for other in scan.others]
    paths += [path for template in templates for path in template.found]
    paths += [atlas.image for one in atlases.values() for atlas in one if atlas.image]
    for path in dict.fromkeys(paths):
        if doubt := orientation_warning(path):
            console.print(f"warning: {doubt}", soft_wrap=True)
    drawn_on = {path: scan.images for scan in scans for path in scan.lesions}
    drawn_on |= {
        path: (other.path,) for scan in scans for other in scan.others for path in other.lesions
    }
    for path, images in drawn_on.items():
        for doubt in (lesion_value_warning(path), lesion_position_warning(path, images)):
            if doubt:
                console.print(f"warning: {doubt}", soft_wrap=True)
    doubts = [doubt for one in atlases.values() for atlas in one for doubt in atlas.doubts]
    for doubt in dict.fromkeys(doubts):
        console.print(f"warning: {doubt}", soft_wrap=True, markup=False)


def _report_existing(config: Config, scans: Sequence[Scan], console: Console) -> int:
    """Write the reports of the scans that have results."""
    done = [scan for scan in scans if read_quality_by_space(config.output_dir, scan.label)]
    for report in make_reports(config, done):
        console.print(f"Report: {report}")
    without = [scan.label for scan in scans if scan not in done]
    if without:
        console.print(f"Skipped, no results: {', '.join(without)}")
    return SUBJECT_FAILED if without else DONE


def _write_graph(workflow: Workflow, console: Console) -> None:
    """Write the graph of the workflow as SVG or, without Graphviz, as a .dot file."""
    with contextlib.suppress(OSError):  # `dot` is not installed; the .dot file is written
        workflow.write_graph(graph2use="colored", format="svg", simple_form=True)
    graph = Path(workflow.base_dir) / workflow.name / "graph.svg"
    console.print(f"Graph: {graph if graph.exists() else graph.with_suffix('.dot')}")


def _collect_failures(
    config: Config,
    scans: Sequence[Scan],
    display: ProgressDisplay,
    stopped: Exception | None,
    run_dir: Path,
) -> dict[str, Failure]:
    """Return why subjects have no results, by label."""
    failures = read_crash_files(run_dir, display.workflows)
    ours = {scan.label for scan in scans}
    for label, subject in display.subjects.items():
        if label in failures:
            continue
        if subject.failed_stage is not None:
            failures[label] = Failure(f"The stage '{subject.failed_stage}' failed. See {run_dir}.")
    for label, subject in display.subjects.items():
        if label not in failures and subject.waiting:
            why = "the plugin did not wait" if stopped is None else _last_line(stopped)
            related = _related(label, failures) if config.longitudinal else None
            if related and label not in ours:
                continue  # the base of several sessions, which report it themselves
            failures[label] = related or Failure(f"Not finished when the run ended ({why}).")
    for scan in scans:
        if not scan.images:
            failures[scan.label] = Failure(
                scan.problem
                or "No T1w image. Add one, or select the other participants "
                "with --participant-label."
            )
    return failures


def _related(label: str, failures: Mapping[str, Failure]) -> Failure | None:
    """Return the failure of the base or session that a session depends on, if any."""
    participant = label.partition("_")[0]
    others = [other for other in failures if other.partition("_")[0] == participant]
    if not others:
        return None
    first = failures[others[0]]
    return Failure(f"Skipped: {others[0]} failed. {first.message}", first.crash_file)


def _last_line(error: Exception) -> str:
    """Return the last line of the message of an exception."""
    return (str(error).strip() or type(error).__name__).splitlines()[-1].strip()


def _report_outcome(
    config: Config,
    scans: Sequence[Scan],
    templates: Sequence[Template],
    display: ProgressDisplay,
    failures: Mapping[str, Failure],
    incomplete: Mapping[str, Failure],
    run_dir: Path,
    console: Console,
) -> int:
    """Write the reports and print how each subject ended."""
    incomplete = {label: one for label, one in incomplete.items() if label not in failures}
    messages = {label: one.message for label, one in {**failures, **incomplete}.items()}
    if messages:
        write_json(run_dir / FAILURES, messages)
    crash_files = {label: f.crash_file for label, f in failures.items() if f.crash_file}
    reported = [scan for scan in scans if scan.images and not _conflicting_file(config, scan)]
    done = [scan for scan in scans if scan.label not in failures]
    for scan in done if config.aligns_others else ():
        remove_outdated_figures(config.output_dir, scan)
    make_reports(config, reported, messages, crash_files)
    seconds = {label: subject.seconds for label, subject in display.subjects.items()}
    labels = [scan.label for scan in scans]
    names = {
        name for scan in done for name in output_names(scan, templates_of(scan, templates), {})
    }
    out = config.output_dir
    warnings = [
        text
        for scan in done
        for text in (
            *lesion_warnings(out, scan, names),
            *(alignment_warnings(out, scan) if config.aligns_others else ()),
        )
    ]
    warnings += [f"{label}: {one.message}" for label, one in incomplete.items()]
    print_summary(console, labels, seconds, failures, out, run_dir, warnings, names)
    bad = config.fail_on_qc and any(
        quality_warnings(out, scan.label, UNUSABLE, names) for scan in done
    )
    return SUBJECT_FAILED if failures or incomplete or bad else DONE
