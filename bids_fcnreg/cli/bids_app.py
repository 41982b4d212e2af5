"""The command `bids_fcnreg`: parse the arguments, run the level, return an exit code."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from bids_fcnreg.app import signals
from bids_fcnreg.cli.options import parse_arguments
from bids_fcnreg.config import Config
from bids_fcnreg.errors import FcnregError, InputError, describe_os_error
from bids_fcnreg.execution.fork_server import start_server, stop_server
from bids_fcnreg.garbage_collection import collect_rarely

FAILED, BAD_INPUT, INTERRUPTED = 1, 2, 130
_RESUME = "Run the same command again to resume"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the BIDS App.

    Parameters
    ----------
    argv : sequence of str, optional
        Command-line arguments; by default those of this process.

    Returns
    -------
    int
        Exit code: 0 success; 1 a subject failed; 2 wrong input or arguments, nothing was run;
        130 after Ctrl-C, 143 after SIGTERM, 129 after SIGHUP.
    """
    signals.install_handlers()
    collect_rarely()
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # the encoding may lack some characters
            stream.reconfigure(errors="replace")
    try:
        return run(parse_arguments(argv))
    except InputError as error:
        return _fail(f"error: {error}", BAD_INPUT)
    except FcnregError as error:
        return _fail(f"error: {error}", FAILED)
    except OSError as error:  # for instance: no space left
        return _fail(f"error: {describe_os_error(error)}. {_RESUME}.", FAILED)
    except KeyboardInterrupt:
        return _fail(f"interrupted by the user. {_RESUME}.", INTERRUPTED)
    except signals.Terminated as request:
        return _fail(f"terminated by a signal. {_RESUME}.", request.exit_code)


def _fail(message: str, code: int) -> int:
    """Print a message; return the exit code."""
    print(f"bids_fcnreg: {message}", file=sys.stderr)
    return code


def run(config: Config) -> int:
    """Run the analysis level of the settings.

    Returns
    -------
    int
        0, or 1 if a subject failed.

    Raises
    ------
    FcnregError
        If nothing can be run.
    """
    os.environ["NO_ET"] = os.environ["NIPYPE_NO_ET"] = "1"  # no usage reports by libraries
    from rich.console import Console

    from bids_fcnreg.app.directories import check_directories

    console = Console(highlight=False, soft_wrap=True, markup=False, quiet=not _is_main_process())
    check_directories(config, console)

    if _runs_nodes(config):
        start_server()  # it imports libraries while this process does
    try:
        if config.analysis_level == "group":
            from bids_fcnreg.app import group

            return group.run(config, console)
        from bids_fcnreg.app import participant

        return participant.run(config, console)
    finally:
        stop_server()


def _runs_nodes(config: Config) -> bool:
    """Return whether nodes of the participant level run in processes of this machine."""
    only = config.boilerplate_only or config.dry_run or config.reports_only
    participant = config.analysis_level == "participant"
    return participant and config.plugin_file is None and not only


def _is_main_process() -> bool:
    """Return whether this is the only process, or rank 0 of `torchrun`."""
    return "TORCHELASTIC_RUN_ID" not in os.environ or os.environ["RANK"] == "0"
