"""Every option of both commands, given twice."""

from __future__ import annotations

import argparse
from collections.abc import Iterator

import pytest

from bids_fcnreg.cli import fcnreg
from bids_fcnreg.cli.options import build_parser, parse_arguments

#: What each command needs besides the option that is tried.
NEEDED = {
    "bids_fcnreg": ["in", "out", "participant"],
    "fcnreg register": ["a.nii", "b.nii", "-o", "x_"],
    "fcnreg apply": ["-i", "a.nii", "-t", "t.h5", "-o", "o.nii"],
    "fcnreg jacobian": ["-r", "a.nii", "-t", "t.h5", "-o", "o.nii"],
    "fcnreg convert": ["t.h5", "-o", "o.mat", "--to", "fsl"],
    "fcnreg train": ["data", "-o", "m.safetensors"],
    "fcnreg phantom": ["new"],
}

#: Values that some options take, in place of numbers and names.
VALUES = ("1", "2", "0", "3", "4", "200", "300", "linear", "nearest", "scalar", "time-series")


def commands() -> Iterator[argparse.ArgumentParser]:
    yield build_parser()
    whole = fcnreg.build_parser()
    yield whole
    for action in whole._actions:
        if isinstance(action, argparse._SubParsersAction):
            yield from action.choices.values()


OPTIONS = [
    pytest.param(command, action, id=f"{command.prog} {action.option_strings[-1]}")
    for command in commands()
    for action in command._actions
    if action.option_strings and action.dest not in ("help", "version")
]


def test_all_commands_are_here():
    assert {command.prog for command in commands()} - {"fcnreg"} == set(NEEDED)
    assert len(OPTIONS) > 60


def accepted(action: argparse.Action) -> list[str]:
    """Two values of an option, or the only one there is."""
    values = [str(choice) for choice in action.choices or VALUES]
    found: dict[object, str] = {}
    for value in values:
        try:
            found.setdefault(action.type(value) if action.type else value, value)
        except (argparse.ArgumentTypeError, ValueError):
            continue
    return list(found.values())[:2]


def parsed(command: argparse.ArgumentParser, action: argparse.Action, *more: str) -> object:
    """What an option becomes; what its command needs is given, but for the option itself."""
    needed = list(NEEDED[command.prog])
    for flag in action.option_strings:
        if flag in needed:
            place = needed.index(flag)
            del needed[place : place + 2]
    return getattr(command.parse_args([*needed, *more]), action.dest)


@pytest.mark.parametrize(("command", "action"), OPTIONS)
def test_an_option_given_twice_is_never_half_ignored(command, action, capsys):
    flag = next((one for one in action.option_strings if one[:2] == "--"), "")
    flag = flag or action.option_strings[-1]
    if action.nargs == 0:  # a switch: twice is as good as once, or more of it
        once, twice = (parsed(command, action, *[flag] * n) for n in (1, 2))
        assert twice == once or isinstance(action, argparse._CountAction)
        return
    values = accepted(action)
    first, last = values[0], values[-1]
    if action.nargs in ("+", "*"):
        assert first != last
        apart = parsed(command, action, flag, first, flag, last)
        assert apart == parsed(command, action, flag, first, last)
        assert len(apart) == 2
        return
    once = parsed(command, action, flag, first)
    assert parsed(command, action, flag, first, flag, first) == once
    assert capsys.readouterr().err == ""
    if first == last:
        return  # there is no other value
    wanted = parsed(command, action, flag, last)
    assert wanted != once
    for other in action.option_strings:
        assert parsed(command, action, flag, first, other, last) == wanted
        message = capsys.readouterr().err
        assert f"warning: {flag} is given several times" in message
        assert f"The last one, {wanted}, is used" in message and message.count("\n") == 1


def test_values_of_one_call_do_not_reach_the_next():
    command = build_parser()
    for label in ("01", "02"):
        options = command.parse_args(["in", "out", "participant", "--participant-label", label])
        assert options.participants == [label]
    command = fcnreg.build_parser()
    for name in ("a.h5", "b.h5"):
        options = command.parse_args(["jacobian", "-r", "r.nii", "-o", "o.nii", "-t", name])
        assert [str(path) for path, _ in options.transforms] == [name]


@pytest.mark.parametrize("flag", ["--template", "--atlas", "--participant-label"])
def test_lists_are_taken_together_and_apart(flag, tmp_path):
    needed = [str(tmp_path), str(tmp_path / "out"), "participant"]
    name = {"--template": "templates", "--atlas": "atlases"}.get(flag, "participants")
    for words in ([flag, "A", "B", "C"], [flag, "A", flag, "B", "C"], [flag, "A", "B", flag, "C"]):
        assert getattr(parse_arguments([*needed, *words]), name) == ("A", "B", "C")
