"""Preflight: validate inputs and build the workflow."""

from __future__ import annotations

import os
import shutil
import sys
import time
import uuid
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from pathlib import Path

from nipype import Workflow
from rich.console import Console

from bids_fcnreg.app.anatomical_reference import people_to_combine
from bids_fcnreg.app.atlases import choose_atlases
from bids_fcnreg.app.cohorts import CohortChoice
from bids_fcnreg.app.locks import lock_directory
from bids_fcnreg.atomic import remove_stale_temporaries
from bids_fcnreg.bids.atlases import Atlas, prepare_atlas
from bids_fcnreg.bids.combined_sessions import combine_sessions
from bids_fcnreg.bids.dataset import read_dataset
from bids_fcnreg.bids.derivatives import prepare_output
from bids_fcnreg.bids.filters import read_filter_file
from bids_fcnreg.bids.notes import MAX_NAMED, summarize
from bids_fcnreg.bids.scan import Scan, scan_label
from bids_fcnreg.bids.templates import Template, prepare_template, resolve_templates
from bids_fcnreg.bids.validation import validate
from bids_fcnreg.config import CACHE_PREFIX, UNBIASED_OPTION, Config
from bids_fcnreg.config_file import write_settings
from bids_fcnreg.errors import FcnregError, InputError, describe_os_error
from bids_fcnreg.fcn.modes import MODES
from bids_fcnreg.fcn.nets.packaged_weights import packaged_weights
from bids_fcnreg.io.header import check_file
from bids_fcnreg.workflows.base import init_fcnreg_wf

#: Directory of `Config.cache_dir` for masks and images derived from templates.
TEMPLATES = "templates"

#: Directories that runs create in `Config.cache_dir`.
_CACHED = (TEMPLATES, "fcnreg_wf", "group_wf", "template_wf", "train_wf")


def read_input_dataset(config: Config, console: Console) -> list[Scan]:
    """Find the scans to register, and report them and the images that are not used.

    Raises
    ------
    InputError
        See `bids_fcnreg.bids.dataset.read_dataset`.
    """
    filters = read_filter_file(config.filter_file) if config.filter_file else None
    dataset = read_dataset(
        config.bids_dir,
        config.participants,
        config.sessions,
        filters,
        config.required_suffix,
        others=config.aligns_others and config.analysis_level == "participant",
        lesion_masks=config.lesion_masks,
    )
    if config.database_dir is not None:
        console.print(
            "note: --bids-database-dir has no effect. The dataset itself is read, which is faster "
            "than a database"
        )
    scans, notes = combine_sessions(dataset.scans, people_to_combine(config, dataset.scans))
    people = len({scan.participant for scan in scans})
    console.print(
        f"{config.bids_dir}: {_count(people, 'participant')}, "
        f"{_count(sum(bool(scan.images) for scan in scans), 'anatomy', 'anatomies')}"
    )
    left_out = {scan.label for scan in dataset.scans} - _labels_of_sessions(scans)
    said = [note for note in dataset.notes if note.warning or note.about not in left_out]
    for line in summarize([*said, *notes], sys.maxsize if config.verbose else MAX_NAMED):
        console.print(line, soft_wrap=True)
    return [_with_usable_others(config, scan, console) for scan in scans]


def _labels_of_sessions(scans: Iterable[Scan]) -> set[str]:
    """Return the labels of scans before their sessions were combined."""
    return {
        scan_label(scan.participant, session)
        for scan in scans
        for session in scan.sessions or (scan.session,)
    }


def _with_usable_others(config: Config, scan: Scan, console: Console) -> Scan:
    """Return a scan without other images of its session that cannot be aligned; report them."""
    if config.longitudinal and scan.others:
        names = ", ".join(other.path.name for other in scan.others)
        masks = " and their lesion masks" if any(one.lesions for one in scan.others) else ""
        console.print(
            f"note: {names}{masks} are not used: other images of a session are not aligned with "
            + UNBIASED_OPTION,
            soft_wrap=True,
        )
        return replace(scan, others=())
    usable = []
    for other in scan.others:
        try:
            for path in (other.path, *other.lesions):
                check_file(path)
        except InputError as why:
            console.print(f"warning: {other.path.name} is not aligned: {why}", soft_wrap=True)
        else:
            usable.append(other)
    return replace(scan, others=tuple(usable))


def check_weights(config: Config) -> None:
    """Refuse missing or unreadable weights, if the mode needs weights.

    Raises
    ------
    InputError
        See `bids_fcnreg.fcn.nets.checkpoint`.
    """
    if MODES[config.mode].trained:
        if config.model is None:
            packaged_weights(config.network)
        else:
            from bids_fcnreg.fcn.nets.checkpoint import load  # imports PyTorch

            load(config.model)


def check_device(config: Config) -> None:
    """Refuse a device that this machine lacks, unless a plugin computes on other machines.

    Raises
    ------
    InputError
        See `bids_fcnreg.fcn.device.resolve_device`.
    """
    if config.plugin_file is None and config.device not in ("auto", "cpu"):
        from bids_fcnreg.fcn.device import resolve_device  # imports PyTorch

        resolve_device(config.device)


def check_programs(config: Config, scans: Iterable[Scan]) -> None:
    """Refuse a program that this machine lacks, unless a plugin computes on other machines.

    Raises
    ------
    InputError
        If SynthStrip is chosen, a scan has no existing brain mask, and SynthStrip is not there.
    """
    chosen = config.skull_strip_method == "synthstrip" and config.skull_strip != "skip"
    runs_here = config.plugin_file is None and not config.boilerplate_only
    if chosen and runs_here and any(scan.precomputed.mask is None for scan in scans):
        from bids_fcnreg.interfaces.brain_extraction import find_synthstrip  # imports Nipype

        find_synthstrip()


def find_templates(
    config: Config, choice: CohortChoice | None = None
) -> tuple[list[Template], dict[str, list[Atlas]]]:
    """Find the templates, and the atlases of each by its ``space``.

    Parameters
    ----------
    config : Config
        Settings, with the templates and the atlases.
    choice : CohortChoice, optional
        Templates in place of those of the settings, with cohorts chosen by age.

    Raises
    ------
    InputError
        If one of them does not exist or cannot be used.
    """
    choice = choice or CohortChoice(list(config.templates))
    templates = resolve_templates(choice.specs, choice.scans)
    if not config.makes_everything:
        if config.atlases:
            raise InputError(
                "--atlas cannot be used with --level minimal, which makes no labels. Omit one of "
                "them."
            )
        return templates, {template.space: [] for template in templates}
    return templates, choose_atlases(config.atlases, templates)


def make_directories(config: Config) -> Path:
    """Create the output and work directories; return the directory of this run's logs.

    Raises
    ------
    InputError
        If one of them cannot be written.
    """
    prepare_output(config.output_dir, config.bids_dir)
    try:
        (config.cache_dir / TEMPLATES).mkdir(parents=True, exist_ok=True)
        reason = None if os.access(config.cache_dir, os.W_OK) else "no permission to write"
    except OSError as error:
        reason = describe_os_error(error)
    if reason is not None:
        raise InputError(
            f"The work directory {config.work_dir} cannot be used ({reason}). Choose another one "
            "with -w."
        )
    name = f"{time.strftime('%Y%m%d-%H%M%S')}_{uuid.uuid4().hex[:8]}"
    return write_settings(config, config.output_dir / "logs" / name / "config.toml").parent


@contextmanager
def locked_directories(config: Config, parts: Collection[str], console: Console) -> Iterator[None]:
    """Lock parts of the work and output directories, and clean the former if it is configured.

    Parameters are those of `bids_fcnreg.app.locks.lock_directory`.
    """
    with ExitStack() as locks:
        locks.enter_context(
            lock_directory(config.work_dir, parts, console, whole=config.clean_workdir)
        )
        if not config.output_dir.samefile(config.work_dir):
            logs = config.output_dir / "logs"
            logs.mkdir(exist_ok=True)
            locks.enter_context(
                lock_directory(config.output_dir, parts, console, lock_dir=logs / "locks")
            )
        if config.clean_workdir:
            for directory in config.work_dir.glob(f"{CACHE_PREFIX}*"):
                for name in _CACHED:
                    shutil.rmtree(directory / name, ignore_errors=True)
                with suppress(OSError):  # there is something else in it
                    directory.rmdir()
        yield


def remove_stale_files(config: Config, *directories: Path) -> None:
    """Remove temporary files of killed runs from the output directory.

    Parameters
    ----------
    config : Config
        Settings; the output directory itself and its ``logs/`` are cleaned.
    *directories : Path
        Directories in it to clean recursively.
    """
    remove_stale_temporaries(config.output_dir.glob(".*"))
    remove_stale_temporaries((config.output_dir / "logs").glob(".*"))
    for directory in directories:
        remove_stale_temporaries(directory.rglob(".*"))


@contextmanager
def validated_input(config: Config, run_dir: Path, console: Console) -> Iterator[None]:
    """Run the BIDS validator beside what follows, then report its errors.

    They do not stop the run.
    """
    if config.skip_validation or config.boilerplate_only:
        yield
        return
    with ThreadPoolExecutor(max_workers=1) as pool:
        running = pool.submit(validate, config.bids_dir)
        yield
    try:
        problems = running.result()
    except FcnregError as why:  # the registration does not depend on it
        console.print(f"BIDS validator: {why}")
        return
    if problems:
        report = run_dir / "bids_validator.txt"
        report.write_text("\n".join(problems) + "\n", encoding="utf-8")
        problem = _count(len(problems), "problem")
        console.print(f"BIDS validator: {problem}, listed in {report}. The run continues.")


def build_workflow(
    config: Config,
    scans: Sequence[Scan],
    templates: Sequence[Template],
    atlases: Mapping[str, Sequence[Atlas]],
) -> Workflow:
    """Create missing files of templates and atlases, and build the workflow."""
    cache = config.cache_dir / TEMPLATES
    ready_atlases = {
        template.space: [
            prepare_atlas(atlas, template, cache) for atlas in atlases[template.space]
        ]
        for template in templates
    }
    ready = [prepare_template(template, cache) for template in templates]
    return init_fcnreg_wf(config, scans, ready, ready_atlases)


def _count(number: int, singular: str, plural: str | None = None) -> str:
    """Return a number with the noun in singular or plural."""
    return f"{number} {singular if number == 1 else plural or singular + 's'}"
