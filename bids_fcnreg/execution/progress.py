"""Progress of a workflow on the terminal: one line per subject, with its current stage."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from rich.console import Console
from rich.progress import (
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
)

#: Names of the stages of nodes, and of the sub-workflows of a subject.
NODE_STAGES = {
    "extract": "brain mask",
    "debias": "bias correction",
    "estimate": "registration",
    "sessions": "registration of sessions",
}
WORKFLOW_STAGES = {
    "preprocess": "preprocessing",
    "segment": "tissue",
    "align": "other images",
    "unite_lesions": "other images",
    "register": "resampling",
    "propagate": "labels and volumes",
    "outputs": "writing results",
    "report": "figures",
    "changes": "changes between sessions",
    "base": "registration",
}


def stage_name(node: str) -> str:
    """Return the name of the stage that a node belongs to.

    Parameters
    ----------
    node : str
        Full name of the node, such as ``fcnreg_wf.sub_01_wf.register_MNI_wf.estimate``.
    """
    *parts, name = node.split(".")
    if name in NODE_STAGES:
        return NODE_STAGES[name]
    part = f"_{parts[2]}" if len(parts) > 2 else ""
    stages = (stage for key, stage in WORKFLOW_STAGES.items() if f"_{key}_" in f"{part}_")
    return next(stages, name.replace("_", " "))


def subject_label(node: str, workflows: Mapping[str, str]) -> str | None:
    """Return the label of the innermost subject workflow that contains a node (full name)."""
    parts = reversed(node.split("."))
    return next((workflows[part] for part in parts if part in workflows), None)


def format_remaining(seconds: float) -> str:
    """Format a remaining time in hours and minutes.

    Examples
    --------
    >>> format_remaining(50), format_remaining(200), format_remaining(8000)
    ('1 min', '3 min', '2 h 13 min')
    """
    hours, minutes = divmod(max(round(seconds / 60), 1), 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min"


@dataclass
class SubjectProgress:
    """Progress of one subject or session.

    Attributes
    ----------
    total : int
        Number of nodes.
    waiting : set of str
        Full names of the nodes that have not ended.
    failed_stage : str or None
        Stage of the first node that failed.
    running : set of str
        Full names of the running nodes.
    since : float
        Time in s at which the first of the running nodes was started.
    seconds : float
        Wall time in s during which at least one node ran.
    stages : list of str
        Stages entered, in order.
    """

    total: int = 0
    waiting: set[str] = field(default_factory=set)
    failed_stage: str | None = None
    running: set[str] = field(default_factory=set)
    since: float = 0.0
    seconds: float = 0.0
    stages: list[str] = field(default_factory=list)

    def started(self, node: str) -> None:
        """Record the start of a node."""
        if not self.running:
            self.since = time.monotonic()
        self.running.add(node)

    def stopped(self, node: str) -> None:
        """Record the end of a node."""
        if self.running == {node}:
            self.seconds += time.monotonic() - self.since
        self.running.discard(node)


class ProgressDisplay:
    """Display of the progress of each subject.

    It is a context manager, and the ``status_callback`` of Nipype's plugins. On a terminal it
    shows a live line per running subject; elsewhere it prints a line whenever a subject enters a
    stage.

    Parameters
    ----------
    nodes : iterable of str
        Full names of the nodes of the workflow.
    workflows : mapping of str to str
        Labels of subjects (such as ``sub-01``) by the name of their workflow.
    console : rich.console.Console
        Console to print to.
    live : bool, optional
        Whether to update lines in place; by default, whether the console is a terminal.
    """

    def __init__(
        self,
        nodes: Iterable[str],
        workflows: Mapping[str, str],
        console: Console,
        live: bool | None = None,
    ) -> None:
        self.workflows = workflows
        self.subjects = {label: SubjectProgress() for label in workflows.values()}
        for node in nodes:
            label = subject_label(node, workflows)
            if label is not None:
                self.subjects[label].waiting.add(node)
                self.subjects[label].total += 1
        self._console = console
        self._live = console.is_terminal if live is None else live
        self._lines = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}", markup=False),
            TextColumn("{task.fields[stage]}", markup=False),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            console=console,
            transient=True,
            disable=not self._live,
        )
        self._lines_of: dict[str, TaskID] = {}
        self._started = time.monotonic()
        self._whole: TaskID | None = None

    def __enter__(self) -> ProgressDisplay:
        self._lines.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._lines.stop()

    def __call__(self, node: Any, status: str) -> None:
        """Record that a node has started (``start``), ended, or failed (``exception``)."""
        label = subject_label(node.fullname, self.workflows)
        if label is None:
            return
        subject = self.subjects[label]
        if status == "start":
            subject.started(node.fullname)
        else:
            subject.stopped(node.fullname)
        if status == "start":
            self._enter_stage(label, subject, stage_name(node.fullname))
        elif status == "exception":
            self._fail(label, subject, stage_name(node.fullname))
        else:
            self._finish_node(label, subject, node.fullname)

    def _enter_stage(self, label: str, subject: SubjectProgress, stage: str) -> None:
        if stage not in subject.stages:
            subject.stages.append(stage)
            if not self._live:
                self._print(f"{label}: {stage}")
        if label not in self._lines_of:
            done = subject.total - len(subject.waiting)
            self._lines_of[label] = self._lines.add_task(
                label, total=subject.total, completed=done, stage=""
            )
        self._lines.update(self._lines_of[label], stage=stage)

    def _fail(self, label: str, subject: SubjectProgress, stage: str) -> None:
        if subject.failed_stage is None:
            subject.failed_stage = stage
            self._print(f"{label}: failed in {stage}")

    def _finish_node(self, label: str, subject: SubjectProgress, name: str) -> None:
        if name not in subject.waiting:  # a sub-node of a MapNode
            return
        subject.waiting.remove(name)
        if label in self._lines_of:
            self._lines.advance(self._lines_of[label])
        if not subject.waiting and subject.failed_stage is None:
            self._print(f"{label}: done in {subject.seconds:.0f} s{self._remaining()}")
            self._drop_line(label)

    def _remaining(self) -> str:
        """Describe how many subjects have ended and the estimated remaining time."""
        subjects = [one for one in self.subjects.values() if one.total]
        ended = sum(not one.waiting or one.failed_stage is not None for one in subjects)
        left = len(subjects) - ended
        if ended < 2 or left == 0:
            return ""
        seconds = left * (time.monotonic() - self._started) / ended
        if self._whole is None:
            self._whole = self._lines.add_task("all", total=ended + left, stage="")
        self._lines.update(
            self._whole, completed=ended, stage=f"about {format_remaining(seconds)} left"
        )
        return f" ({ended} of {ended + left}, about {format_remaining(seconds)} left)"

    def _drop_line(self, label: str) -> None:
        task = self._lines_of.pop(label, None)
        if task is not None:
            self._lines.remove_task(task)

    def _print(self, message: str) -> None:
        self._console.print(message, markup=False, highlight=False, soft_wrap=True)
