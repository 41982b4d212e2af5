"""Files that appear whole or not at all, and what is left where a process was killed."""

from __future__ import annotations

import gzip
import hashlib
import os
import signal
import subprocess
import sys
import time

import pytest

from bids_fcnreg import atomic
from bids_fcnreg.atomic import (
    remove_stale_temporaries,
    replacing,
    replacing_files,
    uncompressed_checksum,
)


def test_file_is_written_atomically(tmp_path):
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


def test_files_are_written_together_or_not_at_all(tmp_path):
    (tmp_path / "a.txt").write_text("before")
    with pytest.raises(KeyError), replacing_files(tmp_path) as new:
        (new / "a.txt").write_text("after")
        (new / "b.txt").write_text("after")
        raise KeyError
    assert [one.name for one in tmp_path.iterdir()] == ["a.txt"]
    (tmp_path / "b.txt").mkdir()
    with pytest.raises(IsADirectoryError), replacing_files(tmp_path) as new:
        for name in ("a.txt", "b.txt"):
            (new / name).write_text("after")
    assert (tmp_path / "a.txt").read_text() == "before"
    (tmp_path / "b.txt").rmdir()
    with replacing_files(tmp_path) as new:
        for name in ("a.txt", "b.txt"):
            (new / name).write_text("after")
    assert {one.name: one.read_text() for one in tmp_path.iterdir()} == {
        "a.txt": "after",
        "b.txt": "after",
    }


def test_checksum_of_decompressed_content(tmp_path):
    content = bytes(range(256)) * 999
    plain = tmp_path / "x.nii"
    plain.write_bytes(content)
    for level in (1, 9):
        packed = tmp_path / f"{level}.nii.gz"
        packed.write_bytes(gzip.compress(content, level))
        assert uncompressed_checksum(packed) == uncompressed_checksum(plain)
    (tmp_path / "two.nii.gz").write_bytes(
        gzip.compress(content[:99]) + gzip.compress(content[99:])
    )
    assert uncompressed_checksum(tmp_path / "two.nii.gz") == uncompressed_checksum(plain)
    (tmp_path / "other.nii.gz").write_bytes(gzip.compress(content[1:]))
    assert uncompressed_checksum(tmp_path / "other.nii.gz") != uncompressed_checksum(plain)
    for broken in (packed.read_bytes()[:-20], content):
        packed.write_bytes(broken)
        assert uncompressed_checksum(packed) == hashlib.sha256(broken).hexdigest()


def test_only_stale_temporary_files_are_removed(tmp_path, monkeypatch):
    script = (
        "import sys, time\n"
        "from bids_fcnreg.atomic import replacing\n"
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
    remove_stale_temporaries(
        tmp_path.iterdir()
    )  # too young: who made them may not have locked them yet
    assert len(list(tmp_path.glob(".killed.*"))) == 1
    monkeypatch.setattr(atomic, "LOCK_DELAY_SECONDS", 0.0)
    long_ago = time.time() - 60
    for path in tmp_path.iterdir():
        os.utime(path, (long_ago, long_ago))
    remove_stale_temporaries(tmp_path.iterdir())
    left = sorted(path.name for path in tmp_path.iterdir())
    assert left[:2] == [".bidsignore", ".hidden.nii.gz"]
    assert left[2].startswith(".running.") and left[3:] == ["visible.nii.gz"]
    running.kill()
    for one in (killed, running):
        one.communicate()  # closes the pipe
