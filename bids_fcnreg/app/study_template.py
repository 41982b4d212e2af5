"""The group task `template`: iterate until the study template has converged."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from nipype import Workflow
from nipype.pipeline.engine.utils import load_resultfile
from rich.console import Console

from bids_fcnreg.app import preflight
from bids_fcnreg.app.summary import read_crash_files
from bids_fcnreg.atomic import publish
from bids_fcnreg.bids.derivatives import write_json, write_tsv
from bids_fcnreg.bids.results import find_preprocessed
from bids_fcnreg.bids.scan import Scan
from bids_fcnreg.bids.templates import Template, prepare_template, resolve_template
from bids_fcnreg.config import BUILTIN_TEMPLATES, DEFAULT_TEMPLATE, Config
from bids_fcnreg.errors import FcnregError, InputError
from bids_fcnreg.execution.run import configure, run_workflow
from bids_fcnreg.fcn.groupwise import mirror, sharpness
from bids_fcnreg.io import image
from bids_fcnreg.io.spatial_image import open_image
from bids_fcnreg.study.figures import draw_iterations
from bids_fcnreg.study.statistics import overlap
from bids_fcnreg.study.template import describe_files, describe_template
from bids_fcnreg.workflows.group_report import DIRECTORY
from bids_fcnreg.workflows.resources import scans_at_once
from bids_fcnreg.workflows.study_template import START, Estimate, Member, init_iteration_wf
from bids_fcnreg.workflows.study_template_outputs import init_finish_wf, init_transforms_wf

#: Change of a converged template (RMS difference over mean intensity) in an iteration.
CONVERGED_CHANGE = 0.02

#: Minimum number of scans for a template.
MIN_SCANS = 2

DONE, FAILED = 0, 1


def make_template(config: Config, scans: Sequence[Scan], console: Console) -> int:
    """Make an unbiased template from the preprocessed scans.

    Returns
    -------
    int
        0, or 1 if a scan could not be used.

    Raises
    ------
    FcnregError
        If no template can be made.
    """
    members = find_members(config.output_dir, scans)
    without = [s.label for s in scans if s.label not in {m.scan.label for m in members}]
    if without:
        console.print(f"Skipped, no preprocessed T1w image: {', '.join(without)}")
    if len(members) < MIN_SCANS:
        raise InputError(
            f"{config.output_dir} holds {len(members)} preprocessed T1w images, but a template "
            f"needs at least {MIN_SCANS}. Run `bids_fcnreg {config.bids_dir} {config.output_dir} "
            "participant` first."
        )
    anchor = resolve_template(config.templates[0])
    _check_name(config, {anchor.name, *BUILTIN_TEMPLATES})
    preflight.check_device(config)
    config = config.with_threads(scans_at_once(config, len(members), [anchor]))
    run_dir = preflight.make_directories(config)
    log_file = configure(config, run_dir)
    with preflight.locked_directories(config, [f"the template {config.template_name}"], console):
        left_out = _make(config, anchor, members, run_dir, log_file, console)
    return FAILED if left_out or without else DONE


def _make(
    config: Config,
    anchor: Template,
    members: Sequence[Member],
    run_dir: Path,
    log_file: Path,
    console: Console,
) -> list[str]:
    """Make the template of these members; return the labels of the scans left out."""
    cache = config.cache_dir / preflight.TEMPLATES
    anchors = {anchor.name: prepare_template(anchor, cache)}
    if not anchor.builtin:
        builtin = resolve_template(DEFAULT_TEMPLATE)
        anchors[builtin.name] = prepare_template(builtin, cache)
    if config.template_symmetric:
        _check_midline(anchors[anchor.name])
    construction = TemplateConstruction(config, console, run_dir, log_file, list(members))
    construction.run(list(anchors.values()))
    if construction.left_out:
        console.print(f"Left out: {', '.join(construction.left_out)}")
    return construction.left_out


def _check_name(config: Config, taken: set[str]) -> None:
    """Refuse a name for which transforms to another template exist."""
    name = str(config.template_name)
    registered = config.output_dir.glob(f"sub-*/**/*_to-{name}_*_desc-quality_xfm.json")
    if name in taken or next(registered, None):
        raise InputError(
            f"Scans are already registered to another template named {name}. Choose another "
            "--template-name."
        )


def _check_midline(anchor: Template) -> None:
    """Refuse a template whose midline is not at x = 0."""
    mask = image.read(anchor.brain_mask)
    if overlap((mask.data > 0.5).numpy(), (mirror(mask).data > 0.5).numpy()) < 0.8:
        raise InputError(
            f"--template-symmetric requires a template whose midline is at x = 0, unlike "
            f"{anchor.name}. Move its origin, or choose another --template."
        )


def _rounded(value: float | None) -> str | None:
    return None if value is None else f"{value:.5g}"


def _as_estimate(template: Template) -> Estimate:
    """Return a finished template as the initial estimate of another one."""
    t1w = template.found[0]
    mask = template.brain_mask
    return Estimate(t1w, mask, sharpness(image.read(t1w), image.read(mask).data))


def find_members(output_dir: Path, scans: Sequence[Scan]) -> list[Member]:
    """Find the preprocessed images of the scans, weighted per participant.

    Parameters
    ----------
    output_dir : Path
        Directory of the derivatives.
    scans : sequence of Scan
        Scans to find.
    """
    found = find_preprocessed(output_dir, (scan for scan in scans if scan.is_t1w))
    return weighted([Member(*one) for one in found])


def weighted(members: Sequence[Member]) -> list[Member]:
    """Weight the members so that each participant has the same total weight."""
    sessions = Counter(member.scan.participant for member in members)
    return [replace(m, weight=1 / sessions[m.scan.participant]) for m in members]


@dataclass
class TemplateConstruction:
    """Iterative construction of a study template.

    Attributes
    ----------
    config : Config
    console : rich.console.Console
    run_dir, log_file : Path
        Log directory and log file of this run.
    members : list of Member
        The scans; scans that fail are removed.
    left_out : list of str
        Labels of the scans that failed.
    history : list of Estimate
        Initial estimate, and the estimate of each iteration.
    """

    config: Config
    console: Console
    run_dir: Path
    log_file: Path
    members: list[Member]
    left_out: list[str] = field(default_factory=list)
    history: list[Estimate] = field(default_factory=list)
    _labels_before: dict[str, str] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """Name of the template."""
        return str(self.config.template_name)

    @property
    def base_dir(self) -> Path:
        """Directory of the intermediate results."""
        return self.config.cache_dir / "template_wf" / self.name

    @property
    def directory(self) -> Path:
        """Directory of the template."""
        return self.config.output_dir / f"tpl-{self.name}"

    def run(self, anchors: Sequence[Template]) -> None:
        """Make the template, starting from the first of the anchors, and its transforms."""
        common: dict[str, Any] = {"config": self.config, "base_dir": self.base_dir}
        count = len(self.members)
        self.console.print(f"Start: {anchors[0].name}, to which {count} scans are registered")
        if self.config.template_warm_start:
            self.history.append(_as_estimate(anchors[0]))
        else:
            self._register_to(anchors[0], 0)
        for number in range(1, self.config.template_iterations + 1):
            if self._iterate(number):
                break
        else:
            self.console.print("Not converged. Increase --template-iterations to refine it.")
        self._write()
        last = self.history[-1]
        self._run_workflow(
            lambda: init_transforms_wf(
                members=self.members,
                estimate=last,
                space=self.name,
                reference=self._file("T1w.nii.gz"),
                **common,
            )
        )
        finished = self._as_template(
            self._file("T1w.nii.gz"), self._file("desc-brain_mask.nii.gz")
        )
        self._run_workflow(
            lambda: init_finish_wf(
                template=finished, anchors=anchors, directory=self.directory, **common
            )
        )
        self.console.print(f"Template: {self.directory} (use it with --template)")

    def _iterate(self, number: int) -> bool:
        """Register all scans to the latest estimate and average them; return if converged."""
        self.console.print(f"Iteration {number}")
        before = self._as_template(self.history[-1].t1w, self.history[-1].mask)
        estimate = self._register_to(before, number)
        assert estimate.change is not None  # from the previous estimate
        self.console.print(
            f"  change {100 * estimate.change:.1f} %, distance from the mean shape "
            f"{estimate.bias_mm:.3f} mm, sharpness {estimate.sharpness:.4f} per mm"
        )
        return estimate.change < CONVERGED_CHANGE

    def _register_to(self, template: Template, number: int) -> Estimate:
        """Register all scans to a template, and append their mean to the history."""
        workflow = self._run_workflow(
            lambda: init_iteration_wf(
                config=self.config,
                members=self.members,
                template=template,
                number=number,
                base_dir=self.base_dir,
            )
        )
        self.history.append(_read_estimate(workflow, self.members))
        return self.history[-1]

    def _run_workflow(self, build: Callable[[], Workflow]) -> Workflow:
        """Run a workflow of all members, and rerun it without members that failed.

        Raises
        ------
        FcnregError
            If another part fails, or too few members are left.
        """
        while True:
            workflow = build()
            labels = {
                name: member.scan.label
                for member in self.members
                for name in (member.wf_name, member.resample_wf_name)
            }
            labels[workflow.name] = f"template {self.name}"
            _, stopped = run_workflow(self.config, workflow, labels, self.log_file, self.console)
            # Crash files of members removed earlier still exist.
            failures = read_crash_files(self.run_dir, self._labels_before | labels)
            failed = [m.scan.label for m in self.members if m.scan.label in failures]
            for label in failed:
                self.console.print(f"{label} is left out: {failures[label].message}")
            self.left_out += failed
            self._labels_before |= labels
            self.members = weighted([m for m in self.members if m.scan.label not in failed])
            if len(self.members) < MIN_SCANS:
                raise FcnregError(
                    f"A template needs at least {MIN_SCANS} scans, but only {len(self.members)} "
                    "could be used."
                )
            if failed:
                continue
            if stopped is not None:
                own = failures.get(labels[workflow.name])
                raise FcnregError(
                    f"The template could not be made: {own.message if own else stopped}"
                )
            return workflow

    def _as_template(self, t1w: Path, mask: Path) -> Template:
        """Return an image and its mask as a skull-stripped template."""
        cache = self.config.cache_dir / preflight.TEMPLATES
        return prepare_template(Template(self.name, None, None, t1w, mask), cache)

    def _file(self, ending: str) -> Path:
        """Return the path of a file of the finished template."""
        return self.directory / f"tpl-{self.name}_res-01_{ending}"

    def _write(self) -> None:
        """Write the template, and the table and figure of the iterations."""
        last = self.history[-1]
        zooms = open_image(last.t1w).header.get_zooms()[:3]
        scans = [(member.t1w, member.mask) for member in self.members]
        for ending, content in describe_files(self.name, zooms, scans, self.config).items():
            write_json(self._file(f"{ending}.json"), content)
        publish(last.t1w, self._file("T1w.nii.gz"))
        publish(last.mask, self._file("desc-brain_mask.nii.gz"))
        labels = [member.scan.label for member in self.members]
        description = describe_template(self.name, self._file("T1w.nii.gz"), labels, self.config)
        write_json(self.directory / "template_description.json", description)
        record = self.config.output_dir / DIRECTORY / f"tpl-{self.name}_iterations.tsv"
        write_tsv(
            record,
            ("iteration", "moved_mm", "bias_mm", "change", "sharpness_per_mm"),
            [
                (number, *map(_rounded, (one.moved_mm, one.bias_mm, one.change, one.sharpness)))
                for number, one in enumerate(self.history)
            ],
        )
        draw_iterations([one.t1w for one in self.history], record.with_suffix(".png"))


def _read_estimate(workflow: Workflow, members: Sequence[Member]) -> Estimate:
    """Read the result of `init_iteration_wf` after its run."""
    shape, mean = (_outputs(workflow, name) for name in ("shape", "mean"))
    found = {m.scan.label: _outputs(workflow, f"{m.wf_name}.estimate") for m in members}
    return Estimate(
        t1w=Path(mean.t1w),
        mask=Path(mean.mask),
        sharpness=mean.sharpness,
        moved_mm=shape.moved_mm,
        bias_mm=shape.bias_mm,
        change=None if workflow.name == START else mean.change,
        update=Path(shape.update),
        inverse_update=Path(shape.inverse_update),
        transforms={label: Path(one.transform) for label, one in found.items()},
        inverses={label: Path(one.inverse) for label, one in found.items()},
    )


def _outputs(workflow: Workflow, node: str) -> Any:
    """Read the outputs of a finished node from the work directory."""
    directory = Path(workflow.base_dir, workflow.name, *node.split("."))
    return load_resultfile(str(directory / f"result_{directory.name}.pklz")).outputs
