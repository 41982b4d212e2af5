"""The conda recipe states what setup.cfg states, and rattler-build can read it."""

from __future__ import annotations

from configparser import ConfigParser
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import bids_fcnreg

ROOT = Path(__file__).parents[1]
RECIPE = ROOT / ".github/conda/recipe.yaml"

#: Names at conda-forge of packages that PyPI has under other names.
CONDA_NAMES = {
    "isal": "python-isal",
    "matplotlib": "matplotlib-base",  # without a desktop
    "pypandoc-binary": "pypandoc",  # requires pandoc
    "torch": "pytorch",
}


@pytest.fixture(scope="module")
def setup() -> ConfigParser:
    parser = ConfigParser()
    parser.read(ROOT / "setup.cfg", encoding="utf-8")
    return parser


@pytest.fixture(scope="module")
def recipe() -> dict:
    return yaml.safe_load(RECIPE.read_text(encoding="utf-8"))


def conda_requirement(line: str) -> str:
    requirement = Requirement(line)
    name = canonicalize_name(requirement.name)
    return f"{CONDA_NAMES.get(name, name)} {requirement.specifier}"


def test_requirements_are_those_of_setup(recipe, setup):
    needed = setup["options"]["install_requires"].strip().split("\n")
    python, *run = recipe["requirements"]["run"]
    assert run == sorted(map(conda_requirement, needed))
    assert python == "python >=${{ python_min }}"


def test_build_requirements_are_those_of_pyproject(recipe):
    pyproject = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    (setuptools,) = (line for line in recipe["requirements"]["host"] if "setuptools" in line)
    assert f'requires = ["{setuptools.replace(" ", "")}"]' in pyproject


def test_versions_licences_and_commands_are_those_of_setup(recipe, setup):
    metadata, commands = setup["metadata"], setup["options.entry_points"]["console_scripts"]
    assert recipe["context"]["version"] == bids_fcnreg.__version__
    assert setup["options"]["python_requires"] == f">={recipe['context']['python_min']}"
    assert recipe["about"]["summary"] == metadata["description"]
    assert recipe["about"]["license"] == metadata["license_expression"]
    assert all((ROOT / path).is_file() for path in recipe["about"]["license_file"])
    assert recipe["build"]["python"]["entry_points"] == commands.strip().split("\n")


def test_rattler_build_renders_it(recipe):
    """With py-rattler-build, which is not among the requirements of the tests."""
    stage0 = pytest.importorskip("rattler_build.stage0")
    (variant,) = stage0.Stage0Recipe.from_file(RECIPE).render()
    assert variant.recipe.package.name == "bids_fcnreg"
    assert variant.recipe.requirements.run[1:] == recipe["requirements"]["run"][1:]
