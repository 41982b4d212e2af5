"""Declare a setting together with its command-line option."""

from __future__ import annotations

from dataclasses import MISSING, dataclass, field
from typing import Any


@dataclass(frozen=True)
class Option:
    """Command-line option of a setting.

    Attributes
    ----------
    help : str
        Help text, without the default.
    group : str
        Heading in the help text; empty for positional arguments.
    flags : tuple of str
        Flags, of which messages use the first long one; by default the name of the setting.
    default : str
        Description of the default; by default its value.
    metavar : str or None
    choices : tuple of str
        Allowed values; empty if not restricted.
    least, most : float or None
        Range of a number.
    exclusive : bool
        Whether the option is mutually exclusive with the other exclusive ones.
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


def setting(help: str, group: str = "", /, default: Any = MISSING, **option: Any) -> Any:
    """Return a field of `Config`; a callable default is a default factory."""
    described = {"default": option.pop("shown")} if "shown" in option else {}
    metadata = {"option": Option(help, group, **option, **described)}
    if callable(default):
        return field(default_factory=default, metadata=metadata)
    return field(default=default, metadata=metadata)
