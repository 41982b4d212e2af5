"""The BIDS App: reads the words, runs the level they name, ends with an exit code."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Sequence
from types import FrameType
from typing import NoReturn

from bids_fcnreg.cli import prepare
from bids_fcnreg.cli.parser import parse
from bids_fcnreg.config import Config
from bids_fcnreg.errors import FcnregError, InputError

FAILED, BAD_INPUT, INTERRUPTED = 1, 2, 130
_GOES_ON = "the same command goes on with what is done"


class _Terminated(BaseException):
    """This process was asked to end: by SIGTERM, or because its terminal was closed."""


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
    if threading.current_thread() is threading.main_thread():
        _listen()
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # a terminal may not know all letters
            stream.reconfigure(errors="replace")
    try:
        return run(parse(argv))
    except InputError as error:
        return _leave(f"error: {error}", BAD_INPUT)
    except FcnregError as error:
        return _leave(f"error: {error}", FAILED)
    except OSError as error:  # for instance: no space left
        return _leave(f"error: {_told(error)}; {_GOES_ON}.", FAILED)
    except KeyboardInterrupt:
        return _leave(f"stopped by the user; {_GOES_ON}.", INTERRUPTED)
    except _Terminated as request:
        return _leave(f"was asked to end; {_GOES_ON}.", 128 + request.args[0])


def _told(error: OSError) -> str:
    """What the system says, and of which file."""
    reason = error.strerror or str(error)
    return f"{error.filename}: {reason}" if error.filename else reason


def _leave(sentence: str, code: int) -> int:
    print(f"bids_fcnreg: {sentence}", file=sys.stderr)
    return code


def _listen() -> None:
    """End orderly on request; `nohup` has SIGHUP ignored, and that stays."""
    signal.signal(signal.SIGTERM, _terminate)
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        signal.signal(signal.SIGHUP, _terminate)


def _terminate(number: int, _frame: FrameType | None) -> NoReturn:
    raise _Terminated(number)


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

    from bids_fcnreg.cli import group, participant

    console = Console(highlight=False, soft_wrap=True, markup=False, quiet=not _speaks())
    prepare.check_folders(config, console)
    level = {"participant": participant, "group": group}[config.level]
    return level.run(config, console)


def _speaks() -> bool:
    """Whether this process is alone, or the first of those that `torchrun` has started."""
    return "TORCHELASTIC_RUN_ID" not in os.environ or os.environ["RANK"] == "0"
