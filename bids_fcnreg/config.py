"""The one settings object: every option of the command line, typed, kept as TOML."""

from __future__ import annotations

import dataclasses
import math
import os
import tomllib
import types
import typing
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bids_fcnreg.atomic import read_text, write_bytes
from bids_fcnreg.errors import InputError
from bids_fcnreg.resources import available_cpus, available_memory_gb

LEVELS = ("participant", "group")
GROUP_TASKS = ("report", "template", "train")
MODES = ("refine", "predict", "optimize")
NETWORKS = ("diffeomorphic", "2017")
SKULL_STRIP = ("auto", "force", "skip")
INTERPOLATIONS = ("linear", "nearest", "label")
#: Keyword of the transform that moves nothing, in place of a file.
IDENTITY = "identity"
DEFAULT_TEMPLATE = "MNI152NLin2009aSym"
MAX_OMP_NTHREADS = 8

_CHOICES = {
    "level": LEVELS,
    "group_task": GROUP_TASKS,
    "mode": MODES,
    "network": NETWORKS,
    "skull_strip": SKULL_STRIP,
}
_LEAST = {
    "template_iterations": 1,
    "nprocs": 1,
    "omp_nthreads": 1,
    "mem_gb": 0.1,
    "seed": 0,
    "verbose": 0,
}
_MOST = {"seed": 2**63 - 1}
_WORDS = {bool: "true or false", int: "a whole number", float: "a number", str: "a text",
          Path: "a path", tuple: "a list of texts"}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Config:
    """Settings of one run.

    Attributes
    ----------
    bids_dir, output_dir : Path
        The BIDS dataset that is read and the derivatives folder that is written.
    level : {"participant", "group"}
        Level of the analysis.
    group_task : {"report", "template", "train"}
        What the group level does.
    template_name : str or None
        Name of the study template to make.
    template_symmetric, template_anchored : bool
        Make it equal on the left and the right; keep the scale of the template it starts from.
    template_warm_start : bool
        That template shows nearly the same scans already.
    template_iterations : int
        Largest number of iterations.
    train_steps : tuple of str
        Updates in each stage of the training, as words; empty for what suits some dozens of scans.
    train_from_scratch : bool
        Start from random weights.
    participants, sessions : tuple of str
        Labels without ``sub-``/``ses-``; empty means all.
    filter_file : Path or None
        BIDS filter file (JSON) as fMRIPrep reads it.
    database_dir : Path or None
        Folder of a pybids database, as fMRIPrep takes one; it is not used.
    skip_validation : bool
        Leave out the BIDS validator.
    templates, atlases : tuple of str
        Templates to register to and atlases to bring into each subject's space, as given.
    mode : {"refine", "predict", "optimize"}
        How the deformation is found.
    network : {"diffeomorphic", "2017"}
        Which network, unless `model` holds another.
    model : Path or None
        Weights of a trained network, in place of those of the package.
    device : str
        ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
    longitudinal : bool
        Register the sessions of a participant to each other first.
    reference_session : str or None
        Label without ``ses-`` of the session that the others are compared to, if `longitudinal`;
        by default the first one in time.
    skull_strip : {"auto", "force", "skip"}
        Whether the brain is extracted; ``auto`` recognises an extracted brain.
    seed : int
        Seed of everything random.
    work_dir : Path
        Where intermediate results live; a rerun over it reuses what is done.
    nprocs, omp_nthreads : int
        Processors for all processes together, and the largest number of threads of one process
        (0 becomes `nprocs`, at most 8, or 1 with the mode optimize).
    mem_gb : float
        Memory (GB) that all processes together may use.
    low_mem : bool
        Run one multi-threaded step at a time, whatever `nprocs`.
    plugin_file : Path or None
        YAML file that names a Nipype execution plugin and its arguments.
    resource_monitor, stop_on_first_crash, clean_workdir : bool
        As in fMRIPrep.
    fail_on_qc : bool
        Exit with 1 also when the verdict on a registration is failed or unknown.
    write_graph, dry_run, boilerplate_only, reports_only : bool
        Write the workflow's graph; only list what would be done; write the methods text only;
        make the reports only.
    verbose : int
        0 shows progress and warnings, 1 what Nipype says, 2 its debugging too.
    """

    bids_dir: Path
    output_dir: Path
    level: str = "participant"
    group_task: str = "report"
    template_name: str | None = None
    template_symmetric: bool = False
    template_anchored: bool = False
    template_warm_start: bool = False
    template_iterations: int = 5
    train_steps: tuple[str, ...] = ()
    train_from_scratch: bool = False
    participants: tuple[str, ...] = ()
    sessions: tuple[str, ...] = ()
    filter_file: Path | None = None
    database_dir: Path | None = None
    skip_validation: bool = False
    templates: tuple[str, ...] = (DEFAULT_TEMPLATE,)
    atlases: tuple[str, ...] = ()
    mode: str = "refine"
    network: str = "diffeomorphic"
    model: Path | None = None
    device: str = "auto"
    longitudinal: bool = False
    reference_session: str | None = None
    skull_strip: str = "auto"
    seed: int = 0
    work_dir: Path = field(default_factory=lambda: Path("work").absolute())
    nprocs: int = field(default_factory=available_cpus)
    omp_nthreads: int = 0
    mem_gb: float = field(default_factory=available_memory_gb)
    low_mem: bool = False
    plugin_file: Path | None = None
    resource_monitor: bool = False
    stop_on_first_crash: bool = False
    clean_workdir: bool = False
    fail_on_qc: bool = False
    write_graph: bool = False
    dry_run: bool = False
    boilerplate_only: bool = False
    reports_only: bool = False
    verbose: int = 0

    def __post_init__(self) -> None:
        if not self.omp_nthreads:
            # What `optimize` finds depends on the number of threads; not on that of processors.
            threads = 1 if self.mode == "optimize" else min(self.nprocs, MAX_OMP_NTHREADS)
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
        raise InputError(f"{where} must be {_WORDS[kind]}, not {value!r}.")
    if key in _CHOICES and converted not in _CHOICES[key]:
        raise InputError(f"{where} must be one of {', '.join(_CHOICES[key])}, not {value!r}.")
    if key in _LEAST and converted < _LEAST[key]:
        raise InputError(f"{where} must be {_WORDS[kind]} of at least {_LEAST[key]}, not {value}.")
    if key in _MOST and converted > _MOST[key]:
        raise InputError(f"{where} must be {_WORDS[kind]} of at most {_MOST[key]}, not {value}.")
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
