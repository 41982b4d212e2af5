"""CPUs and memory available to this process, as limited by cgroups and CPU affinity."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from pathlib import Path

_CGROUPS = Path("/sys/fs/cgroup")
_MEMBERSHIP = Path("/proc/self/cgroup")


def available_cpus() -> int:
    """Return the number of CPUs that this process may use, at least 1.

    joblib knows the CPU affinity and the quota at the root of the cgroups, which is that of a
    container, but not the quotas of nested cgroups, such as those of a batch job or a user.
    """
    import joblib  # only now: importing it takes time

    count = joblib.cpu_count()
    for group in _cgroups("cpu"):
        version_1 = ("cpu.cfs_quota_us", "cpu.cfs_period_us")
        limit = _read_integers(group / "cpu.max")
        limit = limit or [n for name in version_1 for n in _read_integers(group / name)]
        quota, period = limit or (-1, -1)
        if quota > 0 and period > 0:
            count = min(count, math.ceil(quota / period))
    return max(count, 1)


def available_memory_gb() -> float:
    """Return 90 % of the memory in GB of this machine or of the tightest cgroup limit."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for group in _cgroups("memory"):
        for name in ("memory.max", "memory.limit_in_bytes"):
            total = min([total, *_read_integers(group / name)])
    return round(0.9 * total / 1024**3, 2)


def _cgroups(controller: str) -> Iterator[Path]:
    """Yield the directories of the cgroups of this process and of their parents.

    Version 2 has one tree, version 1 a tree per controller. Inside a container, the root of the
    tree is that of the container.
    """
    try:
        lines = _MEMBERSHIP.read_text().splitlines()
    except OSError:  # not Linux
        return
    for line in lines:
        number, controllers, path = line.split(":", 2)
        if number == "0":
            root = _CGROUPS
        elif controller in controllers.split(","):
            root = _CGROUPS / controller
        else:
            continue
        inner = root / path.lstrip("/")
        for group in (inner, *inner.parents):
            if group.is_relative_to(root) and group.is_dir():
                yield group


def _read_integers(path: Path) -> list[int]:
    """Read the integers of a line; return none if it holds ``max`` or the file is missing."""
    try:
        fields = path.read_text().split()
    except OSError:
        return []
    return [int(one) for one in fields] if all(f.lstrip("-").isdigit() for f in fields) else []
