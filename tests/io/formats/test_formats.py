"""Transforms of other software move points as their own, or independent, implementations do."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
import torch
from nibabel.affines import apply_affine
from nibabel.orientations import axcodes2ornt, ornt_transform
from nitransforms import io as nio
from nitransforms.linear import Affine as TheirAffine
from nitransforms.manip import TransformChain
from nitransforms.nonlinear import DenseFieldTransform

from bids_fcnreg.config import TRANSFORM_FORMATS
from bids_fcnreg.fcn.spatial.grid import Grid
from bids_fcnreg.fcn.spatial.transform import Affine, Displacement, Transform
from bids_fcnreg.io.formats import afni, table
from bids_fcnreg.io.formats.image_grids import ImageGrids

#: Largest distance (mm) between points.
TOLERANCE = 0.01

LPS = np.array([-1.0, -1.0, 1.0])

#: Orientation, voxel sizes, angles (rad) and position of the centre of an image.
IMAGES = {
    "plumb LAS": ("LAS", (2.0, 2.5, 3.0), (0, 0, 0), (3, -5, 7)),
    "plumb RAS": ("RAS", (1.5, 2.0, 2.2), (0, 0, 0), (-6, 4, 2)),
    "oblique PIR": ("PIR", (2.0, 2.5, 3.0), (0.2, -0.1, 0.15), (3, -5, 7)),
    "oblique RAS": ("RAS", (1.5, 2.0, 2.2), (-0.1, 0.12, 0.1), (-6, 4, 2)),
    "oblique LAS": ("LAS", (2.2, 1.7, 2.4), (0.05, 0.15, -0.2), (2, 8, -3)),
    "oblique ASL": ("ASL", (1.9, 2.6, 2.1), (0.1, 0.1, 0.1), (1, 2, 3)),
}
PAIRS = [
    ("plumb LAS", "plumb LAS"),
    ("plumb LAS", "plumb RAS"),
    ("oblique PIR", "oblique RAS"),
    ("oblique RAS", "oblique LAS"),
    ("oblique LAS", "oblique ASL"),
]
EXTENT = 84.0  # mm


def image(name: str) -> nib.Nifti1Image:
    orientation, spacing, angles, centre = IMAGES[name]
    shape = [round(EXTENT / one) for one in spacing]
    affine = np.diag([*spacing, 1.0])
    affine[:3, 3] = -np.array(spacing) * (np.array(shape) - 1) / 2
    made = nib.Nifti1Image(np.zeros(shape, "u1"), affine)
    made = made.as_reoriented(ornt_transform(axcodes2ornt("RAS"), axcodes2ornt(orientation)))
    turn = np.eye(4)
    turn[:3, :3], turn[:3, 3] = nib.eulerangles.euler2mat(*angles), centre
    return nib.Nifti1Image(np.asarray(made.dataobj), turn @ made.affine)


def grid(name: str) -> Grid:
    one = image(name)
    return Grid(one.shape, one.affine)


def truth() -> np.ndarray:
    """An affine from the fixed to the moving space, RAS+ mm."""
    matrix = np.eye(4)
    matrix[:3, :3] = nib.eulerangles.euler2mat(0.1, 0.05, -0.08) @ np.diag([1.05, 0.95, 1.02])
    matrix[:3, 3] = (4, -3, 6)
    return matrix


def curved(fixed: Grid) -> Transform:
    """A nonlinear transform: a field on the fixed grid, then the affine."""
    points = fixed.points().numpy()
    square = ((points - fixed.centre) ** 2).sum(-1)
    z = points[..., 2]
    mm = np.stack(
        [
            5 * np.exp(-square / 800),
            -4 * np.exp(-square / 900) * np.cos(z / 25),
            3 * np.exp(-square / 700),
        ],
        -1,
    )
    field = mm @ np.linalg.inv(fixed.affine[:3, :3]).T
    field = torch.from_numpy(np.moveaxis(field, -1, 0)[None].astype("f4"))
    return Transform((Displacement(fixed, field), Affine(truth())))


def voxels(fixed: Grid) -> np.ndarray:
    """Positions of some voxels (n, 3), RAS+ mm."""
    rng = np.random.default_rng(0)
    index = [rng.integers(0, n, 300) for n in fixed.shape]
    return apply_affine(fixed.affine, np.stack(index, -1))


def between(fixed: Grid) -> np.ndarray:
    """Points within the grid (n, 3), RAS+ mm."""
    rng = np.random.default_rng(1)
    return apply_affine(fixed.affine, rng.uniform(0, np.array(fixed.shape) - 1, (300, 3)))


def mapped(transform: Transform, points: np.ndarray) -> np.ndarray:
    return transform.map(torch.from_numpy(points)).numpy()


def assert_same_points(found: np.ndarray, expected: np.ndarray) -> None:
    assert np.linalg.norm(found - expected, axis=1).max() <= TOLERANCE


def setting(pair: tuple[str, str], nonlinear: bool) -> tuple[Transform, ImageGrids]:
    fixed, moving = (grid(name) for name in pair)
    transform = curved(fixed) if nonlinear else Transform((Affine(truth()),))
    return transform, ImageGrids(fixed, moving)


# ---------------------------------------------------------------------- other implementations


def by_itk(path: Path, points: np.ndarray) -> np.ndarray:
    if path.name.endswith((".nii", ".nii.gz")):
        field = sitk.ReadImage(str(path), sitk.sitkVectorFloat64)
        transform = sitk.DisplacementFieldTransform(field)
    else:
        transform = sitk.ReadTransform(str(path))
    return np.array([transform.TransformPoint((LPS * p).tolist()) for p in points]) * LPS


def itk(path: Path, points: np.ndarray, fixed: str, moving: str) -> np.ndarray:
    return by_itk(path, points)


def ants(path: Path, points: np.ndarray, fixed: str, moving: str) -> np.ndarray:
    """As antsApplyTransforms -t 1Warp.nii.gz 0GenericAffine.mat."""
    warp = path.with_name(path.name + "1Warp.nii.gz")
    if warp.exists():
        points = by_itk(warp, points)
    return by_itk(path.with_name(path.name + "0GenericAffine.mat"), points)


def fsl_linear(path: Path, points: np.ndarray, fixed: str, moving: str) -> np.ndarray:
    matrix = nio.fsl.FSLLinearTransform.from_filename(path).to_ras(
        reference=image(fixed), moving=image(moving)
    )
    return apply_affine(matrix, points)


def fsl_nonlinear(path: Path, points: np.ndarray, fixed: str, moving: str) -> np.ndarray:
    """FSL's own Python package."""
    fnirt = pytest.importorskip("fsl.transform.fnirt")
    from fsl.data.image import Image

    field = fnirt.readFnirt(str(path), Image(image(moving)), Image(image(fixed)))
    return field.transform(points, "world", "world")


def lta(path: Path, points: np.ndarray, fixed: str, moving: str) -> np.ndarray:
    matrix = nio.lta.FSLinearTransformArray.from_filename(path).to_ras()[0]
    return apply_affine(matrix, points)


def afni_linear(path: Path, points: np.ndarray, fixed: str, moving: str) -> np.ndarray:
    matrix = nio.afni.AFNILinearTransform.from_filename(path).to_ras(
        reference=image(fixed), moving=image(moving)
    )
    return apply_affine(matrix, points)


def afni_nonlinear(path: Path, points: np.ndarray, fixed: str, moving: str) -> np.ndarray:
    """The field on a grid without obliquity, as nitransforms removes it from both images."""
    from nitransforms.io.afni import _cardinal_rotation

    stored = nib.load(path)
    turn = _cardinal_rotation(image(fixed).affine, True)
    plumb = nib.Nifti1Image(stored.dataobj, turn @ stored.affine, stored.header)
    plumb = nio.afni.AFNIDisplacementsField.from_image(plumb)
    there = DenseFieldTransform(plumb).map(apply_affine(turn, points))
    return apply_affine(_cardinal_rotation(image(moving).affine, False), there)


def x5_linear(path: Path, points: np.ndarray, fixed: str, moving: str) -> np.ndarray:
    return TheirAffine.from_filename(path, fmt="X5").map(points)


def x5_nonlinear(path: Path, points: np.ndarray, fixed: str, moving: str) -> np.ndarray:
    return DenseFieldTransform.from_filename(path, fmt="X5").map(points)


#: Format, ending, whether the transform is nonlinear, and who else reads it.
READERS = [
    ("itk", ".h5", False, itk),
    ("itk", ".h5", True, itk),
    ("itk", ".mat", False, itk),
    ("itk", ".txt", False, itk),
    ("itk", ".tfm", False, itk),
    ("itk", ".nii.gz", False, itk),
    ("itk", ".nii.gz", True, itk),
    ("ants", "_", False, ants),
    ("ants", "_", True, ants),
    ("fsl", ".mat", False, fsl_linear),
    ("fsl", ".nii.gz", False, fsl_nonlinear),
    ("fsl", ".nii.gz", True, fsl_nonlinear),
    ("freesurfer", ".lta", False, lta),
    ("afni", ".aff12.1D", False, afni_linear),
    ("afni", ".nii.gz", True, afni_nonlinear),
    ("x5", ".x5", False, x5_linear),
    ("x5", ".x5", True, x5_nonlinear),
]


@pytest.mark.parametrize("pair", PAIRS, ids="-".join)
@pytest.mark.parametrize("name, ending, nonlinear, theirs", READERS)
def test_others_read_what_is_written(tmp_path, name, ending, nonlinear, theirs, pair):
    transform, grids = setting(pair, nonlinear)
    path = tmp_path / f"x{ending}"
    table.write(path, transform, name, grids)
    points = voxels(grids.fixed)
    expected = mapped(transform, points)
    assert np.linalg.norm(expected - points, axis=1).max() > 4
    assert_same_points(theirs(path, points, *pair), expected)


ROUND_TRIPS = [(n, e, k) for n, e, k, _ in READERS] + [
    ("freesurfer", ".m3z", True),
    ("freesurfer", ".m3d", True),
]


@pytest.mark.parametrize("pair", PAIRS[2:], ids="-".join)
@pytest.mark.parametrize("name, ending, nonlinear", ROUND_TRIPS)
def test_what_is_written_is_read(tmp_path, name, ending, nonlinear, pair):
    """The format is detected, and all points within the grid move as before."""
    transform, grids = setting(pair, nonlinear)
    path = tmp_path / f"x{ending}"
    table.write(path, transform, name, grids)
    assert table.detect(path) == name
    points = between(grids.fixed)
    assert_same_points(mapped(table.read(path, grids), points), mapped(transform, points))


# ---------------------------------------------------------------------- files of other software


@pytest.mark.parametrize("pair", PAIRS, ids="-".join)
@pytest.mark.parametrize("fmt", ["fsl", "afni", "fs", "x5"])
def test_linear_transforms_of_nitransforms(tmp_path, fmt, pair):
    """Except for the geometries of FreeSurfer, which it exchanges, as RAS needs none."""
    fixed, moving = map(image, pair)
    ending = {"fsl": ".mat", "afni": ".aff12.1D", "fs": ".lta", "x5": ".x5"}[fmt]
    path = tmp_path / f"x{ending}"
    TheirAffine(truth(), reference=fixed).to_filename(path, fmt=fmt, moving=moving)
    found = table.read(path, ImageGrids(*map(grid, pair)))
    points = voxels(grid(pair[0]))
    assert_same_points(mapped(found, points), apply_affine(truth(), points))


def their_field(pair: tuple[str, str]) -> nib.Nifti1Image:
    """Displacements (RAS+ mm) on the fixed grid, as nitransforms has them in memory."""
    fixed = grid(pair[0])
    points = fixed.points().numpy()
    moved = mapped(curved(fixed), points.reshape(-1, 3)).reshape(points.shape)
    return nib.Nifti1Image((moved - points).astype("f4"), fixed.affine)


@pytest.mark.parametrize("fmt", ["itk", "afni", "fsl"])
def test_fields_of_nitransforms(tmp_path, fmt):
    """Where images are plumb, radiological and on one grid: it ignores the rest."""
    pair = PAIRS[0]
    DenseFieldTransform(their_field(pair)).to_filename(tmp_path / "x.nii.gz", fmt=fmt)
    found = table.read(tmp_path / "x.nii.gz", ImageGrids(*map(grid, pair)), fmt)
    points = between(grid(pair[0]))
    assert_same_points(mapped(found, points), mapped(curved(grid(pair[0])), points))


@pytest.mark.parametrize("pair", PAIRS[1:3], ids="-".join)
def test_fields_and_chains_in_x5(tmp_path, pair):
    fixed = grid(pair[0])
    field = DenseFieldTransform(their_field(pair))
    nio.x5.to_filename(tmp_path / "field.x5", [field.to_x5()])
    points = voxels(fixed)
    expected = mapped(curved(fixed), points)
    assert_same_points(mapped(table.read(tmp_path / "field.x5"), points), expected)
    chain = TransformChain([field, TheirAffine(truth(), reference=image(pair[0]))])
    chain.to_filename(tmp_path / "chain.x5")
    found = mapped(table.read(tmp_path / "chain.x5"), points)
    assert_same_points(found, apply_affine(truth(), expected))


@pytest.mark.parametrize(
    "pair, absolute",
    # FSL takes absolute warps between images of other orientations for relative ones.
    [(pair, False) for pair in PAIRS] + [(pair, True) for pair in PAIRS[:2]],
)
def test_warps_of_fsl(tmp_path, pair, absolute):
    """Made by FSL's own Python package from a field in world coordinates."""
    nonlinear = pytest.importorskip("fsl.transform.nonlinear")
    from fsl.data.image import Image
    from fsl.transform.fnirt import toFnirt

    fixed, moving = (Image(image(name)) for name in pair)
    field = nonlinear.DeformationField(
        their_field(pair).get_fdata(), src=moving, ref=fixed, defType="relative",
        srcSpace="world", refSpace="world", xform=image(pair[0]).affine,
    )  # fmt: skip
    warp = toFnirt(field)
    values = nonlinear.convertDeformationType(warp, "absolute") if absolute else warp.data
    made = nib.Nifti1Image(values.astype("f4"), image(pair[0]).affine)
    made.header["intent_code"] = 2006
    made.to_filename(tmp_path / "warp.nii.gz")
    found = table.read(tmp_path / "warp.nii.gz", ImageGrids(moving=grid(pair[1])))
    points = between(grid(pair[0]))
    assert_same_points(mapped(found, points), mapped(curved(grid(pair[0])), points))


def save_coefficients(path: Path, fixed: nib.Nifti1Image) -> Path:
    """As fnirt --cout does: reference voxel sizes, its shape and the initial affine in the header."""
    knots = np.array([8, 7, 6])
    shape = np.ceil((np.array(fixed.shape) + 1) / knots).astype(int) + 2
    values = np.random.default_rng(0).normal(0, 3, (*shape, 3)).astype("f4")
    made = nib.Nifti1Image(values, None)
    made.header["intent_code"] = 2007
    for n, size in enumerate(nib.affines.voxel_sizes(fixed.affine), start=1):
        made.header[f"intent_p{n}"] = size
    qform = np.diag([*knots, 1.0])
    qform[:3, 3] = fixed.shape
    initial = np.eye(4)
    initial[:3, :3], initial[:3, 3] = nib.eulerangles.euler2mat(0.05, -0.1, 0.08), (3, -2, 4)
    made.header.set_zooms([*knots, 1])
    made.set_sform(initial, 1)
    made.set_qform(qform, 1)
    made.to_filename(path)
    return path


RADIOLOGICAL = [pair for pair in PAIRS if np.linalg.det(image(pair[0]).affine) < 0]


@pytest.mark.parametrize("pair", RADIOLOGICAL, ids="-".join)
def test_spline_coefficients_of_fsl(tmp_path, pair):
    fnirt = pytest.importorskip("fsl.transform.fnirt")
    from fsl.data.image import Image

    path = save_coefficients(tmp_path / "coefficients.nii.gz", image(pair[0]))
    theirs = fnirt.readFnirt(str(path), Image(image(pair[1])), Image(image(pair[0])))
    points = voxels(grid(pair[0]))
    expected = theirs.transform(points, "world", "world")
    assert np.isfinite(expected).all()
    found = table.read(path, ImageGrids(*map(grid, pair)))
    assert_same_points(mapped(found, points), expected)


@pytest.mark.parametrize("pair", RADIOLOGICAL, ids="-".join)
def test_spline_coefficients_do_not_depend_on_storage(tmp_path, pair):
    """FSL reverses the first axis of a neurological image before it evaluates the splines."""
    fixed = image(pair[0])
    path = save_coefficients(tmp_path / "coefficients.nii.gz", fixed)
    reversed_ = fixed.as_reoriented(np.array([[0, -1], [1, 1], [2, 1]]))
    assert np.linalg.det(reversed_.affine) > 0
    points = between(grid(pair[0]))
    one = table.read(path, ImageGrids(grid(pair[0]), grid(pair[1])))
    other = table.read(path, ImageGrids(Grid(fixed.shape, reversed_.affine), grid(pair[1])))
    assert_same_points(mapped(one, points), mapped(other, points))


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


def test_worked_examples(tmp_path):
    """A shift of 4 mm to the right and 2 mm up, by hand."""
    las = Grid((10, 10, 10), np.diag([-2.0, 2.0, 2.0, 1.0]))
    ras = Grid((10, 10, 10), np.diag([2.0, 2.0, 2.0, 1.0]))
    files = {
        # The first FSL coordinate of LAS increases to the left: 4 mm to the right is -4.
        "las.mat": ("1 0 0 4\n0 1 0 0\n0 0 1 -2\n0 0 0 1\n", ImageGrids(las, las)),
        # That of RAS is reversed, and starts at voxel 9, at x = 18 mm: 18 - x.
        "ras.mat": ("1 0 0 4\n0 1 0 0\n0 0 1 -2\n0 0 0 1\n", ImageGrids(ras, ras)),
        # From RAS (18 - x) to LAS (-x), from the moving to the fixed image.
        "both.mat": ("1 0 0 -14\n0 1 0 0\n0 0 1 -2\n0 0 0 1\n", ImageGrids(las, ras)),
        # DICOM coordinates increase to the left, to the back, and up.
        "x.aff12.1D": ("1 0 0 -4 0 1 0 0 0 0 1 2\n", ImageGrids(las, ras)),
        "rows.1D": ("# a comment\n1 0 0 -4\n0 1 0 0\n0 0 1 2\n", ImageGrids(las, ras)),
    }
    for name, (text, grids) in files.items():
        (tmp_path / name).write_text(text)
        found = mapped(table.read(tmp_path / name, grids), np.array([[-3.0, 5.0, 7.0]]))
        expected = [[1.0, 5.0, 9.0]]
        np.testing.assert_allclose(found, expected, atol=1e-9, err_msg=name)


def test_axes_without_obliquity_are_those_of_nitransforms():
    from nitransforms.io.afni import _dicom_real_to_card

    for name in IMAGES:
        ours, theirs = afni.cardinal(grid(name)), _dicom_real_to_card(image(name).affine)
        np.testing.assert_allclose(ours, theirs, atol=1e-4)


def test_formats_of_the_command_line():
    assert tuple(table.FORMATS) == TRANSFORM_FORMATS
