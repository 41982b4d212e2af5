"""Disturbed images. `python perturbations.py BRAIN [BRAIN …] [options]`.

Each BRAIN, a brain-extracted T1w image, is registered to the built-in template as it is, and again
after each disturbance. Printed are, over points of the template's brain, distances (mm) between
where both registrations put them.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from scipy.spatial.transform import Rotation

from bids_fcnreg.bids.templates import prepare_template, resolve_template
from bids_fcnreg.fcn.register import register
from bids_fcnreg.fcn.spatial.grid import Grid, Image
from bids_fcnreg.fcn.spatial.transform import Affine, Transform
from bids_fcnreg.io import image

SPACE = "MNI152NLin2009cAsym"

#: A disturbed image, and the matrix that maps its points to those of the original (RAS+ mm).
Disturbed = tuple[Image, np.ndarray]


def moved(brain: Image, degrees: tuple[float, ...], shift: tuple[float, ...]) -> Disturbed:
    """Rotate about the center of the field of view and shift, in the header."""
    matrix = np.eye(4)
    matrix[:3, :3] = Rotation.from_euler("xyz", degrees, degrees=True).as_matrix()
    middle = brain.grid.affine[:3] @ np.append((np.array(brain.grid.shape) - 1) / 2, 1)
    matrix[:3, 3] = middle + shift - matrix[:3, :3] @ middle
    there = Grid(brain.grid.shape, matrix @ brain.grid.affine)
    return Image(brain.data, there), np.linalg.inv(matrix)


def thick_slices(brain: Image, axis: int, thickness: float) -> Disturbed:
    """Average slices across an axis of the world, as in a 2D acquisition."""
    grid = brain.grid
    along = int(np.abs(grid.affine[axis, :3]).argmax())
    return _averaged(brain, {along: round(thickness / float(grid.spacing[along]))})


def large_voxels(brain: Image, size: float) -> Disturbed:
    """Average to larger voxels."""
    return _averaged(
        brain, {axis: round(size / float(brain.grid.spacing[axis])) for axis in range(3)}
    )


def _averaged(brain: Image, factors: dict[int, int]) -> Disturbed:
    """Average groups of this many voxels along axes."""
    data, affine = brain.data[0, 0].numpy(), brain.grid.affine.copy()
    for axis, factor in factors.items():
        starts = np.arange(0, data.shape[axis] - factor + 1, factor)
        data = sum(np.take(data, starts + offset, axis=axis) for offset in range(factor)) / factor
        affine[:3, 3] += affine[:3, axis] * (factor - 1) / 2
        affine[:3, axis] *= factor
    return _image(data, Grid(data.shape, affine)), np.eye(4)


def noisy(brain: Image, fraction: float) -> Disturbed:
    """Add Rician noise of this fraction of white matter's intensity."""
    data, inside = brain.data[0, 0].numpy(), brain.data[0, 0].numpy() > 0
    rng = np.random.default_rng(0)
    real, imaginary = fraction * _bright(data) * rng.normal(size=(2, *data.shape))
    return _image(np.where(inside, np.hypot(data + real, imaginary), 0), brain.grid), np.eye(4)


def contrast(brain: Image, gamma: float) -> Disturbed:
    """Raise intensities to a power."""
    data = brain.data[0, 0].numpy()
    return _image(_bright(data) * (data / _bright(data)).clip(0) ** gamma, brain.grid), np.eye(4)


def biased(brain: Image, largest: float) -> Disturbed:
    """Multiply by a field of waves of 300 mm, from 1 / (1 + largest) to 1 + largest."""
    waves = torch.sin(2 * np.pi * brain.grid.points() / 300).mean(dim=-1)
    return Image(brain.data * (1 + largest) ** (waves / waves.abs().max()), brain.grid), np.eye(4)


def _bright(data: np.ndarray) -> float:
    """Intensity of bright tissue."""
    return float(np.quantile(data[data > 0], 0.9))


def _image(data: np.ndarray, grid: Grid) -> Image:
    return Image(torch.from_numpy(data.astype("float32"))[None, None], grid)


DISTURBANCES: dict[str, Callable[[Image], Disturbed]] = {
    "rotated by 45° about x": partial(moved, degrees=(45, 0, 0), shift=(0, 0, 0)),
    "rotated by -45° about y": partial(moved, degrees=(0, -45, 0), shift=(0, 0, 0)),
    "rotated by 45° about z": partial(moved, degrees=(0, 0, 45), shift=(0, 0, 0)),
    "rotated by -30° about each axis": partial(moved, degrees=(-30, -30, -30), shift=(0, 0, 0)),
    "shifted by 50 mm along x": partial(moved, degrees=(0, 0, 0), shift=(50, 0, 0)),
    "shifted by -50 mm along each axis": partial(moved, degrees=(0, 0, 0), shift=(-50, -50, -50)),
    "sagittal slices of 5 mm": partial(thick_slices, axis=0, thickness=5),
    "coronal slices of 5 mm": partial(thick_slices, axis=1, thickness=5),
    "axial slices of 5 mm": partial(thick_slices, axis=2, thickness=5),
    "voxels of 3 mm": partial(large_voxels, size=3),
    "noise of 10 %": partial(noisy, fraction=0.1),
    "gamma of 0.5": partial(contrast, gamma=0.5),
    "gamma of 2": partial(contrast, gamma=2),
    "bias field of 1 / 1.5 to 1.5": partial(biased, largest=0.5),
}


def main() -> None:
    """Run the benchmark with the arguments of the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("brains", type=Path, nargs="+", metavar="BRAIN")
    parser.add_argument("--mode", default="refine")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--only", nargs="*", default=DISTURBANCES, metavar="DISTURBANCE")
    options = parser.parse_args()
    with TemporaryDirectory() as folder:
        template = prepare_template(resolve_template(SPACE), Path(folder))
        fixed, mask = image.read(template.t1w), image.read(template.mask)
    how = {"fixed_mask": mask, "mode": options.mode, "device": options.device}
    points = mask.grid.points()[mask.data[0, 0] > 0][::20]
    for path in options.brains:
        brain = image.read(path)
        ends = register(fixed, brain, **how).forward.map(points)
        print(f"{path.name:36} median    95 %    99 %   sd log J", flush=True)
        for name in options.only:
            disturbed, back = DISTURBANCES[name](brain)
            found = register(fixed, disturbed, **how)
            targets = Transform((*found.forward.steps, Affine(back))).map(points)
            distances = (targets - ends).norm(dim=1).numpy()
            median, most, nearly_all = np.percentile(distances, [50, 95, 99])
            print(
                f"{name:36} {median:6.2f} {most:7.2f} {nearly_all:7.2f} "
                f"{found.quality.sd_log_jacobian:10.3f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
