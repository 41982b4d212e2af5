"""The command `fcnreg convert`, which converts transforms between formats."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from bids_fcnreg.cli import ants_syntax
from bids_fcnreg.cli.paths import check_inputs, check_replaceable
from bids_fcnreg.config import BUILTIN_NAMES, IDENTITY, TRANSFORM_FORMATS

_FORMATS = """\
format      linear               nonlinear
itk         .txt .mat .tfm .h5   .h5 (affine and field), .nii.gz (displacement field)
ants        OUT is a prefix: OUT0GenericAffine.mat, OUT1Warp.nii.gz
fsl         .mat (FLIRT)         .nii.gz (FNIRT warp field; spline coefficients are read)
freesurfer  .lta                 .m3z
afni        .aff12.1D            .nii.gz (3dQwarp)
x5          .x5                  .x5 (nitransforms)

All formats are read and written. A transform resamples the moving image onto the reference, in
all formats. The ending of OUT decides between a linear transform and a displacement field.

FSL, AFNI and FreeSurfer transforms depend on the grids of both images: provide them with
--reference and --moving. A displacement field is written on the grid of the reference; without
--reference, on its own.

Several transforms are composed, listed as for `fcnreg apply`; [XFM,1] is the inverse of one.
--reference and --moving are the images of the result.
"""


def add_convert(commands: Any) -> None:
    """Add `fcnreg convert`."""
    command = commands.add_parser(
        "convert",
        help="convert a transform to the format of other software",
        epilog=_FORMATS,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    command.add_argument(
        "transforms",
        action=ants_syntax.TransformList,
        nargs="+",
        metavar="XFM",
        help="transform to convert, or prefix of ANTs' files",
    )
    command.add_argument(
        "-o", "--output", type=Path, metavar="OUT", required=True, help="file to write"
    )
    command.add_argument(
        "--to", choices=TRANSFORM_FORMATS, required=True, help="format of the output"
    )
    command.add_argument(
        "--from",
        dest="source_format",
        choices=TRANSFORM_FORMATS,
        help="format of the input (default: detected)",
    )
    command.add_argument(
        "-r",
        "--reference",
        "--reference-image",
        type=Path,
        metavar="REFERENCE",
        help=f"fixed image, onto which the transform resamples, or {BUILTIN_NAMES}",
    )
    command.add_argument(
        "-m", "--moving", type=Path, metavar="MOVING", help="image that the transform resamples"
    )
    command.set_defaults(run=_convert)


def _convert(options: argparse.Namespace) -> None:
    from bids_fcnreg import api
    from bids_fcnreg.io.formats import ants, table

    check_inputs(options.reference, options.moving)
    table.check_ending(options.output, options.to)
    inputs = [options.reference, options.moving]
    for path, _ in options.transforms:
        if str(path) != IDENTITY:
            inputs += [path] if path.is_file() else ants.files(path)
    for path in ants.names(options.output) if options.to == "ants" else [options.output]:
        check_replaceable(path, *inputs)
    made = api.convert(
        options.transforms,
        options.output,
        options.to,
        source_format=options.source_format,
        reference=options.reference,
        moving=options.moving,
    )
    print(f"written: {', '.join(map(str, made))}")
