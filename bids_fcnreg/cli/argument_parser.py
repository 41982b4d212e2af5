"""Argument parser of both commands: one-line errors with hints, repeated options."""

from __future__ import annotations

import argparse
import difflib
import os
import re
import sys
from typing import Any, NoReturn

#: Options of other BIDS Apps, and their equivalents here.
_EQUIVALENTS = {"--work": "--work-dir", "--ncpus": "--nprocs"}


_ORDER = "Put BIDS_DIR OUTPUT_DIR participant (or group) first, in this order"


class _Store(argparse.Action):
    """Store the values of an option that may be repeated.

    An option with several values collects all of them. For an option with one value, the last
    one is used, with a warning, so that the options of a script can be overridden.
    """

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: Any,
        option_string: str | None = None,
    ) -> None:
        assert isinstance(parser, ConciseArgumentParser)  # the only one with this action
        given = parser.given.setdefault(self.dest, [])
        given.append(values)
        if option_string is not None:
            parser.typed[self.dest] = option_string
        if isinstance(values, list):
            values = [value for each in given for value in each]
        elif option_string is not None and values != given[0]:
            flag = next((one for one in self.option_strings if one[:2] == "--"), option_string)
            print(
                f"{parser.prog}: warning: {flag} is given several times with different values. "
                f"The last one, {values}, is used.",
                file=sys.stderr,
            )
        setattr(namespace, self.dest, values)


class ConciseArgumentParser(argparse.ArgumentParser):
    """Argument parser whose errors are one line, without the usage."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.given: dict[str, list[Any]] = {}  # values of one command line, by destination
        self.typed: dict[str, str] = {}  # option of each destination, as it was typed
        for name in (None, "store"):
            self.register("action", name, _Store)

    def error(self, message: str) -> NoReturn:
        """Exit with status 2 and a message of one line, with a hint where there is one."""
        message = re.sub(r"^\[Errno \d+\] ", "", message)  # of a file of arguments
        self.exit(2, f"{self.prog}: error: {message}{self._advice(message)}.\n")

    def _advice(self, message: str) -> str:
        """Return a hint for an error message."""
        if re.search("required: .*(bids_dir|output_dir|analysis_level)", message):
            return f". {_ORDER}, and options with several values after them"
        if choice := re.search(r"invalid choice: '([^']*)' \(choose from (.*)\)", message):
            meant = difflib.get_close_matches(choice[1], re.findall(r"[\w-]+", choice[2]), n=1)
            order = f". {_ORDER}" if "analysis_level" in message else ""
            return f" (did you mean {meant[0]}?)" if meant else order
        if message.startswith("unrecognized arguments"):
            known = list(self._option_string_actions)
            for flag in re.findall(r"--[\w-]+", message):
                meant = [_EQUIVALENTS[flag]] if flag in _EQUIVALENTS else []
                if meant := meant or difflib.get_close_matches(flag, known, n=1):
                    return f" (did you mean {meant[0]}?)"
        return f". See `{self.prog} --help`"

    def convert_arg_line_to_args(self, arg_line: str) -> list[str]:
        """Return the argument in a line of a file of arguments; none if blank or a comment."""
        line = arg_line.removeprefix("\ufeff").strip()
        if not line or line.startswith("#"):
            return []
        if re.match(r"--?[a-zA-Z][\w-]*\s", line):
            self.error(f"'{line}' is several arguments: write one per line")
        return [self._hyphenate(line)]

    def _hyphenate(self, argument: str) -> str:
        """Replace underscores in the name of an option, such as ``--participant_label``."""
        flag, equals, value = argument.partition("=")
        hyphenated = f"--{flag[2:].replace('_', '-')}"
        known = flag.startswith("--") and hyphenated in self._option_string_actions
        return f"{hyphenated}{equals}{value}" if known else argument

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Parse as argparse does; a subcommand reports its own unrecognized arguments."""
        self.given.clear()
        self.typed.clear()
        arguments = [self._hyphenate(one) for one in (sys.argv[1:] if args is None else args)]
        try:
            known, others = super().parse_known_args(arguments, namespace)
        except RecursionError:
            self.error("a file of arguments includes itself")
        if others and " " in self.prog:
            self.error(f"unrecognized arguments: {' '.join(others)}")
        return known, others

    def parse_args(self, *args: Any, **kwargs: Any) -> Any:
        """Parse as argparse does, or complete the command line for the shell."""
        if "_ARGCOMPLETE" in os.environ:
            import argcomplete

            argcomplete.autocomplete(self)
        return super().parse_args(*args, **kwargs)
