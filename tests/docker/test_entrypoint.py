"""The entry point of the image gives the app compiled kernels and directories to write to."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

ENTRYPOINT = Path(__file__).parents[2] / "docker/entrypoint.sh"
SHOW = '#!/bin/sh\necho "$HOME|${NUMBA_CACHE_DIR:-}|${NUMBA_CPU_NAME:-}|$*"\n'
FLAGS = {"avx2", "bmi1", "bmi2", "f16c", "fma", "abm", "movbe"}

with_avx2 = pytest.mark.skipif(
    os.uname().machine != "x86_64" or not set(Path("/proc/cpuinfo").read_text().split()) >= FLAGS,
    reason="the kernels are not for this processor",
)


@pytest.fixture
def start(tmp_path):
    """Start the entry point with its kernels in a temporary directory and an app that tells."""
    for name in ("bin", "home", "tmp", "kernels/123"):
        (tmp_path / name).mkdir(parents=True)
    for number in range(20):
        (tmp_path / f"kernels/123/{number}.nbc").write_bytes(bytes(100_000))
    for name in ("bids_fcnreg", "fcnreg"):
        (tmp_path / "bin" / name).write_text(SHOW)
        (tmp_path / "bin" / name).chmod(0o755)
    script = tmp_path / "entrypoint.sh"
    script.write_text(ENTRYPOINT.read_text().replace("/opt/kernels", str(tmp_path / "kernels")))

    def run(*arguments: str, **environment: str) -> subprocess.Popen:
        paths = {"HOME": str(tmp_path / "home"), "TMPDIR": str(tmp_path / "tmp")}
        paths["PATH"] = f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}"
        command = ["sh", str(script), *arguments]
        return subprocess.Popen(command, env=paths | environment, stdout=-1, stderr=-1, text=True)

    return run


def output(process: subprocess.Popen) -> list[str]:
    text, errors = process.communicate(timeout=60)
    assert process.returncode == 0
    assert not errors
    return text.strip().split("|")


@with_avx2
def test_runs_that_start_at_once_share_one_whole_copy(start, tmp_path):
    copy = tmp_path / "home/.cache/bids_fcnreg/kernels-123"
    for process in [start("data", "out") for _ in range(6)]:
        assert output(process)[1:] == [str(copy), "x86-64-v3", "data out"]
    assert [path.name for path in copy.parent.iterdir()] == ["kernels-123"]
    assert len(list(copy.iterdir())) == 20


@with_avx2
def test_without_a_home_directory_the_copy_is_temporary(start, tmp_path):
    home, copy, *_ = output(start(HOME="/nonexistent"))
    assert Path(home).parent == tmp_path / "tmp"
    assert len(list(Path(copy).iterdir())) == 20


@pytest.mark.parametrize(
    "environment", [{"NUMBA_CACHE_DIR": "/some/where"}, {"NUMBA_CPU_NAME": "generic"}]
)
def test_settings_of_the_user_win(start, tmp_path, environment):
    home, *found, _ = output(start(**environment))
    expected = [environment.get(name, "") for name in ("NUMBA_CACHE_DIR", "NUMBA_CPU_NAME")]
    assert found == expected
    assert not list(Path(home).iterdir())


def test_without_room_for_the_kernels_the_app_runs(start, tmp_path):
    (tmp_path / "home/.cache").touch()  # nothing can be written below
    assert output(start())[1:] == ["", "", ""]


def test_fcnreg_is_run_if_it_is_the_first_argument(start):
    assert output(start("fcnreg", "phantom", "DIR"))[-1] == "phantom DIR"
