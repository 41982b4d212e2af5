"""Stages of a registration on a device: seconds, memory, and distance to the result on the CPU.

    python benchmarks/engine.py FIXED MOVING [--device cuda] [--repeats N] [--profile FILE]

FIXED and MOVING are brain-extracted images. The first registration on a device, which compiles and
loads, is reported apart. With --profile, the operations of a refinement are written to a file.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import torch

from bids_fcnreg.fcn.device import resolve_device
from bids_fcnreg.fcn.nets.checkpoint import load
from bids_fcnreg.fcn.nets.packaged_weights import packaged_weights
from bids_fcnreg.fcn.pair import make_pair
from bids_fcnreg.fcn.refine import refine
from bids_fcnreg.fcn.register import Registration, register
from bids_fcnreg.fcn.spatial.grid import Image
from bids_fcnreg.io import image


def main() -> None:
    """Run the benchmark with the arguments of the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("fixed", type=Path)
    parser.add_argument("moving", type=Path)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--profile", type=Path, metavar="FILE")
    options = parser.parse_args()
    device = resolve_device(options.device)
    fixed, moving = image.read(options.fixed), image.read(options.moving)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"
    print(f"{name}, {torch.get_num_threads()} CPU threads, PyTorch {torch.__version__}")
    for mode in ("predict", "refine"):
        print(f"\n{mode}")
        results = [_timed(fixed, moving, mode, device) for _ in range(options.repeats + 1)]
        print(f"first: {results[0][1]:.2f} s")
        print(f"then, median of {options.repeats}: {np.median([s for _, s in results[1:]]):.2f} s")
        for stage in results[0][0].quality.seconds:
            seconds = [result.quality.seconds[stage] for result, _ in results[1:]]
            print(f"  {stage:8} {np.median(seconds):.3f}")
        if device.type == "cuda":
            print(f"memory: {torch.cuda.max_memory_allocated(device) / 2**30:.2f} GiB")
            on_cpu, seconds = [_timed(fixed, moving, mode, torch.device("cpu")) for _ in "12"][1]
            print(f"on the CPU: {seconds:.2f} s")
            _compare(results[-1][0], on_cpu, fixed)
    if options.profile:
        _profile(fixed, moving, device, options.profile)


def _timed(
    fixed: Image, moving: Image, mode: str, device: torch.device
) -> tuple[Registration, float]:
    start = time.perf_counter()
    result = register(fixed, moving, mode=mode, device=str(device))
    return result, time.perf_counter() - start


def _compare(result: Registration, reference: Registration, fixed: Image) -> None:
    """Print how far apart two registrations put the points of the fixed brain."""
    inside = fixed.data[0, 0] > 0
    points = fixed.grid.points()[inside][::50]
    distance = (result.forward.map(points) - reference.forward.map(points)).norm(dim=1)
    median, high = np.percentile(distance.numpy(), [50, 99])
    print(f"distance to it: median {median:.3f} mm, 99th percentile {high:.3f} mm")
    for metric in ("similarity", "sd_log_jacobian", "folds_percent", "inverse_consistency_mm"):
        values = (getattr(one.quality, metric) for one in (result, reference))
        print(f"  {metric}: " + ", on the CPU ".join(f"{value:.4f}" for value in values))


def _profile(fixed: Image, moving: Image, device: torch.device, file: Path) -> None:
    """Write the operations of a network pass and a refinement, by time on the device."""
    pair = make_pair(fixed, moving, np.eye(4)).to(device)
    network = load(packaged_weights("diffeomorphic"))[0].to(device)
    start = network.start(pair)
    refine(pair, start)
    activities = [torch.profiler.ProfilerActivity.CPU]
    if device.type == "cuda":
        activities.append(torch.profiler.ProfilerActivity.CUDA)
    with file.open("w") as stream:
        for name, run in (
            ("network", lambda: network.start(pair)),
            ("refinement", lambda: refine(pair, start)),
        ):
            with torch.profiler.profile(activities=activities) as profile:
                run()
                if device.type == "cuda":
                    torch.cuda.synchronize(device)
            order = f"self_{device.type}_time_total"
            table = profile.key_averages().table(order, row_limit=40, max_name_column_width=70)
            print(name, table, sep="\n", file=stream)


if __name__ == "__main__":
    main()
