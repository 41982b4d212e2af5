"""Whether the list of licences names what the package needs."""

from __future__ import annotations

import configparser
import re
from importlib.metadata import metadata
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LISTED = dict(
    re.findall(r"^\| ([\w-]+)[^|]* \| ([^|]+) \|$", (ROOT / "docs/licences.md").read_text(), re.M)
)

setup = configparser.ConfigParser()
setup.read(ROOT / "setup.cfg")
NEEDED = [
    re.match(r"[\w.-]+", line)[0]
    for line in setup["options"]["install_requires"].split("\n")
    if line
]


@pytest.mark.parametrize("name", NEEDED)
def test_a_library_is_listed_with_a_licence_that_it_states(name):
    stated = metadata(name)
    words = [stated.get("License-Expression") or "", stated.get("License") or ""]
    words += stated.get_all("Classifier") or []
    family = re.match(r"Apache|BSD|LGPL|MIT|MPL|PSF|matplotlib", LISTED[name])[0]
    assert family.lower() in " ".join(words).lower()
