"""How far away linear alignment may start, and how well it ends, beside antspyx.

Two tables. The first: a brain is moved by a known transform (rotation, shift and zoom drawn at
random), given another contrast, a bias field and noise, and registered back; the error is the mean
distance to the truth over the brain's voxels. The second (with --dataset): other people's brains
are registered to each other, and the Dice overlap of manual labels is averaged over labels.

    python benchmarks/affine.py [IMAGE] [-n 50] [--threads 2] [--dataset DIR --pairs 4]
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import torch

from bids_fcnreg.fcn.linear.align import align
from bids_fcnreg.fcn.spatial.filters import gaussian
from bids_fcnreg.fcn.spatial.grid import Grid, Image, apply_affine
from bids_fcnreg.fcn.spatial.transform import Affine, Transform

Aligner = Callable[[Image, Image], np.ndarray]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("image", nargs="?", type=Path, help="a brain (default: built-in template)")
    parser.add_argument("-n", type=int, default=50, help="number of random starts")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--dataset", type=Path, help="BIDS folder with derivatives/manual labels")
    parser.add_argument("--pairs", type=int, default=4, help="pairs of subjects of the dataset")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)

    tools: dict[str, Aligner] = {"bids_fcnreg": align}
    ants = ants_aligner(args.threads)
    if ants is not None:
        tools["antspyx Affine"] = ants
    print(f"antspyx {'is' if ants else 'is not'} installed; {args.threads} threads\n")
    if args.n:
        capture_table(tools, read(args.image or builtin_template()), args.n, args.seed)
    if args.dataset:
        label_table(tools, args.dataset, args.pairs)


def capture_table(tools: dict[str, Aligner], brain: Image, count: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    errors: dict[str, list[float]] = {name: [] for name in tools}
    seconds: dict[str, list[float]] = {name: [] for name in tools}
    inside = brain.grid.points()[brain.data[0, 0] > 0][::97].numpy()
    for n in range(count):
        truth = random_transform(rng, inside.mean(0))
        fixed = moved_brain(brain, inside, truth, rng)
        there = apply_affine(np.linalg.inv(truth), inside)
        line = []
        for name, aligner in tools.items():
            start = time.perf_counter()
            found = aligner(fixed, brain)
            seconds[name].append(time.perf_counter() - start)
            gaps = np.linalg.norm(apply_affine(found, there) - inside, axis=1)
            errors[name].append(float(gaps.mean()))
            line.append(f"{name} {errors[name][-1]:7.3f} mm {seconds[name][-1]:5.1f} s")
        print(f"  start {n + 1:3d}: " + "   ".join(line), flush=True)
    print(
        f"\n{'tool':16s} {'within 2 mm':>12s} {'median mm':>10s} {'worst mm':>9s} {'s/pair':>7s}"
    )
    for name in tools:
        found_back = sum(e < 2 for e in errors[name])
        print(
            f"{name:16s} {found_back:5d} of {count:3d} {np.median(errors[name]):10.3f} "
            f"{max(errors[name]):9.2f} {np.median(seconds[name]):7.1f}"
        )
    print()


def label_table(tools: dict[str, Aligner], dataset: Path, pairs: int) -> None:
    people = sorted(p.name for p in dataset.glob("sub-*") if p.is_dir())
    print(f"{'fixed':10s} {'moving':10s} " + " ".join(f"{name:>22s}" for name in tools))
    scores: dict[str, list[float]] = {name: [] for name in tools}
    for n in range(pairs):
        names = people[2 * n % len(people)], people[(2 * n + 1) % len(people)]
        images = [read(next((dataset / p).rglob("*_T1w.nii.gz"))) for p in names]
        labels = [
            read(next((dataset / "derivatives" / "manual" / p).rglob("*_dseg.nii.gz")))
            for p in names
        ]
        line = []
        for name, aligner in tools.items():
            start = time.perf_counter()
            transform = Transform((Affine(aligner(*images)),))
            took = time.perf_counter() - start
            warped = transform.resample(labels[1], labels[0].grid, "nearest")
            scores[name].append(mean_dice(labels[0].data, warped.data))
            line.append(f"{scores[name][-1]:.4f} in {took:5.1f} s".rjust(22))
        print(f"{names[0]:10s} {names[1]:10s} " + " ".join(line), flush=True)
    print(f"{'mean Dice':21s} " + " ".join(f"{np.mean(s):22.4f}" for s in scores.values()))


def random_transform(rng: np.random.Generator, centre: np.ndarray) -> np.ndarray:
    """Draw a matrix (4, 4): up to 45° about each axis, 50 mm along each, zoom 0.8 to 1.25."""
    matrix = np.eye(4)
    for axis, angle in enumerate(np.radians(rng.uniform(-45, 45, 3))):
        a, b = (axis + 1) % 3, (axis + 2) % 3
        turn = np.eye(4)
        turn[[a, a, b, b], [a, b, a, b]] = (
            np.cos(angle),
            -np.sin(angle),
            np.sin(angle),
            np.cos(angle),
        )
        matrix = matrix @ turn
    matrix[:3, :3] *= np.exp(rng.uniform(np.log(0.8), np.log(1.25)))
    matrix[:3, 3] = centre + rng.uniform(-50, 50, 3) - matrix[:3, :3] @ centre
    return matrix


def moved_brain(
    brain: Image, inside: np.ndarray, truth: np.ndarray, rng: np.random.Generator
) -> Image:
    """Resample the brain through `truth`, with other contrast, a bias field and noise."""
    there = apply_affine(np.linalg.inv(truth), inside)
    lower, upper = there.min(0) - 10, there.max(0) + 10
    affine = np.eye(4)
    affine[:3, 3] = lower
    shape = np.ceil(upper - lower).astype(int) + 1
    seen = Transform((Affine(truth),)).resample(brain, Grid(tuple(shape), affine))
    inside = seen.data > 0.02 * brain.data.max()
    values = (seen.data / brain.data.max()).clamp(min=0) ** rng.uniform(0.6, 1.6)
    coarse = torch.from_numpy(rng.standard_normal((1, 1, 5, 5, 5))).float()
    bias = torch.nn.functional.interpolate(
        gaussian(coarse, 0.7), seen.grid.shape, mode="trilinear", align_corners=True
    )
    values = values * (0.2 * bias / bias.std()).exp()
    values = values + 0.03 * torch.from_numpy(rng.standard_normal(values.shape)).float()
    return Image((values * inside).clamp(min=0), seen.grid)


def mean_dice(fixed: torch.Tensor, warped: torch.Tensor) -> float:
    """Average Dice over the labels of the fixed image, without background."""
    labels = torch.unique(torch.cat([fixed.flatten(), warped.flatten()]), return_inverse=True)
    names, places = labels
    one, two = places.view(2, -1)
    count = len(names)
    both = torch.bincount(one[one == two], minlength=count).double()
    sizes = torch.bincount(one, minlength=count), torch.bincount(two, minlength=count)
    present = (sizes[0] > 0) & (names != 0)
    return float((2 * both / (sizes[0] + sizes[1]))[present].mean())


def ants_aligner(threads: int) -> Aligner | None:
    """Return antspyx's affine registration with our signature, or None if not installed."""
    import os

    os.environ["ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS"] = str(threads)
    try:
        import ants
    except ImportError:
        return None

    flip = np.diag([-1.0, -1.0, 1.0, 1.0])

    def aligner(fixed: Image, moving: Image) -> np.ndarray:
        with tempfile.TemporaryDirectory() as folder:
            pair = []
            for name, image in (("fixed", fixed), ("moving", moving)):
                path = Path(folder) / f"{name}.nii"
                nib.Nifti1Image(image.data[0, 0].numpy(), image.grid.affine).to_filename(path)
                pair.append(ants.image_read(str(path)))
            result = ants.registration(*pair, type_of_transform="Affine", random_seed=1)
            found = ants.read_transform(result["fwdtransforms"][0])
            numbers = found.parameters
            centre = np.array(found.fixed_parameters)
            for path in {*result["fwdtransforms"], *result["invtransforms"]}:
                Path(path).unlink()
        matrix = np.eye(4)
        matrix[:3, :3] = numbers[:9].reshape(3, 3)
        matrix[:3, 3] = numbers[9:] + centre - matrix[:3, :3] @ centre
        return flip @ matrix @ flip

    return aligner


def read(path: Path) -> Image:
    image = nib.load(path)
    data = np.asarray(image.dataobj, dtype=np.float32, order="C")
    return Image(torch.from_numpy(data)[None, None], Grid(image.shape, image.affine))


def builtin_template() -> Path:
    import nilearn.datasets

    folder = Path(nilearn.datasets.__file__).parent / "data"
    return folder / "mni_icbm152_t1_tal_nlin_sym_09a_converted.nii.gz"


if __name__ == "__main__":
    main()
