"""Files that appear whole or not at all, and what is left where a process was killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest

from bids_fcnreg import files
from bids_fcnreg.files import remove_leftovers, replacing


def test_a_file_appears_whole_or_not_at_all(tmp_path):
    path = tmp_path / "table.tsv"
    path.write_text("before")
    with pytest.raises(KeyError), replacing(path) as temporary:
        temporary.write_text("half")
        raise KeyError
    assert [one.name for one in tmp_path.iterdir()] == ["table.tsv"]
    assert path.read_text() == "before"
    with replacing(path) as temporary:
        temporary.write_text("after")
    assert [one.name for one in tmp_path.iterdir()] == ["table.tsv"]
    assert path.read_text() == "after"


def test_what_a_killed_process_left_is_removed_and_nothing_else(tmp_path, monkeypatch):
    script = (
        "import sys, time\n"
        "from bids_fcnreg.files import replacing\n"
        "with replacing(sys.argv[1]) as temporary:\n"
        "    temporary.write_text('half')\n"
        "    print('now', flush=True)\n"
        "    time.sleep(60)\n"
    )
    names = ("killed.nii.gz", "running.nii.gz")
    killed, running = (
        subprocess.Popen(
            [sys.executable, "-c", script, tmp_path / name], stdout=subprocess.PIPE, text=True
        )
        for name in names
    )
    for one in (killed, running):
        assert one.stdout.readline() == "now\n"
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    for name in (".bidsignore", ".hidden.nii.gz", "visible.nii.gz"):
        (tmp_path / name).touch()
    remove_leftovers(tmp_path.iterdir())  # too young: who made them may not have locked them yet
    assert len(list(tmp_path.glob(".killed.*"))) == 1
    monkeypatch.setattr(files, "YOUNG", 0.0)
    long_ago = time.time() - 60
    for path in tmp_path.iterdir():
        os.utime(path, (long_ago, long_ago))
    remove_leftovers(tmp_path.iterdir())
    left = sorted(path.name for path in tmp_path.iterdir())
    assert left[:2] == [".bidsignore", ".hidden.nii.gz"]
    assert left[2].startswith(".running.") and left[3:] == ["visible.nii.gz"]
    running.kill()
    running.wait()
