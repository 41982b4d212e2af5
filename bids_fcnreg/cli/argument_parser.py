"""The argument parser of both commands: short errors with advice, options given several times."""

from __future__ import annotations

import argparse
import difflib
import os
import re
import sys
from typing import Any, NoReturn

#: Options of other BIDS Apps, and ours for the same.
_ELSEWHERE = {"--output-spaces": "--template", "--work": "--work-dir", "--ncpus": "--nprocs"}


_ORDER = "BIDS_DIR OUTPUT_DIR participant (or group) come first, in this order"


class _Store(argparse.Action):
    """Store the values of an option that may be given more than once.

    An option of several values collects those of every time. Of an option of one value the last
    wins, so that a script's options can be overridden, and it is said.
    """

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: Any,
        option_string: str | None = None,
    ) -> None:
        assert isinstance(parser, ConciseArgumentParser)  # no other registers this action
        given = parser.given.setdefault(self.dest, [])
        given.append(values)
        if isinstance(values, list):
            values = [value for each in given for value in each]
        elif option_string is not None and values != given[0]:
            flag = next((one for one in self.option_strings if one[:2] == "--"), option_string)
            print(
                f"{parser.prog}: warning: {flag} is given several times with "
                f"different values: the last, {values}, is used.",
                file=sys.stderr,
            )
        setattr(namespace, self.dest, values)


class ConciseArgumentParser(argparse.ArgumentParser):
    """Argument parser whose errors are one sentence, without the usage before it."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.given: dict[str, list[Any]] = {}  # values of one command line, by destination
        for name in (None, "store"):
            self.register("action", name, _Store)

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: error: {message}{self._advice(message)}.\n")

    def _advice(self, message: str) -> str:
        """What may have been meant."""
        if re.search("required: .*(bids_dir|output_dir|analysis_level)", message):
            return f"; {_ORDER}, options that take several values after them"
        if choice := re.search(r"invalid choice: '([^']*)' \(choose from (.*)\)", message):
            meant = difflib.get_close_matches(choice[1], re.findall(r"[\w-]+", choice[2]), n=1)
            order = f"; {_ORDER}" if "analysis_level" in message else ""
            return f" (did you mean {meant[0]}?)" if meant else order
        if message.startswith("unrecognized arguments"):
            known = list(self._option_string_actions)
            for word in re.findall(r"--[\w-]+", message):
                meant = [_ELSEWHERE[word]] if word in _ELSEWHERE else []
                if meant := meant or difflib.get_close_matches(word, known, n=1):
                    return f" (did you mean {meant[0]}?)"
        return f"; see `{self.prog} --help`"

    def parse_known_args(self, *args: Any, **kwargs: Any) -> Any:
        """As ever; the parser of a command answers itself for words that it does not know."""
        self.given.clear()
        known, others = super().parse_known_args(*args, **kwargs)
        if others and " " in self.prog:
            self.error(f"unrecognized arguments: {' '.join(others)}")
        return known, others

    def parse_args(self, *args: Any, **kwargs: Any) -> Any:
        """As ever; if it is the shell that asks, say how its word may go on instead."""
        if "_ARGCOMPLETE" in os.environ:
            import argcomplete

            argcomplete.autocomplete(self)
        return super().parse_args(*args, **kwargs)
