"""The command `fcnreg register`, which registers one or several images to a fixed one."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from bids_fcnreg.app.moving_images import list_moving_images
from bids_fcnreg.cli import ants_syntax
from bids_fcnreg.cli.paths import check_inputs, check_replaceable
from bids_fcnreg.config import CONTRASTS, DEFAULT_TEMPLATE, IDENTITY, NETWORKS, Config
from bids_fcnreg.config_file import convert
from bids_fcnreg.errors import InputError
from bids_fcnreg.fcn.modes import LINEAR, MODES, TRANSFORMS

#: Endings of the files that are always written.
OUTPUTS = ("warped.nii.gz", "xfm.h5", "inverse_xfm.h5", "affine.mat")

_DESCRIPTION = """\
Writes PREFIXwarped.nii.gz (MOVING on the grid of FIXED), PREFIXxfm.h5 (resamples MOVING onto
FIXED), PREFIXinverse_xfm.h5 (resamples FIXED onto MOVING) and PREFIXaffine.mat (the linear part of
PREFIXxfm.h5, as 0GenericAffine.mat of ANTs), and prints quality metrics, with a verdict by bounds
fitted on T1w brains registered to MNI152NLin2009cAsym.

Several moving images are registered one after another, to PREFIXNAME_warped.nii.gz and so on,
where NAME is the file name without extension. If one fails, the others are still registered, and
the exit code is 1. Options about the moving image then take one file for each of them.
"""


def add_register(commands: Any) -> None:
    """Add `fcnreg register`."""
    command = commands.add_parser(
        "register",
        help="register one or several moving images to a fixed one",
        description=_DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    about = "NIfTI image of a head or brain, of any contrast"
    command.add_argument(
        "fixed",
        type=Path,
        metavar="FIXED",
        help=f"{about}; or the name of a template, such as {DEFAULT_TEMPLATE} (built in) or "
        "MNI152NLin6Asym:res-2, unless there is a file of this name",
    )
    command.add_argument("moving", type=Path, metavar="MOVING", nargs="+", help=about)
    command.add_argument(
        "-o",
        "--output",
        metavar="PREFIX",
        required=True,
        help="prefix of the output files, such as out/sub-01_",
    )
    _add_transform_options(command)
    _add_image_options(command)
    command.add_argument(
        "--report",
        action="store_true",
        help="write PREFIXreport.html with figures and quality metrics",
    )
    command.add_argument(
        "--fail-on-qc", action="store_true", help="exit with 1 if a verdict is failed or unknown"
    )
    command.add_argument("--seed", type=int, default=0, help="(default: %(default)s)")
    command.set_defaults(run=_register)


def _add_transform_options(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--transform",
        choices=TRANSFORMS,
        default=TRANSFORMS[-1],
        help="rigid (6 parameters), similarity (7), affine (12), or deformable: an affine "
        "followed by a deformation. A linear transform has no verdict (default: %(default)s)",
    )
    command.add_argument(
        "--initial",
        action=ants_syntax.TransformList,
        nargs="+",
        metavar="XFM",
        help="transform of any format of `fcnreg convert` from which the registration starts, in "
        "place of the search over all orientations. A linear one is optimized; with a nonlinear "
        "one, such as *_xfm.h5 of fMRIPrep, the remaining difference is registered, and the "
        "output contains both. Several are a chain in the order of antsApplyTransforms. [XFM,1] "
        f"is the inverse of a transform; {IDENTITY} starts from the positions in the headers",
    )
    command.add_argument(
        "--mode",
        choices=MODES,
        default=Config.mode,
        help=f"{Config.option('mode').help} (default: %(default)s)",
    )
    command.add_argument(
        "--device", default="auto", help="auto, cpu, cuda or cuda:N (default: %(default)s)"
    )
    command.add_argument(
        "--network", choices=NETWORKS, default=NETWORKS[0], help="(default: %(default)s)"
    )
    command.add_argument("--model", type=Path, metavar="FILE", help="weights made by fcnreg train")


def _add_image_options(command: argparse.ArgumentParser) -> None:
    moving: dict[str, Any] = {"type": Path, "nargs": "+", "metavar": "FILE"}
    command.add_argument(
        "--fixed-mask",
        type=Path,
        metavar="FILE",
        help="brain mask of FIXED; without it, the brain of a whole head is extracted. Templates "
        "have their own",
    )
    command.add_argument("--moving-mask", help="brain mask of MOVING, likewise", **moving)
    command.add_argument(
        "--fixed-exclude",
        type=Path,
        metavar="FILE",
        help="lesion mask of FIXED, on any grid, which is excluded from the similarity",
    )
    command.add_argument("--moving-exclude", help="lesion mask of MOVING, likewise", **moving)
    command.add_argument(
        "--fixed-contrast",
        choices=CONTRASTS,
        default=CONTRASTS[0],
        help="contrast of FIXED. An image of another contrast than T1w is segmented and replaced, "
        "for the registration, by an image with the intensities of a T1w brain. auto: by the BIDS "
        "suffix of the file name (_T2w, _FLAIR, ...); without one it is T1w, unless its "
        "intensities are those of another contrast. If MOVING is replaced, so is a T1w image of a "
        "young infant (default: %(default)s)",
    )
    command.add_argument(
        "--moving-contrast",
        choices=CONTRASTS,
        default=CONTRASTS[0],
        help="contrast of MOVING, likewise (default: %(default)s)",
    )
    command.add_argument(
        "--labels",
        help="label image in the space of MOVING, resampled to PREFIXlabels.nii.gz on the grid of "
        "FIXED",
        **moving,
    )


def _register(options: argparse.Namespace) -> int:
    device = convert("device", options.device, "--device")
    seed = convert("seed", options.seed, "--seed")
    if options.model is not None and not options.model.is_file():
        raise InputError(f"--model: {options.model} does not exist.")
    if options.transform in LINEAR and options.model is not None:
        raise InputError(f"--model cannot be used with --transform {options.transform}.")
    if options.transform in LINEAR and options.fail_on_qc:
        raise InputError(
            f"--fail-on-qc cannot be used with --transform {options.transform}: the bounds of the "
            "verdict are those of deformable registrations."
        )
    images = list_moving_images(options)
    fixed = options.fixed, options.fixed_mask, options.fixed_exclude
    check_inputs(*fixed, *(file for one in images for file in one.files))
    inputs = [*fixed, options.model]
    for one in images:
        inputs += [*one.files, *(path for path, _ in one.initial or ())]
    for one in images:
        results = [*OUTPUTS, *["labels.nii.gz"] * (one.labels is not None)]
        for ending in results + ["report.html"] * options.report:
            check_replaceable(Path(one.prefix + ending), *inputs)

    from bids_fcnreg.app.pair_registration import register_pairs

    return register_pairs(options, images, device, seed)
