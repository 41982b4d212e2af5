"""Convert termination signals to exceptions, so that a run ends cleanly."""

from __future__ import annotations

import signal
import threading
from types import FrameType
from typing import NoReturn


class Terminated(BaseException):
    """The process received SIGTERM, or SIGHUP because its terminal was closed.

    Attributes
    ----------
    exit_code : int
        128 plus the number of the signal, as in shells.
    """

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.exit_code = 128 + number


def install_handlers() -> None:
    """Raise `Terminated` on SIGTERM and SIGHUP; SIGHUP stays ignored under `nohup`."""
    if threading.current_thread() is not threading.main_thread():
        return
    signal.signal(signal.SIGTERM, _terminate)
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        signal.signal(signal.SIGHUP, _terminate)


def _terminate(number: int, _frame: FrameType | None) -> NoReturn:
    raise Terminated(number)
