"""Fixtures shared by all tests."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Folder of real data sets, named by BIDS_FCNREG_TEST_DATA."""
    folder = os.environ.get("BIDS_FCNREG_TEST_DATA")
    if not folder:
        pytest.skip("BIDS_FCNREG_TEST_DATA is not set: no real data to test on")
    return Path(folder)


@pytest.fixture(scope="session")
def phantom_dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """BIDS folder of two phantoms whose truth is known; made once for all test processes."""
    from bids_fcnreg.phantom import make_dataset

    base = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        base = base.parent  # what the processes of one run share
    folder = base / "phantom"
    with open(base / "phantom.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.exists():
            make_dataset(folder, participants=2, seed=0)
    return folder


@pytest.fixture(scope="session")
def running_in() -> Callable[[Path], list[int]]:
    """Finds the processes whose working directory lies in a folder."""

    def find(folder: Path) -> list[int]:
        found = []
        for link in Path("/proc").glob("[0-9]*/cwd"):
            try:
                inside = link.resolve(strict=True).is_relative_to(folder)
            except OSError:  # it has ended, or is not ours
                continue
            if inside:
                found.append(int(link.parent.name))
        return found

    return find
