"""The licenses in docs/licences.md are those that the libraries state."""

from __future__ import annotations

import configparser
import json
import runpy
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from packaging.requirements import Requirement

ROOT = Path(__file__).parents[1]
#: Libraries of PyTorch's build for GPUs.
CUDA = ("nvidia-", "cuda-", "triton")

check = runpy.run_path(str(ROOT / "docs/check_licences.py"))


def requirements() -> list[Requirement]:
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    lines = setup["options"]["install_requires"].strip().split("\n")
    return [Requirement(line) for line in lines]


def stated_licences() -> dict[str, list[str]]:
    """Licenses that the libraries and all their dependencies state."""
    waiting, found = requirements(), {}
    while waiting:
        requirement = waiting.pop()
        name = check["normalized"](requirement.name)
        if name in found:
            continue
        try:
            one = distribution(requirement.name)
        except PackageNotFoundError:  # CUDA's libraries, where PyTorch is a build for CPUs
            continue
        texts = [one.metadata.get(key) or "" for key in ("License-Expression", "License")]
        texts += one.metadata.get_all("Classifier") or []
        found[name] = [text for text in texts if (text and "::" not in text) or "License" in text]
        for line in one.requires or ():
            dependency = Requirement(line)
            if dependency.marker is None or dependency.marker.evaluate({"extra": ""}):
                waiting.append(dependency)
    return {name: texts for name, texts in found.items() if not name.startswith(CUDA)}


def test_all_libraries_are_listed_with_a_licence_that_they_state():
    stated = stated_licences()
    assert len(stated) > 80
    assert check["disagreements"](stated) == []


def test_required_libraries_have_their_own_table():
    page = (ROOT / "docs/licences.md").read_text(encoding="utf-8")
    table = page.partition("## Libraries")[2].partition("### Their dependencies")[0]
    assert [one.name for one in requirements() if f"\n| {one.name} " not in table] == []


def test_disagreements_are_found(tmp_path):
    components = [
        {"name": "numpy", "licenses": [{"license": {"name": "BSD License"}}]},
        {"name": "Tomli_W", "licenses": [{"license": {"id": "GPL-3.0-only"}}]},
        {"name": "llvmlite", "licenses": [{"expression": "BSD-2-Clause AND Apache-2.0"}]},
        {"name": "bids_fcnreg", "licenses": []},
        {"name": "unheard-of", "licenses": [{"license": {"id": "MIT"}}]},
    ]
    path = tmp_path / "bom.json"
    path.write_text(json.dumps({"components": components}))
    assert check["disagreements"](check["stated_in"](path)) == [
        "tomli-w: MIT is listed, it states GPL-3.0-only",
        "unheard-of is not listed: MIT",
    ]
