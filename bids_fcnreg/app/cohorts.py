"""Choose the cohort of a template by the age of each participant, before the run."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Container, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from rich.console import Console

from bids_fcnreg.app.summary import Failure, read_quality_by_space
from bids_fcnreg.bids.ages import Age, find_age
from bids_fcnreg.bids.cohorts import (
    POSTMENSTRUAL,
    Cohort,
    choose_cohort,
    describe_ages,
    read_cohorts,
)
from bids_fcnreg.bids.filters import abbreviated_list
from bids_fcnreg.bids.notes import Note, summarize
from bids_fcnreg.bids.order import natural_key
from bids_fcnreg.bids.participants import Participants, read_participants
from bids_fcnreg.bids.scan import Scan
from bids_fcnreg.bids.space_labels import make_label
from bids_fcnreg.bids.template_files import AUTO
from bids_fcnreg.bids.templates import is_automatic, template_directory
from bids_fcnreg.config import UNBIASED_OPTION, Config
from bids_fcnreg.errors import InputError

#: Maximum number of scans in a message.
_MAX_NAMED = 10


@dataclass
class CohortChoice:
    """Templates of a run, after the choice of cohorts.

    Attributes
    ----------
    specs : list of str
        Values of ``--template``, with the chosen cohorts in place of ``cohort-auto``.
    scans : dict of str to frozenset of str
        Labels of the scans of each chosen cohort, by its value in `specs`.
    missing : dict of str to dict of str to Failure
        Why no cohort of a template could be chosen, by the label of the scan and the template.
    """

    specs: list[str] = field(default_factory=list)
    scans: dict[str, frozenset[str]] = field(default_factory=dict)
    missing: dict[str, dict[str, Failure]] = field(default_factory=dict)

    @property
    def failures(self) -> dict[str, Failure]:
        """Scans that have no template at all, by their label."""
        return {
            label: _joined(theirs.values())
            for label, theirs in self.missing.items()
            if not self._has_template(label)
        }

    @property
    def incomplete(self) -> dict[str, Failure]:
        """Scans that are registered to other templates only, by their label."""
        found = {}
        for label, theirs in self.missing.items():
            if self._has_template(label):
                why = _joined(theirs.values()).message
                found[label] = Failure(f"Not registered to {', '.join(theirs)}: {why}")
        return found

    def _has_template(self, label: str) -> bool:
        return any(label in self.scans.get(spec, (label,)) for spec in self.specs)


def _is_coarse(cohort: Cohort, age: Age) -> bool:
    """Return whether many of the ages that are rounded down to `age` are not in a cohort."""
    inside = min(age.days + age.step, cohort.last) - age.days
    return age.step > cohort.last - cohort.first or 2 * inside < age.step


def _joined(failures: Iterable[Failure]) -> Failure:
    """Join the messages of the failures of one scan."""
    return Failure(" ".join(dict.fromkeys(failure.message for failure in failures)))


def choose_cohorts(config: Config, scans: Iterable[Scan], console: Console) -> CohortChoice:
    """Choose the cohorts of all templates with ``cohort-auto``, and report them.

    Parameters
    ----------
    config : Config
        Settings, with the templates.
    scans : iterable of Scan
        Scans of the dataset; those without a T1w image are ignored.
    console : Console
        Where cohorts, doubts and scans without a cohort are reported.

    Raises
    ------
    InputError
        If a template has no cohorts by age, or no scan has a cohort.
    """
    if not any(map(is_automatic, config.templates)):
        return CohortChoice(list(config.templates))
    scans = [scan for scan in scans if scan.images]
    participants = read_participants(config.bids_dir)
    choice = CohortChoice()
    selections = {
        spec: _Selection(config, spec, scans, participants, console)
        for spec in config.templates
        if is_automatic(spec)
    }
    if config.longitudinal:
        registered = {scan.label for scan in scans}
        if all(map(is_automatic, config.templates)):
            registered = {label for one in selections.values() for label in one.chosen}
        for selection in selections.values():
            selection.refuse_partial_participants(registered)
    for spec in dict.fromkeys(config.templates):
        if spec in selections:
            selections[spec].add_to(choice)
        else:
            choice.specs.append(spec)
            choice.scans.pop(spec, None)
    failures = choice.failures
    for line in summarize(
        (
            Note(failure.message, label)
            for label, failure in (failures | choice.incomplete).items()
        ),
        sys.maxsize if config.verbose else _MAX_NAMED,
    ):
        console.print(line, soft_wrap=True, markup=False)
    if scans and all(scan.label in failures for scan in scans):
        label, failure = next(iter(failures.items()))
        raise InputError(f"{label}: {failure.message}")
    return choice


def space_prefix(spec: str) -> str:
    """Return what the spaces of all cohorts of a template with ``cohort-auto`` start with."""
    return make_label(template_directory(spec).name.removeprefix("tpl-"), spec) + "+"


class _Selection:
    """Cohorts of one template for the scans of a run."""

    def __init__(
        self,
        config: Config,
        spec: str,
        scans: Sequence[Scan],
        participants: Participants,
        console: Console,
    ) -> None:
        self.config, self.spec, self.console = config, spec, console
        self.scans, self.participants = scans, participants
        directory = template_directory(spec)
        self.name = directory.name.removeprefix("tpl-")
        self.cohorts = read_cohorts(directory)
        self.chosen: dict[str, tuple[Cohort, Age]] = {}
        self.failures: dict[str, Failure] = {}
        for scan in scans:
            try:
                self.chosen[scan.label] = self._choose(scan)
            except InputError as why:
                self.failures[scan.label] = Failure(
                    f"{why}. Enter or correct the age and its unit, or name a cohort, such as "
                    f"{self._with(self.cohorts[0])}."
                )
        if config.longitudinal:
            self._refuse_several_cohorts()

    def refuse_partial_participants(self, registered: Container[str]) -> None:
        """Refuse the sessions of participants of whom a session has no cohort.

        All sessions of a participant must be registered to the same templates. `registered` are
        the labels of the scans with at least one template; others do not matter.
        """
        without = {
            scan.participant: scan.label
            for scan in self.scans
            if scan.label in self.failures and scan.label in registered
        }
        for scan in self.scans:
            other = without.get(scan.participant)
            if other and self.chosen.pop(scan.label, None):
                self.failures[scan.label] = Failure(
                    f"{other} has no cohort of {self.name}, but {UNBIASED_OPTION} registers all "
                    f"sessions to one. {self.failures[other].message}"
                )

    def add_to(self, choice: CohortChoice) -> None:
        """Add the cohorts and the failures, and report cohorts and doubts."""
        for label, failure in self.failures.items():
            choice.missing.setdefault(label, {})[self.spec] = failure
        for cohort in self.cohorts:
            labels = [label for label, (one, _) in self.chosen.items() if one == cohort]
            if not labels:
                continue
            spec = self._with(cohort)
            if spec not in choice.specs:
                choice.specs.append(spec)
                choice.scans[spec] = frozenset(labels)
            elif spec in choice.scans:
                choice.scans[spec] |= frozenset(labels)
            shown = [f"{label} ({self.chosen[label][1].text})" for label in labels]
            self.console.print(
                f"{spec} ({cohort.ages}): {self._abbreviated(shown)}",
                soft_wrap=True,
                markup=False,
            )
        for doubt in self._doubts():
            self.console.print(doubt, soft_wrap=True, markup=False)

    def _choose(self, scan: Scan) -> tuple[Cohort, Age]:
        """Return the cohort for a scan, and the age.

        Raises
        ------
        InputError
            If there is no age, or no cohort for it; without advice and final period.
        """
        age = find_age(self.config.bids_dir, scan, self.participants)
        cohort = choose_cohort(self.cohorts, age.days)
        if cohort is None:
            raise InputError(
                f"The age in {age.table}, {age.text}, is outside the cohorts of {self.name} "
                f"({describe_ages(self.cohorts)})"
            )
        return cohort, age

    def _refuse_several_cohorts(self) -> None:
        """Refuse participants with sessions in several cohorts, which have one mean image."""
        for person in dict.fromkeys(scan.participant for scan in self.scans):
            labels = [scan.label for scan in self.scans if scan.participant == person]
            labels = [label for label in labels if label in self.chosen]
            cohorts = {self.chosen[label][0].label for label in labels}
            for label in labels if len(cohorts) > 1 else ():
                del self.chosen[label]
                self.failures[label] = Failure(
                    f"The sessions of sub-{person} are in different cohorts of {self.name} "
                    f"({', '.join(sorted(cohorts, key=natural_key))}), but "
                    f"{UNBIASED_OPTION} registers them to one. Omit that option, or name a "
                    "cohort, such as "
                    f"{self._with(self.cohorts[0])}."
                )

    def _doubts(self) -> Iterator[str]:
        """Yield warnings about the choice."""
        if self.name in POSTMENSTRUAL and self.chosen:
            yield (
                f"warning: the ages of {self.name} are postmenstrual. Birth at 40 weeks is "
                "assumed; name the cohort of infants born preterm"
            )
        coarse = [label for label, chosen in self.chosen.items() if _is_coarse(*chosen)]
        if coarse:
            yield (
                f"warning: {self._abbreviated(coarse)}: ages that are rounded down to this one "
                "are also outside of this cohort. Enter the exact age, for example in a smaller "
                "unit"
            )
        repeated = list(self._with_repeated_age())
        if repeated:
            yield (
                f"warning: {self._abbreviated(repeated)}: the age is that in participants.tsv, "
                "although there are several sessions. Enter the age at each session in "
                "sessions.tsv"
            )
        other = list(self._in_other_cohorts())
        if other:
            yield (
                f"warning: results of earlier runs in another cohort: {self._abbreviated(other)}. "
                "Delete those that are wrong"
            )

    def _with_repeated_age(self) -> Iterator[str]:
        """Yield scans with the age of the participant, of whom there are several sessions."""
        people = Counter(scan.participant for scan in self.scans)
        for scan in self.scans:
            chosen = self.chosen.get(scan.label)
            if chosen and people[scan.participant] > 1 and not chosen[1].of_session:
                yield scan.label

    def _in_other_cohorts(self) -> Iterator[str]:
        """Yield the scans with results in cohorts that are not chosen."""
        start = space_prefix(self.spec)
        for label, (cohort, _) in self.chosen.items():
            for space in read_quality_by_space(self.config.output_dir, label):
                if space.startswith(start) and space != start + cohort.label:
                    yield f"{label} ({space})"

    def _with(self, cohort: Cohort) -> str:
        """Return the value of ``--template`` for a cohort."""
        parts = self.spec.split(":")
        return ":".join(
            f"cohort-{cohort.label}" if part == f"cohort-{AUTO}" else part for part in parts
        )

    def _abbreviated(self, names: Sequence[str]) -> str:
        return abbreviated_list(names, sys.maxsize if self.config.verbose else _MAX_NAMED)
