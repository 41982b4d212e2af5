"""A disk that is full, a real one: nothing half-written, one sentence; with room it goes on."""

from __future__ import annotations

import gzip
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

#: Runs the command in a namespace where ``disk`` holds 2 MB, and then again where it holds 1 GB.
SCRIPT = """
mount -t tmpfs -o size=2m tmpfs disk || exit 77
"$@"; echo "exit code $?"
cp -r disk/out first
mount -o remount,size=1g disk
"$@"; echo "exit code $?"
cp -r disk/out second
"""


def test_full_disk_is_reported_and_rerun_resumes(small_study, tmp_path):
    (tmp_path / "disk").mkdir()
    own = ["unshare", "--mount"] + ["--map-root-user"] * (os.getuid() != 0)
    words = [small_study.bids, "disk/out", "participant", "-w", "disk/work", *small_study.words]
    words += ["--participant-label", "01"]
    app = [sys.executable, "-m", "bids_fcnreg", *map(str, words)]
    command = [*own, "sh", "-c", SCRIPT, "sh", *app]
    if shutil.which("unshare") is None:
        pytest.skip("unshare (util-linux) is not installed")
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    if "exit code" not in done.stdout:
        pytest.skip(f"a disk of its own cannot be made here: {done.stderr.strip()}")
    first, second, _ = done.stdout.split("exit code ")
    assert "sub-01 failed: No space left on device. Free some space" in first, done.stdout
    assert (second[0], done.stdout[-2]) == ("1", "0"), done.stdout
    assert "Traceback" not in done.stdout + done.stderr
    for out, results in ((tmp_path / "first", False), (tmp_path / "second", True)):
        assert not [path for path in out.rglob(".*") if path.name != ".bidsignore"]
        for path in out.rglob("*.nii.gz"):
            gzip.decompress(path.read_bytes())
        assert bool(list(Path(out).glob("sub-01/anat/*_xfm.h5"))) == results
