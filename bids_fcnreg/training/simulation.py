"""Images of random contrast and quality, simulated from label maps.

One label map gives any number of training images: its anatomy is moved, deformed and flipped, each
label gets an intensity, and the image is degraded as scanners and preprocessing degrade images
(partial volume, thick slices, bias field, noise, lesions, cut field of view, removed skull, ...).

All volumes are on the device of the label map: on a GPU, an image takes a few milliseconds.

References
----------
Billot et al., SynthSeg: Segmentation of brain MRI scans of any contrast and resolution without
retraining, Medical Image Analysis 86:102789, 2023.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import nibabel as nib
import numpy as np
import torch
from scipy.spatial.transform import Rotation
from torch import Tensor

from bids_fcnreg.fcn.nets.anatomy import SPACING
from bids_fcnreg.fcn.spatial.displacement import exponentiate, identity, sample
from bids_fcnreg.fcn.spatial.filters import box, dilate, gaussian
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

#: Label of the cerebrospinal fluid around the brain.
CSF = 24

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
    indices : Tensor (1, 1, i, j, k), uint8
        Position in `labels` of each voxel's label, RAS+ orientation, 1 mm voxels, cropped to the
        head; 0 is air.
    labels : ndarray (n,), int64
        Label values, ascending.
    centre : ndarray (3,)
        Centre of the brain in voxels.
    """

    indices: Tensor
    labels: np.ndarray
    centre: np.ndarray

    @classmethod
    def read(cls, path: Path) -> LabelMap:
        """Read a label map of 1 mm voxels and bring it to RAS+ orientation."""
        image = nib.as_closest_canonical(open_image(path))
        values = np.asarray(image.dataobj).astype(np.int32)
        occupied = np.argwhere(values)
        values = values[tuple(map(slice, occupied.min(axis=0), occupied.max(axis=0) + 1))]
        labels = np.union1d(0, np.flatnonzero(np.bincount(values.ravel())))
        position = np.zeros(labels.max() + 1, dtype=np.uint8)
        position[labels] = np.arange(len(labels))
        centre = np.argwhere((values > 0) & (values < FIRST_EXTRACEREBRAL)).mean(axis=0)
        return cls(torch.from_numpy(position[values])[None, None], labels, centre)

    def to(self, device: torch.device) -> LabelMap:
        """Return the label map on a device."""
        return replace(self, indices=self.indices.to(device))

    def where(self, of: np.ndarray, indices: Tensor) -> Tensor:
        """Look a value of each label (n,) up at `indices`, a volume of positions in `labels`."""
        return torch.from_numpy(of).to(indices.device)[indices]

    def channels(self, flipped: bool) -> np.ndarray:
        """Return the network channel of each of `labels`, left and right exchanged if flipped."""
        order = list(STRUCTURES)
        opposite = dict(PAIRS) | {right: left for left, right in PAIRS}
        found = []
        for label in self.labels.tolist():
            label = opposite.get(label, label) if flipped else label
            label = MERGED.get(label, label)
            found.append(order.index(label) if label in order else 0)
        return np.array(found, dtype=np.int64)


class _Random:
    """Random numbers from NumPy, and volumes of normal ones from a generator on a device."""

    def __init__(self, rng: np.random.Generator, device: torch.device) -> None:
        self.rng, self.device = rng, device
        self._volumes = torch.Generator(device).manual_seed(int(rng.integers(2**62)))

    def noise(self, *shape: int) -> Tensor:
        """Sample white noise of unit variance."""
        return torch.randn(shape, generator=self._volumes, device=self.device)

    def smooth_noise(self, shape: Sequence[int], size: float) -> Tensor:
        """Sample noise (1, 1, i, j, k) of unit variance whose features are of `size` voxels."""
        knots = [max(2, int(np.ceil(length / size)) + 1) for length in shape]
        matrices = [_linear(length, n) for length, n in zip(shape, knots, strict=True)]
        return _resample(self.noise(1, 1, *knots), matrices)


def simulate(anatomy: LabelMap, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """Simulate an image of random contrast, pose, shape and quality.

    Parameters
    ----------
    anatomy : LabelMap
        Anatomy to simulate.
    rng : Generator
        Random generator: on one device, equal states give equal images.

    Returns
    -------
    image : Tensor (1, 1, i, j, k), float32
        RAS+ orientation, 2 mm voxels; any scale and offset.
    channels : Tensor (1, 1, i, j, k), int64
        Channel in `STRUCTURES` of each voxel.
    """
    random = _Random(rng, anatomy.indices.device)
    shape = SHAPES[rng.integers(len(SHAPES))]
    flipped = bool(rng.integers(2))
    points = _random_points(anatomy.centre, shape, flipped, random)
    means, spreads = _random_contrast(anatomy.labels, rng)
    # A linear mean of intensities around a point is partial volume.
    tissue = anatomy.where(means - means[0], anatomy.indices.int())
    image = sample(tissue, points) + float(means[0])
    indices = sample(anatomy.indices.float(), points, "nearest").int()
    image += anatomy.where(spreads, indices) * random.noise(*image.shape)
    inside = (anatomy.labels > 0) & (anatomy.labels < FIRST_EXTRACEREBRAL)
    brain = anatomy.where(inside, indices)
    tissues = anatomy.where(inside & (anatomy.labels != CSF), indices)
    if rng.random() < 0.25:
        image = _with_lesion(image, tissues, random)
    image *= _random_bias(shape, random)
    image = image.sign() * image.abs() ** float(np.exp(rng.normal(0, 0.25)))
    image = _acquire(image, random)
    channels = anatomy.where(anatomy.channels(flipped), indices)
    return _preprocess(image, channels, brain, tissues, random)


def _random_points(
    centre: np.ndarray, shape: Sequence[int], flipped: bool, random: _Random
) -> Tensor:
    """Return where in a label map the voxels of an image are, (1, 3, *shape)."""
    matrix = _random_affine(centre, shape, flipped, random.rng)
    displacement = _random_displacement(shape, random)
    points = identity(shape, displacement) + displacement
    linear, offset = (
        torch.from_numpy(part).to(points) for part in (matrix[:3, :3], matrix[:3, 3])
    )
    return torch.einsum("cd,ndijk->ncijk", linear, points) + offset.view(1, 3, 1, 1, 1)


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


def _random_displacement(shape: Sequence[int], random: _Random) -> Tensor:
    """Sample a diffeomorphic displacement (1, 3, *shape) in voxels of 2 mm."""
    factor = _COARSE / SPACING
    coarse = [int(np.ceil(size / factor)) + 1 for size in shape]
    velocity = torch.zeros(1, 3, *coarse, device=random.device)
    for sigma, strength in ((3.5, 2.0), (1.6, 1.0)):  # of 28 and 13 mm; in voxels of the image
        smooth = gaussian(random.noise(1, 3, *coarse), sigma)
        velocity += smooth / smooth.std() * random.rng.uniform(0, strength)
    displacement = exponentiate(velocity / factor, steps=4) * factor
    knots = [
        _linear(1 + factor * (n - 1), n)[:size] for n, size in zip(coarse, shape, strict=True)
    ]
    return _resample(displacement, knots)


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


def _linear(length: float, knots: int) -> np.ndarray:
    """Return the matrix (length, knots) of linear interpolation between equidistant knots."""
    place = np.linspace(0, knots - 1, int(length))
    return np.maximum(0, 1 - np.abs(place[:, None] - np.arange(knots)))


def _resample(volume: Tensor, matrices: Sequence[np.ndarray]) -> Tensor:
    """Apply a matrix along each axis of a volume (1, channels, i, j, k)."""
    along_i, along_j, along_k = (torch.from_numpy(each).to(volume) for each in matrices)
    volume = along_j @ (volume @ along_k.T)
    return (along_i @ volume.flatten(3)).unflatten(3, volume.shape[3:])


def _random_bias(shape: Sequence[int], random: _Random) -> Tensor:
    """Sample a multiplicative bias field (1, 1, i, j, k)."""
    size = random.rng.uniform(20, 60)
    return (random.rng.uniform(0, 0.35) * random.smooth_noise(shape, size)).exp()


def _with_lesion(image: Tensor, tissues: Tensor, random: _Random) -> Tensor:
    """Add cavities or lesions to the brain: blobs of another intensity."""
    rng = random.rng
    field = random.smooth_noise(image.shape[2:], rng.uniform(4, 22))
    lesion = tissues & (field > rng.uniform(1.3, 2.5))
    intensity = rng.uniform(0, 1.3) + rng.uniform(0, 0.15) * random.noise(*image.shape)
    return torch.where(lesion, intensity, image)


def _acquire(image: Tensor, random: _Random) -> Tensor:
    """Acquire an image as a scanner does: blurred, in slices of some thickness, noisy."""
    rng = random.rng
    voxels = np.ones(3)  # size of acquired voxels, in those of the image
    drawn = rng.random()
    if drawn < 0.5:
        voxels[rng.integers(3)] = rng.uniform(1.0, 3.5)
    elif drawn < 0.6:
        voxels[:] = rng.uniform(1.0, 2.0)
    down, up = [], []
    for length, voxel in zip(image.shape[2:], voxels, strict=True):
        blur = rng.uniform(0, 0.5) if voxel == 1 else voxel * rng.uniform(0.3, 0.45)
        slices = max(8, round(length / voxel))
        down.append(_slice_profiles(length, slices, blur))
        up.append(_linear(length, slices))
    acquired = _resample(image, down)
    noise = rng.uniform(0, 0.08) if rng.random() < 0.8 else rng.uniform(0, 0.2)
    acquired += noise * random.noise(*acquired.shape)
    if rng.random() < 0.5:  # magnitude images have no negative values
        acquired.abs_()
    if rng.random() < 0.1:  # spikes
        where = rng.integers(0, acquired.numel(), rng.integers(1, 20))
        acquired.view(-1)[torch.from_numpy(where).to(acquired.device)] = rng.uniform(1.5, 8)
    return acquired if acquired.shape == image.shape else _resample(acquired, up)


def _slice_profiles(length: int, acquired: int, blur: float) -> np.ndarray:
    """Return a matrix (acquired, length) that averages voxels under Gaussian slice profiles."""
    place = np.linspace(0, length - 1, acquired)
    distance = place[:, None] - np.arange(length)
    profile = np.exp(-0.5 * (distance / max(blur, 0.2)) ** 2)
    return profile / profile.sum(axis=1, keepdims=True)


def _preprocess(
    image: Tensor, channels: Tensor, brain: Tensor, tissues: Tensor, random: _Random
) -> tuple[Tensor, Tensor]:
    """Preprocess image and channels as others may have: remove skull, face or other parts."""
    rng = random.rng
    fill = 0.0 if rng.random() < 0.8 else rng.uniform(-1, 1)
    drawn = rng.random()
    if drawn < 0.3:
        image = torch.where(_random_mask(brain, tissues, random), image, fill)
    elif drawn < 0.4:
        image = torch.where(_face(brain, rng), fill, image)
    if rng.random() < 0.3:
        outside = _outside_random_box(image.shape[2:], rng).to(image.device)
        image = torch.where(outside, fill, image)
        channels = torch.where(outside, 0, channels)
    return image, channels


def _random_mask(brain: Tensor, tissues: Tensor, random: _Random) -> Tensor:
    """Simulate a brain mask that is exact or rough, with or without the CSF around."""
    rng = random.rng
    mask = brain.float()
    if rng.random() < 0.4:
        mask = 1 - dilate(1 - dilate(tissues.float(), 2), 2)
    if rng.random() < 0.6:
        size = rng.uniform(4, 12)
        rough = rng.uniform(0, 0.15) * random.smooth_noise(mask.shape[2:], size)
        return box(mask, 2) + rough > rng.uniform(0.15, 0.6)
    return mask > 0.5


def _face(brain: Tensor, rng: np.random.Generator) -> Tensor:
    """Return the part in front of and below an oblique plane that just misses the brain."""
    normal = (rng.normal(0, 0.05), 1.0, -rng.uniform(0.3, 1.2))
    i, j, k = (
        weight * torch.arange(n, device=brain.device)
        for weight, n in zip(normal, brain.shape[2:], strict=True)
    )
    height = i[:, None, None] + j[:, None] + k
    highest = torch.where(brain, height, -torch.inf).amax()
    highest = torch.where(highest.isfinite(), highest, torch.inf)  # there may be no brain
    return (height > highest + rng.uniform(-4, 6))[None, None]


def _outside_random_box(shape: Sequence[int], rng: np.random.Generator) -> Tensor:
    """Return the part outside a field of view that is cut at one or two of its six faces."""
    outside = torch.zeros(1, 1, *shape, dtype=torch.bool)
    for _ in range(rng.integers(1, 3)):
        axis = int(rng.integers(3))
        cut = round(shape[axis] * rng.uniform(0.05, 0.4))
        start = 0 if rng.random() < 0.5 else shape[axis] - cut
        outside.narrow(2 + axis, start, cut).fill_(True)
    return outside
