"""Settings of a run, and defaults that depend on others."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from bids_fcnreg.config import Config
from bids_fcnreg.resources import available_memory_gb


def test_derived_defaults():
    base = {"bids_dir": Path("/a"), "output_dir": Path("/b")}
    assert 0 < Config(**base).mem_gb == available_memory_gb()


@pytest.mark.parametrize(
    ("nprocs", "given", "scans", "threads"),
    [(4, 0, 1, 4), (40, 0, 1, 8), (40, 0, 20, 2), (4, 0, 3, 1), (2, 0, 9, 1), (4, 1, 1, 1)],
)
def test_scans_at_once_share_the_processors(nprocs, given, scans, threads):
    config = Config(bids_dir=Path("/a"), output_dir=Path("/b"), nprocs=nprocs, omp_nthreads=given)
    assert config.with_threads(scans).omp_nthreads == threads


def test_with_optimize_threads_do_not_follow_processors():
    base = {"bids_dir": Path("/in"), "output_dir": Path("/out"), "mode": "optimize"}
    found = {Config(**base, nprocs=n).with_threads().omp_nthreads for n in (1, 2, 40)}
    assert found == {1}
    assert Config(**base, nprocs=4, omp_nthreads=3).with_threads().omp_nthreads == 3


def test_settings_cannot_be_changed_in_place():
    config = Config(bids_dir=Path("/in"), output_dir=Path("/out"))
    with pytest.raises(AttributeError):
        config.nprocs = 1
    assert replace(config, nprocs=1).nprocs == 1
