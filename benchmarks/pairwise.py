"""Pairwise registration beside its peers: accuracy, regularity, seconds and memory.

    python benchmarks/pairwise.py DATA [--participant-label ...] [-n PAIRS | --all-pairs]
        [--methods ...] [--strengths ...] [-o OUTDIR] [--resume]

DATA is a BIDS folder of brain-extracted T1w images with label images (`*_dseg.nii.gz`, beside them
or under `derivatives/`). Brains are registered to each other; every method's transform carries
the moving brain's labels to the fixed brain through the same resampler, and their overlap with
the fixed brain's own labels is the accuracy. Each registration is a process of its own, one after
another. docs/benchmarks.md says what is measured and how.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path

import plots
import summary
from comparison import differences
from dataset import Subject, choose_pairs, find_subjects, group_means, label_names, select
from job import WARM_UP_MM, Job
from machine import describe, environment
from peers import PEERS, find
from rich.console import Console

HERE = Path(__file__).resolve().parent
PAIR_COLUMNS = (
    *("fixed", "moving", "method", "version"),
    *(name for name, _, _ in summary.COLUMNS),
)
STRUCTURE_COLUMNS = (
    *("fixed", "moving", "method", "label", "name", "dice", "hd95_mm", "fixed_voxels"),
)

#: What must be the same for rows to be comparable.
SETTINGS = ("data", "spacing", "threads", "device", "model")

ON_REQUEST = ("ours-optimize-2017", "elastix")
DEFAULT_METHODS = [n for n, peer in PEERS.items() if not peer.slow and n not in ON_REQUEST]


def main() -> int:
    options = parse()
    console = Console(width=None if sys.stdout.isatty() else 140, highlight=False, markup=False)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that a job's process ends too
    if options.model and not options.model.is_file():
        console.print(f"{options.model} does not exist: check the path.")
        return 2
    subjects = find_subjects(options.data)
    if options.participant_label:
        try:
            subjects = select(subjects, options.participant_label)
        except KeyError as why:
            console.print(f"{options.data} has no T1w and dseg image of {why.args[0]}.")
            return 2
    if len(subjects) < 2:
        console.print(
            f"{options.data} has {len(subjects)} subjects with a T1w image and a dseg image: two "
            "are needed."
        )
        return 2
    count = len(subjects) * (len(subjects) - 1) if options.all_pairs else options.n
    pairs = [(subjects[i], subjects[j]) for i, j in choose_pairs(len(subjects), count)]
    machine = describe(options)
    try:
        results = Results(options.out, machine, resume=options.resume)
    except FileExistsError as why:
        console.print(str(why))
        return 2
    for name, value in machine.items():
        if isinstance(value, dict):
            value = ", ".join(f"{package} {number}" for package, number in value.items())
        if value is not None:
            console.print(f"{name:9} {value}", soft_wrap=True)
    busy = os.getloadavg()[0]
    if busy > 0.5:
        console.print(f"Other work keeps {busy:.1f} cores busy: seconds will be too long.")
    console.print("\nPairs, fixed <- moving:")
    for fixed, moving in pairs:
        console.print(f"  {fixed.name} <- {moving.name}")
    run_all(options, pairs, results, console)
    labels = {name: find(name).label for name in options.methods}
    slow = [name for name in options.methods if find(name).slow]
    chosen = {(fixed.name, moving.name) for fixed, moving in pairs}
    shown = [
        row
        for row in results.pairs
        if row["method"] in labels and (row["fixed"], row["moving"]) in chosen
    ]
    for block in [*summary.blocks(shown, labels, slow), *differences(shown, labels)]:
        console.print()
        if options.markdown:
            print(block.markdown())
        else:
            console.print(block.rich())
    if not shown:
        console.print("Nothing ran.")
        return 1
    plots.dice_seconds(options.out / "dice_seconds.png", shown, labels, options.threads)
    plots.dice_sdlogj(options.out / "dice_sdlogj.png", shown, labels)
    console.print(f"\nRows, plots and logs are in {options.out}.")
    return 0


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path, help="BIDS folder with T1w and dseg images")
    parser.add_argument(
        "--participant-label", nargs="+", metavar="LABEL", help="use these brains only"
    )
    number = parser.add_mutually_exclusive_group()
    number.add_argument("-n", type=int, default=10, help="number of pairs (default: 10)")
    number.add_argument("--all-pairs", action="store_true", help="use all ordered pairs")
    parser.add_argument("--methods", nargs="+", choices=list(PEERS), default=DEFAULT_METHODS)
    parser.add_argument(
        "--strengths",
        nargs="+",
        type=float,
        default=[],
        metavar="FACTOR",
        help="also run methods with their regularization multiplied by each factor, if they can",
    )
    slow = ", ".join(name for name, peer in PEERS.items() if peer.slow)
    parser.add_argument(
        "--slow-pairs", type=int, default=4, help=f"pairs for {slow}, each (default: 4)"
    )
    parser.add_argument("-o", "--out", type=Path, default=Path("build/pairwise"))
    parser.add_argument("--threads", type=int, default=2, help="CPU threads of each method")
    parser.add_argument("--device", default="cpu", help="for methods that can use a GPU")
    parser.add_argument("--model", type=Path, help="trained weights for our refine and predict")
    parser.add_argument("--spacing", type=float, help="resample to this, mm, for quick tries")
    parser.add_argument("--resume", action="store_true", help="go on with what OUTDIR has")
    parser.add_argument("--markdown", action="store_true", help="print tables as Markdown")
    parser.add_argument(
        "--fireants-python",
        default=sys.executable,
        help="Python of an environment that has FireANTs, which pins an old SimpleITK",
    )
    options = parser.parse_args()
    options.methods = with_strengths(options.methods, options.strengths)
    return options


def with_strengths(methods: list[str], factors: list[float]) -> list[str]:
    """Add to each method that has variable regularization its variants; see `peers.find`."""
    found = []
    for name in methods:
        scaled = [factor for factor in sorted(set(factors)) if PEERS[name].scalable]
        found += [name, *(f"{name}@{factor:g}" for factor in scaled if factor != 1)]
    return found


class Results:
    """The files of a run: a row is on disk as soon as it is known.

    Parameters
    ----------
    folder : Path
        Where they are.
    machine : dict
        What ran where; its settings must be those of the rows that are there.
    resume : bool
        Whether there may be rows already.

    Raises
    ------
    FileExistsError
        If the folder has rows that are not to be added to.
    """

    def __init__(self, folder: Path, machine: dict[str, object], resume: bool) -> None:
        self.folder = folder
        self.pairs = _read(folder / "pairs.tsv")
        note = folder / "machine.json"
        if self.pairs and not resume:
            raise FileExistsError(
                f"{folder} has results: go on with them (--resume) or name another folder (-o)."
            )
        if self.pairs and note.exists():
            before = json.loads(note.read_text())
            other = [name for name in SETTINGS if before.get(name) != machine[name]]
            if other:
                raise FileExistsError(
                    f"The results in {folder} were made with another {' and '.join(other)}: give "
                    "the same, or name another folder (-o)."
                )
        (folder / "logs").mkdir(parents=True, exist_ok=True)
        note.write_text(json.dumps(machine, indent=2) + "\n")
        done = {self._key(row) for row in self.pairs}
        structures = [r for r in _read(folder / "structures.tsv") if self._key(r) in done]
        _write(folder / "pairs.tsv", PAIR_COLUMNS, self.pairs, "w")
        _write(folder / "structures.tsv", STRUCTURE_COLUMNS, structures, "w")

    @staticmethod
    def _key(row: dict[str, str]) -> tuple[str, str, str]:
        return row["fixed"], row["moving"], row["method"]

    def has(self, fixed: str, moving: str, method: str) -> bool:
        """Return whether a row exists."""
        return any(self._key(row) == (fixed, moving, method) for row in self.pairs)

    def add(self, row: dict[str, object], structures: list[dict[str, object]]) -> None:
        """Write a row and its structures; the row last, so that it vouches for them."""
        key = {name: row[name] for name in ("fixed", "moving", "method")}
        rows = [{**key, **structure} for structure in structures]
        _write(self.folder / "structures.tsv", STRUCTURE_COLUMNS, rows, "a")
        _write(self.folder / "pairs.tsv", PAIR_COLUMNS, [row], "a")
        self.pairs.append({name: _cell(row.get(name)) for name in PAIR_COLUMNS})


def _cell(value: object) -> str:
    return "n/a" if value is None else f"{value:.6g}" if isinstance(value, float) else str(value)


def _read(path: Path) -> list[dict[str, str]]:
    if not path.exists():
        return []
    with path.open(newline="") as file:
        rows = csv.DictReader(file, delimiter="\t")
        return [row for row in rows if None not in row.values()]  # less a line cut short


def _write(path: Path, columns: Iterable[str], rows: Iterable[dict], mode: str) -> None:
    with path.open(mode, newline="") as file:
        writer = csv.DictWriter(file, list(columns), delimiter="\t", lineterminator="\n")
        if mode == "w":
            writer.writeheader()
        writer.writerows(
            {name: _cell(row.get(name)) for name in writer.fieldnames} for row in rows
        )


def run_all(
    options: argparse.Namespace,
    pairs: list[tuple[Subject, Subject]],
    results: Results,
    console: Console,
) -> None:
    """Run every method on every pair; skip a method that fails on its first pair."""
    names = label_names(options.data)
    left_out: set[str] = set()
    width = max(len(find(name).label) for name in options.methods)
    warm: set[str] = set()
    for number, (fixed, moving) in enumerate(pairs):
        for method in options.methods:
            if method in left_out or (find(method).slow and number >= options.slow_pairs):
                continue
            if results.has(fixed.name, moving.name, method):
                continue
            if method.startswith("ours") and options.device == "cpu" and method not in warm:
                # What is compiled at first use, and kept on disk, is compiled now: off the clock.
                run_job(options, fixed, moving, method, results.folder, spacing=WARM_UP_MM)
                warm.add(method)
            found = run_job(options, fixed, moving, method, results.folder)
            start = f"{fixed.name} <- {moving.name}  {find(method).label:{width}}"
            if "error" in found:
                worked = any(row["method"] == method for row in results.pairs)
                left_out |= set() if worked else {method}
                console.print(
                    f"{start}  left out{' of this pair' * worked}: {found['error']}",
                    soft_wrap=True,
                )
                continue
            key = {"fixed": fixed.name, "moving": moving.name, "method": method}
            row = {**key, **found["row"], **group_means(found["structures"], names)}
            named = [{**s, "name": names.get(s["label"])} for s in found["structures"]]
            results.add(row, named)
            console.print(
                f"{start}  Dice {row['dice']:.4f}  folds {row['folds_percent']:.4f} %  "
                f"sd log J {row['sd_log_jacobian']:.3f}  {row['seconds']:.1f} s  "
                f"{row['memory_gb']:.2f} GB"
            )


def run_job(
    options: argparse.Namespace,
    fixed: Subject,
    moving: Subject,
    method: str,
    folder: Path,
    spacing: float | None = None,
) -> dict:
    """Run one registration in a process of its own; return its results, or an ``error``."""
    python = options.fireants_python if method == "fireants" else sys.executable
    log = folder / "logs" / f"{fixed.name}_{moving.name}_{method}.log"
    with tempfile.TemporaryDirectory() as scratch:
        result = Path(scratch) / "result.json"
        job = Job(
            method,
            *(str(path.resolve()) for path in (fixed.brain, moving.brain)),
            *(str(path.resolve()) for path in (fixed.labels, moving.labels)),
            scratch=scratch,
            result=str(result),
            threads=options.threads,
            device=options.device if find(method).gpu else "cpu",
            spacing=spacing or options.spacing,
            model=str(options.model.resolve()) if options.model else None,
        )
        request = Path(scratch) / "job.json"
        request.write_text(json.dumps(asdict(job)))
        try:
            with log.open("w") as file:
                code = subprocess.run(
                    [python, str(HERE / "job.py"), str(request)],
                    stdin=subprocess.DEVNULL,
                    stdout=file,
                    stderr=subprocess.STDOUT,
                    env=environment(options.threads),
                ).returncode
        except OSError as why:
            return {"error": f"{python} cannot be run ({why})."}
        if result.exists():
            return json.loads(result.read_text())
    return {"error": f"its process ended with code {code}; {log} has its output."}


if __name__ == "__main__":
    sys.exit(main())
