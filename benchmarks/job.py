"""One registration of one pair, in a process of its own: `python job.py JOB.json`.

JOB.json holds the fields of `Job`; what was found is written to its `result`, as JSON, or an
`error` in one sentence. The benchmark that starts it sets the number of threads.
"""

from __future__ import annotations

import json
import sys
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from measures import (
    Meter,
    PointMap,
    deformation,
    dice,
    harmonic_energy,
    hd95,
    inverse_consistency,
)
from peer import Maps, Task
from peers import find

from bids_fcnreg.errors import FcnregError
from bids_fcnreg.fcn.spatial.filters import gaussian
from bids_fcnreg.fcn.spatial.grid import Image
from bids_fcnreg.fcn.spatial.transform import Transform
from bids_fcnreg.io import image

#: Voxel size in mm of the registration that warms a GPU up before the clock starts.
WARM_UP_MM = 4.0


@dataclass(frozen=True)
class Job:
    """What one process is to do.

    Attributes
    ----------
    method : str
        See `peers.find`.
    fixed, moving, fixed_labels, moving_labels : str
        Files.
    scratch : str
        Folder for temporary files, removed by who made it.
    result : str
        Where to write what was found.
    threads : int
        CPU threads.
    device : str
        For methods that can use a GPU.
    spacing : float or None
        Voxel size in mm to resample everything to first.
    model : str or None
        File with trained weights.
    """

    method: str
    fixed: str
    moving: str
    fixed_labels: str
    moving_labels: str
    scratch: str
    result: str
    threads: int = 2
    device: str = "cpu"
    spacing: float | None = None
    model: str | None = None


def main() -> int:
    job = Job(**json.loads(Path(sys.argv[1]).read_text()))
    torch.set_num_threads(job.threads)
    try:
        result = run(job)
    except Exception as why:
        known = isinstance(why, FcnregError)
        reason = " ".join(str(why).split())[:300]
        result = {"error": reason if known else f"{type(why).__name__}: {reason}"}
        if not known:
            Path(job.result).write_text(json.dumps(result))
            raise
    Path(job.result).write_text(json.dumps(result))
    return 1 if "error" in result else 0


def run(job: Job) -> dict[str, object]:
    """Register, carry labels over, measure.

    Returns
    -------
    dict
        ``row``: figures of the pair; ``structures``: for each label its Dice,
        its Hausdorff distance and its voxels in the fixed image.
    """
    job = prepared(job)
    peer = find(job.method)
    task = Task(
        *(Path(path) for path in (job.fixed, job.moving, job.scratch)),
        threads=job.threads,
        device=job.device,
        model=Path(job.model) if job.model else None,
    )
    on_gpu = peer.gpu and job.device.startswith("cuda")
    if on_gpu:
        with tempfile.TemporaryDirectory(dir=job.scratch) as folder:
            small = prepared(replace(job, scratch=folder, spacing=WARM_UP_MM))
            fixed, moving = Path(small.fixed), Path(small.moving)
            peer.run(replace(task, fixed=fixed, moving=moving, scratch=Path(folder)), Meter())
        torch.cuda.reset_peak_memory_stats()
    meter = Meter()
    maps = peer.run(task, meter)
    row = {
        "version": peer.version,
        "seconds": meter.seconds,
        "memory_gb": meter.memory_gb,
        "gpu_memory_gb": torch.cuda.max_memory_allocated() / 2**30 if on_gpu else None,
    }
    figures, structures = judge(job, maps)
    return {"row": row | figures, "structures": structures}


def judge(job: Job, maps: Maps) -> tuple[dict[str, float | None], list[dict[str, object]]]:
    """Evaluate a pair's transforms, in the same way for all methods."""
    fixed = image.read(job.fixed)
    labels = [image.read(path) for path in (job.fixed_labels, job.moving_labels)]
    if not labels[0].grid.matches(fixed.grid):
        raise FcnregError(f"{job.fixed_labels} is not on the grid of {job.fixed}.")
    brain = fixed.data[0, 0] != 0
    points = PointMap.of(maps.forward, fixed.grid)
    warped = points.resample(labels[1], "label")
    present = sorted({int(n) for image in labels for n in image.data.unique().round()} - {0})
    overlaps = dice(labels[0].data, warped.data, present)
    # A label of the moving image alone overlaps with nothing, also where warping lost it.
    overlaps = {n: overlaps.get(n, 0.0) for n in present}
    distances = hd95(labels[0].data, warped.data, present, fixed.grid.spacing)
    sizes = {n: int((labels[0].data == n).sum()) for n in present}
    figures = {
        "dice": sum(overlaps.values()) / len(overlaps),
        "hd95_mm": sum(distances.values()) / len(distances) if distances else None,
        **deformation(points, brain),
        "harmonic_energy": harmonic_energy(points, brain),
        **inverse_consistency(points, maps.inverse, brain),
    }
    structures = [
        {
            "label": n,
            "dice": overlaps[n],
            "hd95_mm": distances.get(n),
            "fixed_voxels": sizes[n],
        }
        for n in present
    ]
    return figures, structures


def prepared(job: Job) -> Job:
    """Return the job with images resampled to its spacing."""
    if job.spacing is None:
        return job
    paths = {}
    for name in ("fixed", "moving", "fixed_labels", "moving_labels"):
        source = image.read(getattr(job, name))
        if name.endswith("labels"):
            grid = source.grid.with_spacing(job.spacing)
            coarse = Transform(()).resample(source, grid, "label")
        else:
            coarse = _coarser(source, job.spacing)
        paths[name] = str(image.write(Path(job.scratch) / f"{name}.nii", coarse))
    return replace(job, **paths, spacing=None)


def _coarser(brain: Image, spacing: float) -> Image:
    """Downsample a brain with anti-alias smoothing; zero remains background."""
    grid = brain.grid.with_spacing(spacing)
    sigma = 0.5 * grid.spacing / brain.grid.spacing
    inside = (brain.data != 0).float()
    # Divided by the smoothed mask, so that the brain's edge does not darken.
    smooth = gaussian(brain.data, sigma) / gaussian(inside, sigma).clamp(min=1e-3)
    values, share = (
        Transform(()).resample(Image(data, brain.grid), grid).data
        for data in (smooth * inside, inside)
    )
    return Image(values * (share >= 0.5), grid)


if __name__ == "__main__":
    sys.exit(main())
