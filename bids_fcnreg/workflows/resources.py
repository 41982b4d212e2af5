"""Memory of nodes, from the size of the images they work on.

Bytes per voxel were measured with `benchmarks/resources.py`, at 9 million voxels of a template and
15 million of a scan, and rounded up by a third or more.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

import nibabel as nib
import numpy as np

#: Libraries in the memory of a node that uses PyTorch, and of one that does not (GB).
TORCH_GB, PLAIN_GB = 0.5, 0.3

#: Voxels of an image whose header cannot be read, or says more than this: the node that reads it
#: says what is wrong.
DEFAULT_VOXELS, MOST_VOXELS = 256**3, 1024**3

#: Bytes per voxel of the template.
REGISTER, RESAMPLE, JACOBIAN, DEFORMATION = 360, 100, 110, 130

#: Bytes per voxel of the scan; brain extraction holds as much again whatever the size (GB).
PREPROCESS, EXTRACT, AVERAGE, AVERAGE_RUN, PROPAGATE, DRAW = 30, 40, 110, 8, 75, 40
EXTRACT_GB = 0.5


@cache
def voxels_of(path: Path | str) -> int:
    """Voxels of a volume of an image, as its header says."""
    try:
        voxels = int(np.prod(nib.load(path).shape[:3], dtype=float))
    except Exception:  # nibabel raises many kinds
        return DEFAULT_VOXELS
    return min(voxels, MOST_VOXELS)


def memory_gb(voxels: int, bytes_per_voxel: int, base_gb: float = TORCH_GB) -> float:
    """Memory of a node in GB."""
    return round(base_gb + voxels * bytes_per_voxel / 1024**3, 2)
