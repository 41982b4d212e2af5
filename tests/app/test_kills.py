"""Runs that are killed at any moment, and runs at once: nothing is lost or left half-written.

BIDS_FCNREG_KILLS says how many kills are tried (default 1; fifty take about half an hour), and
BIDS_FCNREG_AT_ONCE how many participants are processed at once (default 2).
"""

from __future__ import annotations

import gzip
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import h5py
import pytest

from bids_fcnreg.fcn.nets.checkpoint import load

pytestmark = pytest.mark.slow

KILLS = int(os.environ.get("BIDS_FCNREG_KILLS", "1"))
AT_ONCE = int(os.environ.get("BIDS_FCNREG_AT_ONCE", "2"))
SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
COMPARE = Path(__file__).parents[2] / "docker" / "compare.py"

#: What stores results, and what lists the names of what is stored, looks at the files again.
LOOKING = ("ds_", "registered", "sources_")

#: How each kind of file is read to its end.
READ: dict[str, Callable[[Path], object]] = {
    ".nii.gz": lambda path: gzip.decompress(path.read_bytes()),
    ".h5": lambda path: h5py.File(path).close(),
    ".safetensors": lambda path: load(path),
    ".json": lambda path: json.loads(path.read_text()),
    ".html": lambda path: None if path.parent.name == "figures" else whole_page(path),
}


def whole_page(path: Path) -> None:
    assert path.read_text().rstrip().endswith("</html>")


@pytest.fixture(scope="module")
def study(small_study, running_in, tmp_path_factory) -> SimpleNamespace:
    """Small phantoms, and what an undisturbed run makes of them."""
    folder = tmp_path_factory.mktemp("kills")
    shutil.copytree(small_study.bids, folder / "in")
    started = time.monotonic()
    made = SimpleNamespace(
        folder=folder,
        words=small_study.words,
        out=folder / "whole",
        running=partial(running_in, folder),
    )
    assert start(made, "whole").wait() == 0
    made.seconds = time.monotonic() - started
    return made


def start(
    study: SimpleNamespace,
    name: str,
    level: str = "participant",
    work: str = "work",
    more: str = "",
    stdout: int = subprocess.DEVNULL,
) -> subprocess.Popen:
    folder = study.folder
    words = [folder / "in", folder / name, level, "-w", folder / f"{name}_{work}", *more.split()]
    words += study.words if level == "participant" else ["--skip-bids-validation"]
    return subprocess.Popen(
        [sys.executable, "-m", "bids_fcnreg", *map(str, words)],
        stdout=stdout,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        # As from a terminal, also where these tests run in the background of a shell.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def add_copy(bids: Path, label: str) -> None:
    """A further participant, who is another one of the first two."""
    source = "01" if int(label) % 2 else "02"
    copy = bids / f"sub-{label}/anat/sub-{label}_T1w.nii.gz"
    copy.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(bids / f"sub-{source}/anat/sub-{source}_T1w.nii.gz", copy)


def visible(folder: Path) -> list[Path]:
    """Files that a user sees."""
    paths = (path for path in folder.rglob("*") if path.is_file())
    return [p for p in paths if not any(part.startswith(".") for part in p.parts)]


def finished(work: Path) -> dict[Path, int]:
    """Results of nodes that have ended, and when."""
    return {
        path: path.stat().st_mtime_ns
        for path in work.rglob("result_*.pklz")
        if not path.parent.name.startswith(LOOKING)
    }


def end_all(app: subprocess.Popen, how: signal.Signals, running: Callable[[], list[int]]) -> None:
    """Send a signal to a run; none of its processes is left soon after."""
    os.killpg(app.pid, how)
    app.wait()
    deadline = time.monotonic() + 10
    while left := running():
        assert time.monotonic() < deadline, (how, left)
        time.sleep(0.1)


def check_whole(out: Path) -> None:
    """Every visible file can be read to its end."""
    for path in visible(out):
        kind = next((end for end in READ if path.name.endswith(end)), None)
        if kind is not None and path.parts[len(out.parts)] != "logs":
            READ[kind](path)


def same(one: Path, other: Path) -> None:
    command = [sys.executable, COMPARE, "--exact", one, other]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_rerun_resumes_after_sigkill(study):
    chance = random.Random(0)
    out, work = study.folder / "killed", study.folder / "killed_work"
    kills = 0
    while kills < KILLS:
        before = finished(work)
        app = start(study, "killed")
        try:
            code = app.wait(chance.uniform(0.1, 1.0) * study.seconds)
        except subprocess.TimeoutExpired:
            how = SIGNALS[kills % len(SIGNALS)]
            end_all(app, how, study.running)
            kills += 1
            check_whole(out)
            again = finished(work)
            assert {p for p in before if again.get(p) != before[p]} == set(), how
        else:  # it was faster: once more from the beginning
            assert code == 0
            same(study.out, out)
            shutil.rmtree(out)
            shutil.rmtree(work)
    before = finished(work)
    time.sleep(2.5)  # what is younger may be another run's
    assert start(study, "killed").wait() == 0
    again = finished(work)
    assert {path for path in before if again.get(path) != before[path]} == set()
    same(study.out, out)
    left = [path for path in out.rglob(".*") if path.name != ".bidsignore"]
    assert not left, left


def test_concurrent_runs_write_one_dataset(study):
    """A run for each participant, two for the first; one is killed and begun again."""
    labels = [f"{number:02d}" for number in range(1, AT_ONCE + 1)]
    for label in labels[2:]:
        add_copy(study.folder / "in", label)
    expected = study.out
    if AT_ONCE > 2:
        expected = study.folder / "all"
        assert start(study, "all").wait() == 0

    def begin(number: int) -> subprocess.Popen:
        # As many processors as there happen to be must not matter.
        words = f"--participant-label {(labels + labels[:1])[number]} --nprocs {1 + number % 3}"
        return start(study, "once", work=f"work{number}", more=words)

    apps = {number: begin(number) for number in range(AT_ONCE + 1)}
    time.sleep(random.Random(3).uniform(0.3, 0.8) * study.seconds)
    if apps[1].poll() is None:
        os.killpg(apps[1].pid, signal.SIGKILL)
        apps[1].wait()
    check_whole(study.folder / "once")
    apps[1] = begin(1)
    assert {number: app.wait() for number, app in apps.items()} == dict.fromkeys(apps, 0)
    same(expected, study.folder / "once")
    check_whole(study.folder / "once")
    time.sleep(2.5)  # what is younger may be another run's
    assert start(study, "once", more="--reports-only").wait() == 0
    left = [path for path in (study.folder / "once").rglob(".*") if path.name != ".bidsignore"]
    assert not left, left
    assert start(study, "once", "group").wait() == 0
    (table,) = (study.folder / "once/group").glob("*_quality.tsv")
    rows = table.read_text().splitlines()[1:]
    assert [row.split("\t")[0] for row in rows] == [f"sub-{label}" for label in labels]
    assert all("\tgood\t" in row or "\tdoubtful\t" in row or "\tfailed\t" in row for row in rows)


def test_run_waits_for_another_run_in_the_same_work_directory(study):
    options = "--participant-label 01 --level minimal"
    apps = [
        start(study, "both", more=f"{options} --nprocs {number}", stdout=subprocess.PIPE)
        for number in (1, 2)
    ]
    printed = [app.communicate()[0].decode() for app in apps]
    assert [app.returncode for app in apps] == [0, 0]
    assert sum("Another run is working on sub-01" in text for text in printed) == 1, printed
    anat = study.folder / "both/sub-01/anat"
    made = [path for path in anat.iterdir() if path.name.endswith((".nii.gz", ".h5"))]
    assert len(made) == 4
    for path in made:
        assert path.read_bytes() == (study.out / "sub-01/anat" / path.name).read_bytes(), path


def test_group_level_resumes_after_sigkill(study):
    chance = random.Random(1)
    whole = study.folder / "whole"
    started = time.monotonic()
    assert start(study, "whole", "group").wait() == 0
    seconds = time.monotonic() - started
    expected = study.folder / "group"
    shutil.copytree(whole / "group", expected)
    kills = 0
    while kills < max(KILLS // 5, 1):
        shutil.rmtree(whole / "group")
        shutil.rmtree(study.folder / "whole_work", ignore_errors=True)
        app = start(study, "whole", "group")
        try:
            app.wait(chance.uniform(0.2, 1.0) * seconds)
        except subprocess.TimeoutExpired:
            end_all(app, SIGNALS[kills % len(SIGNALS)], study.running)
            kills += 1
            check_whole(whole)
        assert start(study, "whole", "group").wait() == 0
        same(expected, whole / "group")


@pytest.mark.skipif(KILLS < 5, reason="BIDS_FCNREG_KILLS is less than 5: these take minutes")
@pytest.mark.parametrize(
    "task",
    [
        "template --template-name Ours --template-iterations 1",
        "train --train-steps 4 4 0 --mode predict --omp-nthreads 1",
    ],
)
def test_study_template_and_training_resume_after_sigkill(task, study, running_in, tmp_path):
    chance = random.Random(4)
    shutil.copytree(study.folder / "in", tmp_path / "in")
    add_copy(tmp_path / "in", "03")
    theirs = SimpleNamespace(**vars(study) | {"folder": tmp_path})
    assert start(theirs, "begun").wait() == 0
    words = f"--group-task {task} --device cpu --template {study.words[1]}"

    def begin(name: str) -> subprocess.Popen:
        if not (tmp_path / name).exists():
            shutil.copytree(tmp_path / "begun", tmp_path / name)
        return start(theirs, name, "group", more=words)

    started = time.monotonic()
    assert begin("whole").wait() == 0
    seconds = time.monotonic() - started
    kills = 0
    while kills < KILLS // 5:
        app = begin("killed")
        try:
            code = app.wait(chance.uniform(0.1, 0.9) * seconds)
        except subprocess.TimeoutExpired:
            end_all(app, SIGNALS[kills % len(SIGNALS)], partial(running_in, tmp_path))
            kills += 1
            check_whole(tmp_path / "killed")
        else:  # it was faster: once more from the beginning
            assert code == 0
            same(tmp_path / "whole", tmp_path / "killed")
            shutil.rmtree(tmp_path / "killed")
            shutil.rmtree(tmp_path / "killed_work")
    time.sleep(2.5)  # what is younger may be another run's
    assert begin("killed").wait() == 0
    same(tmp_path / "whole", tmp_path / "killed")
    left = [path for path in (tmp_path / "killed").rglob(".*") if path.name != ".bidsignore"]
    assert not left, left
