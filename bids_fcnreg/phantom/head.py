"""Simulated head around the template brain: skull, scalp, face and neck, with T1 contrast.

The anatomy is drawn once, in template space, as layers between brain and air. A participant's head
has intensities and thicknesses of its own. Intensities are relative: white matter is 1.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from bids_fcnreg.fcn.spatial.grid import Grid, Image

#: Bounding box of the head in template space, RAS+ mm: first and last voxel along x, y, z.
BOX = np.array([[-104, 104], [-140, 112], [-132, 112]])

#: Distance of the skin from the hull of the brain, mm.
SCALP_MM = 15.0

#: Layers from the hull outwards: outer distance (mm) and tissue (cerebrospinal fluid, inner table,
#: marrow, outer table).
SKULL = ((2.0, "csf"), (3.5, "bone"), (6.0, "marrow"), (8.0, "bone"))

#: Ellipsoids of face and neck, RAS+ mm: centre, radii; united with the scalp.
SOLIDS = (
    ((0, -30, -105), (66, 72, 85)),
    ((0, 40, -75), (62, 58, 75)),
    ((0, 88, -62), (14, 20, 22)),
)

#: Ellipsoids inside the face and the neck: centre, radii, tissue.
ORGANS = (
    ((33, 66, -36), (19, 22, 17), "fat"),
    ((-33, 66, -36), (19, 22, 17), "fat"),
    ((33, 70, -36), (12, 12, 12), "fluid"),
    ((-33, 70, -36), (12, 12, 12), "fluid"),
    ((0, 62, -62), (14, 32, 18), "air"),
    ((0, 20, -95), (9, 8, 40), "air"),
    ((30, 55, -66), (12, 14, 14), "air"),
    ((-30, 55, -66), (12, 14, 14), "air"),
)

#: Spinal column below the brain stem: outer radius in mm, tissue; drawn from outside inwards.
COLUMN_TOP = -66
COLUMN = ((19, "marrow"), (13, "bone"), (10, "csf"), (6, "cord"))

#: Ranges of a participant's relative tissue intensities.
CONTRAST = {
    "csf": (0.15, 0.30),
    "gm": (0.60, 0.75),
    "air": (0.0, 0.01),
    "bone": (0.03, 0.10),
    "marrow": (0.45, 0.75),
    "muscle": (0.35, 0.50),
    "fat": (0.95, 1.30),
    "skin": (0.45, 0.65),
    "fluid": (0.15, 0.25),
    "cord": (0.80, 0.90),
}


@dataclass(frozen=True)
class Head:
    """Anatomy that all participants share, on one grid of 1 mm in template space.

    Attributes
    ----------
    grid : Grid
        Grid of the head.
    brain : ndarray (i, j, k), float32
        Intensity of the template's brain, 0 elsewhere.
    mask : ndarray (i, j, k), float32
        Brain fraction of a voxel, 0 to 1.
    labels : ndarray (i, j, k), uint8
        Tissues of the brain: 1 CSF, 2 grey, 3 white matter.
    tissues : tuple of 3 float
        Intensity of CSF, grey and white matter in `brain`.
    organs : ndarray (i, j, k), uint8
        Index in `ORGANS`, from 1; 0 is none.
    gap : ndarray (i, j, k), float32
        Distance to the brain in mm.
    hull : ndarray (i, j, k), float32
        Distance to the closed hull of the brain in mm, negative inside.
    depth : ndarray (i, j, k), float32
        Depth below the skin in mm, negative in air.
    template_mask : Image
        Brain mask of the template on its own grid.
    """

    grid: Grid
    brain: np.ndarray
    mask: np.ndarray
    labels: np.ndarray
    tissues: tuple[float, float, float]
    organs: np.ndarray
    gap: np.ndarray
    hull: np.ndarray
    depth: np.ndarray
    template_mask: Image


def build_head(t1w: Image, mask: Image, dseg: Image) -> Head:
    """Draw the anatomy around the brain of a template.

    Parameters
    ----------
    t1w, mask, dseg : Image
        The template's T1-weighted image, brain mask, and tissues (1 CSF, 2 grey, 3 white
        matter), on one grid of 1 mm whose axes run right, anterior, superior.

    Returns
    -------
    Head
    """
    lower = np.rint(BOX[:, 0] - t1w.grid.affine[:3, 3]).astype(int)
    grid = t1w.grid.crop(lower, lower + BOX[:, 1] - BOX[:, 0] + 1)
    inside = _extend(mask, lower, grid.shape) > 0
    brain = np.where(inside, _extend(t1w, lower, grid.shape), 0).astype(np.float32)
    labels = np.where(inside, _extend(dseg, lower, grid.shape), 0).astype(np.uint8)
    csf, grey, white = (float(np.median(brain[labels == n])) for n in (1, 2, 3))
    organs = np.zeros(grid.shape, dtype=np.uint8)
    for number, (centre, radii, _) in enumerate(ORGANS, start=1):
        organs[_ellipsoid(grid.shape, 1, centre, radii) < 0] = number
    # Distances are smooth: half the resolution is enough, and eight times faster.
    coarse = inside[::2, ::2, ::2]
    gap = 2 * ndimage.distance_transform_edt(~coarse)
    closed = ndimage.distance_transform_edt(np.pad(gap < 26, 16, constant_values=True))
    closed = 2 * closed[16:-16, 16:-16, 16:-16] > 26
    hull = 2 * (ndimage.distance_transform_edt(~closed) - ndimage.distance_transform_edt(closed))
    hull = ndimage.gaussian_filter(hull, 1.5)
    surface = hull - SCALP_MM
    for centre, radii in SOLIDS:
        surface = np.minimum(surface, _ellipsoid(grid.shape, 2, centre, radii))
    depth = -ndimage.gaussian_filter(surface, 3)
    gap, hull, depth = (_refine(field, grid.shape) for field in (gap, hull, depth))
    return Head(
        grid,
        brain,
        ndimage.gaussian_filter(inside.astype(np.float32), 0.5),
        labels,
        (csf, grey, white),
        organs,
        gap,
        hull,
        depth,
        mask,
    )


def paint_head(head: Head, rng: np.random.Generator) -> np.ndarray:
    """Draw the T1-weighted intensities of a head.

    Parameters
    ----------
    head : Head
        Anatomy.
    rng : numpy.random.Generator
        Draws the tissues' intensities, the thickness of skull and scalp, and their texture.

    Returns
    -------
    ndarray (i, j, k), float32
        On the head's grid; white matter is 1.
    """
    shade = {name: rng.uniform(*limits) for name, limits in CONTRAST.items()}
    swell = 1 + 0.12 * smooth_noise(head.grid.shape, 20, rng)
    texture = 1 + 0.25 * smooth_noise(head.grid.shape, 5, rng)
    outside = _layers(head, head.hull / swell, head.depth * swell, shade) * texture
    outside = ndimage.gaussian_filter(outside, 0.7)
    knots = [0, *head.tissues, 255]
    curve = [0, shade["csf"], shade["gm"], 1, 255 / head.tissues[2]]
    brain = np.interp(head.brain.ravel(), knots, curve).reshape(head.brain.shape)
    return (head.mask * brain + (1 - head.mask) * outside).astype(np.float32)


def smooth_noise(shape: tuple[int, ...], sigma: float, rng: np.random.Generator) -> np.ndarray:
    """Draw Gaussian noise of correlation length `sigma` voxels, mean about 0, deviation 1.

    Drawn on a coarser lattice where it is smooth, since filtering at full resolution is slow.
    """
    step = max(1, int(sigma / 2.5))
    small = [n // step + 2 for n in shape]
    noise = ndimage.gaussian_filter(
        rng.standard_normal(small, dtype=np.float32), sigma / step, mode="wrap"
    )
    return _refine(noise / noise.std(), shape, step)


def _layers(
    head: Head, hull: np.ndarray, depth: np.ndarray, shade: dict[str, float]
) -> np.ndarray:
    """Draw the intensities outside the brain, by distances."""
    air, fat = shade["air"], shade["fat"]
    skin = np.select([depth < 0, depth < 2, depth < 6], [air, shade["skin"], fat], shade["muscle"])
    image = skin.astype(np.float32)
    there = (head.organs > 0) & (depth > 2)
    image[there] = np.array([0, *(shade[tissue] for *_, tissue in ORGANS)])[head.organs[there]]
    for distance, tissue in reversed(SKULL):
        image[hull < distance] = shade[tissue]
    # Inside the hull, away from the brain, is the base of the skull.
    image[(hull < 0) & (head.gap > 3)] = shade["marrow"]
    image[(hull < 0) & (head.gap > 3) & (head.gap < 5)] = shade["bone"]
    _draw_column(image, head, depth, shade)
    return image


def _draw_column(
    image: np.ndarray, head: Head, depth: np.ndarray, shade: dict[str, float]
) -> None:
    """Draw the spinal column below the brain stem of the template into `image`."""
    n = int(COLUMN_TOP - BOX[2, 0])
    x, y = np.argwhere(head.mask[:, :, n - 2] > 0.5).mean(axis=0)
    radius = np.hypot(np.arange(image.shape[0])[:, None] - x, np.arange(image.shape[1]) - y)
    below, deep = image[:, :, :n], depth[:, :, :n] > 6
    for outer, tissue in COLUMN:
        below[(radius < outer)[:, :, None] & deep] = shade[tissue]


def _ellipsoid(
    shape: tuple[int, ...], step: int, centre: tuple[float, ...], radii: tuple[float, ...]
) -> np.ndarray:
    """Compute the approximate distance to an ellipsoid's surface in mm, negative inside.

    Sampled in the box every `step` mm; exact for a sphere.
    """
    axes = [
        ((low + np.arange(0, n, step, dtype=np.float32)) - c) / r
        for (low, _), n, c, r in zip(BOX, shape, centre, radii, strict=True)
    ]
    x, y, z = np.meshgrid(*axes, indexing="ij", sparse=True)
    return (np.sqrt(x**2 + y**2 + z**2) - 1) * min(radii)


def _extend(image: Image, lower: np.ndarray, shape: tuple[int, int, int]) -> np.ndarray:
    """Crop or pad an image to `shape` from voxel `lower`, with zeros outside."""
    data = image.data[0, 0].numpy()
    result = np.zeros(shape, dtype=data.dtype)
    first, last = np.maximum(lower, 0), np.minimum(lower + shape, data.shape)
    target = tuple(slice(a, b) for a, b in zip(first - lower, last - lower, strict=True))
    result[target] = data[tuple(slice(a, b) for a, b in zip(first, last, strict=True))]
    return result


def _refine(field: np.ndarray, shape: tuple[int, ...], step: int = 2) -> np.ndarray:
    """Interpolate linearly a field sampled at every `step`-th voxel of a grid of `shape`."""
    for axis, n in enumerate(shape):
        position = np.arange(n) / step
        low = np.minimum(position.astype(int), field.shape[axis] - 1)
        high = np.minimum(low + 1, field.shape[axis] - 1)
        weight = (
            (position - low).astype(np.float32).reshape([-1 if d == axis else 1 for d in range(3)])
        )
        field = field.take(low, axis) * (1 - weight) + field.take(high, axis) * weight
    return field.astype(np.float32)
