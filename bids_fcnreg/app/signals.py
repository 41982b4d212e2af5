"""Requests to end, which become exceptions so that nothing is left half-done."""

from __future__ import annotations

import signal
import threading
from types import FrameType
from typing import NoReturn


class Terminated(BaseException):
    """This process was asked to end: by SIGTERM, or because its terminal was closed.

    Attributes
    ----------
    exit_code : int
        As shells have it: 128 and the number of the signal.
    """

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.exit_code = 128 + number


def install_handlers() -> None:
    """Raise `Terminated` on request; `nohup` has SIGHUP ignored, and that stays."""
    if threading.current_thread() is not threading.main_thread():
        return
    signal.signal(signal.SIGTERM, _terminate)
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        signal.signal(signal.SIGHUP, _terminate)


def _terminate(number: int, _frame: FrameType | None) -> NoReturn:
    raise Terminated(number)
