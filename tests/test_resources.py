"""What control groups leave a process is found, of both versions and however deep they are."""

from __future__ import annotations

import os

import joblib
import pytest

from bids_fcnreg import resources

GB = 1024**3


@pytest.fixture
def groups(tmp_path, monkeypatch):
    """Writes files of control groups, and that this process lives in them."""
    monkeypatch.setattr(resources, "_CGROUPS", tmp_path)
    monkeypatch.setattr(resources, "_MEMBERSHIP", tmp_path / "self")
    monkeypatch.setattr(joblib, "cpu_count", lambda: 64)

    def write(membership: str, **files: str) -> None:
        (tmp_path / "self").write_text(membership)
        for name, text in files.items():
            path = tmp_path / name.replace("__", "/").replace("_dot_", ".")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(f"{text}\n")

    return write


def test_tightest_nested_cgroup_applies(groups):
    groups(
        "0::/slurm/job_7\n",
        slurm__job_7__memory_dot_max="max",
        slurm__memory_dot_max=str(2 * GB),
        slurm__job_7__cpu_dot_max="250000 100000",
        slurm__cpu_dot_max="max 100000",
    )
    assert resources.available_memory_gb() == 1.8
    assert resources.available_cpus() == 3


def test_cgroups_of_version_1(groups):
    groups(
        "5:cpu,cpuacct:/box\n4:memory:/box\n",
        memory__box__memory_dot_limit_in_bytes=str(GB),
        cpu__box__cpu_dot_cfs_quota_us="50000",
        cpu__box__cpu_dot_cfs_period_us="100000",
    )
    assert resources.available_memory_gb() == 0.9
    assert resources.available_cpus() == 1


def test_without_limits_the_machine_applies(groups):
    groups("1:cpu:/\n", cpu__cpu_dot_cfs_quota_us="-1", cpu__cpu_dot_cfs_period_us="100000")
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    assert resources.available_memory_gb() == round(0.9 * total / GB, 2)
    assert resources.available_cpus() == 64


def test_cpu_affinity_applies():
    everything = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {min(everything)})
        assert resources.available_cpus() == 1
    finally:
        os.sched_setaffinity(0, everything)
