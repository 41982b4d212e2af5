"""The wheel and the source distribution contain the package, all of it, and nothing else."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tarfile
import zipfile
from email import message_from_string
from pathlib import Path

import pytest

pytest.importorskip("setuptools", minversion="77")

ROOT = Path(__file__).parents[1]
SOURCES = ("bids_fcnreg", "setup.cfg", "pyproject.toml", "MANIFEST.in", "README.md", "LICENSE")
BUILD = """
import sys
from setuptools import build_meta
folder = sys.argv[1]  # setuptools changes the arguments
build_meta.build_sdist(folder)
build_meta.build_wheel(folder)
"""
#: What describes the distribution.
METADATA = ("PKG-INFO", "bids_fcnreg.egg-info/", "bids_fcnreg-")
LICENCES = {
    "LICENSE",
    "bids_fcnreg/data/tpl-MNI152NLin2009cAsym/LICENSE",
    "bids_fcnreg/data/weights/LICENSE",
}


@pytest.fixture(scope="module")
def distributions(tmp_path_factory) -> Path:
    """Folder of both distributions, built from a copy of the sources."""
    folder = tmp_path_factory.mktemp("packaging")
    source, built = folder / "source", folder / "dist"
    source.mkdir()
    built.mkdir()
    for name in SOURCES:
        if (ROOT / name).is_dir():
            ignored = shutil.ignore_patterns("__pycache__")
            shutil.copytree(ROOT / name, source / name, ignore=ignored)
        else:
            shutil.copy(ROOT / name, source)
    (source / "tests").mkdir()
    (source / "tests/test_nothing.py").touch()  # setuptools includes such files
    command = [sys.executable, "-c", BUILD, built]
    subprocess.run(command, cwd=source, check=True, capture_output=True)
    return built


def package_files() -> set[str]:
    paths = (ROOT / "bids_fcnreg").rglob("*")
    return {
        path.relative_to(ROOT).as_posix()
        for path in paths
        if path.is_file() and "__pycache__" not in path.parts
    }


def test_wheel_is_the_package(distributions):
    (wheel,) = distributions.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    assert {name for name in names if not name.startswith(METADATA)} == package_files()


def test_source_distribution_is_what_builds_the_package(distributions):
    (archive,) = distributions.glob("*.tar.gz")
    with tarfile.open(archive) as stream:
        names = {one.name.partition("/")[2] for one in stream if one.isfile()}
    found = {name for name in names if not name.startswith(METADATA)}
    assert found == package_files() | set(SOURCES) - {"bids_fcnreg"}


def test_metadata_state_all_licences(distributions):
    (wheel,) = distributions.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        (path,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        metadata = message_from_string(archive.read(path).decode())
        folder = path.removesuffix("METADATA") + "licenses/"
        included = {name for name in archive.namelist() if name.startswith(folder)}
    assert metadata["License-Expression"] == "Apache-2.0 AND LicenseRef-McGill"
    assert set(metadata.get_all("License-File")) == LICENCES
    assert included == {folder + name for name in LICENCES}
