"""Transforms in X5, the HDF5 format of nitransforms.

They map points of the fixed to the moving space, in RAS+ mm: matrices, or displacements (or
positions, "deformations") on a grid. A chain lists its transforms in the order in which they act
on points.

Definition: ``nitransforms.io.x5``, which reads them; files are written here, in memory, because
HDF5 fails without a useful error where a disk is full.
"""

from __future__ import annotations

import json
from pathlib import Path

import h5py
import numpy as np
from nitransforms.io.x5 import X5Transform, from_filename

from bids_fcnreg.atomic import write_bytes
from bids_fcnreg.errors import InputError
from bids_fcnreg.fcn.spatial.grid import Grid, apply_affine
from bids_fcnreg.fcn.spatial.transform import Transform
from bids_fcnreg.io.formats.image_grids import ImageGrids
from bids_fcnreg.io.formats.sampled import (
    affine_transform,
    from_positions,
    linear_matrix,
    sample_positions,
    sampling_grid,
    voxel_positions,
)
from bids_fcnreg.io.itk_field import check_memory


def read(path: Path, grids: ImageGrids) -> Transform:
    """Read a linear transform, a displacement field, or a chain of them."""
    check_memory(10.0 * path.stat().st_size, path)
    nodes = from_filename(path)
    with h5py.File(path, "r", locking=False) as file:
        chains = {name: data.asstr()[()] for name, data in file.get("TransformChain", {}).items()}
    if len(chains) > 1 or (not chains and len(nodes) != 1):
        raise InputError(
            f"{path} contains {len(chains) or len(nodes)} transforms that do not form one chain. "
            "Store each in a file of its own."
        )
    order = [int(n) for chain in chains.values() for n in chain.split("/")] or [0]
    parts = [_transform(nodes[n], path) for n in order]
    return Transform(tuple(step for part in parts for step in part.steps))


def write(path: Path, transform: Transform, grids: ImageGrids) -> list[Path]:
    """Write a matrix, or displacements on the grid of the fixed image."""
    matrix = linear_matrix(transform)
    grid = grids.fixed
    if matrix is None:
        grid = sampling_grid(transform, grids, path)
        points = apply_affine(grid.affine, voxel_positions(grid))
        values = (sample_positions(transform, grid) - points).astype(np.float32)
        kind = {"Type": "nonlinear", "SubType": "densefield", "Representation": "displacements"}
    else:
        values = matrix
        kind = {"Type": "linear", "SubType": "affine", "Representation": "matrix"}
    with h5py.File(path, "w", driver="core", backing_store=False) as file:
        file.attrs["Format"], file.attrs["Version"] = "X5", np.uint16(1)
        group = file.create_group("TransformGroup/0")
        group.attrs.update(kind)
        group.attrs["ArrayLength"] = 1
        group.attrs["Metadata"] = json.dumps({"WrittenBy": "bids_fcnreg"})
        group["Transform"] = values
        group["DimensionKinds"] = np.array(["space"] * 3 + ["vector"], dtype="S")
        if grid is not None:
            domain = group.create_group("Domain")
            domain.attrs["Coordinates"] = "cartesian"
            domain["Grid"] = np.uint8(1)
            domain["Size"], domain["Mapping"] = np.array(grid.shape), grid.affine
        file.flush()
        payload = file.id.get_file_image()
    return [write_bytes(path, payload)]


def _transform(node: X5Transform, path: Path) -> Transform:
    """Convert a transform of the file."""
    if node.array_length != 1:
        raise InputError(f"{path} contains a series of transforms. Extract that of one volume.")
    if node.type == "linear":
        return affine_transform(np.asarray(node.transform, float).reshape(4, 4), path)
    if node.type != "nonlinear" or node.subtype == "bspline" or node.domain is None:
        raise InputError(
            f"{path} contains a transform of type {node.type} ({node.subtype or 'no subtype'}). "
            "Convert it to a displacement field."
        )
    i, j, k = (int(n) for n in node.domain.size)
    grid = Grid((i, j, k), node.domain.mapping)
    positions = np.asarray(node.transform, float).reshape(i, j, k, 3)
    if node.representation == "displacements":
        positions = positions + apply_affine(grid.affine, voxel_positions(grid))
    return from_positions(grid, positions, path)
