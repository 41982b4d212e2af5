"""Settings in a TOML file: read, convert and write them."""

from __future__ import annotations

import dataclasses
import math
import os
import tomllib
import types
import typing
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import tomli_w

from bids_fcnreg.atomic import read_text, write_bytes
from bids_fcnreg.config import Config
from bids_fcnreg.errors import InputError

_KINDS = {bool: "true or false", int: "a whole number", float: "a number", str: "a string",
          Path: "a path", tuple: "a list of strings"}  # fmt: skip


def write_settings(config: Config, path: str | Path) -> Path:
    """Write all settings as TOML, atomically; `read_settings` reads them back."""
    values = {key: _plain(value) for key, value in dataclasses.asdict(config).items()}
    text = tomli_w.dumps({key: value for key, value in values.items() if value is not None})
    return write_bytes(path, text.encode())


def read_settings(path: str | Path) -> dict[str, Any]:
    """Read and check the settings in a TOML file.

    Parameters
    ----------
    path : path
        TOML file whose keys are attributes of `Config`.

    Returns
    -------
    dict
        Arguments of `Config`; relative paths start at the current directory.

    Raises
    ------
    InputError
        If the file cannot be read, a key is unknown, or a value is invalid.
    """
    try:
        values = tomllib.loads(read_text(path))
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not text in UTF-8"
        raise InputError(f"The configuration file {path} cannot be read: {reason}.") from error
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise InputError(f"The configuration file {path} is not valid TOML: {error}.") from error
    known = settings_names()
    for key in values:
        if key not in known:
            raise InputError(
                f"The configuration file {path} has the unknown key '{key}'. "
                f"Known keys are {', '.join(known)}."
            )
    where = f"In the configuration file {path}, the key"
    return {key: convert(key, value, f"{where} '{key}'") for key, value in values.items()}


def settings_names() -> tuple[str, ...]:
    """Return the names of all settings."""
    return tuple(f.name for f in dataclasses.fields(Config))


def convert(key: str, value: Any, where: str) -> Any:
    """Convert a value from a TOML file or the command line to the type of a setting.

    Parameters
    ----------
    key : str
        Name of the setting.
    value : object
        TOML value.
    where : str
        Subject of the error message, such as the option.

    Raises
    ------
    InputError
        If the type or range is wrong.
    """
    hint = typing.get_type_hints(Config)[key]
    kinds = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
    kind = typing.get_origin(kinds[0]) or kinds[0]
    fits, converted = _cast(kind, value)
    if not fits:
        raise InputError(f"{where} must be {_KINDS[kind]}, not {value!r}.")
    option = Config.option(key)
    chosen = converted if kind is tuple else (converted,)
    if option.choices and not set(chosen) <= set(option.choices):
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
    """Return whether a TOML value has a type, and the value converted to it."""
    if kind is tuple:
        return isinstance(value, list | tuple) and all(isinstance(v, str) for v in value), (
            tuple(value) if isinstance(value, Iterable) else value
        )
    if kind is Path:
        try:
            fits = isinstance(value, str | Path) and str(value) != ""
            return fits, Path(os.path.abspath(Path(value).expanduser())) if fits else value
        except RuntimeError:  # the home directory of an unknown user
            return False, value
    if kind is float:
        fits = isinstance(value, int | float) and not isinstance(value, bool)
        return fits and math.isfinite(value), float(value) if fits else value
    if kind is int:
        return isinstance(value, int) and not isinstance(value, bool), value
    return isinstance(value, kind), value


def _labels(key: str, value: Any) -> Any:
    """Remove the prefixes and duplicates of participant and session labels."""
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
    """Convert a value to a type of TOML."""
    if isinstance(value, Path):
        return str(value)
    return list(value) if isinstance(value, tuple) else value
