"""The group level: report, study template or training from participant-level results."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from rich.console import Console

from bids_fcnreg.app import preflight
from bids_fcnreg.app.anatomical_reference import report_unused_references
from bids_fcnreg.app.cohorts import space_prefix
from bids_fcnreg.app.summary import read_crash_files, read_quality_by_space
from bids_fcnreg.bids.description import read_description
from bids_fcnreg.bids.participants import read_participants
from bids_fcnreg.bids.results import Result, find_damaged, find_results, read_failures
from bids_fcnreg.bids.scan import Scan
from bids_fcnreg.bids.templates import is_automatic, resolve_templates
from bids_fcnreg.bids.versions import find_superseded, find_version_conflicts
from bids_fcnreg.config import DEFAULT_TEMPLATE, Config
from bids_fcnreg.errors import InputError
from bids_fcnreg.execution.run import configure, run_workflow
from bids_fcnreg.study.tables import Row, describe_verdicts, group_missing, rename_clashing_columns
from bids_fcnreg.workflows.group_report import DIRECTORY, init_group_report_wf

DONE, FAILED = 0, 1

#: Label of the whole study, in place of a subject's.
STUDY = "study"


def run(config: Config, console: Console) -> int:
    """Run the group task of the settings.

    Returns
    -------
    int
        0, or 1 if a part of it failed.

    Raises
    ------
    FcnregError
        If nothing can be run.
    """
    scans = preflight.read_input_dataset(config, console)
    report_unused_references(config, scans, console)
    if config.group_task == "report":
        return report(config.with_threads(), scans, console)
    # These import PyTorch, which takes seconds.
    if config.group_task == "template":
        from bids_fcnreg.app.study_template import make_template

        return make_template(config, scans, console)
    from bids_fcnreg.app.study_training import train

    return train(config, scans, console)


def report(config: Config, scans: Sequence[Scan], console: Console) -> int:
    """Write tables, mean images and the report of the study.

    Returns
    -------
    int
        0, or 1 if a part of it failed.

    Raises
    ------
    InputError
        If there are no participant-level results, or participants.tsv cannot be read.
    """
    results = _in_spaces(config, _results(config, scans))
    results, others = _of_one_suffix(results)
    for one in others:
        console.print(
            f"warning: {one.label}: its {one.suffix} image is not in the report of "
            f"{results[0].suffix} images. --reference-suffix {one.suffix} makes one of its own",
            soft_wrap=True,
        )
    left_out = {one.label for one in others} - {one.label for one in results}
    scans = [scan for scan in scans if scan.label not in left_out]
    doubts = read_participants(config.bids_dir).doubts
    for doubt in (*doubts, *find_version_conflicts(results), *find_superseded(results)):
        console.print(f"warning: {doubt}", soft_wrap=True, markup=False)
    run_dir = preflight.make_directories(config)
    preflight.remove_stale_files(config, config.output_dir / DIRECTORY)
    with preflight.locked_directories(config, ["the report"], console):
        return _report_intact_results(config, scans, results, run_dir, console)


def _report_intact_results(
    config: Config,
    scans: Sequence[Scan],
    results: Sequence[Result],
    run_dir: Path,
    console: Console,
) -> int:
    """Write the report of all results; if damaged ones make it fail, of the intact ones."""
    why = _make_report(config, scans, results, {}, run_dir, console)
    damaged = {
        key: f"{path} {what}. Run the participant level for it again"
        for key, (path, what) in (find_damaged(results) if why else {}).items()
    }
    whole = [one for one in results if (one.label, one.space) not in damaged]
    if damaged and whole:
        again = run_dir / "again"
        again.mkdir()
        why = _make_report(config, scans, whole, damaged, again, console)
    if why:
        console.print(f"The report of the study failed: {why}")
    return FAILED if why or damaged else DONE


def _make_report(
    config: Config,
    scans: Sequence[Scan],
    results: Sequence[Result],
    damaged: Mapping[tuple[str, str], str],
    run_dir: Path,
    console: Console,
) -> str | None:
    """Write the report of these results and print a summary; return the error message, if any.

    `damaged` is as for `study_rows`.
    """
    spaces = sorted({result.space for result in results})
    rows = {space: study_rows(config, scans, results, space, damaged) for space in spaces}
    log_file = configure(config, run_dir)
    name = str(read_description(config.bids_dir)["Name"])
    workflow = init_group_report_wf(config=config, dataset=name, rows=rows, results=results)
    labels = {workflow.name: STUDY}
    _, stopped = run_workflow(config, workflow, labels, log_file, console)
    failures = read_crash_files(run_dir, labels)
    if STUDY in failures or stopped is not None:
        return failures[STUDY].message if STUDY in failures else str(stopped)
    _print_summary(config, rows, results, console)
    return None


def _results(config: Config, scans: Sequence[Scan]) -> list[Result]:
    """Find the complete results of the scans, in all spaces.

    Raises
    ------
    InputError
        If there are none.
    """
    wanted = {scan.label: scan.suffix for scan in scans}
    results = [
        one
        for one in find_results(config.output_dir)
        if one.label in wanted and one.suffix == wanted[one.label]
    ]
    if not results:
        run = f"Run `bids_fcnreg {config.bids_dir} {config.output_dir} participant` first."
        if any(read_quality_by_space(config.output_dir, label) for label in wanted):
            raise InputError(f"{config.output_dir} holds only results of --level minimal. {run}")
        raise InputError(f"{config.output_dir} holds no participant-level results. {run}")
    return results


def _of_one_suffix(results: Sequence[Result]) -> tuple[list[Result], list[Result]]:
    """Split results into those of the most frequent suffix, whose images can be averaged."""
    (suffix, _), *_ = Counter(one.suffix for one in results).most_common()
    return (
        [one for one in results if one.suffix == suffix],
        [one for one in results if one.suffix != suffix],
    )


def _in_spaces(config: Config, results: Sequence[Result]) -> list[Result]:
    """Keep the results in the spaces of ``--template``; all, if the option is not given.

    Raises
    ------
    InputError
        If there are no results in one of the spaces.
    """
    if config.templates == (DEFAULT_TEMPLATE,):
        return list(results)
    known = sorted({one.space for one in results})
    wanted = [
        template.space
        for template in resolve_templates(one for one in config.templates if not is_automatic(one))
    ]
    for prefix in map(space_prefix, filter(is_automatic, config.templates)):
        wanted += [one for one in known if one.startswith(prefix)] or [f"{prefix}…"]
    for space in wanted:
        if space not in known:
            raise InputError(
                f"{config.output_dir} holds no results in the space of {space}, only in "
                f"{', '.join(known)}. Choose from these with --template, or omit it for all."
            )
    return [one for one in results if one.space in wanted]


def study_rows(
    config: Config,
    scans: Sequence[Scan],
    results: Sequence[Result],
    space: str,
    damaged: Mapping[tuple[str, str], str],
) -> list[Row]:
    """Return a table row with the status of every scan of the study.

    Scans with results in another cohort of the template only are omitted.

    Parameters
    ----------
    config : Config
        Settings, with the paths of dataset and derivatives.
    scans : sequence of Scan
        All scans of the study.
    results : sequence of Result
        Results that exist.
    space : str
        Space of the template.
    damaged : mapping of (str, str) to str
        What is wrong with a damaged result, by the label of the scan and the space.
    """
    people = read_participants(config.bids_dir)
    failures = read_failures(config.output_dir)
    done = {result.label for result in results if result.space == space}
    others = {result.label for result in results if _is_other_cohort(result.space, space)} - done

    def status(scan: Scan) -> tuple[str, str | None]:
        if scan.label in done:
            return "done", None
        if (scan.label, space) in damaged:
            return "failed", damaged[scan.label, space]
        if not scan.images:
            return "missing", scan.why_no_image(config.required_suffix)
        if scan.label in failures:
            return "failed", failures[scan.label]
        if space in read_quality_by_space(config.output_dir, scan.label):
            return "missing", "processed with --level minimal; rerun with --level full"
        return "missing", "no complete participant-level results"

    return [
        Row(
            scan.participant,
            scan.session,
            *status(scan),
            facts=rename_clashing_columns(people.find(scan.participant, scan.first_session)),
        )
        for scan in scans
        if scan.label not in others or (scan.label, space) in damaged
    ]


def _is_other_cohort(space: str, other: str) -> bool:
    """Return whether two spaces are different cohorts of one template."""
    name, cohort, _ = space.partition("+")
    return bool(cohort) and space != other and other.startswith(f"{name}+")


def _print_summary(
    config: Config, rows: Mapping[str, Sequence[Row]], results: Sequence[Result], console: Console
) -> None:
    """Print which scans are not in the tables, and where the results are."""
    for space, theirs in rows.items():
        done = sum(row.status == "done" for row in theirs)
        console.print(f"{space}: {done} of {len(theirs)} scans")
        for status, reason, labels in group_missing(theirs):
            console.print(
                f"  {len(labels)} {status} ({reason}): {', '.join(labels)}", soft_wrap=True
            )
        verdicts = {one.label: one.verdict for one in results if one.space == space}
        judged = [replace(row, verdict=verdicts.get(row.label)) for row in theirs]
        for message in describe_verdicts(judged):
            console.print(f"  {message}", soft_wrap=True, markup=False)
        modes = Counter(one.mode for one in results if one.space == space)
        if len(modes) > 1:
            listed = ", ".join(f"{count} {mode}" for mode, count in sorted(modes.items()))
            console.print(
                f"  registered in several modes ({listed}): their metrics are not comparable. "
                "Rerun the participant level in one mode",
                soft_wrap=True,
            )
    page = config.output_dir / "group.html"
    console.print(f"Report: {page}; tables and images: {config.output_dir / DIRECTORY}")
