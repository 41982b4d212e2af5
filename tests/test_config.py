"""Settings of a run, and defaults that depend on others."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from bids_fcnreg.config import Config
from bids_fcnreg.resources import available_memory_gb


def test_derived_defaults():
    base = {"bids_dir": Path("/a"), "output_dir": Path("/b")}
    assert Config(**base, nprocs=4).omp_nthreads == 4
    assert Config(**base, nprocs=40).omp_nthreads == 8
    assert Config(**base, nprocs=4, omp_nthreads=1).omp_nthreads == 1
    assert 0 < Config(**base).mem_gb == available_memory_gb()


def test_with_optimize_threads_do_not_follow_processors():
    base = {"bids_dir": Path("/in"), "output_dir": Path("/out"), "mode": "optimize"}
    assert {Config(**base, nprocs=number).omp_nthreads for number in (1, 2, 40)} == {1}
    assert Config(**base, nprocs=4, omp_nthreads=3).omp_nthreads == 3


def test_settings_cannot_be_changed_in_place():
    config = Config(bids_dir=Path("/in"), output_dir=Path("/out"))
    with pytest.raises(AttributeError):
        config.nprocs = 1
    assert replace(config, nprocs=1).nprocs == 1
