"""One run at a time works on each participant of a directory."""

from __future__ import annotations

import io
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import pytest
from rich.console import Console

from bids_fcnreg.app import locks
from bids_fcnreg.app.locks import lock_directory
from bids_fcnreg.app.preflight import locked_directories
from bids_fcnreg.config import Config

HOLD = """
import sys
from pathlib import Path
from rich.console import Console
from bids_fcnreg.app.locks import lock_directory
with lock_directory(Path(sys.argv[1]), sys.argv[3:], Console(), whole=sys.argv[2] == "whole"):
    print("locked", flush=True)
    sys.stdin.read()
"""


@pytest.fixture(autouse=True)
def poll_quickly(monkeypatch):
    monkeypatch.setattr(locks, "_POLL_SECONDS", 0.02)


@contextmanager
def other_run(folder: Path, *parts: str, whole: str = "parts"):
    """Another process that holds the lock of some parts."""
    command = [sys.executable, "-c", HOLD, str(folder), whole, *parts]
    run = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        assert run.stdout.readline() == "locked\n"
        yield run
    finally:
        run.kill()
        run.wait()
        run.stdin.close()
        run.stdout.close()


def lock(folder: Path, *parts: str, whole: bool = False) -> str:
    """Lock and release parts; return what was reported."""
    text = io.StringIO()
    with lock_directory(folder, parts, Console(file=text, width=1000), whole=whole):
        pass
    return text.getvalue()


def wait_for(folder: Path, run: subprocess.Popen, *parts: str, whole: bool = False) -> str:
    """Lock parts that a run holds and releases after a moment."""
    threading.Timer(0.2, run.stdin.close).start()
    start = time.monotonic()
    reported = lock(folder, *parts, whole=whole)
    assert time.monotonic() - start > 0.15
    return reported


def test_second_run_waits_for_the_same_participant(tmp_path):
    with other_run(tmp_path, "sub-01", "sub-02") as run:
        reported = wait_for(tmp_path, run, "sub-02", "sub-03")
    assert reported == (
        f"Another run is working on sub-02 in {tmp_path}. Waiting for it to end.\n"
    )


def test_other_participants_do_not_wait(tmp_path):
    with other_run(tmp_path, "sub-01"), other_run(tmp_path, "sub-02"):
        assert lock(tmp_path, "sub-03") == ""


@pytest.mark.parametrize(("theirs", "ours"), [("whole", False), ("parts", True)])
def test_whole_directory_excludes_every_other_run(tmp_path, theirs, ours):
    with other_run(tmp_path, "sub-01", whole=theirs) as run:
        reported = wait_for(tmp_path, run, "sub-02", whole=ours)
    assert reported == f"Another run is working in {tmp_path}. Waiting for it to end.\n"


def test_killed_run_holds_no_lock(tmp_path):
    with other_run(tmp_path, "sub-01") as run:
        run.kill()
        run.wait()
        assert len(list((tmp_path / ".locks").glob("*.run"))) == 1
        assert lock(tmp_path, "sub-01") == ""
    assert [one.name for one in (tmp_path / ".locks").iterdir()] == ["register"]


def test_a_run_opens_few_files_for_many_participants(tmp_path):
    labels = [f"sub-{number}" for number in range(200)]
    before = len(list(Path("/proc/self/fd").iterdir()))
    with lock_directory(tmp_path, labels, Console(file=io.StringIO())):
        assert len(list(Path("/proc/self/fd").iterdir())) < before + 5
        assert len(list((tmp_path / ".locks").glob("*.owner"))) == 200


def test_without_locks_of_the_file_system_the_run_continues(tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr("fcntl.flock", refuse)
    assert lock(tmp_path, "sub-01") == ""


@pytest.mark.parametrize("clean", [True, False])
def test_only_intermediate_results_are_cleaned(tmp_path, clean):
    """Those of all versions, but nothing else in the work directory."""
    folders = {"bids_dir": tmp_path, "output_dir": tmp_path / "out", "work_dir": tmp_path / "work"}
    config = Config(**folders, analysis_level="participant", clean_workdir=clean)
    earlier = config.work_dir / "bids_fcnreg-0.0.9"
    others = [config.work_dir / name for name in ("mine", "bids_fcnreg-data/sub-01")]
    for path in (config.output_dir, config.cache_dir, earlier / "fcnreg_wf", *others):
        path.mkdir(parents=True)
    with locked_directories(config, ["sub-01"], Console(file=io.StringIO())):
        assert all(path.exists() for path in others)
        assert [path.exists() for path in (config.cache_dir, earlier)] == [not clean] * 2
