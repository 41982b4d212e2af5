"""The Boutiques descriptor is that of the parser."""

from __future__ import annotations

import json
from importlib.resources import files

from bids_fcnreg.cli.boutiques import make_descriptor
from bids_fcnreg.cli.options import build_parser, parse_arguments

#: A value of each type.
VALUES = {"File": "in", "String": "200", "Number": 3}


def test_descriptor_in_the_package_is_current():
    """If not: ``python -m bids_fcnreg.cli.boutiques > bids_fcnreg/data/boutiques.json``."""
    text = files("bids_fcnreg").joinpath("data", "boutiques.json").read_text()
    assert json.loads(text) == make_descriptor()


def test_identifiers_are_unique():
    described = make_descriptor()
    kinds = ("inputs", "output-files", "groups")
    identifiers = [one["id"] for kind in kinds for one in described[kind]]
    assert len(set(identifiers)) == len(identifiers)


def test_every_option_is_described_and_is_accepted_as_described(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    described = make_descriptor()
    inputs = {one["id"]: one for one in described["inputs"]}
    for action in build_parser()._actions:
        if action.dest not in ("help", "version"):
            flags = {one.get("command-line-flag", one["id"]) for one in inputs.values()}
            assert flags & {*action.option_strings, action.dest}
    for name, one in inputs.items():
        assert one["value-key"] in described["command-line"]
        if "command-line-flag" in one:
            value = one.get("value-choices", [VALUES.get(one["type"])])[0]
            words = [one["command-line-flag"], *([] if one["type"] == "Flag" else [str(value)])]
            known = build_parser().parse_args(["in", "out", "participant", *words])
            assert len(vars(known)) == 4, name


def test_command_line_as_boutiques_makes_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "in").mkdir()
    given = {"bids_dir": ["in"], "output_dir": ["out"], "analysis_level": ["participant"]}
    given |= {"participant_label": ["01", "02"], "mem_mb": ["8000"], "low_mem": []}
    described = make_descriptor()
    line = described["command-line"]
    for one in described["inputs"]:
        flag = [one["command-line-flag"]] if "command-line-flag" in one else []
        words = [*flag, *given[one["id"]]] if one["id"] in given else []
        line = line.replace(one["value-key"], " ".join(words))
    config = parse_arguments(line.split()[1:])
    assert (config.participants, config.mem_gb, config.low_mem) == (("01", "02"), 8, True)
