"""Words of the command line → settings."""

from __future__ import annotations

import argparse
import os
import re
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from bids_fcnreg import __version__
from bids_fcnreg.cli.argument_parser import OneSentenceParser
from bids_fcnreg.cli.group_options import add_group, check_group, check_participant
from bids_fcnreg.config import (
    DEFAULT_TEMPLATE,
    LEVELS,
    MAX_OMP_NTHREADS,
    MODES,
    NETWORKS,
    SKULL_STRIP,
    Config,
    convert,
    read_settings,
)
from bids_fcnreg.errors import InputError


def parse(argv: Sequence[str] | None = None) -> Config:
    """Read the words of `bids_fcnreg`.

    Words win over what `--config-file` says, and that over the defaults.

    Raises
    ------
    InputError
        When a value does not fit, or a named file is not there.
    """
    try:
        os.getcwd()  # relative paths start there
    except FileNotFoundError as error:
        raise InputError("The current folder has been deleted: change to another.") from error
    words = vars(build_parser().parse_args(argv))
    config_file = words.pop("config_file", None)
    settings = read_settings(config_file) if config_file else {}
    settings |= {key: convert(key, value, _flag(key)) for key, value in words.items()}
    config = Config(**settings)
    check(config)
    return config


def check(config: Config) -> None:
    """Refuse settings that cannot work together, before anything heavy is loaded.

    Raises
    ------
    InputError
        With one sentence that says what to change.
    """
    only = [name for name in _ONLY if getattr(config, name)]
    if len(only) > 1:
        raise InputError(f"{_flag(only[0])} and {_flag(only[1])} exclude each other: choose one.")
    for name, path in vars(config).items():
        if isinstance(path, Path):
            _check_path(path, _flag(name))
    for name in ("filter_file", "model", "plugin_file"):
        path = getattr(config, name)
        if path is not None and not path.is_file():
            wrong = "is not a file" if path.exists() else "does not exist"
            raise InputError(f"The file {path} given with {_flag(name)} {wrong}.")
    if config.level == "group":
        check_group(config)
    else:
        check_participant(config)
    for name in ("templates", "atlases"):
        for word in getattr(config, name):
            image = re.match(r".+?\.nii(\.gz)?(?=:|$)", word)
            if image and not Path(image[0]).expanduser().exists():
                raise InputError(f"The file {image[0]} given with {_flag(name)} does not exist.")
    if config.mode == "optimize" and config.model is not None:
        raise InputError("--mode optimize starts from no weights: leave --model away.")
    if config.work_dir.exists() and not config.work_dir.is_dir():
        raise InputError(f"The work folder {config.work_dir} is a file: give another with -w.")
    if config.work_dir.resolve().is_relative_to(config.bids_dir.resolve()):
        raise InputError(
            f"The work folder {config.work_dir} lies inside the BIDS folder; "
            f"give another one with -w."
        )


#: Each leaves out most of what is done otherwise.
_ONLY = ("boilerplate_only", "dry_run", "reports_only")


def _check_path(path: Path, flag: str) -> None:
    """Refuse what no file can be called: too long, or links that go in a circle."""
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        return
    except (OSError, ValueError) as error:
        told = f"{str(path)[:60]}…" if len(str(path)) > 60 else str(path).replace("\0", "")
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"{flag}: {told} cannot be used ({reason}): give another.") from error


_FLAGS = {
    "level": "analysis_level",
    "participants": "--participant-label",
    "sessions": "--session-label",
    "filter_file": "--bids-filter-file",
    "database_dir": "--bids-database-dir",
    "skip_validation": "--skip-bids-validation",
    "templates": "--template",
    "atlases": "--atlas",
    "skull_strip": "--skull-strip-t1w",
    "seed": "--random-seed",
    "mem_gb": "--mem",
    "plugin_file": "--use-plugin",
}


def _flag(setting: str) -> str:
    """The word under which a user knows a setting."""
    if setting in ("bids_dir", "output_dir"):
        return setting
    return _FLAGS.get(setting, f"--{setting.replace('_', '-')}")


def _number(setting: str, cast: Callable[[str], float]) -> Callable[[str], Any]:
    """An argparse type for a setting that is a number."""

    def read(word: str) -> Any:
        value: float | str = word
        with suppress(ValueError):
            value = cast(word)
        try:
            return convert(setting, value, "it")
        except InputError as error:
            raise argparse.ArgumentTypeError(str(error).rstrip(".")) from error

    return read


def build_parser() -> argparse.ArgumentParser:
    """The parser of `bids_fcnreg`; options that are not given leave no trace in its result."""
    parser = OneSentenceParser(
        prog="bids_fcnreg",
        description="Brain image registration with fully convolutional networks, as a BIDS App.",
        argument_default=argparse.SUPPRESS,
        allow_abbrev=False,
        formatter_class=lambda prog: argparse.HelpFormatter(prog, max_help_position=32),
    )
    parser.add_argument("bids_dir", type=Path, help="root folder of a BIDS dataset")
    parser.add_argument("output_dir", type=Path, help="folder for the derivatives")
    parser.add_argument(
        "level",
        metavar="analysis_level",
        choices=LEVELS,
        help="stage of the analysis: participant (register every subject) or group",
    )
    parser.add_argument("--version", action="version", version=f"bids_fcnreg {__version__}")
    _add_filters(parser)
    _add_registration(parser)
    add_group(parser)
    _add_performance(parser)
    _add_subsets(parser)
    _add_other(parser)
    return parser


def _add_filters(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("Options for filtering BIDS queries")
    group.add_argument(
        "--skip-bids-validation",
        "--skip_bids_validation",
        dest="skip_validation",
        action="store_true",
        help="do not run the BIDS validator over the dataset",
    )
    group.add_argument(
        "--participant-label",
        "--participant_label",
        dest="participants",
        nargs="+",
        metavar="LABEL",
        help="participants to process, with or without 'sub-' (default: all)",
    )
    group.add_argument(
        "--session-label",
        "--session_label",
        dest="sessions",
        nargs="+",
        metavar="LABEL",
        help="sessions to process, with or without 'ses-' (default: all)",
    )
    group.add_argument(
        "--bids-filter-file",
        dest="filter_file",
        type=Path,
        metavar="FILE",
        help="JSON file with pybids filters that choose the input files, as in fMRIPrep",
    )
    group.add_argument(
        "--bids-database-dir",
        dest="database_dir",
        type=Path,
        metavar="DIR",
        help="accepted as in fMRIPrep, without effect: the dataset itself is read, so that an "
        "outdated database cannot mislead",
    )


def _add_registration(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("Options for the registration")
    group.add_argument(
        "--template",
        dest="templates",
        nargs="+",
        metavar="TEMPLATE",
        help="template to register to: a TemplateFlow name with modifiers such as "
        "MNIPediatricAsym:cohort-3:res-1, a NIfTI file, or the folder tpl-NAME of a study "
        "template; one or several "
        f"(default: {DEFAULT_TEMPLATE}, which needs no download)",
    )
    group.add_argument(
        "--atlas",
        dest="atlases",
        nargs="+",
        metavar="ATLAS",
        help="atlas of the template to bring into each subject's space: a TemplateFlow "
        "atlas or desc name, or a NIfTI file, with a lookup TSV beside it if there is one; "
        "one or several (default: the tissue classes of the built-in template)",
    )
    group.add_argument(
        "--mode",
        choices=MODES,
        help="predict: one pass through a trained network; refine: the same, then the "
        "deformation of each pair is optimised; optimize: a new network is trained on each pair "
        f"alone (default: {Config.mode})",
    )
    group.add_argument(
        "--network",
        choices=NETWORKS,
        help="the multi-resolution diffeomorphic network or that of Li & Fan 2017 "
        f"(default: {Config.network})",
    )
    group.add_argument(
        "--model",
        type=Path,
        metavar="FILE",
        help="weights made by fcnreg train, in place of those of the package",
    )
    group.add_argument(
        "--device",
        metavar="{auto,cpu,cuda,cuda:N}",
        help=f"where the registration is computed (default: {Config.device}, a GPU if there is)",
    )
    group.add_argument(
        "--longitudinal",
        action="store_true",
        help="register the sessions of a participant to each other first, in an unbiased space in "
        "their middle, and go to the template by way of their mean image",
    )
    group.add_argument(
        "--reference-session",
        metavar="LABEL",
        help="with --longitudinal, compute the changes relative to this session, with or without "
        "'ses-' (default: the first session, by acq_time or else by label)",
    )
    group.add_argument(
        "--skull-strip-t1w",
        dest="skull_strip",
        choices=SKULL_STRIP,
        help="auto: extract the brain unless the image shows a brain only; force: always; "
        f"skip: the input is brain-extracted (default: {Config.skull_strip})",
    )
    group.add_argument(
        "--random-seed",
        dest="seed",
        type=_number("seed", int),
        metavar="N",
        help=f"seed of everything random (default: {Config.seed})",
    )


def _add_performance(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("Options to handle performance")
    group.add_argument(
        "--nprocs",
        "--n-cpus",
        "--nthreads",
        dest="nprocs",
        type=_number("nprocs", int),
        metavar="N",
        help="processors for all processes together (default: all there are)",
    )
    group.add_argument(
        "--omp-nthreads",
        dest="omp_nthreads",
        type=_number("omp_nthreads", int),
        metavar="N",
        help=f"threads of one process (default: nprocs, at most {MAX_OMP_NTHREADS}; 1 with "
        "--mode optimize, whose result depends on it in the last digits)",
    )
    group.add_argument(
        "--mem",
        dest="mem_gb",
        type=_number("mem_gb", float),
        metavar="GB",
        help="memory for all processes together (default: nine tenths of what there is)",
    )
    group.add_argument(
        "--low-mem",
        action="store_true",
        help="use less memory: one multi-threaded step at a time, whatever --nprocs",
    )
    group.add_argument(
        "--use-plugin",
        dest="plugin_file",
        type=Path,
        metavar="FILE",
        help="YAML file with 'plugin' and 'plugin_args' of Nipype, for instance for SLURM",
    )
    group.add_argument(
        "--resource-monitor",
        action="store_true",
        help="record memory and processor use of every node in the work folder",
    )


def _add_subsets(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("Options for performing only a subset of the workflow")
    only = group.add_mutually_exclusive_group()
    only.add_argument(
        "--boilerplate-only",
        action="store_true",
        help="only write the text for the methods section to logs/CITATION.md",
    )
    only.add_argument(
        "--dry-run",
        action="store_true",
        help="only list what would be registered to what, and which results are there already",
    )
    only.add_argument(
        "--reports-only",
        action="store_true",
        help="only make the visual reports, from the results that are there",
    )


def _add_other(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("Other options")
    group.add_argument(
        "-w",
        "--work-dir",
        type=Path,
        metavar="DIR",
        help="folder for intermediate results, which a rerun reuses (default: ./work)",
    )
    group.add_argument(
        "--clean-workdir",
        action="store_true",
        help="remove earlier intermediate results from the work folder first",
    )
    group.add_argument(
        "--config-file",
        type=Path,
        metavar="FILE",
        help="TOML file with settings, such as a run keeps in logs/; words given here win",
    )
    group.add_argument(
        "--stop-on-first-crash",
        action="store_true",
        help="stop all subjects as soon as one fails",
    )
    group.add_argument(
        "--fail-on-qc",
        action="store_true",
        help="exit with 1 also when the verdict on a registration is failed or unknown",
    )
    group.add_argument(
        "--write-graph",
        action="store_true",
        help="write the graph of the workflow to the work folder",
    )
    group.add_argument(
        "-v",
        "--verbose",
        dest="verbose",
        action="count",
        help="say more; twice for debugging",
    )
