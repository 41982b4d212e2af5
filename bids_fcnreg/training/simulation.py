"""Images of random contrast and quality, simulated from label maps.

One label map gives any number of training images: its anatomy is moved, deformed and flipped, each
label gets an intensity, and the image is degraded as scanners and preprocessing degrade images
(partial volume, thick slices, bias field, noise, lesions, cut field of view, removed skull, ...).

References
----------
Billot et al., SynthSeg: Segmentation of brain MRI scans of any contrast and resolution without
retraining, Medical Image Analysis 86:102789, 2023.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
from numba import njit
from scipy import ndimage
from scipy.spatial.transform import Rotation

from bids_fcnreg.fcn.nets.anatomy import SPACING
from bids_fcnreg.fcn.structures import STRUCTURES
from bids_fcnreg.io.spatial_image import open_image

#: Labels of the maps that are part of a structure under another label.
MERGED = {
    5: 4, 44: 43,  # inferior lateral ventricles
    25: 2, 57: 41,  # white matter lesions
    30: 2, 62: 41,  # vessels
    136: 4, 137: 4, 163: 43, 164: 43,  # choroid plexus
    72: 4,  # fifth ventricle
    85: 24,  # optic chiasm
}  # fmt: skip

#: Left and right label of each paired structure, those of `MERGED` included.
PAIRS = (
    (2, 41), (3, 42), (4, 43), (5, 44), (7, 46), (8, 47), (10, 49), (11, 50), (12, 51),
    (13, 52), (17, 53), (18, 54), (26, 58), (28, 60), (25, 57), (30, 62), (136, 163), (137, 164),
)  # fmt: skip

#: Labels from this value up are outside of the brain (skull, scalp, eyes, ...).
FIRST_EXTRACEREBRAL = 500

#: Intensities of tissues as T1w, T2w, FLAIR and PDw images have them, the white matter's or
#: brightest tissue's being about 1. Keys are left labels; others follow in `_contrast_like`.
CONTRASTS = {
    "T1w": {2: 1.0, 3: 0.68, 24: 0.25, 10: 0.82, 11: 0.7, 12: 0.76, 13: 0.9, 16: 0.9, 28: 0.87},
    "T2w": {2: 0.4, 3: 0.55, 24: 1.0, 10: 0.47, 11: 0.52, 12: 0.47, 13: 0.33, 16: 0.42, 28: 0.4},
    "FLAIR": {2: 0.62, 3: 0.8, 24: 0.15, 10: 0.7, 11: 0.78, 12: 0.74, 13: 0.6, 16: 0.65, 28: 0.63},
    "PDw": {2: 0.7, 3: 0.87, 24: 0.9, 10: 0.8, 11: 0.85, 12: 0.82, 13: 0.7, 16: 0.73, 28: 0.72},
}

#: Fraction of images whose contrast is like one of `CONTRASTS`; others have any intensities.
REAL = 0.8

#: Structure whose intensity in `CONTRASTS` a label without an entry takes.
_LIKE = {
    4: 24, 5: 24, 14: 24, 15: 24, 72: 24, 85: 2, 136: 24, 137: 24,
    7: 2, 25: 2, 30: 2, 8: 3, 17: 3, 18: 3, 26: 11,
}  # fmt: skip

#: Sizes of simulated images in voxels; all are divisible by the network's `multiple`.
SHAPES = ((96, 96, 96), (80, 112, 96), (96, 112, 80), (80, 96, 80), (112, 80, 96), (80, 96, 112))

#: Voxel size in mm of the grid that carries random deformations.
_COARSE = 8.0


@dataclass(frozen=True, eq=False)
class LabelMap:
    """Anatomy of one head.

    Attributes
    ----------
    indices : ndarray (i, j, k), uint8
        Position in `labels` of each voxel's label, RAS+ orientation, 1 mm voxels.
    labels : ndarray (n,), int64
        Label values, ascending.
    centre : ndarray (3,)
        Centre of the brain in voxels.
    """

    indices: np.ndarray
    labels: np.ndarray
    centre: np.ndarray

    @classmethod
    def read(cls, path: Path) -> LabelMap:
        """Read a label map of 1 mm voxels and bring it to RAS+ orientation."""
        image = nib.as_closest_canonical(open_image(path))
        values = np.asarray(image.dataobj).astype(np.int32)
        labels = np.flatnonzero(np.bincount(values.ravel()))
        position = np.zeros(labels.max() + 1, dtype=np.uint8)
        position[labels] = np.arange(len(labels))
        indices = position[values]
        brain = ((labels > 0) & (labels < FIRST_EXTRACEREBRAL))[indices]
        centre = np.array(
            [
                np.average(np.arange(size), weights=brain.sum(axis=tuple({0, 1, 2} - {axis})))
                for axis, size in enumerate(brain.shape)
            ]
        )
        return cls(np.ascontiguousarray(indices), labels, centre)

    def channels(self, flipped: bool) -> np.ndarray:
        """Return the network channel of each of `labels`, left and right exchanged if flipped."""
        order = list(STRUCTURES)
        opposite = dict(PAIRS) | {right: left for left, right in PAIRS}
        found = []
        for label in self.labels.tolist():
            label = opposite.get(label, label) if flipped else label
            label = MERGED.get(label, label)
            found.append(order.index(label) if label in order else 0)
        return np.array(found, dtype=np.uint8)


def simulate(anatomy: LabelMap, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Simulate an image of random contrast, pose, shape and quality.

    Parameters
    ----------
    anatomy : LabelMap
        Anatomy to simulate.
    rng : Generator
        Random generator: equal states give equal images.

    Returns
    -------
    image : ndarray (i, j, k), float32
        RAS+ orientation, 2 mm voxels; any scale and offset.
    channels : ndarray (i, j, k), uint8
        Channel in `STRUCTURES` of each voxel.
    """
    shape = SHAPES[rng.integers(len(SHAPES))]
    flipped = bool(rng.integers(2))
    matrix = _random_affine(anatomy.centre, shape, flipped, rng)
    displacement = _random_displacement(shape, rng)
    means, spreads = _random_contrast(anatomy.labels, rng)
    image, indices = _render(
        anatomy.indices,
        matrix.astype(np.float32),
        displacement,
        means,
        spreads,
        shape,
        int(rng.integers(2**31)),
    )
    labels = anatomy.labels[indices]
    channels = anatomy.channels(flipped)[indices]
    if rng.random() < 0.25:
        image = _with_lesion(image, labels, means, rng)
    image = image * _random_bias(shape, rng)
    image = np.sign(image) * np.abs(image) ** np.float32(np.exp(rng.normal(0, 0.25)))
    image = _acquire(image, rng)
    return _preprocess(image, labels, channels, rng)


def _random_affine(
    centre: np.ndarray, shape: Sequence[int], flipped: bool, rng: np.random.Generator
) -> np.ndarray:
    """Return the matrix (4, 4) from voxels of the image to voxels of the label map."""
    angles = rng.uniform(-45, 45, 3) if rng.random() < 0.1 else rng.normal(0, 10, 3)
    rotation = Rotation.from_euler("xyz", angles, degrees=True).as_matrix()
    size = rng.uniform(0.65, 1.0) if rng.random() < 0.15 else rng.uniform(0.88, 1.15)
    stretch = np.eye(3) + np.triu(rng.normal(0, 0.03, (3, 3)), 1)
    stretch = stretch @ np.diag(np.exp(rng.normal(0, 0.05, 3)))
    linear = np.diag([-1.0 if flipped else 1.0, 1, 1]) @ rotation @ stretch * (SPACING / size)
    middle = (np.array(shape) - 1) / 2 + rng.normal(0, 5, 3)
    matrix = np.eye(4)
    matrix[:3, :3] = linear
    matrix[:3, 3] = centre - linear @ middle
    return matrix


def _random_displacement(shape: Sequence[int], rng: np.random.Generator) -> np.ndarray:
    """Sample a diffeomorphic displacement (3, i, j, k), in image voxels, every `_COARSE` mm."""
    factor = _COARSE / SPACING
    coarse = [int(np.ceil(size / factor)) + 1 for size in shape]
    velocity = np.zeros((3, *coarse), dtype=np.float32)
    for sigma, strength in ((3.5, 2.0), (1.6, 1.0)):  # of 28 and 13 mm; in image voxels
        noise = rng.standard_normal((3, *coarse)).astype(np.float32)
        smooth = ndimage.gaussian_filter(noise, (0, sigma, sigma, sigma))
        velocity += smooth / smooth.std() * rng.uniform(0, strength)
    displacement = velocity / factor / 2**4
    points = np.indices(coarse).astype(np.float32)
    for _ in range(4):  # scaling and squaring
        displacement += np.stack(
            [
                ndimage.map_coordinates(part, points + displacement, order=1, mode="nearest")
                for part in displacement
            ]
        )
    return displacement * np.float32(factor)


def _random_contrast(
    labels: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Sample mean and spread of each label, both (n,) float32; left and right have the same."""
    if rng.random() < REAL:
        name = list(CONTRASTS)[rng.choice(len(CONTRASTS), p=[0.4, 0.25, 0.25, 0.1])]
        means = _contrast_like(CONTRASTS[name], labels, rng)
        spreads = rng.uniform(0.01, 0.08) * rng.uniform(0.5, 1.5, len(labels))
    else:
        means = rng.uniform(0, 1, len(labels))
        spreads = rng.uniform(0, 0.12, len(labels))
    if rng.random() < 0.8:  # dark air
        means[labels == 0], spreads[labels == 0] = rng.uniform(0, 0.05), rng.uniform(0, 0.03)
    position = {label: n for n, label in enumerate(labels.tolist())}
    for left, right in PAIRS:
        if left in position and right in position:
            means[position[right]] = means[position[left]]
            spreads[position[right]] = spreads[position[left]]
    for part, whole in ((5, 4), (30, 2), (136, 4), (137, 4), (163, 4), (164, 4), (44, 4)):
        if part in position and rng.random() < 0.7:
            means[position[part]] = means[position[whole]]
    return means.astype(np.float32), spreads.astype(np.float32)


def _contrast_like(
    intensities: dict[int, float], labels: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """Sample mean intensities (n,) in the order of a real contrast."""
    left = {right: left for left, right in PAIRS}
    means = rng.uniform(0, 1.1, len(labels))
    for n, label in enumerate(labels.tolist()):
        label = left.get(label, label)
        label = label if label in intensities else _LIKE.get(label)
        if label is not None:
            means[n] = intensities[label] + rng.normal(0, 0.05)
    return means


@njit(cache=True, nogil=True, fastmath={"contract", "reassoc", "nsz", "arcp"})
def _render(
    labels: np.ndarray,
    matrix: np.ndarray,
    displacement: np.ndarray,
    means: np.ndarray,
    spreads: np.ndarray,
    shape: tuple[int, int, int],
    seed: int,
) -> tuple[np.ndarray, np.ndarray]:
    """Return intensities and nearest label indices (i, j, k) at the deformed image voxels.

    An intensity is the trilinear average of those of the eight labels around: partial volume.
    """
    np.random.seed(seed)
    image = np.empty(shape, dtype=np.float32)
    indices = np.empty(shape, dtype=np.uint8)
    m_i, m_j, m_k = labels.shape
    background = labels[0, 0, 0]
    inverse = np.float32(SPACING / _COARSE)
    moved = np.empty(3, dtype=np.float32)
    for i in range(shape[0]):
        for j in range(shape[1]):
            for k in range(shape[2]):
                x, y, z = i * inverse, j * inverse, k * inverse
                a, b, c = int(x), int(y), int(z)
                fx, fy, fz = x - a, y - b, z - c
                for axis in range(3):
                    part = displacement[axis]
                    low = (part[a, b, c] * (1 - fz) + part[a, b, c + 1] * fz) * (1 - fy) + (
                        part[a, b + 1, c] * (1 - fz) + part[a, b + 1, c + 1] * fz
                    ) * fy
                    high = (part[a + 1, b, c] * (1 - fz) + part[a + 1, b, c + 1] * fz) * (
                        1 - fy
                    ) + (part[a + 1, b + 1, c] * (1 - fz) + part[a + 1, b + 1, c + 1] * fz) * fy
                    moved[axis] = low * (1 - fx) + high * fx
                u, v, w = i + moved[0], j + moved[1], k + moved[2]
                x = matrix[0, 0] * u + matrix[0, 1] * v + matrix[0, 2] * w + matrix[0, 3]
                y = matrix[1, 0] * u + matrix[1, 1] * v + matrix[1, 2] * w + matrix[1, 3]
                z = matrix[2, 0] * u + matrix[2, 1] * v + matrix[2, 2] * w + matrix[2, 3]
                if not (0 <= x < m_i - 1 and 0 <= y < m_j - 1 and 0 <= z < m_k - 1):
                    index = background
                    value = means[background]
                else:
                    a, b, c = int(x), int(y), int(z)
                    fx, fy, fz = x - a, y - b, z - c
                    value = np.float32(0)
                    for da in range(2):
                        wa = fx if da else 1 - fx
                        for db in range(2):
                            wb = wa * (fy if db else 1 - fy)
                            for dc in range(2):
                                weight = wb * (fz if dc else 1 - fz)
                                value += weight * means[labels[a + da, b + db, c + dc]]
                    index = labels[int(x + 0.5), int(y + 0.5), int(z + 0.5)]
                indices[i, j, k] = index
                image[i, j, k] = value + spreads[index] * np.random.standard_normal()
    return image, indices


def _smooth_noise(shape: Sequence[int], size: float, rng: np.random.Generator) -> np.ndarray:
    """Sample a field (i, j, k) of standard deviation 1 whose features are of `size` voxels."""
    knots = [max(2, int(np.ceil(length / size)) + 1) for length in shape]
    field = rng.standard_normal(knots).astype(np.float32)
    return _resample(field, [_linear(length, n) for length, n in zip(shape, knots, strict=True)])


def _linear(length: int, knots: int) -> np.ndarray:
    """Return the matrix (length, knots) of linear interpolation between equidistant knots."""
    place = np.linspace(0, knots - 1, length)
    return np.maximum(0, 1 - np.abs(place[:, None] - np.arange(knots))).astype(np.float32)


def _resample(volume: np.ndarray, matrices: Sequence[np.ndarray]) -> np.ndarray:
    """Apply a matrix along each axis of a volume."""
    along_i, along_j, along_k = matrices
    volume = np.matmul(volume, along_k.T)
    volume = np.matmul(along_j, volume)
    return np.tensordot(along_i, volume, axes=1)


def _random_bias(shape: Sequence[int], rng: np.random.Generator) -> np.ndarray:
    """Sample a multiplicative bias field (i, j, k)."""
    size = rng.uniform(20, 60)
    return np.exp(rng.uniform(0, 0.35) * _smooth_noise(shape, size, rng))


def _with_lesion(
    image: np.ndarray, labels: np.ndarray, means: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """Add cavities or lesions to the brain: blobs of another intensity."""
    brain = (labels > 0) & (labels < FIRST_EXTRACEREBRAL) & (labels != 24)
    size = rng.uniform(4, 22)
    field = _smooth_noise(image.shape, size, rng)
    threshold = rng.uniform(1.3, 2.5)
    where = brain & (field > threshold)
    image = image.copy()
    image[where] = rng.uniform(0, 1.3) + rng.uniform(0, 0.15) * rng.standard_normal(where.sum())
    return image


def _acquire(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Acquire an image as a scanner does: blurred, in slices of some thickness, noisy."""
    voxels = np.ones(3)  # size of acquired voxels, in those of the image
    drawn = rng.random()
    if drawn < 0.35:
        voxels[rng.integers(3)] = rng.uniform(1.0, 3.5)
    elif drawn < 0.45:
        voxels[:] = rng.uniform(1.0, 2.0)
    down, up = [], []
    for length, voxel in zip(image.shape, voxels, strict=True):
        blur = rng.uniform(0, 0.5) if voxel == 1 else voxel * rng.uniform(0.3, 0.45)
        acquired = max(8, round(length / voxel))
        down.append(_slice_profiles(length, acquired, blur))
        up.append(_linear(length, acquired))
    acquired = _resample(image, down)
    noise = rng.uniform(0, 0.08) if rng.random() < 0.8 else rng.uniform(0, 0.2)
    acquired = acquired + np.float32(noise) * rng.standard_normal(acquired.shape, dtype=np.float32)
    if rng.random() < 0.5:  # magnitude images have no negative values
        acquired = np.abs(acquired)
    if rng.random() < 0.1:  # spikes
        where = rng.integers(0, acquired.size, rng.integers(1, 20))
        acquired.flat[where] = rng.uniform(1.5, 8)
    return acquired if acquired.shape == image.shape else _resample(acquired, up)


def _slice_profiles(length: int, acquired: int, blur: float) -> np.ndarray:
    """Return a matrix (acquired, length) that averages voxels under Gaussian slice profiles."""
    place = np.linspace(0, length - 1, acquired)
    distance = place[:, None] - np.arange(length)
    profile = np.exp(-0.5 * (distance / max(blur, 0.2)) ** 2)
    return (profile / profile.sum(axis=1, keepdims=True)).astype(np.float32)


def _preprocess(
    image: np.ndarray, labels: np.ndarray, channels: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Preprocess image and channels as others may have: remove skull, face or other parts."""
    fill = 0.0 if rng.random() < 0.8 else rng.uniform(-1, 1)
    brain = (labels > 0) & (labels < FIRST_EXTRACEREBRAL)
    drawn = rng.random()
    if drawn < 0.3:
        image = np.where(_random_mask(brain, labels, rng), image, np.float32(fill))
    elif drawn < 0.4:
        image = np.where(_face(image.shape, brain, rng), np.float32(fill), image)
    if rng.random() < 0.3:
        outside = _outside_random_box(image.shape, rng)
        image = np.where(outside, np.float32(fill), image)
        channels = np.where(outside, np.uint8(0), channels)
    return image.astype(np.float32, copy=False), channels


def _random_mask(brain: np.ndarray, labels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Simulate a brain mask that is exact or rough, with or without the CSF around."""
    mask = brain & (labels != 24) if rng.random() < 0.4 else brain
    if mask is not brain:
        mask = ndimage.binary_closing(mask, iterations=2)
    if rng.random() < 0.6:
        smooth = ndimage.uniform_filter(mask.astype(np.float32), 5)
        rough = rng.uniform(0, 0.15) * _smooth_noise(mask.shape, rng.uniform(4, 12), rng)
        mask = smooth + rough > rng.uniform(0.15, 0.6)
    return mask


def _face(shape: Sequence[int], brain: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return the part in front of and below an oblique plane that just misses the brain."""
    normal = np.array([rng.normal(0, 0.05), 1.0, -rng.uniform(0.3, 1.2)], dtype=np.float32)
    along = [
        weight * np.arange(n, dtype=np.float32) for weight, n in zip(normal, shape, strict=True)
    ]
    height = along[0][:, None, None] + along[1][:, None] + along[2]
    if not brain.any():
        return np.zeros(shape, dtype=bool)
    return height > height[brain].max() + rng.uniform(-4, 6)


def _outside_random_box(shape: Sequence[int], rng: np.random.Generator) -> np.ndarray:
    """Return the part outside a field of view that is cut at one or two of its six faces."""
    outside = np.zeros(shape, dtype=bool)
    for _ in range(rng.integers(1, 3)):
        axis = int(rng.integers(3))
        cut = round(shape[axis] * rng.uniform(0.05, 0.4))
        part = [slice(None)] * 3
        part[axis] = slice(cut) if rng.random() < 0.5 else slice(shape[axis] - cut, None)
        outside[tuple(part)] = True
    return outside
