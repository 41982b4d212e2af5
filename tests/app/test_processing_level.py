"""What `--level minimal` leaves out, and what a full run adds to it."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

pytestmark = pytest.mark.slow

#: What the minimal level has for each participant, besides sidecars.
MINIMAL = [
    "sub-01_desc-brain_mask.nii.gz",
    "sub-01_desc-preproc_T1w.nii.gz",
    "sub-01_from-Small_to-T1w_mode-image_xfm.h5",
    "sub-01_from-T1w_to-Small_mode-image_desc-quality_xfm.json",
    "sub-01_from-T1w_to-Small_mode-image_xfm.h5",
]


@pytest.fixture(scope="module")
def study(small_study, tmp_path_factory) -> SimpleNamespace:
    """Output of the minimal level for one participant, and a call with further options."""
    folder = tmp_path_factory.mktemp("level")

    def call(level: str, *more: str) -> subprocess.CompletedProcess[str]:
        words = [small_study.bids, folder / "out", level, "-w", folder / "work"]
        command = [sys.executable, "-m", "bids_fcnreg", *map(str, words), *small_study.words]
        return subprocess.run([*command, *more], capture_output=True, text=True)

    one = "--participant-label", "01"
    minimal = call("participant", *one, "--level", "minimal")
    minimal_files = results(folder / "out")
    group = call("group")
    atlas = call("participant", *one, "--level", "minimal", "--atlas", "tissue")
    full = call("participant", *one)
    return SimpleNamespace(
        out=folder / "out", work=folder / "work", minimal=minimal, files=minimal_files,
        group=group, atlas=atlas, full=full, call=call,
    )  # fmt: skip


def results(out: Path) -> list[str]:
    """Names of the results of sub-01 that are no sidecars."""
    files = (path.name for path in out.glob("sub-01/anat/*"))
    return sorted(
        name for name in files if name.endswith((".gz", ".h5", ".tsv", "quality_xfm.json"))
    )


def test_minimal_level_has_transforms_mask_image_and_metrics(study):
    assert study.minimal.returncode == 0, study.minimal.stdout + study.minimal.stderr
    assert study.files == MINIMAL
    (quality,) = study.out.glob("sub-01/anat/*desc-quality_xfm.json")
    assert json.loads(quality.read_text())["verdict"] in ("good", "doubtful", "failed")


def test_group_level_names_what_is_missing(study):
    assert study.group.returncode == 2
    assert "holds only results of --level minimal" in study.group.stderr
    minimal = next(study.out.glob("sub-01/anat/*desc-quality_xfm.json"))
    other = study.out / "sub-02/anat" / minimal.name.replace("sub-01", "sub-02")
    other.parent.mkdir(parents=True)
    shutil.copy(minimal, other)
    done = study.call("group")
    assert "missing (processed with --level minimal; rerun with --level full)" in done.stdout


def test_atlas_and_minimal_level_are_mutually_exclusive(study):
    assert study.atlas.returncode == 2
    assert "--atlas cannot be used with --level minimal" in study.atlas.stderr


def test_full_run_adds_to_the_minimal_one_without_another_registration(study):
    assert study.full.returncode == 0, study.full.stdout + study.full.stderr
    assert set(MINIMAL) < set(results(study.out))
    assert list(study.out.glob("sub-01/figures/*"))
    (estimate,) = study.work.rglob("register_Small_wf/estimate/result_estimate.pklz")
    (resampled,) = study.out.glob("sub-01/anat/*space-Small_desc-preproc_T1w.nii.gz")
    (page,) = study.out.glob("sub-01.html")
    assert estimate.stat().st_mtime < resampled.stat().st_mtime < page.stat().st_mtime


def test_minimal_run_with_other_settings_warns_of_outdated_images(study):
    assert study.full.returncode == 0
    done = study.call(
        "participant", "--participant-label", "01", "--level", "minimal", "--mode", "refine"
    )
    assert "do not fit the new transforms" in " ".join(done.stdout.split())
    assert "sub-01" in done.stdout.split("with --level full: ")[1].splitlines()[0]
