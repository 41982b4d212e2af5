"""Nonlinear transforms of FreeSurfer (``.m3z``, and ``.m3d`` without compression).

A lattice of nodes, one every few voxels of the atlas (the fixed image), each with a position in
the (moving) image: in voxels, or in RAS+ mm of the scanner. Numbers are big-endian. Nodes whose
current and original positions are all zero are invalid.

Definition: ``gcamorph.cpp`` (`GCAMread`, `GCAMwrite`, `GCAMsampleMorph`) and ``tags.h`` of
FreeSurfer.
"""

from __future__ import annotations

import gzip
import struct
from pathlib import Path

import numpy as np
from isal import igzip

from bids_fcnreg.atomic import write_bytes
from bids_fcnreg.errors import InputError
from bids_fcnreg.fcn.spatial.grid import Grid, apply_affine
from bids_fcnreg.fcn.spatial.transform import Transform
from bids_fcnreg.io.formats.geometry import VolumeGeometry
from bids_fcnreg.io.formats.image_grids import ImageGrids
from bids_fcnreg.io.formats.sampled import (
    from_positions,
    sample_positions,
    sampling_grid,
    voxel_positions,
)
from bids_fcnreg.io.itk_field import check_memory

#: Version of the format, and the penalty's exponent, which other software ignores.
VERSION, EXPONENT = 1.0, 20.0

#: Tags of what follows the nodes, and types of positions.
GEOMETRY, TYPE, LABELS = 10, 11, 12
IN_RAS, IN_VOXELS = 1, 2

#: Version, number of nodes along each axis, their spacing in voxels, exponent.
_HEADER = struct.Struct(">f4if")
_NODE = np.dtype([("original", ">f4", 3), ("position", ">f4", 3), ("prior", ">i4", 3)])
#: Whether it is valid, shape, voxel size, axes, centre, name of the file.
_GEOMETRY = struct.Struct(">4i15f512s")


def read(path: Path, grids: ImageGrids) -> Transform:
    """Read a transform; `grids` replace geometries that the file lacks."""
    with open(path, "rb") as stream:
        compressed = stream.read(2) == b"\x1f\x8b"
    with gzip.open(path) if compressed else open(path, "rb") as stream:
        version, i, j, k, spacing, _ = _HEADER.unpack(stream.read(_HEADER.size))
        if version != VERSION or min(i, j, k, spacing) < 1:
            raise ValueError("another version")
        check_memory(100.0 * i * j * k, path)
        nodes = np.frombuffer(stream.read(_NODE.itemsize * i * j * k), _NODE).reshape(i, j, k)
        tags = stream.read()
    image, atlas, kind = _read_tags(tags, 4 * i * j * k)
    fixed = atlas or grids.need("fixed", path, "it lacks the geometry of the atlas")
    positions = nodes["position"].astype(float)
    valid = (nodes["position"] != 0).any(-1) | (nodes["original"] != 0).any(-1)
    if kind == IN_VOXELS:
        moving = image or grids.need("moving", path, "it lacks the geometry of the image")
        positions = apply_affine(moving.affine, positions)
    grid = Grid((i, j, k), fixed.affine @ np.diag([spacing, spacing, spacing, 1.0]))
    return from_positions(grid, positions, path, valid)


def write(path: Path, transform: Transform, grids: ImageGrids) -> list[Path]:
    """Write a transform, with a node at each voxel."""
    moving = grids.need("moving", path, "FreeSurfer stores voxel coordinates")
    grid = sampling_grid(transform, grids, path)
    nodes = np.zeros(grid.shape, _NODE)
    nodes["position"] = apply_affine(
        np.linalg.inv(moving.affine), sample_positions(transform, grid)
    )
    nodes["original"] = nodes["position"]
    nodes["prior"] = voxel_positions(grid)
    payload = b"".join(
        [
            _HEADER.pack(VERSION, *grid.shape, 1, EXPONENT),
            nodes.tobytes(),
            struct.pack(">i", GEOMETRY),
            _pack_geometry(moving),
            _pack_geometry(grid),
            struct.pack(">2i", TYPE, IN_VOXELS),
        ]
    )
    if path.suffix == ".m3z":
        payload = igzip.compress(payload, compresslevel=2, mtime=0)
    return [write_bytes(path, payload)]


def _read_tags(content: bytes, label_bytes: int) -> tuple[Grid | None, Grid | None, int]:
    """Return the grids of the image and the atlas, and the type of positions."""
    image = atlas = None
    kind, start = IN_VOXELS, 0
    while start + 4 <= len(content):
        tag = struct.unpack_from(">i", content, start)[0]
        start += 4
        if tag == GEOMETRY:
            image = _unpack_geometry(content, start)
            atlas = _unpack_geometry(content, start + _GEOMETRY.size)
            start += 2 * _GEOMETRY.size
        elif tag == TYPE:
            kind = struct.unpack_from(">i", content, start)[0]
            start += 4
        elif tag == LABELS:
            start += label_bytes
        else:  # tags have no length: what follows an unknown one cannot be read
            break
    if kind not in (IN_RAS, IN_VOXELS):
        raise InputError(f"Positions of type {kind} are not supported.")
    return image, atlas, kind


def _unpack_geometry(content: bytes, start: int) -> Grid | None:
    """Read the geometry of an image; None if it is marked as invalid."""
    valid, i, j, k, *numbers = _GEOMETRY.unpack_from(content, start)[:-1]
    if not valid:
        return None
    values = np.array(numbers).reshape(5, 3)
    return VolumeGeometry((i, j, k), values[0], values[1:4], values[4]).grid


def _pack_geometry(grid: Grid) -> bytes:
    geometry = VolumeGeometry.of(grid)
    numbers = np.concatenate([geometry.spacing, geometry.axes.ravel(), geometry.centre])
    return _GEOMETRY.pack(1, *geometry.shape, *numbers, b"unknown")
