"""The command `fcnreg`: register, apply, train, phantom."""

from __future__ import annotations

import argparse
import os
import re
import sys
import tempfile
import warnings
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from bids_fcnreg import __version__
from bids_fcnreg.cli import requests
from bids_fcnreg.cli.parser import OneSentenceParser
from bids_fcnreg.cli.train import add_train
from bids_fcnreg.config import DEFAULT_TEMPLATE, INTERPOLATIONS, MODES, NETWORKS, convert
from bids_fcnreg.errors import FcnregError, InputError, told
from bids_fcnreg.fcn.memory import keep_freed_memory
from bids_fcnreg.files import make_folder

_STACK = """\
Transforms are a stack, as in antsApplyTransforms: to find the value of a point of the reference,
the FIRST transform listed moves the point first and the LAST listed reaches the image. Seen from
the image, the last listed is applied to it first. All are composed and the image is interpolated
once. To bring an image of A through B onto C: -t B-to-C.h5 A-to-B.h5, where X-to-Y.h5 is the file
that resamples X onto Y. [XFM,1] is the inverse of a transform.

IMAGE may be a series: each volume is resampled. If it is a CSV file with columns x, y, z (RAS+ mm)
its points are taken from the space of the reference to that of the image, the way opposite to that
of images, as in antsApplyTransformsToPoints; OUT is the same table with other coordinates.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run `fcnreg`.

    Returns
    -------
    int
        Exit code: 0; 1 when a file could not be read or written, or when a registration failed by
        its quality numbers and --fail-on-qc was given; 2 when the input or a word is wrong; 130
        after an interrupt, 143 after a request to end, 129 when the terminal was closed.
    """
    requests.listen()
    parser = build_parser()
    options = parser.parse_args(argv)
    # Before PyTorch is loaded: its threads must not keep the cores that other processes need.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    keep_freed_memory()
    warnings.showwarning = partial(_show_warning, set())
    try:
        return options.run(options) or 0
    except FcnregError as error:
        print(f"fcnreg: error: {error}", file=sys.stderr)
        return 2
    except OSError as error:  # for instance: no space left
        print(f"fcnreg: error: {told(error)}.", file=sys.stderr)
        return 1
    except KeyboardInterrupt as stop:
        advice = f"; {stop}" if str(stop) else ""
        print(f"fcnreg: stopped by the user{advice}.", file=sys.stderr)
        return 130
    except requests.Terminated as request:
        print("fcnreg: was asked to end.", file=sys.stderr)
        return request.exit_code


def _show_warning(
    shown: set[str], message: Warning | str, kind: type[Warning], *_: Any, **__: Any
) -> None:
    """Our own warnings in one line, each once; those of libraries are not for users."""
    if kind is UserWarning and str(message) not in shown:
        shown.add(str(message))
        print(f"fcnreg: warning: {message}", file=sys.stderr)


def build_parser() -> argparse.ArgumentParser:
    """The parser of `fcnreg` and its commands."""
    parser = OneSentenceParser(
        prog="fcnreg",
        description="Register two brain images, apply transforms, train networks, make test data.",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"fcnreg {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True, dest="command")
    _add_register(commands)
    _add_apply(commands)
    _add_jacobian(commands)
    add_train(commands)
    _add_phantom(commands)
    return parser


def _add_register(commands: Any) -> None:
    command = commands.add_parser(
        "register",
        help="register a moving image to a fixed one",
        description="Writes PREFIXwarped.nii.gz (MOVING on the grid of FIXED), PREFIXxfm.h5 "
        "(resamples MOVING onto FIXED) and PREFIXinverse_xfm.h5 (resamples FIXED onto MOVING), "
        "and prints the quality, with a verdict by bounds fitted on T1w brains registered to the "
        "built-in template.",
        allow_abbrev=False,
    )
    about = "NIfTI image of a brain without skull, or of a head whose brain mask is given"
    command.add_argument("fixed", type=Path, help=f"{about}, or {DEFAULT_TEMPLATE}")
    command.add_argument("moving", type=Path, help="the same")
    command.add_argument(
        "-o",
        "--output",
        metavar="PREFIX",
        required=True,
        help="what the names of the results begin with, such as out/sub-01_",
    )
    command.add_argument("--mode", choices=MODES, default=MODES[0], help="(default: %(default)s)")
    command.add_argument(
        "--device", default="auto", help="auto, cpu, cuda or cuda:N (default: %(default)s)"
    )
    command.add_argument(
        "--network", choices=NETWORKS, default=NETWORKS[0], help="(default: %(default)s)"
    )
    command.add_argument("--model", type=Path, metavar="FILE", help="weights made by fcnreg train")
    command.add_argument(
        "--fixed-mask",
        type=Path,
        metavar="FILE",
        help="brain mask of FIXED, if that shows more than a brain",
    )
    command.add_argument("--moving-mask", type=Path, metavar="FILE", help="same for MOVING")
    command.add_argument(
        "--labels",
        type=Path,
        metavar="FILE",
        help="label image in the space of MOVING; PREFIXlabels.nii.gz is it on the grid of FIXED",
    )
    command.add_argument(
        "--report", action="store_true", help="write PREFIXreport.html: pictures and quality"
    )
    command.add_argument(
        "--fail-on-qc", action="store_true", help="exit with 1 if the verdict is failed"
    )
    command.add_argument("--seed", type=int, default=0, help="(default: %(default)s)")
    command.set_defaults(run=_register)


def _add_apply(commands: Any) -> None:
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
        help="image, series or table of points (CSV) to take through the transforms",
    )
    command.add_argument(
        "-r",
        "--reference",
        type=Path,
        metavar="REFERENCE",
        help=f"image that gives the grid, or {DEFAULT_TEMPLATE}; not needed for points",
    )
    _add_transforms(command, "ITK transforms; the last listed is applied to the image first")
    command.add_argument(
        "-o", "--output", type=Path, metavar="OUT", required=True, help="file to write"
    )
    command.add_argument(
        "-n",
        "--interpolation",
        type=_interpolation,
        choices=INTERPOLATIONS,
        default="linear",
        help="nearest or label for label images; NearestNeighbor and GenericLabel, as ANTs calls "
        "them, are understood (default: %(default)s)",
    )
    command.set_defaults(run=_apply)


def _add_jacobian(commands: Any) -> None:
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
    _add_transforms(command, "ITK transforms, listed as for `fcnreg apply`")
    command.add_argument(
        "-o", "--output", type=Path, metavar="OUT", required=True, help="file to write"
    )
    command.add_argument("--log", action="store_true", help="write its natural logarithm")
    command.set_defaults(run=_jacobian)


def _add_transforms(command: argparse.ArgumentParser, about: str) -> None:
    command.add_argument(
        "-t",
        "--transforms",
        type=_transform,
        nargs="+",
        metavar="XFM",
        required=True,
        help=about,
    )


def _transform(word: str) -> tuple[Path, bool]:
    """A transform and whether its inverse is meant, from ``FILE`` or ``[FILE,1]``."""
    listed = re.fullmatch(r"\[?(.+?),(\w*)\]?", word)
    if listed is None or Path(word).exists():
        return Path(word), False
    if listed[2] not in ("0", "1"):
        raise argparse.ArgumentTypeError(
            f"{word}: after the comma stands 1, for the inverse, or 0"
        )
    return Path(listed[1]), listed[2] == "1"


def _interpolation(word: str) -> str:
    """Our word for an interpolation, also from that of ANTs."""
    ants = {"nearestneighbor": "nearest", "genericlabel": "label"}
    return ants.get(word.lower(), word.lower())


def _add_phantom(commands: Any) -> None:
    command = commands.add_parser(
        "phantom",
        help="make a BIDS dataset whose truth is known",
        description="Makes T1w images of heads from the built-in template; the true transforms, "
        "labels and masks are in derivatives/truth.",
        allow_abbrev=False,
    )
    command.add_argument("folder", type=Path, metavar="DIR", help="must be new or empty")
    command.add_argument("--participants", type=int, default=2, help="(default: %(default)s)")
    command.add_argument(
        "--sessions",
        type=int,
        default=1,
        help="of each participant; with several, the brain changes (default: %(default)s)",
    )
    command.add_argument("--seed", type=int, default=0, help="(default: %(default)s)")
    command.set_defaults(run=_phantom)


def _register(options: argparse.Namespace) -> int:
    device = convert("device", options.device, "--device")
    seed = convert("seed", options.seed, "--seed")
    if options.model is not None and not options.model.is_file():
        raise InputError(f"The file {options.model} given with --model does not exist.")
    given = (options.fixed, options.moving, options.fixed_mask, options.moving_mask)
    _check_inputs(*given)
    results = ["warped.nii.gz", "xfm.h5", "inverse_xfm.h5"]
    results += ["labels.nii.gz"] * (options.labels is not None) + ["report.html"] * options.report
    for name in results:
        _check_replaceable(Path(options.output + name), *given, options.labels, options.model)

    from bids_fcnreg import api, image
    from bids_fcnreg.files import together

    name = str(options.fixed) if str(options.fixed) == DEFAULT_TEMPLATE else None
    options.fixed = api.located(options.fixed)
    if options.labels is not None:
        image.load(options.labels)  # refused now rather than after the registration
        if doubt := image.doubt_about_place(options.labels):
            warnings.warn(doubt, stacklevel=1)
    result = api.register(
        options.fixed,
        options.moving,
        mode=options.mode,
        network=options.network,
        model=options.model,
        fixed_mask=options.fixed_mask,
        moving_mask=options.moving_mask,
        device=device,
        seed=seed,
    )
    folder, prefix = os.path.split(options.output)
    with together(folder or ".") as new:
        written = result.save(new / prefix if prefix else f"{new}/")
        warped, xfm, _ = written
        if options.labels is not None:
            carried = api.apply(options.labels, options.fixed, [xfm], interpolation="label")
            written.append(image.write(new / f"{prefix}labels.nii.gz", carried))
        if options.report:
            page = new / f"{prefix}report.html"
            written.append(_report(options, page, warped, xfm, result.quality, name))
    _print_quality(result.quality, ranges=name is not None)
    print("written:", ", ".join(str(Path(folder) / path.name) for path in written))
    return int(options.fail_on_qc and result.quality["verdict"] == "failed")


def _report(
    options: argparse.Namespace,
    page: Path,
    warped: Path,
    transform: Path,
    quality: dict[str, Any],
    name: str | None,
) -> Path:
    from bids_fcnreg import image
    from bids_fcnreg.workflows.pair_report import make_pair_report

    with tempfile.TemporaryDirectory() as folder:
        mask = options.fixed_mask
        if mask is None:
            fixed = image.load(options.fixed)
            nonzero = image.like(fixed, fixed.get_fdata() != 0, "uint8")
            mask = image.write(Path(folder) / "mask.nii.gz", nonzero)
        return make_pair_report(
            page, options.fixed, options.moving, mask, warped, transform, quality, name
        )


def _print_quality(quality: dict[str, Any], ranges: bool) -> None:
    from bids_fcnreg.verdict import MEASURED_ON, NOTE, NUMBERS, reference

    usual = reference(quality["mode"]) if ranges else {}
    for key, name, form in NUMBERS:
        if key in quality:
            note = f" ({usual[key].told(form)})" if key in usual else ""
            print(f"{name}: {form.format(quality[key])}{note}")
    print(f"Mode: {quality['mode']}, device: {quality['device']}")
    print("Seconds:", ", ".join(f"{stage} {s:.1f}" for stage, s in quality["seconds"].items()))
    if ranges:
        print(NOTE)
    reason = f": {quality['verdict_reason']}" if quality["verdict_reason"] else ""
    print(f"Verdict, by bounds for {MEASURED_ON}: {quality['verdict']}{reason}")


def _apply(options: argparse.Namespace) -> None:
    transforms = [path for path, _ in options.transforms]
    _check_inputs(options.input, options.reference, *transforms)
    if options.input.suffix == ".csv":
        _apply_to_points(options)
        return
    if options.reference is None:
        raise InputError("The grid of the output is missing: give an image with --reference.")
    _check_output(options.output, options.input, options.reference, *transforms)

    from bids_fcnreg import api, image

    resampled = api.apply(
        options.input, options.reference, options.transforms, interpolation=options.interpolation
    )
    _tell(image.write(options.output, resampled))


def _apply_to_points(options: argparse.Namespace) -> None:
    from bids_fcnreg import api
    from bids_fcnreg.points import read_points, write_points

    table = read_points(options.input)
    _check_kept(options.output, options.input, *(path for path, _ in options.transforms))
    if options.output.is_dir():
        raise InputError(f"The output {options.output} is a folder: give a file.")
    _check_folder(options.output.parent)
    write_points(options.output, table, api.map_points(table.points, options.transforms))
    _tell(options.output)


def _jacobian(options: argparse.Namespace) -> None:
    given = [options.reference, *(path for path, _ in options.transforms)]
    _check_inputs(*given)
    _check_output(options.output, *given)

    from bids_fcnreg import api, image

    growth = api.jacobian(options.transforms, options.reference, log=options.log)
    _tell(image.write(options.output, growth))


def _phantom(options: argparse.Namespace) -> None:
    from bids_fcnreg.phantom import make_dataset

    make_dataset(
        options.folder,
        participants=options.participants,
        seed=convert("seed", options.seed, "--seed"),
        sessions=options.sessions,
    )
    print(f"Made {options.participants} participants in {options.folder}.")


def _tell(written: Path) -> None:
    print(f"written: {written}")


def _check_inputs(*paths: Path | None) -> None:
    """Refuse files that are not there, before anything heavy is loaded."""
    for path in paths:
        if path is None or path.exists() or str(path) == DEFAULT_TEMPLATE:
            continue
        advice = "check the path"
        if "." not in path.name:
            advice += f"; of templates, only {DEFAULT_TEMPLATE} is known here by its name"
        raise InputError(f"{path} does not exist: {advice}.")


def _check_kept(output: Path, *inputs: Path | None) -> None:
    """Refuse an output that would take the place of an input."""
    for path in inputs:
        if path is not None and path.exists() and output.exists() and output.samefile(path):
            raise InputError(f"The output {output} is one of the inputs: give it another name.")


def _check_output(path: Path, *inputs: Path | None) -> None:
    """Refuse an image to write that could not be written, or would replace an input."""
    if not path.name.endswith((".nii", ".nii.gz")):
        raise InputError(f"The output {path} must end in .nii or .nii.gz.")
    _check_replaceable(path, *inputs)


def _check_replaceable(path: Path, *inputs: Path | None) -> None:
    """Refuse an output that could not be written, or would replace an input, before any work."""
    _check_kept(path, *inputs)
    if path.is_dir():
        raise InputError(f"The output {path} is a folder: give a file.")
    _check_folder(path.parent)


def _check_folder(folder: Path) -> None:
    """Make the folder of an output, or refuse it."""
    try:
        make_folder(folder)
    except OSError as error:
        raise InputError(
            f"The folder {folder} cannot be written ({error.strerror}): give another output."
        ) from error


if __name__ == "__main__":
    sys.exit(main())
