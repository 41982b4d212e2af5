"""Transforms between images of all orientations, oblique and with anisotropic voxels."""

from __future__ import annotations

import nibabel as nib
import numpy as np
import torch
from nibabel.affines import apply_affine
from nibabel.orientations import axcodes2ornt, ornt_transform

from bids_fcnreg.fcn.spatial.grid import Grid
from bids_fcnreg.fcn.spatial.transform import Affine, Displacement, Transform
from bids_fcnreg.io.formats.image_grids import ImageGrids

#: Largest distance (mm) between points.
TOLERANCE = 0.01

#: Orientation, voxel sizes, angles (rad) and position of the centre of an image.
IMAGES = {
    "plumb LAS": ("LAS", (2.0, 2.5, 3.0), (0, 0, 0), (3, -5, 7)),
    "plumb RAS": ("RAS", (1.5, 2.0, 2.2), (0, 0, 0), (-6, 4, 2)),
    "oblique PIR": ("PIR", (2.0, 2.5, 3.0), (0.2, -0.1, 0.15), (3, -5, 7)),
    "oblique RAS": ("RAS", (1.5, 2.0, 2.2), (-0.1, 0.12, 0.1), (-6, 4, 2)),
    "oblique LAS": ("LAS", (2.2, 1.7, 2.4), (0.05, 0.15, -0.2), (2, 8, -3)),
    "oblique ASL": ("ASL", (1.9, 2.6, 2.1), (0.1, 0.1, 0.1), (1, 2, 3)),
}
PAIRS = [
    ("plumb LAS", "plumb LAS"),
    ("plumb LAS", "plumb RAS"),
    ("oblique PIR", "oblique RAS"),
    ("oblique RAS", "oblique LAS"),
    ("oblique LAS", "oblique ASL"),
]
EXTENT = 84.0  # mm


def image(name: str) -> nib.Nifti1Image:
    orientation, spacing, angles, centre = IMAGES[name]
    shape = [round(EXTENT / one) for one in spacing]
    affine = np.diag([*spacing, 1.0])
    affine[:3, 3] = -np.array(spacing) * (np.array(shape) - 1) / 2
    made = nib.Nifti1Image(np.zeros(shape, "u1"), affine)
    made = made.as_reoriented(ornt_transform(axcodes2ornt("RAS"), axcodes2ornt(orientation)))
    turn = np.eye(4)
    turn[:3, :3], turn[:3, 3] = nib.eulerangles.euler2mat(*angles), centre
    return nib.Nifti1Image(np.asarray(made.dataobj), turn @ made.affine)


def grid(name: str) -> Grid:
    one = image(name)
    return Grid(one.shape, one.affine)


def truth() -> np.ndarray:
    """An affine from the fixed to the moving space, RAS+ mm."""
    matrix = np.eye(4)
    matrix[:3, :3] = nib.eulerangles.euler2mat(0.1, 0.05, -0.08) @ np.diag([1.05, 0.95, 1.02])
    matrix[:3, 3] = (4, -3, 6)
    return matrix


def curved(fixed: Grid) -> Transform:
    """A nonlinear transform: a field on the fixed grid, then the affine."""
    points = fixed.points().numpy()
    square = ((points - fixed.centre) ** 2).sum(-1)
    z = points[..., 2]
    mm = np.stack(
        [
            5 * np.exp(-square / 800),
            -4 * np.exp(-square / 900) * np.cos(z / 25),
            3 * np.exp(-square / 700),
        ],
        -1,
    )
    field = mm @ np.linalg.inv(fixed.affine[:3, :3]).T
    field = torch.from_numpy(np.moveaxis(field, -1, 0)[None].astype("f4"))
    return Transform((Displacement(fixed, field), Affine(truth())))


def voxels(fixed: Grid) -> np.ndarray:
    """Positions of some voxels (n, 3), RAS+ mm."""
    rng = np.random.default_rng(0)
    index = [rng.integers(0, n, 300) for n in fixed.shape]
    return apply_affine(fixed.affine, np.stack(index, -1))


def between(fixed: Grid) -> np.ndarray:
    """Points within the grid (n, 3), RAS+ mm."""
    rng = np.random.default_rng(1)
    return apply_affine(fixed.affine, rng.uniform(0, np.array(fixed.shape) - 1, (300, 3)))


def mapped(transform: Transform, points: np.ndarray) -> np.ndarray:
    return transform.map(torch.from_numpy(points)).numpy()


def assert_same_points(found: np.ndarray, expected: np.ndarray) -> None:
    assert np.linalg.norm(found - expected, axis=1).max() <= TOLERANCE


def setting(pair: tuple[str, str], nonlinear: bool) -> tuple[Transform, ImageGrids]:
    fixed, moving = (grid(name) for name in pair)
    transform = curved(fixed) if nonlinear else Transform((Affine(truth()),))
    return transform, ImageGrids(fixed, moving)


def their_field(pair: tuple[str, str]) -> nib.Nifti1Image:
    """Displacements (RAS+ mm) on the fixed grid, as nitransforms has them in memory."""
    fixed = grid(pair[0])
    points = fixed.points().numpy()
    moved = mapped(curved(fixed), points.reshape(-1, 3)).reshape(points.shape)
    return nib.Nifti1Image((moved - points).astype("f4"), fixed.affine)
