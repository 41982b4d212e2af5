"""The lines a user sees follow the nodes."""

from __future__ import annotations

import io
from dataclasses import dataclass

import pytest
from rich.console import Console

from bids_fcnreg.execution.progress import (
    ProgressDisplay,
    SubjectProgress,
    stage_name,
    subject_label,
)

WORKFLOWS = {"sub_01_wf": "sub-01", "sub_02_ses_x_wf": "sub-02_ses-x"}
STEPS = ("preprocess_wf.conform", "register_MNI_wf.estimate", "outputs_wf.ds_mask")
NODES = [f"fcnreg_wf.{part}.{step}" for part in WORKFLOWS for step in STEPS]


@dataclass
class Node:
    """What a plugin hands on of a node."""

    fullname: str


def show(events: list[tuple[str, str]], live: bool) -> tuple[ProgressDisplay, str]:
    """Let a display follow events; returns it and what it wrote."""
    written = io.StringIO()
    console = Console(file=written, force_terminal=live, width=100)
    with ProgressDisplay(NODES, WORKFLOWS, console) as display:
        for name, status in events:
            display(Node(name), status)
    return display, written.getvalue()


@pytest.mark.parametrize(
    ("node", "words"),
    [
        ("fcnreg_wf.sub_01_wf.register_MNI_wf.estimate", "registration"),
        ("fcnreg_wf.sub_01_wf.register_MNI_wf.to_template", "resampling"),
        ("fcnreg_wf.sub_01_wf.preprocess_wf.conform", "preprocessing"),
        ("fcnreg_wf.sub_01_wf.propagate_MNI_tissue_wf.measure", "labels and volumes"),
        ("fcnreg_wf.sub_01_wf.outputs_MNI_wf.ds_mask", "writing results"),
        ("elsewhere.some_node", "some node"),
    ],
)
def test_stage_names(node, words):
    assert stage_name(node) == words


def test_subject_label_of_node():
    assert subject_label("fcnreg_wf.sub_02_ses_x_wf.preprocess_wf.a", WORKFLOWS) == "sub-02_ses-x"
    assert subject_label("fcnreg_wf.sub_01x_wf.preprocess_wf.a", WORKFLOWS) is None


def test_plain_output_prints_each_stage_once_and_the_outcome():
    first, second = NODES[:3], NODES[3:]
    events = [(name, status) for name in first for status in ("start", "end")]
    events[2:2] = [(second[0], "start"), (second[0], "exception"), (second[0], "end")]
    display, text = show(events, live=False)
    assert text.splitlines() == [
        "sub-01: preprocessing",
        "sub-02_ses-x: preprocessing",
        "sub-02_ses-x: failed in preprocessing",
        "sub-01: registration",
        "sub-01: writing results",
        "sub-01: done in 0 s",
    ]
    assert display.subjects["sub-01"].failed_stage is None
    assert display.subjects["sub-02_ses-x"].failed_stage == "preprocessing"


def test_cached_results_print_only_their_end():
    display, text = show([(name, "end") for name in NODES[:3]], live=False)
    assert text == "sub-01: done in 0 s\n"
    assert not display.subjects["sub-01"].waiting
    assert len(display.subjects["sub-02_ses-x"].waiting) == 3


def test_live_lines_show_the_stage_and_are_removed_when_done():
    running, text = show([(NODES[0], "start"), (NODES[0], "end"), (NODES[1], "start")], live=True)
    assert "sub-01" in text and "registration" in text and "1/3" in text
    assert len(running.subjects["sub-01"].waiting) == 2
    events = [(name, status) for name in NODES[:3] for status in ("start", "end")]
    _, text = show(events, live=True)
    assert "sub-01: done in 0 s" in text


def test_nodes_without_subject_are_ignored():
    display, text = show([("fcnreg_wf.shared", "start"), ("fcnreg_wf.shared", "end")], live=False)
    assert text == ""
    assert display.subjects["sub-01"].seconds == 0


def test_waiting_time_is_not_counted(monkeypatch):
    clock = iter([0.0, 5.0, 100.0, 103.0, 104.0, 108.0])
    subject = SubjectProgress()
    monkeypatch.setattr("bids_fcnreg.execution.progress.time.monotonic", lambda: next(clock))
    subject.started("a")
    subject.stopped("a")
    subject.started("b")
    subject.started("c")
    subject.stopped("b")
    subject.stopped("c")
    assert subject.seconds == 5 + 3


def test_remaining_time_is_shown_after_two_subjects():
    workflows = {f"sub_0{n}_wf": f"sub-0{n}" for n in range(1, 5)}
    nodes = [f"fcnreg_wf.{part}.{STEPS[0]}" for part in workflows]
    written = io.StringIO()
    with ProgressDisplay(nodes, workflows, Console(file=written, width=100)) as display:
        display._started -= 600  # it has run for ten minutes
        for name, status in zip(nodes, ("end", "exception", "end", "end"), strict=True):
            display(Node(name), "start")
            display(Node(name), status)
    ends = [line for line in written.getvalue().splitlines() if "done" in line]
    assert ends == [
        "sub-01: done in 0 s",
        "sub-03: done in 0 s (3 of 4, about 3 min left)",
        "sub-04: done in 0 s",
    ]
