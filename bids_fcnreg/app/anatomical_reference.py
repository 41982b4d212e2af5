"""Sessions and ``--subject-anatomical-reference``: existing results, and those of the run."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from bids_fcnreg.atomic import read_json
from bids_fcnreg.bids.order import natural_key
from bids_fcnreg.bids.scan import Scan, scan_label
from bids_fcnreg.config import FIRST_LEX, SESSIONWISE, UNBIASED, Config
from bids_fcnreg.workflows.base import group_scans
from bids_fcnreg.workflows.outputs import REFERENCE_FIELD

_TRANSFORM = re.compile(
    r"sub-(?P<participant>[^_]+)(_ses-(?P<session>[^_]+))?(_[^_]+)*?"
    r"_from-(T1w|T2w|FLAIR|PDw)_to-[^_]+_mode-image_xfm\.json"
)


@dataclass(frozen=True)
class _Existing:
    """Anatomical reference of an existing result; empty if it is not recorded."""

    label: str
    reference: str


def people_to_combine(config: Config, scans: Iterable[Scan]) -> set[str]:
    """Return the participants whose sessions are combined.

    At the group level, and for reports only, these are also the participants with results of
    combined sessions only.
    """
    people = {scan.participant for scan in scans}
    if config.subject_anatomical_reference == FIRST_LEX:
        return people
    if config.analysis_level != "group" and not config.reports_only:
        return set()
    return {
        person
        for person in people
        if {one.reference for one in _find_existing(config.output_dir, person)} == {FIRST_LEX}
    }


def report_mixed_references(config: Config, scans: Sequence[Scan], console: Console) -> None:
    """Warn of results with another anatomical reference that the run leaves.

    fMRIPrep finds both the results of single sessions and those of combined sessions; and changes
    between sessions are biased if only some of them were registered to each other.
    """
    people: dict[str, list[Scan]] = {}
    for scan in scans:
        if scan.images:
            people.setdefault(scan.participant, []).append(scan)
    for person, theirs in people.items():
        planned = planned_references(config, theirs)
        existing = _find_existing(config.output_dir, person)
        left = [one for one in existing if one.label not in planned]
        if message := _conflict(left, planned):
            console.print(f"warning: {message}", soft_wrap=True, markup=False)


def report_unused_references(config: Config, scans: Sequence[Scan], console: Console) -> None:
    """Warn, at the group level, of results that are not used beside those that are."""
    combined = {scan.participant: bool(scan.sessions) for scan in scans}
    unused = [
        one.label
        for person in combined
        for one in _find_existing(config.output_dir, person)
        if combined[person] != (one.reference == FIRST_LEX)
    ]
    if unused:
        console.print(
            f"warning: {', '.join(unused)}: results with another --subject-anatomical-reference "
            "are not used. Delete them, or set that option",
            soft_wrap=True,
            markup=False,
        )


def planned_references(config: Config, scans: Sequence[Scan]) -> dict[str, str]:
    """Return the anatomical reference of each scan that is registered, by its label."""
    planned: dict[str, str] = {}
    for theirs in group_scans(config, scans):
        several = UNBIASED if len(theirs) > 1 else SESSIONWISE
        planned |= {scan.label: FIRST_LEX if scan.sessions else several for scan in theirs}
    return planned


def recorded_reference(sidecar: Path) -> str:
    """Return the anatomical reference in the sidecar of a transform; empty if there is none."""
    return str(read_json(sidecar).get(REFERENCE_FIELD, ""))


def _conflict(left: Sequence[_Existing], planned: Mapping[str, str]) -> str:
    """Return a warning about results that the run leaves; empty if they fit its results."""
    combined = FIRST_LEX in planned.values()
    others = [one.label for one in left if combined != (one.reference == FIRST_LEX)]
    if others:
        before, now = "each session", "combined sessions"
        if not combined:
            before, now = now, before
        return (
            f"{', '.join(others)}: results of {before} exist, and this run adds results of {now}. "
            "fMRIPrep may find both. Delete the former, or choose another output directory."
        )
    biased = [one.label for one in left if one.reference and one.reference not in planned.values()]
    if biased:
        value = next(iter(planned.values()))
        return (
            f"{', '.join(biased)}: registered with another --subject-anatomical-reference than "
            f"{value}. Changes since or to these sessions are biased. Process all sessions with "
            "one value."
        )
    return ""


def _find_existing(output_dir: Path, participant: str) -> list[_Existing]:
    """Return the existing results of a participant, sorted by label."""
    found = {}
    for path in Path(output_dir).glob(f"sub-{participant}/**/anat/*_mode-image_xfm.json"):
        if match := _TRANSFORM.fullmatch(path.name):
            label = scan_label(match["participant"], match["session"])
            found[label] = recorded_reference(path)
    return [_Existing(label, found[label]) for label in sorted(found, key=natural_key)]
