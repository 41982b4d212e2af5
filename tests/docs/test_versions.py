"""The documented versions are those of the package, and those with which it is tested."""

from __future__ import annotations

import re
from configparser import ConfigParser
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def setup() -> ConfigParser:
    parser = ConfigParser()
    parser.read(ROOT / "setup.cfg", encoding="utf-8")
    return parser


def requirements(text: str) -> list[Requirement]:
    return [Requirement(line) for line in text.split("\n") if line and not line.startswith("#")]


def pinned() -> dict[str, str]:
    """Versions in constraints.txt, by name."""
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").split()
    return {canonicalize_name(name): version for name, version in (s.split("==") for s in lines)}


def lowest(requirement: Requirement) -> str:
    """Return the lowest version that a requirement allows."""
    (bound,) = requirement.specifier
    assert bound.operator == ">="
    return bound.version


def test_table_of_versions_is_that_of_setup_and_constraints(setup):
    newest = pinned()
    expected = [
        f"| {one.name} | {lowest(one)} | {newest[canonicalize_name(one.name)]} |"
        for one in requirements(setup["options"]["install_requires"])
    ]
    page = (ROOT / "docs/installation.md").read_text(encoding="utf-8")
    table = re.search(r"^\| package \|.*\n\|[-|]+\|\n((?:\|.*\n)+)", page, re.MULTILINE)
    assert table[1].splitlines() == expected


def test_pinned_versions_are_allowed(setup):
    extras = "\n".join(setup["options.extras_require"].values())
    newest = pinned()
    for one in requirements(setup["options"]["install_requires"] + extras):
        assert newest[canonicalize_name(one.name)] in one.specifier, one


def test_tested_versions_of_python_are_those_of_the_workflow(setup):
    workflow = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text(encoding="utf-8"))
    tested = workflow["jobs"]["test"]["strategy"]["matrix"]["python-version"]
    classified = re.findall(r"Python :: (3\.\d+)", setup["metadata"]["classifiers"])
    assert tested == classified
    assert setup["options"]["python_requires"] == f">={min(tested, key=Version)}"
