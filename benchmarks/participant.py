"""Seconds and memory of the participant level, one participant at a time.

    python benchmarks/participant.py BIDS_DIR OUT_DIR --participant-label 01 02 03 [-- OPTIONS]

Each participant is a run of its own with a work directory of its own; memory is the largest sum
of the resident (unshared) memory of all its processes, looked at four times a second.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil
from rich.console import Console
from rich.table import Table


def measure(command: list[str]) -> tuple[int, float, float]:
    """Run a command; returns its exit code, wall seconds and peak memory in GB."""
    start = time.perf_counter()
    peak = 0
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        root = psutil.Process(process.pid)
        while process.poll() is None:
            peak = max(peak, _memory(root))
            time.sleep(0.25)
    return process.returncode, time.perf_counter() - start, peak / 1024**3


def _memory(root: psutil.Process) -> int:
    """Sum the private memory of a process and all its descendants, in bytes."""
    total = 0
    try:
        for process in (root, *root.children(recursive=True)):
            total += process.memory_full_info().uss
    except psutil.Error:  # one of them has just ended
        return 0
    return total


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("bids_dir", type=Path)
    parser.add_argument("out_dir", type=Path)
    parser.add_argument("--participant-label", nargs="+", required=True)
    parser.usage = "%(prog)s BIDS_DIR OUT_DIR --participant-label LABEL ... [-- OPTIONS]"
    # argparse gives what follows "--" to a positional argument only if none came before.
    end = sys.argv.index("--") if "--" in sys.argv else len(sys.argv)
    arguments, options = parser.parse_args(sys.argv[1:end]), sys.argv[end + 1 :]
    columns = ("participant", "exit", "seconds", "peak GB", "similarity", "affine", "folds %")
    table = Table(*columns, "sd log J", "inverse p95 mm")
    worst = 0
    for label in arguments.participant_label:
        with tempfile.TemporaryDirectory() as work:
            command = [sys.executable, "-m", "bids_fcnreg"]
            command += [str(arguments.bids_dir), str(arguments.out_dir), "participant"]
            command += ["--participant-label", label, "--work-dir", work, *options]
            code, seconds, memory = measure(command)
        worst = max(worst, code)
        found = (arguments.out_dir / f"sub-{label}").rglob("*desc-quality_xfm.json")
        for quality in [json.loads(path.read_text()) for path in sorted(found)]:
            table.add_row(
                label,
                str(code),
                f"{seconds:.0f}",
                f"{memory:.2f}",
                f"{quality['similarity_initial']:.3f} → {quality['similarity']:.3f}",
                f"{quality['similarity_affine']:.3f}",
                f"{quality['folds_percent']:.4f}",
                f"{quality['sd_log_jacobian']:.3f}",
                f"{quality['inverse_consistency_p95_mm']:.3f}",
            )
    Console(width=120).print(table)
    return worst


if __name__ == "__main__":
    sys.exit(main())
