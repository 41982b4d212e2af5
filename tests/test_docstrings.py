"""What docstrings show is what happens."""

from __future__ import annotations

import doctest
import importlib
import pkgutil

import pytest

import bids_fcnreg

#: Shown with images of the reader's; tested in test_api.py.
WITH_IMAGES = "bids_fcnreg.api"


def modules_with_examples() -> list[str]:
    """Names of the modules of the package whose source holds an example."""
    found = pkgutil.walk_packages(bids_fcnreg.__path__, "bids_fcnreg.")
    specs = (importlib.util.find_spec(one.name) for one in found if "__main__" not in one.name)
    return [one.name for one in specs if ">>>" in one.loader.get_source(one.name)]


@pytest.mark.parametrize("name", sorted({*modules_with_examples()} - {WITH_IMAGES}))
def test_examples(name):
    done = doctest.testmod(importlib.import_module(name))
    assert done.attempted > 0
    assert not done.failed
