"""Transforms in the files of ITK, against ITK itself."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import h5py
import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
import torch
from nibabel.orientations import axcodes2ornt, inv_ornt_aff, ornt_transform
from scipy.spatial.transform import Rotation

from bids_fcnreg.errors import InputError
from bids_fcnreg.fcn.spatial.grid import Grid, Image
from bids_fcnreg.fcn.spatial.inverse import invert
from bids_fcnreg.fcn.spatial.transform import Affine, Displacement, Transform
from bids_fcnreg.io import image
from bids_fcnreg.io.itk import read_transform, write_transform
from bids_fcnreg.io.rounding import ROUNDING_ERROR_MM
from tests.smooth_fields import FIXED_GRID, smooth_displacement, smooth_noise

MATRIX = np.array(
    [[1.1, 0.1, 0, 3.0], [-0.15, 0.95, 0.05, -2.0], [0.02, -0.03, 1.05, 1.5], [0, 0, 0, 1]]
)
ORIENTATIONS = ("RAS", "LAS", "LPI", "PIR", "ASL", "SRP", "oblique")
SPACINGS = ((1.5, 1.5, 1.5), (1.0, 1.3, 2.0), (2.2, 0.9, 1.1))

#: Largest error of stored displacements times the largest zoom.
ROUNDING_MM = 1.2 * ROUNDING_ERROR_MM


@pytest.fixture(scope="module")
def fixed() -> Grid:
    return FIXED_GRID


@pytest.fixture(scope="module")
def displacement() -> Displacement:
    return smooth_displacement()


@pytest.fixture(scope="module")
def transform(displacement) -> Transform:
    return Transform((displacement, Affine(MATRIX)))


def moving_image(orientation: str, spacing: tuple[float, ...]) -> Image:
    """A smooth image around the origin, stored in some orientation."""
    shape = tuple(int(70 / s) for s in spacing)
    affine = np.diag([*spacing, 1.0])
    affine[:3, 3] = -np.array(spacing) * (np.array(shape) - 1) / 2
    data = 100 + 50 * smooth_noise((1, *shape), 3, 1)[0, 0].numpy()
    if orientation == "oblique":
        turn = sitk.Euler3DTransform((0, 0, 0), 0.3, -0.2, 0.25).GetMatrix()
        rotated = np.eye(4)
        rotated[:3, :3] = np.reshape(turn, (3, 3))
        return image.to_image(nib.Nifti1Image(data, rotated @ affine))
    change = ornt_transform(axcodes2ornt("RAS"), axcodes2ornt(orientation))
    nifti = nib.Nifti1Image(data, affine).as_reoriented(change)
    assert np.allclose(nifti.affine, affine @ inv_ornt_aff(change, shape))
    return image.to_image(nifti)


@pytest.mark.parametrize("spacing", SPACINGS)
@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_itk_resamples_the_same(tmp_path, fixed, displacement, transform, orientation, spacing):
    moving = moving_image(orientation, spacing)
    grids = {"fixed": Image(torch.zeros(1, 1, *fixed.shape), fixed), "moving": moving}
    back = Transform((
        Affine(np.linalg.inv(MATRIX)), Displacement(fixed, invert(displacement.field)),
    ))  # fmt: skip
    for name, item in grids.items():
        image.write(tmp_path / f"{name}.nii.gz", item)
    for chain, reference in ((transform, "fixed"), (back, "moving")):
        file = write_transform(tmp_path / "x.h5", chain)
        ours = read_transform(file).resample(moving, grids[reference].grid).data[0, 0].numpy()
        theirs = resample_with_itk(
            tmp_path / "moving.nii.gz", tmp_path / f"{reference}.nii.gz", file
        )
        # On the rim of the field of view, rounding decides what is inside.
        inside = (ours > 0) & (theirs > 0)
        assert ((ours > 0) != (theirs > 0)).mean() < 0.005
        assert np.abs(ours - theirs)[inside].max() < 0.05
        assert ours.max() > 120 and (ours > 0).mean() > 0.5


def resample_with_itk(moving: Path, reference: Path, transform: Path) -> np.ndarray:
    result = sitk.Resample(
        sitk.ReadImage(str(moving), sitk.sitkFloat32),
        sitk.ReadImage(str(reference)),
        sitk.ReadTransform(str(transform)),
        sitk.sitkLinear,
    )
    return sitk.GetArrayFromImage(result).T


@pytest.mark.parametrize("orientation", ["LAS", "oblique"])
def test_ants_resamples_the_same(tmp_path, fixed, transform, orientation):
    ants = pytest.importorskip("ants", reason="antspyx (extra bench) is not installed")
    moving = moving_image(orientation, SPACINGS[1])
    image.write(tmp_path / "moving.nii.gz", moving)
    image.write(tmp_path / "fixed.nii.gz", Image(torch.zeros(1, 1, *fixed.shape), fixed))
    theirs = ants.apply_transforms(
        ants.image_read(str(tmp_path / "fixed.nii.gz")),
        ants.image_read(str(tmp_path / "moving.nii.gz")),
        [str(write_transform(tmp_path / "x.h5", transform))],
    ).numpy()
    ours = transform.resample(moving, fixed).data[0, 0].numpy()
    assert np.quantile(np.abs(ours - theirs), 0.999) < 0.05
    assert ours.max() > 120


def test_nitransforms_maps_the_same(tmp_path, fixed, transform):
    manip = pytest.importorskip("nitransforms.manip", reason="nitransforms is not installed")
    file = write_transform(tmp_path / "x.h5", transform)
    chain = manip.TransformChain.from_filename(file, fmt="itk")
    points = fixed.points()[8:-8:3, 8:-8:3, 8:-8:3].reshape(-1, 3)
    ours = transform.map(points).numpy()
    assert np.abs(chain.map(points.numpy()) - ours).max() < 0.02


@pytest.fixture(scope="module")
def in_a_part(fixed, transform) -> tuple[Transform, Grid]:
    """A transform whose displacement ends within a larger fixed image, and that image's grid."""
    return transform, fixed.crop((-9, -5, 4), np.add(fixed.shape, (3, 6, 11)))


def test_nitransforms_resamples_onto_the_whole_fixed_image(tmp_path, in_a_part):
    resampling = pytest.importorskip("nitransforms.resampling")
    manip = pytest.importorskip("nitransforms.manip", reason="nitransforms is not installed")
    chain, grid = in_a_part
    moving = moving_image("RAS", SPACINGS[1])
    image.write(tmp_path / "moving.nii.gz", moving)
    image.write(tmp_path / "fixed.nii.gz", Image(torch.zeros(1, 1, *grid.shape), grid))
    file = write_transform(tmp_path / "x.h5", chain, over=grid)
    theirs = resampling.apply(
        manip.TransformChain.from_filename(file, fmt="itk"),
        str(tmp_path / "moving.nii.gz"),
        reference=str(tmp_path / "fixed.nii.gz"),
        order=1,
    ).get_fdata()
    ours = read_transform(file).resample(moving, grid).data[0, 0].numpy()
    both = (ours > 0) & (theirs > 0)
    assert both.sum() > 0.9 * (ours > 0).sum()
    assert np.abs(ours - theirs)[both].max() < 0.05


def test_stored_voxels_reach_over_the_fixed_image_and_fmriprep_reads_them(tmp_path, in_a_part):
    """Its loader takes the first axis for the last: both must have as many voxels."""
    chain, grid = in_a_part
    with h5py.File(write_transform(tmp_path / "x.h5", chain, over=grid)) as file:
        stored = file["TransformGroup/2"]
        shape = tuple(stored["TransformFixedParameters"][:3].astype(int))
        field = stored["TransformParameters"][:].reshape(*shape, 3).transpose(2, 1, 0, 3)
    (read, _) = read_transform(tmp_path / "x.h5").steps
    assert shape == read.grid.shape and shape[0] == shape[2]
    assert all(n >= m for n, m in zip(shape, grid.shape, strict=True))
    to_lps = np.diag([-1, -1, 1]) @ read.grid.affine[:3, :3]
    lps = torch.einsum("wc,cijk->ijkw", torch.from_numpy(to_lps).float(), read.field[0])
    np.testing.assert_allclose(field, lps.numpy(), atol=1e-5)
    points = grid.points()
    again = read_transform(tmp_path / "x.h5").map(points)
    assert (again - chain.map(points)).norm(dim=-1).max() < ROUNDING_MM


def test_transform_round_trip(tmp_path, fixed, transform):
    again = read_transform(write_transform(tmp_path / "x.h5", transform))
    points = fixed.points()
    assert (again.map(points) - transform.map(points)).norm(dim=-1).max() < ROUNDING_MM
    assert [type(step) for step in again.steps] == [Displacement, Affine]


@pytest.mark.parametrize("kind", ["oblique", "flipped", "anisotropic"])
def test_writing_again_rounds_no_more(tmp_path, fixed, displacement, kind):
    transform = Transform((Displacement(changed(fixed, kind), displacement.field),))
    once = read_transform(write_transform(tmp_path / "once.h5", transform))
    twice = read_transform(write_transform(tmp_path / "twice.h5", once))
    (one,), (two,) = once.displacements, twice.displacements
    assert (one.field - two.field).abs().max() < 1e-5


def test_any_linear_itk_transform_is_read(tmp_path):
    rigid = sitk.Euler3DTransform((5.0, -3.0, 2.0), 0.1, 0.2, -0.3, (1.0, 2.0, 3.0))
    sitk.WriteTransform(rigid, str(tmp_path / "rigid.tfm"))
    point = np.array([10.0, -20.0, 5.0])
    lps = np.array([-1, -1, 1])
    expected = lps * rigid.TransformPoint((lps * point).tolist())
    mapped = read_transform(tmp_path / "rigid.tfm").map(torch.from_numpy(point))
    np.testing.assert_allclose(mapped.numpy(), expected, atol=1e-9)


def test_files_that_are_not_transforms_are_rejected(tmp_path):
    (tmp_path / "x.h5").write_text("no transform")
    with pytest.raises(InputError, match=r"x\.h5 cannot be read as an ITK transform"):
        read_transform(tmp_path / "x.h5")
    with pytest.raises(InputError, match="does not exist"):
        read_transform(tmp_path / "y.h5")


#: Size, origin, spacing and direction of a grid of four voxels along each axis.
GRID = (4, 4, 4, 0, 0, 0, 1, 1, 1, 1, 0, 0, 0, 1, 0, 0, 0, 1)


@pytest.mark.parametrize(
    ("grid", "count", "value", "sentence"),
    [
        (GRID, 10**13, None, "needs .* GB of memory"),
        ((9e4, 9e4, 9e4, *GRID[3:]), 192, 0.0, "needs .* GB of memory"),
        ((np.nan,) * 18, 192, 0.0, "cannot be read as an ITK transform"),
        (GRID, 191, 0.0, "cannot be read as an ITK transform"),
        (GRID[:5], 192, 0.0, "cannot be read as an ITK transform"),
        ((*GRID[:6], 0, 1, 1, *GRID[9:]), 192, 0.0, "cannot be read as an ITK transform"),
        (GRID, 192, np.nan, "infinite values or NaN"),
        ((*GRID[:3], np.inf, 0, 0, *GRID[6:]), 192, 0.0, "infinite values or NaN"),
    ],
)
def test_oversized_or_invalid_h5_is_rejected(tmp_path, grid, count, value, sentence):
    path = tmp_path / "x.h5"
    with h5py.File(path, "w", locking=False) as file:
        part = file.create_group("TransformGroup/0")
        kind = b"DisplacementFieldTransform_double_3_3"
        part["TransformType"] = np.array([kind], h5py.string_dtype("ascii"))
        part["TransformFixedParameters"] = np.array(grid, float)
        if value is None:  # nothing of it is stored
            part.create_dataset("TransformParameters", (count,), "f8", chunks=(1024,))
        else:
            part["TransformParameters"] = np.full(count, value)
    with pytest.raises(InputError, match=sentence) as caught:
        read_transform(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def older(path: Path, *names: str) -> Path:
    """Misspell names of parameters, as older versions of ITK did."""
    with h5py.File(path, "a", locking=False) as file:
        for part in file["TransformGroup"].values():
            for name in set(names) & set(part):
                part.move(name, name.replace("Transform", "Tranform"))
    return path


def itk_chain(*kinds: str) -> sitk.Transform:
    """ITK's transform of some kinds; a composite of several."""
    affine = sitk.AffineTransform(3)
    affine.Scale((1.1, 0.9, 1.2))
    affine.Translate((1, -2, 3))
    affine.SetCenter((4, -5, 6))
    vectors = np.random.default_rng(0).normal(size=(9, 8, 7, 3))
    image = sitk.GetImageFromArray(vectors, isVector=True)
    image.SetOrigin((-9, -9, -9))
    image.SetSpacing((3, 2.5, 2))
    field = sitk.DisplacementFieldTransform(image)
    made = {"affine": affine, "field": field, "euler": sitk.Euler3DTransform((1, 2, 3), 0.1)}
    parts = [made[kind] for kind in kinds]
    return parts[0] if len(parts) == 1 else sitk.CompositeTransform(parts)


@pytest.mark.parametrize(
    "kinds", [["affine"], ["field"], ["euler"], ["affine", "field"], ["field", "euler", "affine"]]
)
@pytest.mark.parametrize(
    "names",
    [
        (),
        ("TransformParameters",),
        ("TransformFixedParameters",),
        ("TransformParameters", "TransformFixedParameters"),
    ],
)
def test_h5_of_itk_maps_points_as_itk(tmp_path, kinds, names):
    transform = itk_chain(*kinds)
    sitk.WriteTransform(transform, str(tmp_path / "x.h5"))
    points = np.random.default_rng(1).uniform(-5, 5, (20, 3))
    expected = [transform.TransformPoint(point) for point in points * [-1, -1, 1]]
    read = read_transform(older(tmp_path / "x.h5", *names))
    mapped = read.map(torch.from_numpy(points)).numpy()
    np.testing.assert_allclose(mapped, np.array(expected) * [-1, -1, 1], atol=1e-5)


def test_a_misspelled_oversized_h5_is_rejected(tmp_path):
    sitk.WriteTransform(itk_chain("field"), str(tmp_path / "x.h5"))
    with h5py.File(tmp_path / "x.h5", "a", locking=False) as file:
        file["TransformGroup/0/TransformFixedParameters"][:3] = 9e4
    with pytest.raises(InputError, match="needs .* GB of memory"):
        read_transform(older(tmp_path / "x.h5", "TransformFixedParameters"))


def changed(fixed: Grid, kind: str) -> Grid:
    """The fixed grid with other axes."""
    linear = {
        "slightly sheared": np.eye(3) + 2e-4 * np.eye(3, k=1),
        "just sheared": np.eye(3) + 0.9e-4 * np.eye(3, k=1),
        "sheared": np.eye(3) + 0.15 * np.eye(3, k=1) - 0.1 * np.eye(3, k=-2),
        "oblique": Rotation.from_euler("xyz", [0.3, -0.2, 0.25]).as_matrix(),
        "flipped": np.diag([1, -1, -1]),
        "anisotropic": np.diag([0.7, 1, 1.6]),
    }  # fmt: skip
    matrix = np.eye(4)
    for name in kind.split(" and "):
        matrix[:3, :3] = matrix[:3, :3] @ linear[name]
    return Grid(fixed.shape, matrix @ fixed.affine)


KINDS = (
    "slightly sheared",
    "just sheared",
    "sheared",
    "oblique",
    "flipped",
    "anisotropic",
    "sheared and oblique",
    "flipped and sheared",
    "anisotropic and sheared and oblique",
)


@pytest.mark.parametrize("over", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_itk_maps_points_the_same_on_any_grid(tmp_path, fixed, displacement, kind, over):
    grid = changed(fixed, kind)
    step = Displacement(grid, displacement.field)
    wide = grid.crop((-3, -2, -1), np.add(grid.shape, 4)) if over else None
    for chain in (Transform((step, Affine(MATRIX))), Transform((Affine(MATRIX), step))):
        path = write_transform(tmp_path / "x.h5", chain, over=wide)
        theirs = sitk.ReadTransform(str(path))
        points = grid.points()[9:-9:3, 9:-9:3, 9:-9:3].reshape(-1, 3) + 0.3
        if isinstance(chain.steps[0], Affine):
            points = Affine(np.linalg.inv(MATRIX)).map(points)
        lps = torch.tensor([-1.0, -1, 1], dtype=torch.float64)
        found = torch.tensor([theirs.TransformPoint(p.tolist()) for p in points * lps]) * lps
        ours = chain.map(points)
        linear = Transform((Affine(MATRIX),)).map(points)
        assert (ours - linear).norm(dim=-1).max() > 2
        assert (found - ours).norm(dim=-1).max() < ROUNDING_MM
        assert (read_transform(path).map(points) - ours).norm(dim=-1).max() < ROUNDING_MM


def test_a_spline_is_refused_before_itk_reads_it(tmp_path):
    path = tmp_path / "x.h5"
    spline = sitk.BSplineTransform(3)
    sitk.WriteTransform(spline, str(path))
    with h5py.File(path, "a", locking=False) as file:
        part = file["TransformGroup/0"]
        del part["TransformParameters"]
        part["TransformParameters"] = np.zeros(3)  # with these, ITK ends the process
    with pytest.raises(InputError, match="contains a BSplineTransform"):
        read_transform(path)


TEXT = """#Insight Transform File V1.0
#Transform 0
Transform: AffineTransform_double_3_3
Parameters: {0} 0 0 0 {0} 0 0 0 {0} 5 0 0
FixedParameters: 0 0 0
"""

#: ITK reads it, but takes its RAS coordinates for LPS.
MNI = """MNI Transform File
% written by hand

Transform_Type = Linear;
Linear_Transform =
 1 0 0 1
 0 1 0 2
 0 0 1 3;
"""


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (TEXT.format(1) + TEXT.format(1).partition("\n")[2], "2 transforms that do not form a co"),
        (TEXT.format(0), "singular affine"),
        (TEXT.format(1e200), "more than a kilometre"),
        (TEXT.format(1).replace("Affine", "BSpline"), "contains a BSplineTransform"),
        (TEXT.format("x"), "cannot be read as an ITK transform"),
        (MNI, r"x.txt is a transform of MNI's software \(.xfm\), which is not supported"),
        (MNI.partition("\n")[2], "cannot be read as an ITK transform"),
    ],
)
def test_invalid_text_transforms_are_rejected(tmp_path, text, sentence):
    path = tmp_path / "x.txt"
    path.write_text(text)
    with pytest.raises(InputError, match=sentence) as caught:
        read_transform(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("ending", ["h5", "mat"])
def test_several_transforms_are_refused(tmp_path, ending):
    path = tmp_path / f"x.{ending}"
    sitk.WriteTransform(sitk.TranslationTransform(3, (1.0, 2.0, 3.0)), str(path))
    read_transform(path)
    if ending == "h5":
        with h5py.File(path, "a", locking=False) as file:
            file.copy("TransformGroup/0", "TransformGroup/1")
    else:
        path.write_bytes(2 * path.read_bytes())
    with pytest.raises(InputError, match="2 transforms that do not form a composite"):
        read_transform(path)


def test_libraries_are_silent_about_a_damaged_transform(tmp_path, capfd):
    path = tmp_path / "x.h5"
    sitk.WriteTransform(sitk.TranslationTransform(3, (1.0, 2.0, 3.0)), str(path))
    content = bytearray(path.read_bytes())
    for size in (len(content) // 2, len(content) - 1):
        path.write_bytes(content[:size])
        with pytest.raises(InputError, match="cannot be read as an ITK transform"):
            read_transform(path)
    for place in range(0, len(content), 97):
        path.write_bytes(content[:place] + b"\xff" * 8 + content[place + 8 :])
        with suppress(InputError):
            read_transform(path)
    assert capfd.readouterr() == ("", "")


def test_2d_transform_is_rejected(tmp_path):
    path = tmp_path / "x.tfm"
    sitk.WriteTransform(sitk.TranslationTransform(2), str(path))
    with pytest.raises(InputError, match="contains a 2D transform"):
        read_transform(path)
