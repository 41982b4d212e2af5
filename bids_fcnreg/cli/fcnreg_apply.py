"""The commands `fcnreg apply` and `fcnreg jacobian`, which use existing transforms."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from bids_fcnreg.cli import ants_syntax
from bids_fcnreg.cli.paths import check_image_output, check_inputs, check_table_output, is_table
from bids_fcnreg.config import DEFAULT_TEMPLATE, IDENTITY, INTERPOLATIONS
from bids_fcnreg.errors import InputError

_STACK = """\
Transforms are a stack, as in antsApplyTransforms: the FIRST transform listed maps points of the
reference first, and the LAST one maps them to the image. Seen from the image, the last one is
applied first. All transforms are composed, and the image is interpolated once. To resample an
image of A through B onto C, use -t B-to-C.h5 A-to-B.h5 or -t B-to-C.h5 -t A-to-B.h5, where
X-to-Y.h5 is the file that resamples X onto Y. [XFM,1] is the inverse of a transform, and identity
is the identity transform.

XFM is a transform of ITK or ANTs (.h5, .mat, .tfm, .txt), or a displacement field of ANTs
(1Warp.nii.gz). Apply the output of ANTs with -t 1Warp.nii.gz 0GenericAffine.mat, and its inverse
with -t [0GenericAffine.mat,1] 1InverseWarp.nii.gz. Transforms of FSL, FreeSurfer, AFNI and
nitransforms are accepted as well, if their format is clear; see `fcnreg convert`.

IMAGE may be a series, each volume of which is resampled, or a table of points (.csv, .tsv, .txt)
with columns x, y, z (RAS+ mm). Points are mapped from the space of the reference to that of the
image, in the direction opposite to images, as in antsApplyTransformsToPoints (whose points are in
LPS+ mm). OUT is the same table with the mapped coordinates.
"""


def add_apply(commands: Any) -> None:
    """Add `fcnreg apply`."""
    command = commands.add_parser(
        "apply",
        help="resample an image through transforms",
        epilog=_STACK,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    command.add_argument(
        "-i",
        "--input",
        type=Path,
        metavar="IMAGE",
        required=True,
        help="image, series or table of points to transform",
    )
    command.add_argument(
        "-r",
        "--reference",
        "--reference-image",
        type=Path,
        metavar="REFERENCE",
        help="image or series that defines the output grid (its values are ignored), or the name "
        f"of a template, such as {DEFAULT_TEMPLATE} (default: IMAGE); not needed for points",
    )
    command.add_argument(
        "--spacing",
        type=_number,
        nargs="+",
        metavar="MM",
        help="voxel size of the output, one number or three, in the field of view of the "
        "reference (default: that of the reference)",
    )
    _add_transforms(command, "transforms; the last listed is applied to the image first")
    command.add_argument(
        "-o",
        "--output",
        type=ants_syntax.output,
        metavar="OUT",
        required=True,
        help="file to write",
    )
    command.add_argument(
        "-n",
        "--interpolation",
        type=ants_syntax.interpolation,
        metavar=f"{{{','.join(INTERPOLATIONS)}}}",
        default="linear",
        help="use nearest or label for label images; cubic (B-spline) and lanczos (windowed "
        "sinc) keep more detail than linear, and may overshoot at edges; also accepts ANTs' names "
        "Linear, NearestNeighbor, GenericLabel, BSpline and LanczosWindowedSinc (default: "
        "%(default)s)",
    )
    command.add_argument(
        "-f",
        "--default-value",
        type=_number,
        default=0.0,
        metavar="VALUE",
        help="value outside the image (default: 0)",
    )
    ants_syntax.add_ants_options(command)
    command.set_defaults(run=_apply)


def add_jacobian(commands: Any) -> None:
    """Add `fcnreg jacobian`."""
    command = commands.add_parser(
        "jacobian",
        help="compute the Jacobian determinant of transforms",
        description="Writes the Jacobian determinant of the map that resamples an image onto "
        "REFERENCE: above 1, a voxel is larger in the image than in the reference.",
        allow_abbrev=False,
    )
    command.add_argument(
        "-r",
        "--reference",
        type=Path,
        metavar="REFERENCE",
        required=True,
        help=f"image that defines the grid, or the name of a template, such as {DEFAULT_TEMPLATE}",
    )
    _add_transforms(command, "transforms, listed as for `fcnreg apply`")
    command.add_argument(
        "-o", "--output", type=Path, metavar="OUT", required=True, help="file to write"
    )
    command.add_argument("--log", action="store_true", help="write its natural logarithm")
    command.add_argument(
        "--nonlinear",
        action="store_true",
        help="leave out the volume change of linear transforms, which is the same everywhere",
    )
    command.add_argument(
        "--geometric",
        action="store_true",
        help="compute the volume of each deformed voxel, the sum of which over a region is its "
        "volume in the image, in place of central differences",
    )
    command.add_argument(
        "--float32",
        action="store_true",
        help="write in single precision; otherwise values are rounded to multiples of 1/512 and "
        "stored as 16-bit integers, in a third of the space",
    )
    command.set_defaults(run=_jacobian)


def _add_transforms(command: argparse.ArgumentParser, about: str) -> None:
    command.add_argument(
        "-t",
        "--transforms",
        "--transform",
        action=ants_syntax.TransformList,
        nargs="+",
        metavar="XFM",
        required=True,
        help=about,
    )


def _number(value: str) -> float:
    try:
        return float(value)
    except ValueError as why:
        raise argparse.ArgumentTypeError(f"it must be a number, not {value!r}") from why


def _apply(options: argparse.Namespace) -> None:
    transforms = _files(options.transforms)
    check_inputs(options.input, options.reference, *transforms)
    if is_table(options.input):
        _apply_to_points(options, transforms)
        return
    check_image_output(options.output, options.input, options.reference, *transforms)

    from bids_fcnreg import api
    from bids_fcnreg.io import nifti
    from bids_fcnreg.io.series import open_series

    if options.input_image_type == "scalar" and open_series(options.input) is not None:
        raise InputError(f"{options.input} is a series. Use -e 3, or extract one volume.")
    resampled = api.apply(
        options.input,
        options.reference,
        options.transforms,
        interpolation=options.interpolation,
        default_value=options.default_value,
        spacing=options.spacing,
    )
    print(f"written: {nifti.write(options.output, resampled)}")


def _apply_to_points(options: argparse.Namespace, transforms: list[Path]) -> None:
    from bids_fcnreg import api
    from bids_fcnreg.io.points import read_points, write_points

    table = read_points(options.input)
    check_table_output(options.output, options.input, *transforms)
    write_points(options.output, table, api.map_points(table.points, options.transforms))
    print(f"written: {options.output}")


def _jacobian(options: argparse.Namespace) -> None:
    given = [options.reference, *_files(options.transforms)]
    check_inputs(*given)
    check_image_output(options.output, *given)

    from bids_fcnreg import api
    from bids_fcnreg.io import nifti
    from bids_fcnreg.io.jacobian import write_jacobian

    determinant = api.jacobian(
        options.transforms,
        options.reference,
        log=options.log,
        nonlinear=options.nonlinear,
        geometric=options.geometric,
    )
    if options.float32:
        nifti.write(options.output, determinant)
    else:
        write_jacobian(options.output, determinant, options.log)
    print(f"written: {options.output}")


def _files(transforms: list[tuple[Path, bool]]) -> list[Path]:
    """Return the files of transforms, without the identity; those of ANTs' prefixes, too."""
    found = []
    for path, _ in transforms:
        if str(path) == IDENTITY:
            continue
        if not path.is_file():
            from bids_fcnreg.io.formats import ants  # takes seconds

            found += ants.files(path) or [path]
        else:
            found.append(path)
    return found
