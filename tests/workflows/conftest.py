"""Fixtures of the tests of workflows."""

from __future__ import annotations

import pytest

from bids_fcnreg.bids.templates import Template, prepare_template, resolve_template
from bids_fcnreg.config import Config


@pytest.fixture(scope="module")
def builtin(tmp_path_factory) -> Template:
    folder = tmp_path_factory.mktemp("templates")
    return prepare_template(resolve_template("MNI152NLin2009aSym"), folder)


@pytest.fixture
def config(tmp_path) -> Config:
    (tmp_path / "bids").mkdir()
    (tmp_path / "out").mkdir()
    return Config(
        bids_dir=tmp_path / "bids",
        output_dir=tmp_path / "out",
        work_dir=tmp_path / "work",
        nprocs=2,
        omp_nthreads=2,
        device="cpu",
    )
