"""What many participants cost: `python scaling.py {datasets,workers} …`.

`datasets [--sizes 100 1000 10000]` makes BIDS datasets of so many participants (images without
voxels), finds the scans of all and of one of them, builds their workflow, and runs it with steps
that do nothing (up to 1,000 participants): seconds, and the largest memory of a process that does
nothing else. `workers BIDS_DIR` runs the participant level of a dataset with one processor and
with two.
"""

from __future__ import annotations

import argparse
import gzip
import multiprocessing
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import nibabel as nib
import numpy as np
from nipype import Node, Workflow
from nipype.pipeline.plugins.multiproc import MultiProcPlugin
from rich.console import Console
from rich.table import Table

from bids_fcnreg.bids.atlases import default_atlases, prepare_atlas
from bids_fcnreg.bids.dataset import read_dataset
from bids_fcnreg.bids.derivatives import write_json
from bids_fcnreg.bids.templates import prepare_template, resolve_template
from bids_fcnreg.config import DEFAULT_TEMPLATE, Config
from bids_fcnreg.execution.plugin import IsolatedPlugin
from bids_fcnreg.execution.run import configure
from bids_fcnreg.garbage_collection import collect_rarely
from bids_fcnreg.workflows.base import init_fcnreg_wf


def make_dataset(folder: Path, participants: int) -> Path:
    """Make a BIDS dataset with a T1w, a functional and a diffusion image of each participant."""
    header = nib.Nifti1Header()
    header.set_data_shape((256, 256, 176))
    image = nib.Nifti1Image(np.zeros((1, 1, 1), np.int16), np.eye(4), header)
    image.header.set_data_shape((256, 256, 176))
    body = gzip.compress(image.header.binaryblock + bytes(4), mtime=0)
    write_json(folder / "dataset_description.json", {"Name": "Many", "BIDSVersion": "1.8.0"})
    for number in range(1, participants + 1):
        subject = f"sub-{number:05d}"
        for kind, ending in (("anat", "T1w"), ("func", "task-rest_bold"), ("dwi", "dwi")):
            place = folder / subject / kind
            place.mkdir(parents=True)
            (place / f"{subject}_{ending}.nii.gz").write_bytes(body)
            (place / f"{subject}_{ending}.json").write_text("{}")
    return folder


def find(bids_dir: Path, labels: Sequence[str], _: Path) -> int:
    """Find the scans; returns how many there are."""
    return len(read_dataset(bids_dir, labels).scans)


def build(bids_dir: Path, labels: Sequence[str], folder: Path) -> int:
    """Find the scans and build their workflow; returns how many nodes it has."""
    return len(make_workflow(bids_dir, labels, folder).list_node_names())


def make_workflow(bids_dir: Path, labels: Sequence[str], folder: Path) -> Workflow:
    """Find the scans and build their workflow, with the settings of the participant level."""
    (folder / "out").mkdir(exist_ok=True)
    paths = {"output_dir": folder / "out", "work_dir": folder / "work"}
    config = Config(bids_dir=bids_dir, **paths, nprocs=2, omp_nthreads=1)
    configure(config, folder)
    template = prepare_template(resolve_template(DEFAULT_TEMPLATE), folder)
    atlases = [prepare_atlas(atlas, template, folder) for atlas in default_atlases(template)]
    scans = read_dataset(bids_dir, labels).scans
    return init_fcnreg_wf(config, scans, [template], {template.space: atlases})


def schedule(bids_dir: Path, labels: Sequence[str], folder: Path) -> int:
    """Run the workflow of the scans, all of whose steps do nothing; returns their number."""
    workflow = make_workflow(bids_dir, labels, folder)
    Node.is_cached = lambda *_, **__: (False, False)  # this process does nothing else
    plugin = Scheduler({"n_procs": 2, "memory_gb": 16})
    workflow.run(plugin=plugin)
    return len(plugin.procs)


class Scheduler(IsolatedPlugin):
    """Finds out which steps can start, as the participant level does, but runs none."""

    def _generate_dependency_list(self, graph: object) -> None:
        super()._generate_dependency_list(graph)
        for node in self.procs:
            node.run_without_submitting = False

    def _send_procs_to_workers(self, updatehash: bool = False, graph: object = None) -> None:
        MultiProcPlugin._send_procs_to_workers(self, updatehash, graph)  # does not wait for any

    def _local_hash_check(self, jobid: int, graph: object) -> bool:
        return False

    def _submit_mapnode(self, jobid: int) -> bool:
        return True

    def _submit_job(self, node: object, updatehash: bool = False) -> int:
        self._taskid += 1
        return self._taskid

    def _get_result(self, taskid: int) -> dict[str, object]:
        return {"traceback": None}

    def _clear_task(self, taskid: int) -> None:
        pass


def _measured(task: Callable, words: tuple) -> tuple[int, float, float]:
    collect_rarely()  # as the commands do
    start = time.perf_counter()
    count = task(*words)
    seconds = time.perf_counter() - start
    return count, seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024**2


def measure(task: Callable, *words: object) -> tuple[int, float, float]:
    """Run a task in a process of its own; what it counted, seconds, largest memory in GB."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        return pool.submit(_measured, task, words).result()


def measure_datasets(options: argparse.Namespace) -> None:
    """Print a row for each size, task, and choice of participants."""
    table = Table("participants", "task", "asked for", "counted", "seconds", "ms each", "GB")
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        measure(build, make_dataset(folder / "warm", 1), (), folder)  # makes the template's files
        for size in options.sizes:
            bids_dir = make_dataset(folder / str(size), size)
            tasks = [(find, "scans"), (build, "nodes")]
            tasks += [(schedule, "nodes")] if size <= 1000 else []
            for task, unit in tasks:
                for labels, asked in (((f"{size:05d}",), 1), ((), size)):
                    count, seconds, memory = measure(task, bids_dir, labels, folder)
                    row = (f"{count} {unit}", f"{seconds:.2f}", f"{1000 * seconds / asked:.1f}")
                    table.add_row(str(size), task.__name__, str(asked), *row, f"{memory:.2f}")
    Console(width=120).print(table)


def measure_workers(options: argparse.Namespace) -> None:
    """Print seconds with one processor and with two, and how many were used on average."""
    columns = ("processors", "threads a step", "seconds", "used", "speed-up", "efficiency")
    table = Table(*columns)
    alone = None
    for processors, threads in ((1, 1), (2, 2), (2, 1)):
        with tempfile.TemporaryDirectory() as scratch:
            words = [options.bids_dir, f"{scratch}/out", "participant", "-w", f"{scratch}/work"]
            words += ["--nprocs", processors, "--omp-nthreads", threads, "--device", "cpu"]
            words += ["--mode", options.mode, "--skip-bids-validation"]
            start, used = time.perf_counter(), _processor_seconds()
            command = [sys.executable, "-m", "bids_fcnreg", *map(str, words)]
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
            seconds = time.perf_counter() - start
            used = (_processor_seconds() - used) / seconds
        alone = alone or seconds
        gain = alone / seconds
        row = (f"{seconds:.0f}", f"{used:.2f}", f"{gain:.2f}", f"{gain / processors:.2f}")
        table.add_row(str(processors), str(threads), *row)
    Console(width=120).print(table)


def _processor_seconds() -> float:
    """Return the processor seconds of all finished descendants."""
    spent = resource.getrusage(resource.RUSAGE_CHILDREN)
    return spent.ru_utime + spent.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(required=True)
    datasets = commands.add_parser("datasets")
    datasets.add_argument("--sizes", type=int, nargs="+", default=[100, 1000, 10000])
    datasets.set_defaults(run=measure_datasets)
    workers = commands.add_parser("workers")
    workers.add_argument("bids_dir", type=Path)
    workers.add_argument("--mode", default="refine")
    workers.set_defaults(run=measure_workers)
    options = parser.parse_args()
    options.run(options)


if __name__ == "__main__":
    main()
