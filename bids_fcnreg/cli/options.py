"""Parse the arguments of `bids_fcnreg` into settings."""

from __future__ import annotations

import argparse
import os
import re
import typing
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from bids_fcnreg import __version__
from bids_fcnreg.cli.argument_parser import ConciseArgumentParser
from bids_fcnreg.cli.option_checks import check_group, check_participant
from bids_fcnreg.config import Config
from bids_fcnreg.config_file import convert, read_settings
from bids_fcnreg.errors import InputError
from bids_fcnreg.fcn.modes import MODES


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
    arguments = vars(build_parser().parse_args(argv))
    config_file = arguments.pop("config_file", None)
    settings = read_settings(config_file) if config_file else {}
    settings |= {key: convert(key, value, Config.flag(key)) for key, value in arguments.items()}
    config = Config(**settings)
    check_settings(config)
    return config


def check_settings(config: Config) -> None:
    """Refuse conflicting settings, before heavy modules are imported.

    Raises
    ------
    InputError
        If settings conflict, or a file does not exist.
    """
    exclusive = [
        name for name in vars(config) if Config.option(name).exclusive and getattr(config, name)
    ]
    if len(exclusive) > 1:
        names = " and ".join(Config.flag(name) for name in exclusive[:2])
        raise InputError(f"{names} are mutually exclusive. Choose one.")
    for name, path in vars(config).items():
        if isinstance(path, Path):
            _check_path(path, Config.flag(name))
    for name in ("filter_file", "model", "plugin_file"):
        path = getattr(config, name)
        if path is not None and not path.is_file():
            wrong = "is not a file" if path.exists() else "does not exist"
            raise InputError(f"{Config.flag(name)}: {path} {wrong}.")
    if config.analysis_level == "group":
        check_group(config)
    else:
        check_participant(config)
    for name in ("templates", "atlases"):
        for value in getattr(config, name):
            image = re.match(r".+?\.nii(\.gz)?(?=:|$)", value)
            if image and not Path(image[0]).expanduser().exists():
                raise InputError(f"{Config.flag(name)}: {image[0]} does not exist.")
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


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of `bids_fcnreg`; omitted options are absent from its result."""
    parser = ConciseArgumentParser(
        prog="bids_fcnreg",
        description="Brain image registration with fully convolutional networks, as a BIDS App.",
        argument_default=argparse.SUPPRESS,
        allow_abbrev=False,
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
    elif kind in (int, float):
        how["type"] = _number(name, kind)
    elif Path in (kind, *typing.get_args(kind)):
        how["type"] = Path
    group.add_argument(*(option.flags or [Config.flag(name)]), dest=name, **how)
