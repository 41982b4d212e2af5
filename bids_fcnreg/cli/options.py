"""Parse the arguments of `bids_fcnreg` into settings."""

from __future__ import annotations

import argparse
import math
import os
import re
import sys
import typing
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from bids_fcnreg import __version__
from bids_fcnreg.cli.argument_parser import ConciseArgumentParser
from bids_fcnreg.cli.option_checks import check_group, check_participant
from bids_fcnreg.cli.output_spaces import select_templates
from bids_fcnreg.config import DEFAULT_TEMPLATE, SLOPPY_MODE, UNBIASED, Config
from bids_fcnreg.config_file import convert, read_settings, settings_names
from bids_fcnreg.errors import InputError
from bids_fcnreg.fcn.modes import MODES

#: GB of a unit of memory.
_GB = {"K": 1e-6, "M": 1e-3, "G": 1.0, "T": 1e3}
#: Amount of memory that is probably meant in MB.
MANY_GB = 1000


def parse_arguments(argv: Sequence[str] | None = None) -> Config:
    """Parse the arguments of `bids_fcnreg`.

    Arguments override `--config-file`, which overrides the defaults.

    Raises
    ------
    InputError
        If a value is invalid, or a file does not exist.
    """
    try:
        os.getcwd()  # relative paths start there
    except FileNotFoundError as error:
        raise InputError(
            "The current directory has been deleted. Change to another directory."
        ) from error
    parser = build_parser()
    arguments = vars(parser.parse_args(argv))
    config_file = arguments.pop("config_file", None)
    flags = {name: parser.typed.get(name, Config.flag(name)) for name in settings_names()}
    from_file = read_settings(config_file) if config_file else {}
    if "output_spaces" in arguments:
        _add_templates(arguments, flags, bool(from_file.get("templates")))
    given = {key: convert(key, value, flags[key]) for key, value in arguments.items()}
    settings = {**_with_mode(from_file), **_with_mode(given)}
    config = Config(**settings)
    if parser.typed.get("mem_gb") == "--mem" and config.mem_gb >= MANY_GB:
        _warn(
            f"--mem is in GB, and {config.mem_gb:.0f} GB is very much. For MB, type "
            f"--mem-mb {config.mem_gb:.0f}."
        )
    check_settings(config, flags)
    return config


def _add_templates(arguments: dict[str, Any], flags: dict[str, str], has_others: bool) -> None:
    """Add the templates in ``--output-spaces`` to those of ``--template``.

    Parameters
    ----------
    arguments : dict
        Arguments by name; changed.
    flags : dict of str to str
        Option of each setting, for messages; changed.
    has_others : bool
        Whether the configuration file names templates.

    Raises
    ------
    InputError
        If no template is left.
    """
    templates, ignored = select_templates(arguments.pop("output_spaces"))
    if "templates" not in arguments:
        flags["templates"] = "--output-spaces"
    if named := arguments.get("templates", []) + templates:
        arguments["templates"] = named
    elif not has_others:
        raise InputError(
            f"--output-spaces names no template: {ignored}. Add one such as {DEFAULT_TEMPLATE}, "
            "or omit the option."
        )
    if ignored:
        _warn(f"--output-spaces: {ignored}.")


def _warn(message: str) -> None:
    """Print a warning."""
    print(f"bids_fcnreg: warning: {message}", file=sys.stderr)


def _with_mode(settings: dict[str, Any]) -> dict[str, Any]:
    """Return settings of one source with the mode of ``--sloppy``.

    Raises
    ------
    InputError
        If they have another mode.
    """
    mode = settings.get("mode", SLOPPY_MODE)
    if not settings.get("sloppy"):  # another mode overrides --sloppy of another source
        return settings if mode == SLOPPY_MODE else {**settings, "sloppy": False}
    if mode != SLOPPY_MODE:
        raise InputError(f"--sloppy and --mode {mode} are mutually exclusive. Choose one.")
    return {**settings, "mode": SLOPPY_MODE}


def check_settings(config: Config, flags: Mapping[str, str]) -> None:
    """Refuse conflicting settings, before heavy modules are imported.

    Parameters
    ----------
    config : Config
    flags : mapping of str to str
        Option of each setting, for messages.

    Raises
    ------
    InputError
        If settings conflict, or a file does not exist.
    """
    exclusive = [
        name for name in vars(config) if Config.option(name).exclusive and getattr(config, name)
    ]
    if len(exclusive) > 1:
        names = " and ".join(flags[name] for name in exclusive[:2])
        raise InputError(f"{names} are mutually exclusive. Choose one.")
    for name, path in vars(config).items():
        if isinstance(path, Path):
            _check_path(path, flags[name])
    for name in ("filter_file", "model", "plugin_file"):
        path = getattr(config, name)
        if path is not None and not path.is_file():
            wrong = "is not a file" if path.exists() else "does not exist"
            raise InputError(f"{flags[name]}: {path} {wrong}.")
    if config.analysis_level == "group":
        check_group(config)
    else:
        check_participant(config)
    for name in ("templates", "atlases"):
        for value in getattr(config, name):
            image = re.match(r".+?\.nii(\.gz)?(?=:|$)", value)
            if image and not Path(image[0]).expanduser().exists():
                raise InputError(f"{flags[name]}: {image[0]} does not exist.")
    if config.model is not None and not MODES[config.mode].trained:
        raise InputError(
            f"--model cannot be used with --mode {config.mode}, which trains a network from "
            "scratch."
        )
    if config.work_dir.exists() and not config.work_dir.is_dir():
        raise InputError(
            f"The work directory {config.work_dir} is a file. Choose another one with -w."
        )
    if special := re.search(r"[][*?]", str(config.work_dir)):
        raise InputError(
            f"The work directory {config.work_dir} has the character {special[0]} in its path, "
            "which Nipype reads as a pattern. Choose another one with -w."
        )
    if config.work_dir.resolve().is_relative_to(config.bids_dir.resolve()):
        raise InputError(
            f"The work directory {config.work_dir} is inside the BIDS directory. Choose another "
            "one with -w."
        )


def _check_path(path: Path, flag: str) -> None:
    """Refuse invalid paths: too long, or circular links."""
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        return
    except (OSError, ValueError) as error:
        name = f"{str(path)[:60]}…" if len(str(path)) > 60 else str(path).replace("\0", "")
        reason = getattr(error, "strerror", None) or error
        raise InputError(
            f"{flag}: {name} cannot be used ({reason}). Choose another path."
        ) from error


def _number(setting: str, cast: Callable[[str], float]) -> Callable[[str], Any]:
    """Return an argparse type for a setting that is a number."""

    def read(text: str) -> Any:
        value: float | str = text
        with suppress(ValueError):
            value = cast(text)
        try:
            return convert(setting, value, "it")
        except InputError as error:
            raise argparse.ArgumentTypeError(str(error).rstrip(".")) from error

    return read


def _memory(unit: str) -> Callable[[str], Any]:
    """Return an argparse type for an amount of memory, whose default unit is "G" or "M"."""
    least = Config.option("mem_gb").least or 0

    def read(text: str) -> float:
        parts = re.fullmatch(r"([-+]?[\d.]+)\s*([KMGT]?)(?:i?B)?", text, re.IGNORECASE)
        try:
            amount = float(parts[1]) if parts else math.nan
        except ValueError:
            amount = math.nan
        if parts is None or math.isnan(amount):
            raise argparse.ArgumentTypeError(
                f"it must be a number, or one with a unit such as 16G or 16000M, not {text!r}"
            )
        found = amount * _GB[parts[2].upper() or unit]
        if found < least:
            raise argparse.ArgumentTypeError(f"it must be at least {least:g} GB, not {text}")
        return found

    return read


def build_parser() -> ConciseArgumentParser:
    """Return the parser of `bids_fcnreg`; omitted options are absent from its result."""
    parser = ConciseArgumentParser(
        prog="bids_fcnreg",
        description="Brain image registration with fully convolutional networks, as a BIDS App.",
        argument_default=argparse.SUPPRESS,
        epilog="@FILE stands for the arguments in FILE, one per line; blank lines and lines that "
        "start with # are skipped. In the names of options, underscores are the same as hyphens.",
        allow_abbrev=False,
        fromfile_prefix_chars="@",
        formatter_class=lambda prog: argparse.HelpFormatter(prog, max_help_position=32),
    )
    parser.add_argument("--version", action="version", version=f"bids_fcnreg {__version__}")
    groups: dict[str, Any] = {"": parser}
    for name, kind in typing.get_type_hints(Config).items():
        option = Config.option(name)
        group = groups.get(option.group) or parser.add_argument_group(option.group)
        groups[option.group] = group
        _add_option(group, name, kind)
    groups[option.group].add_argument(
        "--config-file",
        type=Path,
        metavar="FILE",
        help="TOML file with settings, such as logs/*/config.toml of a previous run; options on "
        "the command line override it",
    )
    return parser


def _add_option(group: Any, name: str, kind: Any) -> None:
    """Add the option of a setting to a group of the parser."""
    option = Config.option(name)
    how: dict[str, Any] = {"help": option.help}
    default = option.default or getattr(Config, name, None)
    if option.group and kind is not bool and default not in (None, ()):
        how["help"] += f" (default: {default})"
    if option.metavar:
        how["metavar"] = option.metavar
    if option.choices:
        how["choices"] = option.choices
    if not option.group:  # positional
        group.add_argument(name, **({"type": Path} if kind is Path else {}), **how)
        return
    if kind is bool:
        how["action"] = "store_true"
    elif name == "verbose":
        how["action"] = "count"
    elif typing.get_origin(kind) is tuple:
        how["nargs"] = "+"
    elif name == "mem_gb":
        how["type"] = _memory("G")
    elif kind in (int, float):
        how["type"] = _number(name, kind)
    elif Path in (kind, *typing.get_args(kind)):
        how["type"] = Path
    if name == "subject_anatomical_reference":
        group = group.add_mutually_exclusive_group()
        alias = f"the same as {Config.flag(name)} {UNBIASED}"
        group.add_argument(
            "--longitudinal", dest=name, action="store_const", const=UNBIASED, help=alias
        )
    group.add_argument(*(option.flags or [Config.flag(name)]), dest=name, **how)
    # The same settings as fMRIPrep writes them, with values that are converted.
    if name == "mem_gb":
        in_mb = "the same as --mem, in MB"
        group.add_argument("--mem-mb", dest=name, type=_memory("M"), metavar="MB", help=in_mb)
    elif name == "templates":
        group.add_argument(
            "--output-spaces",
            nargs="+",
            metavar="SPACE",
            help="templates, as in --template; native space, which is always written, and "
            "surfaces, which are not processed, are ignored",
        )
