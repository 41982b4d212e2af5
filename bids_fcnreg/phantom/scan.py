"""Simulated participants: random deformation of a head, and image acquisition."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from nibabel.orientations import axcodes2ornt
from scipy import ndimage
from scipy.spatial.transform import Rotation

from bids_fcnreg.fcn.spatial import displacement
from bids_fcnreg.fcn.spatial.grid import Grid, Image, apply_affine
from bids_fcnreg.fcn.spatial.transform import Affine, Displacement, Transform
from bids_fcnreg.phantom.head import Head, paint_head
from bids_fcnreg.qc.asymmetry import asymmetry

#: Scan parameters of successive participants: axis codes, voxel size in mm, obliqueness in
#: degrees.
SCANS = (
    ("LAS", (1.0, 1.0, 1.0), 0.0),
    ("PIR", (0.9, 0.9, 1.2), 8.0),
    ("RSA", (1.2, 1.2, 1.2), 0.0),
    ("RAS", (0.9, 0.9, 1.0), 15.0),
    ("ASL", (1.0, 1.0, 1.5), 5.0),
    ("LPI", (1.1, 1.1, 1.1), 10.0),
)

#: Largest rotation (degrees), shift (mm), zoom (share) and shear of a participant's affine.
ROTATION, SHIFT, ZOOM, SHEAR = 15.0, 20.0, 0.10, 0.03

#: Range of the standard deviation (mm) of the Gaussian that makes a velocity smooth.
SMOOTHNESS = (12.0, 18.0)

#: Changes between the first and the last session of a participant: centre in the template (RAS+
#: mm), width (mm), and relative volume change in the centre. The lateral ventricles grow, the left
#: hippocampus shrinks.
CHANGES = (((0.0, -10.0, 18.0), 12.0, 0.20), ((-26.0, -20.0, -15.0), 10.0, -0.12))

#: Largest rotation (degrees) and shift (mm) between sessions.
MOVE_ROTATION, MOVE_SHIFT = 6.0, 6.0

#: Ranges of the largest bias inside the field of view and of the noise, as shares of the signal
#: of white matter.
BIAS, NOISE = (0.2, 0.3), (0.015, 0.03)


@dataclass(frozen=True)
class Participant:
    """A simulated scan and its truth.

    Attributes
    ----------
    t1w : Image
        Acquired image, on the native grid.
    dseg, mask : Image
        Tissues and brain mask on the native grid.
    forward : Transform
        Maps points of the template to points of the scan (``from-T1w_to-<template>``).
    inverse : Transform
        Maps points of the scan to points of the template.
    """

    t1w: Image
    dseg: Image
    mask: Image
    forward: Transform
    inverse: Transform


def simulate_sessions(
    head: Head,
    scan: tuple[str, tuple[float, float, float], float],
    max_displacement: float,
    rng: np.random.Generator,
    sessions: int,
) -> Iterator[Participant]:
    """Simulate one or several sessions of one participant, with small changes.

    Parameters
    ----------
    head : Head
        Anatomy in template space.
    scan : tuple
        Orientation of the axes, voxel size in mm, obliqueness in degrees; as in `SCANS`.
    max_displacement : float
        See `make_dataset`.
    rng : numpy.random.Generator
        Source of randomness.
    sessions : int
        Number of sessions; the first does not depend on it.

    Yields
    ------
    Participant
        One per session.
    """
    deformation, inverse_deformation = random_diffeomorphism(
        head, rng.uniform(0.6, 1) * max_displacement, rng
    )
    matrix = random_affine(rng)
    grid = _field_of_view(head, matrix, scan, rng)
    shares = [head.labels == index for index in (1, 2, 3)]
    drawn = Image(torch.from_numpy(np.stack([paint_head(head, rng), *shares]))[None], head.grid)
    forward = Transform((deformation, Affine(matrix)))
    inverse = Transform((Affine(np.linalg.inv(matrix)), inverse_deformation))
    yield _scan(drawn, forward, inverse, grid, rng)
    for number in range(1, sessions):
        growth, inverse_growth = anatomical_change(head.grid, number / (sessions - 1))
        moved = random_move(matrix, rng) @ matrix
        forward = Transform((growth, deformation, Affine(moved)))
        inverse = Transform((Affine(np.linalg.inv(moved)), inverse_deformation, inverse_growth))
        yield _scan(drawn, forward, inverse, grid, rng)


def _scan(
    drawn: Image, forward: Transform, inverse: Transform, grid: Grid, rng: np.random.Generator
) -> Participant:
    """Acquire an image of a head (channels: intensities, tissue fractions)."""
    seen = inverse.resample(drawn, grid).data[0].numpy()
    # The tissue with the largest share of a voxel, where the brain has most of it.
    brain = seen[1:].sum(axis=0) > 0.5
    dseg = np.where(brain, seen[1:].argmax(axis=0) + 1, 0)
    t1w, tissues, mask = (
        Image(torch.from_numpy(data.astype(np.float32))[None, None], grid)
        for data in (_acquire(seen[0], rng), dseg, brain)
    )
    return Participant(t1w, tissues, mask, forward, inverse)


def anatomical_change(grid: Grid, amount: float) -> tuple[Displacement, Displacement]:
    """Compute the change of a participant between sessions, in template space, and its inverse.

    Parameters
    ----------
    grid : Grid
        Of the template.
    amount : float
        Fraction of the change (`CHANGES`), from 0 to 1.

    Returns
    -------
    tuple of Displacement
        Maps points of the template to points of the template at the first session.
    """
    coarse = grid.with_spacing(2.0)
    points = coarse.points().float()
    velocity = torch.zeros_like(points)
    for centre, width, growth in CHANGES:
        away = points - torch.tensor(centre)
        near = torch.exp(-away.square().sum(dim=-1, keepdim=True) / (2 * width**2))
        # Its divergence in the middle, three times the slope, is the logarithm of the growth.
        velocity += amount * np.log1p(growth) / 3 * away * near
    to_voxels = torch.from_numpy(np.linalg.inv(coarse.affine[:3, :3])).float()
    flow = torch.einsum("cw,ijkw->cijk", to_voxels, velocity)[None]
    deformation, inverse_deformation = (
        Displacement(coarse, displacement.exponentiate(part)) for part in (flow, -flow)
    )
    return deformation, inverse_deformation


def random_move(matrix: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Draw the change of head position between sessions: native to native RAS+ mm, (4, 4).

    Parameters
    ----------
    matrix : ndarray (4, 4)
        Template to native; the head rotates about the template's origin.
    rng : numpy.random.Generator
        Source of randomness.
    """
    axis, shift = rng.standard_normal(3), rng.uniform(-MOVE_SHIFT, MOVE_SHIFT, 3)
    angle = np.deg2rad(rng.uniform(-MOVE_ROTATION, MOVE_ROTATION))
    move = np.eye(4)
    move[:3, :3] = Rotation.from_rotvec(axis / np.linalg.norm(axis) * angle).as_matrix()
    centre = matrix[:3, 3]
    move[:3, 3] = centre - move[:3, :3] @ centre + shift
    return move


def random_diffeomorphism(
    head: Head, largest: float, rng: np.random.Generator
) -> tuple[Displacement, Displacement]:
    """Integrate a random smooth stationary velocity in template space; also its inverse.

    Of the deformation and its mirror image, equally likely, the one with the typical asymmetry of
    brains is taken: in the symmetric template, the other one would be a flipped brain.

    Parameters
    ----------
    head : Head
        Gives the grid, and the brain in which the largest velocity is `largest`.
    largest : float
        In mm; upper bound of the displacement, nearly reached.
    rng : numpy.random.Generator
        Source of randomness.

    Returns
    -------
    tuple of Displacement
        On a grid of 2 mm; zero at its border.
    """
    grid = head.grid.with_spacing(2.0)
    sigma = rng.uniform(*SMOOTHNESS) / 2
    noise = rng.standard_normal((3, *grid.shape), dtype=np.float32)
    velocity = np.stack([ndimage.gaussian_filter(axis, sigma) for axis in noise])
    for axis, n in enumerate(grid.shape):
        index = np.arange(n)
        rise = np.clip(np.minimum(index, n - 1 - index) / 10, 0, 1)
        smooth = rise**2 * (3 - 2 * rise)
        velocity *= smooth.reshape([-1 if d == axis else 1 for d in range(3)])
    within = head.mask[::2, ::2, ::2] > 0
    velocity *= largest / 2 / np.linalg.norm(velocity, axis=0)[within].max()
    flow = torch.from_numpy(velocity.astype(np.float32))[None]
    there = displacement.exponentiate(flow)
    back = displacement.exponentiate(-flow)
    # The inverse up to the error of interpolation (0.1 mm), which this removes.
    for _ in range(3):
        back = back - displacement.compose(back, there)
    found = Displacement(grid, there), Displacement(grid, back)
    template = head.template_mask
    log_jacobian = Transform(found[:1]).log_jacobian(template.grid)[0, 0].numpy()
    if asymmetry(log_jacobian, template.data[0, 0].numpy()) < 0:
        return Displacement(grid, _mirror(there)), Displacement(grid, _mirror(back))
    return found


def _mirror(field: torch.Tensor) -> torch.Tensor:
    """Mirror a displacement field (1, 3, i, j, k) along its first axis."""
    return field.flip(2) * torch.tensor([-1.0, 1.0, 1.0]).reshape(1, 3, 1, 1, 1)


def random_affine(rng: np.random.Generator) -> np.ndarray:
    """Draw position, size and shear of a head: template to native RAS+ mm, (4, 4)."""
    axis = rng.standard_normal(3)
    angle = np.deg2rad(rng.uniform(ROTATION / 3, ROTATION))
    turn = Rotation.from_rotvec(axis / np.linalg.norm(axis) * angle).as_matrix()
    stretch = np.diag(rng.uniform(1 - ZOOM, 1 + ZOOM, 3))
    stretch[np.triu_indices(3, 1)] = rng.uniform(-SHEAR, SHEAR, 3)
    matrix = np.eye(4)
    matrix[:3, :3] = turn @ stretch
    shift = rng.standard_normal(3)
    matrix[:3, 3] = shift / np.linalg.norm(shift) * rng.uniform(SHIFT / 4, SHIFT)
    return matrix


def _field_of_view(
    head: Head,
    matrix: np.ndarray,
    scan: tuple[str, tuple[float, float, float], float],
    rng: np.random.Generator,
) -> Grid:
    """Draw a native grid that covers the head to the upper neck, slightly off-centre."""
    codes, spacing, angle = scan
    tilt = rng.standard_normal(3)
    tilt = Rotation.from_rotvec(tilt / np.linalg.norm(tilt) * np.deg2rad(angle)).as_matrix()
    axes = np.zeros((3, 3))
    for column, (axis, sign) in enumerate(axcodes2ornt(tuple(codes))):
        axes[int(axis), column] = sign
    axes = tilt @ axes
    voxels = np.argwhere(head.depth[::8, ::8, ::8] > 0) * 8
    world = apply_affine(head.grid.affine, voxels)
    along = apply_affine(matrix, world[world[:, 2] > -85]) @ axes
    lower, upper = along.min(axis=0), along.max(axis=0)
    lower -= rng.uniform(8, 16, 3)
    upper += rng.uniform(8, 16, 3)
    affine = np.eye(4)
    affine[:3, :3] = axes * spacing
    affine[:3, 3] = axes @ lower
    return Grid(tuple(np.ceil((upper - lower) / spacing).astype(int)), affine)


def _acquire(seen: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Add bias field and Rician noise to relative intensities, on a scanner's scale.

    Parameters
    ----------
    seen : ndarray (i, j, k)
        White matter is 1.
    rng : numpy.random.Generator
        Source of randomness.

    Returns
    -------
    ndarray (i, j, k), float32
        Integers, white matter at 400 to 900.

    References
    ----------
    Gudbjartsson & Patz, The Rician distribution of noisy MRI data, MRM 34(6), 1995.
    """
    bias = _low_frequencies(seen.shape, rng)
    bias = np.exp(bias * np.float32(rng.uniform(*BIAS) / np.abs(bias[seen > 0.1]).max()))
    noise = np.float32(rng.uniform(*NOISE))
    real = seen * bias + noise * rng.standard_normal(seen.shape, dtype=np.float32)
    imaginary = noise * rng.standard_normal(seen.shape, dtype=np.float32)
    return np.rint(np.hypot(real, imaginary) * np.float32(rng.uniform(400, 900)))


def _low_frequencies(shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    """Draw a polynomial of order 3 over a grid, without constant term, float32."""
    order = np.indices((4, 4, 4)).sum(axis=0)
    weights = np.where((order > 0) & (order < 4), rng.standard_normal(order.shape), 0)
    bases = [np.polynomial.chebyshev.chebvander(np.linspace(-1, 1, n), 3) for n in shape]
    field = np.einsum("ai,bj,ck,ijk->abc", *bases, weights / (1 + order), optimize=True)
    return field.astype(np.float32)
