"""Summary of a run: a table of the registrations, and one message per failure."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from bids_fcnreg.app.other_images import used_lesions
from bids_fcnreg.app.summary_table import SummaryRow, print_table
from bids_fcnreg.atomic import read_json
from bids_fcnreg.bids import results
from bids_fcnreg.bids.scan import Scan
from bids_fcnreg.execution.progress import stage_name, subject_label
from bids_fcnreg.preprocessing.lesions import is_empty
from bids_fcnreg.qc.metrics import METRICS
from bids_fcnreg.qc.verdict import LEVELS

_OWN_ERROR = re.compile(r"^\s*bids_fcnreg\.errors\.\w+: (.+)$", re.MULTILINE)
_ANY_ERROR = re.compile(r"^\s*(?:\w+\.)*(\w*(?:Error|Exception)): (.+)$", re.MULTILINE)


_NO_SPACE = (
    "No space left on device. Free some space in the work and output directories, or choose "
    "another work directory with -w, then rerun the command to resume."
)


@dataclass(frozen=True)
class Failure:
    """Reason why a subject has no results.

    Attributes
    ----------
    message : str
        Message for the user.
    crash_file : Path or None
        Nipype's crash file, if a node failed with an unexpected error.
    """

    message: str
    crash_file: Path | None = None


def read_crash_files(run_dir: Path, workflows: Mapping[str, str]) -> dict[str, Failure]:
    """Read why subjects failed from the crash files of a run.

    Parameters
    ----------
    run_dir : Path
        Directory with Nipype's crash files (txt) of this run only.
    workflows : mapping of str to str
        Labels of subjects by the name of their workflow.

    Returns
    -------
    dict
        The first failure of each failed subject, by label.
    """
    failures: dict[str, Failure] = {}
    for path in sorted(run_dir.glob("crash-*.txt"), key=lambda p: p.stat().st_mtime):
        text = path.read_text(errors="replace")
        node = _node_of(text, workflows)
        if node is None:
            continue
        label = subject_label(node, workflows)
        if label is not None and label not in failures:
            failures[label] = _explain(text, node, path)
    return failures


def _node_of(text: str, workflows: Mapping[str, str]) -> str | None:
    """Return the full name of the node of a crash file; None if the file is truncated."""
    head = re.match(r"Node: (.*)\n(?:Working directory: (.*)\n)?", text)
    if head is None:
        return None
    node, directory = head.groups()
    if subject_label(node, workflows) is not None or directory is None:
        return node
    # A node inside a MapNode has a short name; its working directory has the full one.
    parts = Path(directory).parts
    first = next((n for n, part in enumerate(parts) if part in workflows), 1)
    return ".".join(parts[first - 1 :])


def _explain(text: str, node: str, path: Path) -> Failure:
    """Return the failure described in a crash file."""
    own = _OWN_ERROR.findall(text)
    if own:
        return Failure(own[-1].strip())
    if os.strerror(errno.ENOSPC) in text:
        return Failure(_NO_SPACE, path)
    others = _ANY_ERROR.findall(text)
    reason = f" ({': '.join(others[-1]).strip().rstrip('.')})" if others else ""
    return Failure(f"The stage '{stage_name(node)}' failed{reason}. See {path} for details.", path)


def read_quality_by_space(
    output_dir: Path, label: str, names: Container[str] | None = None
) -> dict[str, dict[str, Any]]:
    """Read the quality metrics of a subject or session, by the space it was registered to.

    Parameters
    ----------
    output_dir : Path
        Directory of the derivatives.
    label : str
        Label such as ``sub-01`` or ``sub-01_ses-x``.
    names : container of str, optional
        File names of the results of this run; other templates and acquisitions are ignored. By
        default, the newest result in each space.
    """
    directory = output_dir.joinpath(*label.split("_"), "anat")
    found = {}
    # Of one scan with several acquisitions, the one registered last.
    paths = directory.glob(f"{label}_*desc-quality_xfm.json")
    for path in sorted(paths, key=lambda path: (path.stat().st_mtime, path.name)):
        if names is not None and path.name not in names:
            continue
        space = re.search(r"_to-([^_]+)_", path.name)
        if space is not None and (quality := results.read_quality(path)):
            found[space[1]] = quality
    return found


def quality_warnings(
    output_dir: Path,
    label: str,
    levels: Container[str] = LEVELS[1:],
    names: Container[str] | None = None,
) -> list[str]:
    """Return a message for each registration of a scan whose verdict is in `levels`.

    `names` is as for `read_quality_by_space`.
    """
    return [
        f"{label} to {space} is {quality['verdict']}: {quality['verdict_reason']}"
        for space, quality in read_quality_by_space(output_dir, label, names).items()
        if quality.get("verdict") in levels
    ]


def excluded_run_warnings(
    output_dir: Path, label: str, names: Container[str] | None = None
) -> list[str]:
    """Return a message for each run that was left out of the average of a scan.

    `names` is as for `read_quality_by_space`.
    """
    directory = output_dir.joinpath(*label.split("_"), "anat")
    paths = directory.glob(f"{label}*_desc-preproc_*.json")
    native = [
        path
        for path in paths
        if "_space-" not in path.name and (names is None or path.name in names)
    ]
    newest = max(native, key=lambda path: path.stat().st_mtime, default=None)
    reasons = read_json(newest).get("RunsLeftOut", {}) if newest else {}
    return [
        f"warning: {label}: {name} is excluded from the average: {why}"
        for name, why in reasons.items()
    ]


def lesion_warnings(
    output_dir: Path, scan: Scan, names: Container[str] | None = None
) -> list[str]:
    """Return a message if a scan has a lesion, but none in the brain.

    `names` is as for `read_quality_by_space`.
    """
    quality = read_quality_by_space(output_dir, scan.label, names).values()
    missed = any(one.get("excluded_percent") == 0 for one in quality)
    used = used_lesions(output_dir, scan)
    if not missed or all(map(is_empty, used)):
        return []
    masks = ", ".join(path.name for path in used)
    return [
        f"warning: {scan.label}: no voxel of {masks} is in the brain mask, so no lesion was "
        "excluded. Check the header of the lesion mask, and the brain mask in the report"
    ]


def summary_rows(
    labels: Sequence[str],
    seconds: Mapping[str, float],
    failures: Mapping[str, Failure],
    output_dir: Path,
    names: Container[str] | None = None,
) -> list[SummaryRow]:
    """Return a row of the summary table for each scan and template.

    `names` is as for `read_quality_by_space`.
    """
    rows = []
    for label in labels:
        time = f"{seconds[label]:.0f}" if label in seconds else "–"
        if label in failures:
            rows.append(SummaryRow(label, seconds=time))
            continue
        directory = "/".join([*label.split("_"), "anat"])
        rows += [
            SummaryRow(
                label,
                template=space,
                seconds=time,
                before=METRICS["similarity_initial"].read(quality),
                similarity=METRICS["similarity"].read(quality),
                folds=METRICS["folds_percent"].read(quality),
                verdict=quality.get("verdict", "–"),
                files=directory,
            )
            for space, quality in read_quality_by_space(output_dir, label, names).items()
        ]
    return rows


def print_summary(
    console: Console,
    labels: list[str],
    seconds: Mapping[str, float],
    failures: Mapping[str, Failure],
    output_dir: Path,
    run_dir: Path,
    warnings: Sequence[str] = (),
    names: Container[str] | None = None,
) -> None:
    """Print the summary table, failures and doubtful registrations, and the paths of results.

    `names` is as for `read_quality_by_space`.
    """
    print_table(console, summary_rows(labels, seconds, failures, output_dir, names))
    for label, failure in failures.items():
        console.print(f"{label} failed: {failure.message}", soft_wrap=True, markup=False)
    for label in labels:
        if label in failures:
            continue
        for message in (
            *excluded_run_warnings(output_dir, label, names),
            *quality_warnings(output_dir, label, names=names),
        ):
            console.print(message, soft_wrap=True, markup=False)
    for message in warnings:
        console.print(message, soft_wrap=True, markup=False)
    done = sum(label not in failures for label in labels)
    console.print(
        f"{done} of {len(labels)} done. Results and reports: {output_dir}; log: {run_dir}",
        soft_wrap=True,
        markup=False,
    )
