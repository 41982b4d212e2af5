"""Patterns of .bidsignore mean what they mean in .gitignore: git is the truth."""

from __future__ import annotations

import shutil
import subprocess

import pytest

from bids_fcnreg.bids.bidsignore import Bidsignore

PATHS = [
    "sub-01/anat/sub-01_T1w.nii",
    "sub-01/anat/sub-01_acq-A_T1w.nii.gz",
    "sub-01/anat/old/sub-01_T1w.nii.gz",
    "sub-02/ses-1/anat/sub-02_ses-1_T1w.nii.gz",
    "sub-02_bad/anat/sub-02_T1w.nii.gz",
    "sub-10/anat/sub-10_T1w.nii.gz",
    "old",
    "a[b",
]
PATTERNS = [
    "*_T1w.nii", "/sub-01", "sub-01/", "sub-0?", "sub-[01]*", "sub-[!0]*", "sub-[^0]*/", "old",
    "old/", "/old", "anat/old", "/anat/old", "**/old", "**/old/", "sub-01/**", "sub-*/**/*.nii",
    "sub-02/**/sub-02_ses-1_T1w.nii.gz", "*\n!sub-10", "*.gz\n!*acq-A*", "sub-01/*\n!sub-01/anat",
    "# sub-01", "\\#x", "  ", "*.nii.gz  ", "*", "**", "sub-01/anat/", "a\\[b", "[z-a]", "!",
    "sub-*/anat", "sub-*/anat/*_acq-*", "/*/*/old", "sub-01//", "su*b", "s**1",
]  # fmt: skip


@pytest.mark.parametrize("pattern", PATTERNS)
def test_patterns_mean_what_git_says(tmp_path, pattern):
    git = shutil.which("git")
    if git is None:
        pytest.skip("git is not installed")
    subprocess.run([git, "init", "-q", str(tmp_path)], check=True)
    for name in PATHS:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    (tmp_path / ".gitignore").write_text(pattern + "\n")
    listed = subprocess.run(
        [git, "-C", str(tmp_path), "ls-files", "-o", "-i", "--exclude-from=.gitignore", "-z"],
        capture_output=True, text=True, check=True,
    ).stdout.split("\0")  # fmt: skip
    (tmp_path / ".bidsignore").write_text(pattern + "\n")
    ignore = Bidsignore.read(tmp_path)
    assert [name for name in PATHS if ignore.excludes(tuple(name.split("/")))] == [
        name for name in PATHS if name in listed
    ]


def test_a_file_in_another_encoding_is_read(tmp_path):
    (tmp_path / ".bidsignore").write_bytes(b"# gel\xf6scht\r\nsub-01/\r\n")
    ignore = Bidsignore.read(tmp_path)
    assert ignore.excludes(("sub-01", "anat", "x.nii"))
    assert not ignore.excludes(("sub-02", "anat", "x.nii"))
