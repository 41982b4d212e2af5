"""Settings of a run: their types, options, help texts and ranges, and how they are stored."""

from __future__ import annotations

import dataclasses
import math
import os
import tomllib
import types
import typing
from collections.abc import Iterable
from dataclasses import MISSING, dataclass, field
from pathlib import Path
from typing import Any

from bids_fcnreg.atomic import read_text, write_bytes
from bids_fcnreg.errors import InputError
from bids_fcnreg.fcn.modes import MODES
from bids_fcnreg.resources import available_cpus, available_memory_gb

LEVELS = ("participant", "group")
GROUP_TASKS = ("report", "template", "train")
NETWORKS = ("diffeomorphic", "2017")
SKULL_STRIP = ("auto", "force", "skip")
INTERPOLATIONS = ("linear", "nearest", "label")
#: Keyword of the transform that moves nothing, in place of a file.
IDENTITY = "identity"
DEFAULT_TEMPLATE = "MNI152NLin2009aSym"
MAX_OMP_NTHREADS = 8

_KINDS = {bool: "true or false", int: "a whole number", float: "a number", str: "a text",
          Path: "a path", tuple: "a list of texts"}  # fmt: skip


@dataclass(frozen=True)
class Option:
    """How a setting is given on the command line.

    Attributes
    ----------
    help : str
        What it does, without the default.
    group : str
        Heading in the help text; empty for positional arguments.
    flags : tuple of str
        The first long one names it in messages; by default the name of the setting.
    default : str
        The default in words; by default its value.
    metavar : str or None
    choices : tuple of str
        Legal values; empty if there are others.
    least, most : float or None
        Range of a number.
    exclusive : bool
        Whether it replaces most of what is done otherwise: one of such options may be given.
    """

    help: str
    group: str = ""
    flags: tuple[str, ...] = ()
    default: str = ""
    metavar: str | None = None
    choices: tuple[str, ...] = ()
    least: float | None = None
    most: float | None = None
    exclusive: bool = False


def _setting(help: str, group: str = "", /, default: Any = MISSING, **option: Any) -> Any:
    """A field of `Config`; a default that is a function is called for each configuration."""
    words = {"default": option.pop("shown")} if "shown" in option else {}
    metadata = {"option": Option(help, group, **option, **words)}
    if callable(default):
        return field(default_factory=default, metadata=metadata)
    return field(default=default, metadata=metadata)


_FILTERS = "Options for filtering BIDS queries"
_REGISTRATION = "Options for the registration"
_GROUP = "Options for the group level"
_PERFORMANCE = "Options to handle performance"
_SUBSETS = "Options for performing only a subset of the workflow"
_OTHER = "Other options"


@dataclass(frozen=True, kw_only=True)
class Config:
    """Settings of one run.

    Each is an option of the command line and a key of the configuration file; ``Config.option``
    says what it does.
    """

    bids_dir: Path = _setting("root folder of a BIDS dataset")
    output_dir: Path = _setting("folder for the derivatives")
    level: str = _setting(
        "stage of the analysis: participant (register every subject) or group",
        default="participant",
        metavar="analysis_level",
        choices=LEVELS,
    )

    skip_validation: bool = _setting(
        "do not run the BIDS validator over the dataset",
        _FILTERS,
        default=False,
        flags=("--skip-bids-validation", "--skip_bids_validation"),
    )
    participants: tuple[str, ...] = _setting(
        "participants to process, with or without 'sub-'",
        _FILTERS,
        default=(),
        flags=("--participant-label", "--participant_label"),
        metavar="LABEL",
        shown="all",
    )
    sessions: tuple[str, ...] = _setting(
        "sessions to process, with or without 'ses-'",
        _FILTERS,
        default=(),
        flags=("--session-label", "--session_label"),
        metavar="LABEL",
        shown="all",
    )
    filter_file: Path | None = _setting(
        "JSON file with pybids filters that choose the input files, as in fMRIPrep",
        _FILTERS,
        default=None,
        flags=("--bids-filter-file",),
        metavar="FILE",
    )
    database_dir: Path | None = _setting(
        "accepted as in fMRIPrep, without effect: the dataset itself is read, so that an outdated "
        "database cannot mislead",
        _FILTERS,
        default=None,
        flags=("--bids-database-dir",),
        metavar="DIR",
    )

    templates: tuple[str, ...] = _setting(
        "template to register to: a TemplateFlow name with modifiers such as "
        "MNIPediatricAsym:cohort-3:res-1, a NIfTI file, or the folder tpl-NAME of a study "
        "template; one or several",
        _REGISTRATION,
        default=(DEFAULT_TEMPLATE,),
        flags=("--template",),
        metavar="TEMPLATE",
        shown=f"{DEFAULT_TEMPLATE}, which needs no download",
    )
    atlases: tuple[str, ...] = _setting(
        "atlas of the template to bring into each subject's space: a TemplateFlow atlas or desc "
        "name, or a NIfTI file, with a lookup TSV beside it if there is one; one or several",
        _REGISTRATION,
        default=(),
        flags=("--atlas",),
        metavar="ATLAS",
        shown="the tissue classes of the built-in template",
    )
    mode: str = _setting(
        "; ".join(f"{mode.name}: {mode.summary}" for mode in MODES.values()),
        _REGISTRATION,
        default=next(iter(MODES)),
        choices=tuple(MODES),
    )
    network: str = _setting(
        "the multi-resolution diffeomorphic network or that of Li & Fan 2017",
        _REGISTRATION,
        default=NETWORKS[0],
        choices=NETWORKS,
    )
    model: Path | None = _setting(
        "weights made by fcnreg train, in place of those of the package",
        _REGISTRATION,
        default=None,
        metavar="FILE",
    )
    device: str = _setting(
        "where the registration is computed",
        _REGISTRATION,
        default="auto",
        metavar="{auto,cpu,cuda,cuda:N}",
        shown="auto, a GPU if there is one",
    )
    longitudinal: bool = _setting(
        "register the sessions of a participant to each other first, in an unbiased space in "
        "their middle, and to the template through their mean image",
        _REGISTRATION,
        default=False,
    )
    reference_session: str | None = _setting(
        "with --longitudinal, compute the changes relative to this session, with or without "
        "'ses-'",
        _REGISTRATION,
        default=None,
        metavar="LABEL",
        shown="the first session, by acq_time or else by label",
    )
    skull_strip: str = _setting(
        "auto: extract the brain unless the image shows a brain only; force: always; skip: the "
        "input is brain-extracted",
        _REGISTRATION,
        default=SKULL_STRIP[0],
        flags=("--skull-strip-t1w",),
        choices=SKULL_STRIP,
    )
    seed: int = _setting(
        "seed of all random numbers",
        _REGISTRATION,
        default=0,
        flags=("--random-seed",),
        metavar="N",
        least=0,
        most=2**63 - 1,
    )

    group_task: str = _setting(
        "report: tables, mean images and outliers of the study; template: an unbiased template "
        "of the study's own brains; train: a network trained on the study, with which every scan "
        "is registered",
        _GROUP,
        default=GROUP_TASKS[0],
        choices=GROUP_TASKS,
    )
    template_name: str | None = _setting(
        "name of the study template to make, letters and digits; it is written to "
        "OUTPUT_DIR/tpl-NAME, which can be given as --template",
        _GROUP,
        default=None,
        metavar="NAME",
    )
    template_symmetric: bool = _setting(
        "make the study template left-right symmetric", _GROUP, default=False
    )
    template_anchored: bool = _setting(
        "keep the scale of the template given with --template, whose orientation is kept in any "
        "case; else the study template has the mean size of the study's brains",
        _GROUP,
        default=False,
    )
    template_warm_start: bool = _setting(
        "start from the template given with --template, a study template of nearly the same "
        "scans, without the linear start and the first, rough iterations",
        _GROUP,
        default=False,
    )
    template_iterations: int = _setting(
        "stop after so many iterations, even if the study template still changes",
        _GROUP,
        default=5,
        metavar="N",
        least=1,
    )
    train_steps: tuple[str, ...] = _setting(
        "updates in each stage of the training, coarse to fine",
        _GROUP,
        default=(),
        metavar="N",
        shown="what suits some dozens of scans",
    )
    train_from_scratch: bool = _setting(
        "start from random weights, not from those of the package", _GROUP, default=False
    )

    nprocs: int = _setting(
        "processors for all processes together",
        _PERFORMANCE,
        default=available_cpus,
        flags=("--nprocs", "--n-cpus", "--nthreads"),
        metavar="N",
        least=1,
        shown="all available",
    )
    omp_nthreads: int = _setting(
        "threads of one process",
        _PERFORMANCE,
        default=0,
        metavar="N",
        least=1,
        shown=f"nprocs, at most {MAX_OMP_NTHREADS}; 1 with --mode optimize, whose result depends "
        "on it in the last digits",
    )
    mem_gb: float = _setting(
        "memory for all processes together",
        _PERFORMANCE,
        default=available_memory_gb,
        flags=("--mem",),
        metavar="GB",
        least=0.1,
        shown="nine tenths of what is available",
    )
    low_mem: bool = _setting(
        "use less memory: one multi-threaded step at a time, whatever --nprocs",
        _PERFORMANCE,
        default=False,
    )
    plugin_file: Path | None = _setting(
        "YAML file with 'plugin' and 'plugin_args' of Nipype, for instance for SLURM",
        _PERFORMANCE,
        default=None,
        flags=("--use-plugin",),
        metavar="FILE",
    )
    resource_monitor: bool = _setting(
        "record memory and processor use of every node in the work folder",
        _PERFORMANCE,
        default=False,
    )

    boilerplate_only: bool = _setting(
        "only write the text for the methods section to logs/CITATION.md",
        _SUBSETS,
        default=False,
        exclusive=True,
    )
    dry_run: bool = _setting(
        "only list what would be registered to what, and which results are there already",
        _SUBSETS,
        default=False,
        exclusive=True,
    )
    reports_only: bool = _setting(
        "only make the visual reports, from existing results",
        _SUBSETS,
        default=False,
        exclusive=True,
    )

    work_dir: Path = _setting(
        "folder for intermediate results, which a rerun reuses",
        _OTHER,
        default=lambda: Path("work").absolute(),
        flags=("-w", "--work-dir"),
        metavar="DIR",
        shown="./work",
    )
    clean_workdir: bool = _setting(
        "remove earlier intermediate results from the work folder first", _OTHER, default=False
    )
    stop_on_first_crash: bool = _setting(
        "stop all subjects as soon as one fails", _OTHER, default=False
    )
    fail_on_qc: bool = _setting(
        "exit with 1 also when the verdict on a registration is failed or unknown",
        _OTHER,
        default=False,
    )
    write_graph: bool = _setting(
        "write the graph of the workflow to the work folder", _OTHER, default=False
    )
    verbose: int = _setting(
        "print Nipype's messages; twice for debugging",
        _OTHER,
        default=0,
        flags=("-v", "--verbose"),
        least=0,
        shown="progress and warnings",
    )

    @staticmethod
    def option(name: str) -> Option:
        """Return how a setting is given on the command line."""
        return Config.__dataclass_fields__[name].metadata["option"]

    @staticmethod
    def flag(name: str) -> str:
        """Return the word under which users know a setting, such as ``--participant-label``."""
        option = Config.option(name)
        if not option.group:
            return option.metavar or name
        long = (flag for flag in option.flags if flag.startswith("--"))
        return next(long, f"--{name.replace('_', '-')}")

    def __post_init__(self) -> None:
        if not self.omp_nthreads:
            # What `optimize` finds depends on the number of threads; not on that of processors.
            threads = min(self.nprocs, MAX_OMP_NTHREADS) if MODES[self.mode].trained else 1
            object.__setattr__(self, "omp_nthreads", threads)

    def save(self, path: str | Path) -> Path:
        """Write all settings as TOML, whole or not at all; `read_settings` reads them back."""
        import tomli_w

        values = {key: _plain(value) for key, value in dataclasses.asdict(self).items()}
        text = tomli_w.dumps({key: value for key, value in values.items() if value is not None})
        return write_bytes(path, text.encode())


def read_settings(path: str | Path) -> dict[str, Any]:
    """Settings named in a TOML file, checked and converted; what it leaves out is left out.

    Parameters
    ----------
    path : path
        TOML file whose keys are names of `Config`'s attributes.

    Returns
    -------
    dict
        Values for `Config`'s constructor; relative paths start at the current folder.

    Raises
    ------
    InputError
        When the file cannot be read, a key is not known, or a value does not fit its key.
    """
    try:
        values = tomllib.loads(read_text(path))
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not text in UTF-8"
        raise InputError(f"The configuration file {path} cannot be read: {reason}.") from error
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise InputError(f"The configuration file {path} is not valid TOML: {error}.") from error
    known = settings_names()
    for key in values:
        if key not in known:
            raise InputError(
                f"The configuration file {path} has the unknown key '{key}'; "
                f"the known ones are {', '.join(known)}."
            )
    where = f"In the configuration file {path}, the key"
    return {key: convert(key, value, f"{where} '{key}'") for key, value in values.items()}


def load(path: str | Path) -> Config:
    """Settings of a run as `Config.save` wrote them.

    Raises
    ------
    InputError
        As `read_settings`, and when the file names no input or no output folder.
    """
    values = read_settings(path)
    for key in ("bids_dir", "output_dir"):
        if key not in values:
            raise InputError(f"The configuration file {path} lacks the key '{key}'.")
    return Config(**values)


def settings_names() -> tuple[str, ...]:
    """Names of all settings."""
    return tuple(f.name for f in dataclasses.fields(Config))


def convert(key: str, value: Any, where: str) -> Any:
    """Turn a value as TOML or a command line gives it into what `Config` holds under `key`.

    Parameters
    ----------
    key : str
        Name of the setting.
    value : object
        A TOML value.
    where : str
        Names the place of the value and begins the sentence of an error.

    Raises
    ------
    InputError
        When type or range do not fit.
    """
    hint = typing.get_type_hints(Config)[key]
    kinds = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
    kind = typing.get_origin(kinds[0]) or kinds[0]
    fits, converted = _cast(kind, value)
    if not fits:
        raise InputError(f"{where} must be {_KINDS[kind]}, not {value!r}.")
    option = Config.option(key)
    if option.choices and converted not in option.choices:
        raise InputError(f"{where} must be one of {', '.join(option.choices)}, not {value!r}.")
    if option.least is not None and converted < option.least:
        raise InputError(
            f"{where} must be {_KINDS[kind]} of at least {option.least:g}, not {value}."
        )
    if option.most is not None and converted > option.most:
        raise InputError(f"{where} must be {_KINDS[kind]} of at most {option.most}, not {value}.")
    if key == "device" and not _is_device(converted):
        raise InputError(f"{where} must be one of auto, cpu, cuda, cuda:N, not {value!r}.")
    return _labels(key, converted)


def _cast(kind: type, value: Any) -> tuple[bool, Any]:
    """Whether a TOML value is of a kind, and the value in that kind."""
    if kind is tuple:
        return isinstance(value, list | tuple) and all(isinstance(v, str) for v in value), (
            tuple(value) if isinstance(value, Iterable) else value
        )
    if kind is Path:
        try:
            fits = isinstance(value, str | Path) and str(value) != ""
            return fits, Path(os.path.abspath(Path(value).expanduser())) if fits else value
        except RuntimeError:  # the home folder of somebody who is not known
            return False, value
    if kind is float:
        fits = isinstance(value, int | float) and not isinstance(value, bool)
        return fits and math.isfinite(value), float(value) if fits else value
    if kind is int:
        return isinstance(value, int) and not isinstance(value, bool), value
    return isinstance(value, kind), value


def _labels(key: str, value: Any) -> Any:
    """Participants and sessions without prefix, each once, in the order given."""
    prefix = {"participants": "sub-", "sessions": "ses-", "reference_session": "ses-"}.get(key)
    if prefix is None or value is None:
        return value
    if isinstance(value, str):
        return value.removeprefix(prefix)
    return tuple(dict.fromkeys(label.removeprefix(prefix) for label in value))


def _is_device(name: str) -> bool:
    return name in ("auto", "cpu", "cuda") or (
        name.startswith("cuda:") and name.removeprefix("cuda:").isdecimal()
    )


def _plain(value: Any) -> Any:
    """A value as TOML knows it."""
    if isinstance(value, Path):
        return str(value)
    return list(value) if isinstance(value, tuple) else value
