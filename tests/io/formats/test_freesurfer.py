"""Files of FreeSurfer, by their definitions."""

from __future__ import annotations

import gzip
import struct

import numpy as np
import pytest
from nibabel.affines import apply_affine
from nitransforms import io as nio

from bids_fcnreg.io.formats import table
from bids_fcnreg.io.formats.image_grids import ImageGrids
from tests.transforms_between_images import (
    PAIRS,
    assert_same_points,
    between,
    grid,
    image,
    mapped,
    setting,
    truth,
    voxels,
)


def test_voxel_to_voxel_matrices_of_freesurfer(tmp_path):
    pair = PAIRS[2]
    fixed, moving = map(image, pair)
    matrix = np.linalg.inv(np.linalg.inv(moving.affine) @ truth() @ fixed.affine)
    theirs = nio.lta.FSLinearTransform.from_ras(np.eye(4), moving=fixed, reference=moving)
    theirs.structarr["type"], theirs.structarr["m_L"] = 0, matrix
    text = theirs.to_string()
    (tmp_path / "x.lta").write_text(text)
    points = voxels(grid(pair[0]))
    found = mapped(table.read(tmp_path / "x.lta"), points)
    assert_same_points(found, apply_affine(truth(), points))
    (tmp_path / "y.lta").write_text(text.replace("valid = 1", "valid = 0"))
    found = mapped(table.read(tmp_path / "y.lta", ImageGrids(*map(grid, pair))), points)
    assert_same_points(found, apply_affine(truth(), points))


@pytest.mark.parametrize("kind", [1, 2])
def test_morphs_of_freesurfer(tmp_path, kind):
    """Bytes put together as GCAMwrite does, with nodes every second voxel, some of them invalid."""
    pair = PAIRS[2]
    fixed, moving = grid(pair[0]), grid(pair[1])
    index = [np.arange(0, n, 2) for n in fixed.shape]
    nodes = np.stack(np.meshgrid(*index, indexing="ij"), -1)
    positions = apply_affine(truth(), apply_affine(fixed.affine, nodes))
    if kind == 2:  # GCAM_VOX
        positions = apply_affine(np.linalg.inv(moving.affine), positions)
    shape = positions.shape[:3]
    parts = [struct.pack(">f", 1.0), struct.pack(">4i", *shape, 2), struct.pack(">f", 20.0)]
    for i, j, k in np.ndindex(shape):
        at = (0.0, 0.0, 0.0) if i == 0 else positions[i, j, k]
        parts += [struct.pack(">6f3i", *at, *at, i, j, k)]
    parts += [struct.pack(">i", 12), bytes(4 * int(np.prod(shape)))]
    parts += [struct.pack(">i", 10)]
    for one in (moving, fixed):
        centre = apply_affine(one.affine, np.array(one.shape) / 2)
        numbers = (*one.spacing, *(one.affine[:3, :3] / one.spacing).T.ravel(), *centre)
        parts += [struct.pack(">4i", 1, *one.shape), struct.pack(">15f", *numbers), bytes(512)]
    parts += [struct.pack(">2i", 11, kind), struct.pack(">i", 31), b"Matrix"]
    (tmp_path / "x.m3z").write_bytes(gzip.compress(b"".join(parts)))
    points = between(fixed)
    found = mapped(table.read(tmp_path / "x.m3z"), points)
    assert_same_points(found, apply_affine(truth(), points))


@pytest.mark.parametrize("pair", PAIRS, ids="-".join)
def test_written_morphs_have_the_layout_of_freesurfer(tmp_path, pair):
    """Read as GCAMread does: nodes with their position in voxels of the image, then the tags."""
    transform, grids = setting(pair, nonlinear=True)
    table.write(tmp_path / "x.m3z", transform, "freesurfer", grids)
    content = gzip.decompress((tmp_path / "x.m3z").read_bytes())
    version, *shape, spacing, exponent = struct.unpack(">f4if", content[:24])
    assert (version, tuple(shape), spacing, exponent) == (1.0, grids.fixed.shape, 1, 20.0)
    count = int(np.prod(shape))
    numbers = np.frombuffer(content[24 : 24 + 36 * count], ">f4").reshape(*shape, 9)
    for voxel in ((0, 0, 0), (3, 20, 7), tuple(np.array(shape) - 1)):
        expected = mapped(transform, apply_affine(grids.fixed.affine, [voxel]))
        for part in (slice(0, 3), slice(3, 6)):
            found = apply_affine(grids.moving.affine, numbers[voxel][part].astype(float))
            assert_same_points(found[None], expected)
        assert numbers[voxel][6:].copy().view(">i4").tolist() == list(voxel)
    rest = content[24 + 36 * count :]
    assert struct.unpack(">i", rest[:4]) == (10,)
    for start, one in ((4, grids.moving), (4 + 76 + 512, grids.fixed)):
        valid, *size = struct.unpack(">4i", rest[start : start + 16])
        values = np.frombuffer(rest[start + 16 : start + 76], ">f4")
        assert valid and tuple(size) == one.shape
        axes = values[3:12].reshape(3, 3).T * values[:3]
        np.testing.assert_allclose(axes, one.affine[:3, :3], atol=1e-5)
        centre = apply_affine(one.affine, np.array(one.shape) / 2)
        np.testing.assert_allclose(values[12:], centre, atol=1e-4)
    assert struct.unpack(">2i", rest[4 + 2 * (76 + 512) :]) == (11, 2)
