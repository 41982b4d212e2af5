"""The BIDS App: reads the words, runs the level they name, ends with an exit code."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from bids_fcnreg.app import preflight, signals
from bids_fcnreg.cli.options import parse_arguments
from bids_fcnreg.config import Config
from bids_fcnreg.errors import FcnregError, InputError, describe_os_error

FAILED, BAD_INPUT, INTERRUPTED = 1, 2, 130
_GOES_ON = "the same command goes on with what is done"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the BIDS App.

    Parameters
    ----------
    argv : sequence of str, optional
        Words of the command line without the program's name; by default those of this process.

    Returns
    -------
    int
        Exit code: 0 all done; 1 something failed; 2 wrong input or words, nothing was run;
        130 after an interrupt, 143 after a request to end, 129 when the terminal was closed.
    """
    signals.install_handlers()
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # a terminal may not know all letters
            stream.reconfigure(errors="replace")
    try:
        return run(parse_arguments(argv))
    except InputError as error:
        return _leave(f"error: {error}", BAD_INPUT)
    except FcnregError as error:
        return _leave(f"error: {error}", FAILED)
    except OSError as error:  # for instance: no space left
        return _leave(f"error: {describe_os_error(error)}; {_GOES_ON}.", FAILED)
    except KeyboardInterrupt:
        return _leave(f"stopped by the user; {_GOES_ON}.", INTERRUPTED)
    except signals.Terminated as request:
        return _leave(f"was asked to end; {_GOES_ON}.", request.exit_code)


def _leave(sentence: str, code: int) -> int:
    print(f"bids_fcnreg: {sentence}", file=sys.stderr)
    return code


def run(config: Config) -> int:
    """Do what the settings say.

    Returns
    -------
    int
        0, or 1 when some subject failed.

    Raises
    ------
    FcnregError
        When nothing can be run.
    """
    os.environ["NO_ET"] = os.environ["NIPYPE_NO_ET"] = "1"  # libraries shall not report usage
    from rich.console import Console

    from bids_fcnreg.app import group, participant

    console = Console(highlight=False, soft_wrap=True, markup=False, quiet=not _speaks())
    preflight.check_folders(config, console)
    level = {"participant": participant, "group": group}[config.level]
    return level.run(config, console)


def _speaks() -> bool:
    """Whether this process is alone, or the first of those that `torchrun` has started."""
    return "TORCHELASTIC_RUN_ID" not in os.environ or os.environ["RANK"] == "0"
