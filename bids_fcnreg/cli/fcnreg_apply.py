"""The commands `fcnreg apply` and `fcnreg jacobian`: transforms that are there are used."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from bids_fcnreg.cli import ants_syntax
from bids_fcnreg.cli.paths import (
    check_image_output,
    check_inputs,
    check_table_output,
    is_table,
)
from bids_fcnreg.config import DEFAULT_TEMPLATE, IDENTITY, INTERPOLATIONS
from bids_fcnreg.errors import InputError

_STACK = """\
Transforms are a stack, as in antsApplyTransforms: to find the value of a point of the reference,
the FIRST transform listed moves the point first and the LAST listed reaches the image. Seen from
the image, the last listed is applied to it first. All are composed and the image is interpolated
once. To bring an image of A through B onto C: -t B-to-C.h5 A-to-B.h5, where X-to-Y.h5 is the file
that resamples X onto Y; -t B-to-C.h5 -t A-to-B.h5 is the same. [XFM,1] is the inverse of a
transform, identity the transform that moves nothing.

XFM is a transform of ITK or ANTs (.h5, .mat, .tfm, .txt), or a displacement field as ANTs writes
it (1Warp.nii.gz). ANTs' usual output is applied with -t 1Warp.nii.gz 0GenericAffine.mat, its
inverse with -t [0GenericAffine.mat,1] 1InverseWarp.nii.gz.

IMAGE may be a series: each volume is resampled. If it is a table (.csv, .tsv, .txt) with columns
x, y, z (RAS+ mm) its points are taken from the space of the reference to that of the image, the
way opposite to that of images, as in antsApplyTransformsToPoints (whose points are in LPS+ mm);
OUT is the same table with other coordinates.
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
        help="image, series or table of points to take through the transforms",
    )
    command.add_argument(
        "-r",
        "--reference",
        "--reference-image",
        type=Path,
        metavar="REFERENCE",
        help="image that gives the grid (its values do not matter; of a series, the grid of a "
        f"volume), or {DEFAULT_TEMPLATE}; not needed for points",
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
        help="nearest or label for label images; ANTs' names Linear, NearestNeighbor and "
        "GenericLabel are understood (default: %(default)s)",
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
        help="how much transforms change the volume of each voxel",
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
        help=f"image that gives the grid, or {DEFAULT_TEMPLATE}",
    )
    _add_transforms(command, "transforms, listed as for `fcnreg apply`")
    command.add_argument(
        "-o", "--output", type=Path, metavar="OUT", required=True, help="file to write"
    )
    command.add_argument("--log", action="store_true", help="write its natural logarithm")
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


def _number(word: str) -> float:
    try:
        return float(word)
    except ValueError as why:
        raise argparse.ArgumentTypeError(f"it must be a number, not {word!r}") from why


def _apply(options: argparse.Namespace) -> None:
    transforms = _files(options.transforms)
    check_inputs(options.input, options.reference, *transforms)
    if is_table(options.input):
        _apply_to_points(options, transforms)
        return
    if options.reference is None:
        raise InputError(
            "The grid of the output is missing: give an image with --reference. (Tables of points "
            "need none; their names end in .csv, .tsv or .txt.)"
        )
    check_image_output(options.output, options.input, options.reference, *transforms)

    from bids_fcnreg import api
    from bids_fcnreg.io import image
    from bids_fcnreg.io.series import open_series

    if options.input_image_type == "scalar" and open_series(options.input) is not None:
        raise InputError(f"{options.input} is a series: give -e 3, or extract one volume.")
    resampled = api.apply(
        options.input,
        options.reference,
        options.transforms,
        interpolation=options.interpolation,
        default_value=options.default_value,
    )
    print(f"written: {image.write(options.output, resampled)}")


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
    from bids_fcnreg.io import image

    growth = api.jacobian(options.transforms, options.reference, log=options.log)
    print(f"written: {image.write(options.output, growth)}")


def _files(transforms: list[tuple[Path, bool]]) -> list[Path]:
    """The files among transforms."""
    return [path for path, _ in transforms if str(path) != IDENTITY]
