"""Volumes and arrangement of the structures of a segmentation, and how the head lies.

The volumes and positions are compared with those of the label maps that the anatomy network was
trained on, in any position, orientation and size.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

import cc3d
import numpy as np
from scipy.spatial.transform import Rotation
from torch import Tensor

from bids_fcnreg.fcn.structures import STRUCTURES

#: A share of the brain's volume is implausible if it is this factor below or above the range of
#: the label maps: atrophy, large ventricles and lesions are plausible.
FACTOR = 3.0

#: Error in mm if there are too few structures to compare.
NO_ARRANGEMENT = 100.0

#: Most mm, and structures with an implausible volume, of a brain that is surely recognized.
RECOGNIZED_MM, RECOGNIZED_IMPLAUSIBLE = 4.5, 3

_LEAST_STRUCTURES = 4


@dataclass(frozen=True, eq=False)
class Arrangement:
    """Where the structures of a brain are, compared with typical ones.

    Attributes
    ----------
    rotation : ndarray (3, 3)
        Of the head relative to an upright one, in RAS+ axes.
    center : ndarray (3,)
        Of the whole brain in mm, RAS+.
    misplaced_mm : float
        Root mean square distance between typical positions and those of the structures, moved,
        rotated and scaled to match.
    implausible : int
        Structures with an implausible share of the brain's volume.
    """

    rotation: np.ndarray
    center: np.ndarray
    misplaced_mm: float
    implausible: int

    @property
    def is_brain(self) -> bool:
        """Whether a brain is surely recognized."""
        arranged = self.misplaced_mm <= RECOGNIZED_MM
        return arranged and self.implausible <= RECOGNIZED_IMPLAUSIBLE

    @property
    def turned_degrees(self) -> float:
        """Angle of the rotation."""
        return angle_degrees(self.rotation)


def angle_degrees(rotation: np.ndarray) -> float:
    """Return the angle of a rotation (3, 3).

    Examples
    --------
    >>> angle_degrees(np.diag([1, -1, -1]))
    180.0
    """
    return float(np.rad2deg(Rotation.from_matrix(rotation).magnitude()))


def arrangement(labels: np.ndarray, affine: np.ndarray) -> Arrangement:
    """Compare the structures of a segmentation with typical ones.

    Parameters
    ----------
    labels : ndarray (i, j, k), int
        Channel of the structure of each voxel, 0 in the background.
    affine : ndarray (4, 4)
        Voxels to RAS+ mm.
    """
    shares, positions = measure_structures(labels, affine)
    rotation, error = compare_positions(positions)
    center = np.nansum(shares[:, None] * positions, axis=0)
    return Arrangement(rotation, center, error, count_implausible(shares))


def label_structures(posteriors: Tensor) -> np.ndarray:
    """Return the channel (i, j, k) of the most probable structure in the largest connected part.

    Parameters
    ----------
    posteriors : Tensor (1, structures, i, j, k)
        In the order of `bids_fcnreg.fcn.structures.STRUCTURES`.
    """
    brain = posteriors[0, 0] < 0.5
    labels = np.zeros(brain.shape, np.uint8)
    labels[brain.numpy()] = posteriors[0][:, brain].argmax(dim=0).numpy()
    largest = cc3d.largest_k(labels > 0, k=1, connectivity=6) > 0
    labels[~largest] = 0
    return labels


def measure_structures(labels: np.ndarray, affine: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Measure the structures of a segmentation.

    Parameters
    ----------
    labels : ndarray (i, j, k), int
        Channel of the structure of each voxel, 0 in the background.
    affine : ndarray (4, 4)
        Voxels to RAS+ mm.

    Returns
    -------
    shares : ndarray (structures,)
        Volume of each structure as a fraction of that of all.
    positions : ndarray (structures, 3)
        Center of each structure in mm, NaN of missing ones.
    """
    voxels = np.nonzero(labels)
    found, size = labels[voxels], len(STRUCTURES)
    counts = np.bincount(found, minlength=size).astype(float)
    with np.errstate(invalid="ignore"):
        centers = np.stack([np.bincount(found, axis, size) for axis in voxels], axis=1)
        centers = centers / counts[:, None]
        return counts[1:] / counts[1:].sum(), centers[1:] @ affine[:3, :3].T + affine[:3, 3]


def count_implausible(shares: np.ndarray) -> int:
    """Count the structures with an implausible share of the brain's volume."""
    low, high, _ = reference()
    return int((~((shares >= low / FACTOR) & (shares <= high * FACTOR))).sum())


def compare_positions(positions: np.ndarray) -> tuple[np.ndarray, float]:
    """Compare positions with typical ones, by a similarity transform (Umeyama 1991).

    Parameters
    ----------
    positions : ndarray (structures, 3)
        From `measure_structures`.

    Returns
    -------
    rotation : ndarray (3, 3)
        From typical positions to these; the identity if they are too few.
    misplaced_mm : float
        See `Arrangement`; `NO_ARRANGEMENT` if they are too few.
    """
    there = np.isfinite(positions).all(axis=1)
    if there.sum() < _LEAST_STRUCTURES:
        return np.eye(3), NO_ARRANGEMENT
    typical, found = reference()[2][there], positions[there]
    typical, found = typical - typical.mean(axis=0), found - found.mean(axis=0)
    left, singular, right = np.linalg.svd(found.T @ typical)
    signs = np.array([1.0, 1.0, np.sign(np.linalg.det(left @ right))])  # no mirroring
    # Scaling the found positions, not the typical ones: a residual of a collapsed brain is large.
    matched = (singular * signs).sum() ** 2 / max((found**2).sum(), 1e-9)
    error = np.sqrt(max((typical**2).sum() - matched, 0.0) / there.sum())
    return (left * signs) @ right, float(error)


@cache
def reference() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Load the range of each structure's share, and its typical position in an upright head.

    Returns
    -------
    low, high : ndarray (structures,)
    positions : ndarray (structures, 3)
        In mm, RAS+.
    """
    source = files("bids_fcnreg").joinpath("data", "quality_reference.json")
    stored = json.loads(source.read_text(encoding="utf-8"))["structures"]
    values = np.array([stored[name] for name in STRUCTURES.values() if name in stored])
    return values[:, 0], values[:, 1], values[:, 2:]
