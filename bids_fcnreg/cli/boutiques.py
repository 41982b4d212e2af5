"""Describe the command `bids_fcnreg` for Boutiques: ``python -m bids_fcnreg.cli.boutiques``."""

from __future__ import annotations

import argparse
import json
import typing
from typing import Any

from bids_fcnreg import __version__
from bids_fcnreg.cli.options import build_parser
from bids_fcnreg.config import Config

#: Options that end the command, or whose place Boutiques takes.
_OMITTED = ("help", "version")
#: Paths that need not exist; Boutiques checks that those of type "File" do.
_OUTPUTS = ("output_dir", "work_dir")


def make_descriptor() -> dict[str, Any]:
    """Return the descriptor of `bids_fcnreg`, made from its parser."""
    parser = build_parser()
    actions = [action for action in parser._actions if action.dest not in _OMITTED]
    inputs = [_describe(action) for action in actions]
    exclusive = [
        _identifier(action)
        for action in actions
        if action.dest in Config.__dataclass_fields__ and Config.option(action.dest).exclusive
    ]
    return {
        "name": parser.prog,
        "description": parser.description,
        "author": "The bids_fcnreg developers",
        "tool-version": __version__,
        "schema-version": "0.5",
        "command-line": " ".join([parser.prog, *(one["value-key"] for one in inputs)]),
        "inputs": inputs,
        "groups": [
            {
                "id": "subset",
                "name": "Subset of the workflow",
                "members": exclusive,
                "mutually-exclusive": True,
            }
        ],
        "output-files": [
            {"id": "results", "name": "Derivatives", "path-template": "[OUTPUT_DIR]"}
        ],
        "tags": {"domain": ["neuroinformatics", "mri", "bids-app"]},
        "error-codes": [
            {"code": 1, "description": "A participant failed; the others were processed."},
            {"code": 2, "description": "The input or an option is invalid; nothing was run."},
        ],
    }


def _identifier(action: argparse.Action) -> str:
    """Return the identifier of an argument: its first long flag with underscores."""
    long = (flag for flag in action.option_strings if flag.startswith("--"))
    return next(long, action.dest).removeprefix("--").replace("-", "_")


def _describe(action: argparse.Action) -> dict[str, Any]:
    """Return the description of an argument as an input of Boutiques."""
    name = _identifier(action)
    described: dict[str, Any] = {
        "id": name,
        "name": name,
        "description": action.help,
        "value-key": f"[{name.upper()}]",
        "optional": not action.required,
        **_type(action),
    }
    if action.option_strings:
        described["command-line-flag"] = f"--{name.replace('_', '-')}"
    if action.nargs == "+":
        described["list"] = True
    if action.choices:
        described["value-choices"] = list(action.choices)
    return described


def _type(action: argparse.Action) -> dict[str, Any]:
    """Return the type of an argument, and the range of a number."""
    if action.nargs == 0:
        return {"type": "Flag"}
    if typing.get_type_hints(Config).get(action.dest) is int:
        option = Config.option(action.dest)
        limits = {"minimum": option.least, "maximum": option.most}
        given = {key: value for key, value in limits.items() if value is not None}
        return {"type": "Number", "integer": True, **given}
    is_file = str(action.metavar) in ("FILE", "DIR") or action.dest == "bids_dir"
    return {"type": "File" if is_file and action.dest not in _OUTPUTS else "String"}


if __name__ == "__main__":
    print(json.dumps(make_descriptor(), indent=2))
