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
from bids_fcnreg.cli.fcnreg_register import add_register
from bids_fcnreg.cli.train import add_train
from bids_fcnreg.config_file import convert
from bids_fcnreg.errors import FcnregError, describe_os_error
from bids_fcnreg.fcn.memory import keep_freed_memory
from bids_fcnreg.garbage_collection import collect_rarely


def main(argv: Sequence[str] | None = None) -> int:
    """Run `fcnreg`.

    Returns
    -------
    int
        Exit code: 0 success; 1 a file could not be read or written, one of several moving images
        failed, or, with --fail-on-qc, the verdict of a registration is failed or unknown; 2 wrong
        input or arguments; 130 after Ctrl-C, 143 after SIGTERM, 129 after SIGHUP.
    """
    signals.install_handlers()
    collect_rarely()
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
    add_register(commands)
    add_apply(commands)
    add_convert(commands)
    add_jacobian(commands)
    add_train(commands)
    _add_phantom(commands)
    return parser


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
    command.add_argument(
        "--spacing",
        type=float,
        metavar="MM",
        help="voxel size of all scans; large voxels are fast (default: that of each participant, "
        "0.9 to 1.5)",
    )
    command.add_argument("--seed", type=int, default=0, help="(default: %(default)s)")
    command.set_defaults(run=_phantom)


def _phantom(options: argparse.Namespace) -> None:
    from bids_fcnreg.phantom.dataset import make_dataset

    make_dataset(
        options.directory,
        participants=options.participants,
        seed=convert("seed", options.seed, "--seed"),
        sessions=options.sessions,
        spacing=options.spacing,
    )
    print(f"Simulated {options.participants} participants in {options.directory}.")


if __name__ == "__main__":
    sys.exit(main())
