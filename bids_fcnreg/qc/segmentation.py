"""Plausibility of a segmentation, without a reference.

The anatomy network finds structures in any image, also in that of a knee, and in a head whose
header has a wrong orientation. Then they have neither the volumes nor the arrangement of those of
a brain. Both are compared with those of the label maps that the network was trained on, in any
position, orientation and size.
"""

from __future__ import annotations

import json
from functools import cache
from importlib.resources import files

import cc3d
import numpy as np

from bids_fcnreg.fcn.segment import Anatomy
from bids_fcnreg.fcn.spatial.grid import Image
from bids_fcnreg.fcn.spatial.transform import Transform
from bids_fcnreg.fcn.structures import STRUCTURES
from bids_fcnreg.fcn.tissue import most_probable

#: A share of the brain's volume is implausible if it is this factor below or above the range of
#: the label maps: atrophy, large ventricles and lesions are plausible.
FACTOR = 3.0

#: Error in mm if there are too few structures to compare.
NO_ARRANGEMENT = 100.0

_LEAST_STRUCTURES = 4


def assess_segmentation(anatomy: Anatomy, mask: Image | None = None) -> dict[str, float]:
    """Compute the quality metrics of a segmentation, of its largest connected part.

    Parameters
    ----------
    anatomy : Anatomy
        Posteriors of the structures.
    mask : Image (1, 1, i, j, k), optional
        Brain mask of another method, above 0.5.

    Returns
    -------
    dict of str to float
        By the keys of `bids_fcnreg.qc.metrics`.
    """
    labels = _labels(anatomy)
    shares, positions = measure_structures(labels, anatomy.grid.affine)
    found = {
        "structures_implausible": float(count_implausible(shares)),
        "structures_misplaced_mm": misplacement(positions),
    }
    if mask is not None:
        inside = Transform(()).resample(mask, anatomy.grid).data[0, 0].numpy() > 0.5
        both = int(inside.sum()) + int((labels > 0).sum())
        found["mask_agreement"] = 2 * int((inside & (labels > 0)).sum()) / max(both, 1)
    return found


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
    low, high, _ = _reference()
    return int((~((shares >= low / FACTOR) & (shares <= high * FACTOR))).sum())


def misplacement(positions: np.ndarray) -> float:
    """Compute how far structures are from their typical arrangement.

    Parameters
    ----------
    positions : ndarray (structures, 3)
        From `measure_structures`.

    Returns
    -------
    float
        Root mean square distance in mm between typical positions and these, moved, rotated and
        scaled to match.
    """
    there = np.isfinite(positions).all(axis=1)
    if there.sum() < _LEAST_STRUCTURES:
        return NO_ARRANGEMENT
    typical, found = _reference()[2][there], positions[there]
    typical, found = typical - typical.mean(axis=0), found - found.mean(axis=0)
    left, singular, right = np.linalg.svd(found.T @ typical)
    singular[2] *= np.sign(np.linalg.det(left @ right))  # no mirroring
    # Scaling the found positions, not the typical ones: a residual of a collapsed brain is large.
    error = (typical**2).sum() - singular.sum() ** 2 / max((found**2).sum(), 1e-9)
    return float(np.sqrt(max(error, 0.0) / there.sum()))


def _labels(anatomy: Anatomy) -> np.ndarray:
    """Return the channel of the most probable structure in the largest connected part."""
    posteriors = anatomy.posteriors[0]
    labels = np.zeros(posteriors.shape[1:], np.uint8)
    candidates = posteriors[0] < 0.5
    chosen = most_probable(posteriors[None, :, candidates, None, None])
    labels[candidates.numpy()] = chosen.numpy().ravel()
    largest = cc3d.largest_k(labels > 0, k=1, connectivity=6) > 0
    labels[~largest] = 0
    return labels


@cache
def _reference() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Load the range of each structure's share, and its typical position (structures, 3)."""
    source = files("bids_fcnreg").joinpath("data", "quality_reference.json")
    stored = json.loads(source.read_text(encoding="utf-8"))["structures"]
    values = np.array([stored[name] for name in STRUCTURES.values() if name in stored])
    return values[:, 0], values[:, 1], values[:, 2:]
