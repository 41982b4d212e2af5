"""The command `fcnreg`: register, apply, convert, jacobian, train, phantom."""

from __future__ import annotations

import argparse
import os
import sys
import warnings
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from bids_fcnreg import __version__
from bids_fcnreg.app import signals
from bids_fcnreg.cli.argument_parser import ConciseArgumentParser
from bids_fcnreg.cli.fcnreg_apply import add_apply, add_jacobian
from bids_fcnreg.cli.fcnreg_convert import add_convert
from bids_fcnreg.cli.paths import check_inputs, check_replaceable
from bids_fcnreg.cli.train import add_train
from bids_fcnreg.config import BUILTIN_NAMES, CONTRASTS, NETWORKS, Config
from bids_fcnreg.config_file import convert
from bids_fcnreg.errors import FcnregError, InputError, describe_os_error
from bids_fcnreg.fcn.memory import keep_freed_memory
from bids_fcnreg.fcn.modes import MODES


def main(argv: Sequence[str] | None = None) -> int:
    """Run `fcnreg`.

    Returns
    -------
    int
        Exit code: 0 success; 1 a file could not be read or written, or, with --fail-on-qc, the
        verdict of the registration is failed or unknown; 2 wrong input or arguments; 130 after
        Ctrl-C, 143 after SIGTERM, 129 after SIGHUP.
    """
    signals.install_handlers()
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
        print(f"fcnreg: error: {describe_os_error(error)}.", file=sys.stderr)
        return 1
    except KeyboardInterrupt as stop:
        advice = f" {stop}." if str(stop) else ""
        print(f"fcnreg: interrupted by the user.{advice}", file=sys.stderr)
        return 130
    except signals.Terminated as request:
        print("fcnreg: terminated by a signal.", file=sys.stderr)
        return request.exit_code


def _show_warning(
    shown: set[str], message: Warning | str, kind: type[Warning], *_: Any, **__: Any
) -> None:
    """Print each UserWarning once, in one line; hide the warnings of libraries."""
    if kind is UserWarning and str(message) not in shown:
        shown.add(str(message))
        print(f"fcnreg: warning: {message}", file=sys.stderr)


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of `fcnreg` and its commands."""
    parser = ConciseArgumentParser(
        prog="fcnreg",
        description="Register two brain images, apply or convert transforms, train networks, "
        "make test data.",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"fcnreg {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True, dest="command")
    _add_register(commands)
    add_apply(commands)
    add_convert(commands)
    add_jacobian(commands)
    add_train(commands)
    _add_phantom(commands)
    return parser


def _add_register(commands: Any) -> None:
    command = commands.add_parser(
        "register",
        help="register a moving image to a fixed one",
        description="Writes PREFIXwarped.nii.gz (MOVING on the grid of FIXED), PREFIXxfm.h5 "
        "(resamples MOVING onto FIXED) and PREFIXinverse_xfm.h5 (resamples FIXED onto MOVING), "
        "and prints quality metrics, with a verdict by bounds fitted on T1w brains registered to "
        "MNI152NLin2009aSym.",
        allow_abbrev=False,
    )
    about = "NIfTI image: T1w, skull-stripped or with a brain mask, or of another contrast"
    command.add_argument("fixed", type=Path, help=f"{about}; or {BUILTIN_NAMES}")
    command.add_argument("moving", type=Path, help=about)
    command.add_argument(
        "-o",
        "--output",
        metavar="PREFIX",
        required=True,
        help="prefix of the output files, such as out/sub-01_",
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
    command.add_argument(
        "--fixed-mask",
        type=Path,
        metavar="FILE",
        help="brain mask of FIXED, required if FIXED is a T1w image that is not skull-stripped",
    )
    command.add_argument(
        "--moving-mask", type=Path, metavar="FILE", help="brain mask of MOVING, likewise"
    )
    command.add_argument(
        "--fixed-contrast",
        choices=CONTRASTS,
        default=CONTRASTS[0],
        help="contrast of FIXED. An image of another contrast than T1w is segmented and replaced, "
        "for the registration, by an image with the intensities of a T1w brain. auto: by the BIDS "
        "suffix of the file name (_T2w, _FLAIR, ...); without one it is T1w, unless its "
        "intensities are those of a T2w brain (default: %(default)s)",
    )
    command.add_argument(
        "--moving-contrast",
        choices=CONTRASTS,
        default=CONTRASTS[0],
        help="contrast of MOVING, likewise (default: %(default)s)",
    )
    command.add_argument(
        "--labels",
        type=Path,
        metavar="FILE",
        help="label image in the space of MOVING, resampled to PREFIXlabels.nii.gz on the grid of "
        "FIXED",
    )
    command.add_argument(
        "--report",
        action="store_true",
        help="write PREFIXreport.html with figures and quality metrics",
    )
    command.add_argument(
        "--fail-on-qc", action="store_true", help="exit with 1 if the verdict is failed or unknown"
    )
    command.add_argument("--seed", type=int, default=0, help="(default: %(default)s)")
    command.set_defaults(run=_register)


def _add_phantom(commands: Any) -> None:
    command = commands.add_parser(
        "phantom",
        help="simulate a BIDS dataset with known ground truth",
        description="Simulates T1w images of heads from MNI152NLin2009aSym. The true "
        "transforms, labels and masks are in derivatives/truth.",
        allow_abbrev=False,
    )
    command.add_argument("directory", type=Path, metavar="DIR", help="a new or empty directory")
    command.add_argument("--participants", type=int, default=2, help="(default: %(default)s)")
    command.add_argument(
        "--sessions",
        type=int,
        default=1,
        help="number of sessions per participant, between which the brain changes (default: "
        "%(default)s)",
    )
    command.add_argument("--seed", type=int, default=0, help="(default: %(default)s)")
    command.set_defaults(run=_phantom)


def _register(options: argparse.Namespace) -> int:
    device = convert("device", options.device, "--device")
    seed = convert("seed", options.seed, "--seed")
    if options.model is not None and not options.model.is_file():
        raise InputError(f"--model: {options.model} does not exist.")
    given = (options.fixed, options.moving, options.fixed_mask, options.moving_mask)
    check_inputs(*given)
    results = ["warped.nii.gz", "xfm.h5", "inverse_xfm.h5"]
    results += ["labels.nii.gz"] * (options.labels is not None) + ["report.html"] * options.report
    for ending in results:
        check_replaceable(Path(options.output + ending), *given, options.labels, options.model)

    from bids_fcnreg.app.pair_registration import register_pair

    return register_pair(options, device, seed)


def _phantom(options: argparse.Namespace) -> None:
    from bids_fcnreg.phantom.dataset import make_dataset

    make_dataset(
        options.directory,
        participants=options.participants,
        seed=convert("seed", options.seed, "--seed"),
        sessions=options.sessions,
    )
    print(f"Simulated {options.participants} participants in {options.directory}.")


if __name__ == "__main__":
    sys.exit(main())
