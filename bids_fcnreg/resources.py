"""What this process may use of the machine: what a scheduler, a container or `taskset` left it."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from pathlib import Path

_CGROUPS = Path("/sys/fs/cgroup")
_MEMBERSHIP = Path("/proc/self/cgroup")


def available_cpus() -> int:
    """Processors that this process may use, at least 1."""
    count = os.cpu_count() or 1
    if hasattr(os, "sched_getaffinity"):
        count = len(os.sched_getaffinity(0))
    for group in _groups("cpu"):
        quota, period = _numbers(group / "cpu.max") or (
            _numbers(group / "cpu.cfs_quota_us") + _numbers(group / "cpu.cfs_period_us")
        ) or (-1, -1)  # fmt: skip
        if quota > 0 and period > 0:
            count = min(count, math.ceil(quota / period))
    return max(count, 1)


def available_memory_gb() -> float:
    """Nine tenths of the memory (GB) of this machine, or of what its control groups leave it."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for group in _groups("memory"):
        for name in ("memory.max", "memory.limit_in_bytes"):
            total = min([total, *_numbers(group / name)])
    return round(0.9 * total / 1024**3, 2)


def _groups(controller: str) -> Iterator[Path]:
    """Folders of the control groups that this process lives in, each and those around it.

    Both kinds are known: version 2 has one tree, version 1 a tree for each controller. Inside a
    container the root of the tree is that of the container.
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


def _numbers(path: Path) -> list[int]:
    """Whole numbers of a line; empty if it says ``max``, or there is no such file."""
    try:
        words = path.read_text().split()
    except OSError:
        return []
    return [int(word) for word in words] if all(w.lstrip("-").isdigit() for w in words) else []
