"""Memory and time of nodes, from the size of the images they work on.

Figures were measured with `benchmarks/resources.py`, at 9 million voxels of a template and 9 to 15
million of a scan, and rounded up by a third or more.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from nipype.interfaces.utility import IdentityInterface
from nipype.pipeline import engine as pe

from bids_fcnreg.bids.templates import Template
from bids_fcnreg.config import Config
from bids_fcnreg.fcn.modes import MODES
from bids_fcnreg.io.spatial_image import open_image

#: Memory of libraries in a node with PyTorch, and in one without (GB).
TORCH_GB, PLAIN_GB = 0.5, 0.3

#: Default for images with an unreadable header, and maximum. The node that reads the image reports
#: the error.
DEFAULT_VOXELS, MAX_VOXELS = 256**3, 1024**3


@dataclass(frozen=True)
class Demand:
    """Resources of a kind of step.

    Attributes
    ----------
    per_voxel : float
        Bytes of memory per voxel.
    seconds_per_million : float
        Processor seconds per million voxels, shared by the step's threads.
    base_gb, base_seconds : float
        Constant memory and seconds: libraries, files.
    """

    per_voxel: float
    seconds_per_million: float
    base_gb: float = TORCH_GB
    base_seconds: float = 3.0

    def memory_gb(self, voxels: int) -> float:
        """Estimate the memory in GB."""
        return round(self.base_gb + voxels * self.per_voxel / 1024**3, 2)

    def seconds(self, voxels: int, threads: int = 1) -> float:
        """Estimate the wall time in seconds.

        Examples
        --------
        >>> Demand(100, 2.0, base_seconds=3).seconds(10_000_000, threads=2)
        13.0
        """
        return self.base_seconds + self.seconds_per_million * voxels / 1e6 / threads


#: Steps that scale with the voxels of the template; see also `register_of`.
RESAMPLE, DEFORMATION = Demand(130, 1.2), Demand(130, 0.7)

#: Steps that scale with the voxels of the scan; see also `average_of`. Brain extraction resamples
#: every head to one size.
PREPROCESS = Demand(30, 0.4, base_gb=PLAIN_GB, base_seconds=1)
EXTRACT = Demand(40, 0.3, base_gb=TORCH_GB + 0.5, base_seconds=10)
SEGMENT = Demand(110, 0.6, base_gb=TORCH_GB + 0.7, base_seconds=4)
ALIGN = Demand(150, 1.2, base_gb=TORCH_GB + 0.7, base_seconds=8)
PROPAGATE, DRAW = Demand(75, 0.5, base_gb=0.75), Demand(40, 0.4, base_seconds=5)


def register_of(mode: str) -> Demand:
    """Return the resources of a registration on a CPU, by voxels of the template."""
    return Demand(360, MODES[mode].seconds_per_million, base_seconds=7)


def scans_at_once(config: Config, scans: int, templates: Sequence[Template]) -> int:
    """Return how many scans are registered at once, with the CPUs and the memory of a run.

    A thread for each scan uses the CPUs better than several for each of fewer scans.
    """
    if config.low_mem or config.plugin_file is not None:
        return 1
    voxels = max(voxels_of(template.t1w) for template in templates)
    fitting = int(config.mem_gb // register_of(config.mode).memory_gb(voxels))
    return max(1, min(scans, config.nprocs, fitting))


def average_of(runs: int) -> Demand:
    """Return the resources of averaging runs; a single run is returned unchanged."""
    if runs == 1:
        return Demand(0, 0, base_gb=0.1, base_seconds=1)
    return Demand(110 + 8 * runs, 1.0 * runs)


@cache
def version_of(package: str) -> str:
    """Return the version of an installed package; to look it up takes milliseconds."""
    return version(package)


def sized_node(interface: Any, name: str, demand: Demand, voxels: int, **options: Any) -> pe.Node:
    """Make a node with its resources: ``mem_gb`` and ``expected_seconds``.

    Parameters
    ----------
    interface : nipype interface
    name : str
    demand : Demand
        Resources of its kind of step.
    voxels : int
        Number of voxels of its image.
    **options
        Options of Nipype's node; with ``iterfield``, it is a MapNode.
    """
    kind = pe.MapNode if "iterfield" in options else pe.Node
    node = kind(interface, name=name, mem_gb=demand.memory_gb(voxels), **options)
    node.expected_seconds = demand.seconds(voxels, node.n_procs)
    return node


def node_name(label: str) -> str:
    """Convert a label to a part of the name of a node."""
    return re.sub(r"\W", "_", label)


def field_node(name: str, *fields: str) -> pe.Node:
    """Make the node of the inputs or outputs of a workflow."""
    return pe.Node(IdentityInterface(fields=list(fields)), name=name)


def by_content(node: pe.Node) -> pe.Node:
    """Make a node rerun when the content of its files changes, regardless of their times.

    Other nodes use modification times, because contents would be hashed again for every node in
    the main process.
    """
    node.config = {"execution": {"hash_method": "content"}}
    return node


@cache
def voxels_of(path: Path | str) -> int:
    """Return the number of voxels of a volume of an image, from its header."""
    try:
        voxels = int(np.prod(open_image(path).shape[:3], dtype=float))
    except Exception:  # nibabel raises many kinds
        return DEFAULT_VOXELS
    return min(voxels, MAX_VOXELS)
