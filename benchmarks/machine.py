"""What a benchmark runs on: processor, threads, versions, commit."""

from __future__ import annotations

import argparse
import hashlib
import os
import platform
import shutil
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from peers import find

HERE = Path(__file__).resolve().parent


def describe(options: argparse.Namespace) -> dict[str, object]:
    """Describe software and hardware."""
    packages = sorted({find(name).package for name in options.methods} | {"torch"})
    return {
        "data": options.data.resolve().name,
        "spacing": options.spacing,
        "threads": options.threads,
        "device": options.device,
        "model": digest(options.model) if options.model else None,
        "cpu": cpu_model(),
        "cores": os.cpu_count(),
        "gpu": gpu_model(options.device),
        "python": platform.python_version(),
        "system": platform.platform(),
        "versions": {name: package_version(name) for name in packages},
        "commit": commit(),
    }


def environment(threads: int) -> dict[str, str]:
    """Return the environment of a process in which all libraries have this number of threads."""
    counts = (
        "OMP_NUM_THREADS",
        "MKL_NUM_THREADS",
        "OPENBLAS_NUM_THREADS",
        "NUMBA_NUM_THREADS",
        "ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS",
    )
    fixed = {"OMP_WAIT_POLICY": "PASSIVE", "ANTS_RANDOM_SEED": "1"}
    return {**os.environ, **{name: str(threads) for name in counts}, **fixed}


def digest(path: Path) -> str:
    """Start of a file's SHA-256."""
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16]


def package_version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not in this environment"


def cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if "model name" in line)
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def gpu_model(device: str) -> str | None:
    if not device.startswith("cuda"):
        return None
    import torch

    return torch.cuda.get_device_name(device) if torch.cuda.is_available() else "none found"


def commit() -> str | None:
    """Return the commit of the running code, marked if files differ from it."""
    git = shutil.which("git")
    if git is None:
        return None
    command = [git, "-C", str(HERE), "describe", "--always", "--dirty", "--abbrev=12"]
    answer = subprocess.run(command, capture_output=True, text=True)
    return answer.stdout.strip() or None
