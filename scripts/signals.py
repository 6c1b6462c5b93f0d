"""SIGTERM and SIGHUP end a command like Ctrl-C: clean-up, one line, the shell's exit code for the signal."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

ENDINGS = {signal.SIGTERM: "Terminated.", signal.SIGHUP: "The terminal hung up."}


class Ended(KeyboardInterrupt):
    """Raised by one of the signals in ENDINGS; clean-up code treats it like Ctrl-C."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number


@contextmanager
def heed_signals() -> Iterator[None]:
    """Within the block the first signal of ENDINGS raises Ended in the main thread.

    Later ones do nothing, so that the clean-up completes. A signal that already has a handler or is ignored,
    as by nohup, is left alone.
    """
    before = {number: signal.getsignal(number) for number in ENDINGS}
    mine = [
        number
        for number in ENDINGS
        if before[number] is signal.SIG_DFL and threading.current_thread() is threading.main_thread()
    ]

    def end(number: int, frame: FrameType | None) -> None:
        for other in mine:
            signal.signal(other, signal.SIG_IGN)
        raise Ended(number)

    try:
        for number in mine:
            signal.signal(number, end)
        yield
    finally:
        for number in mine:
            signal.signal(number, before[number])


def ending(interrupt: KeyboardInterrupt) -> tuple[str, int]:
    """The line and the exit code of an interrupted command; the interrupt's text, which tells what was kept,
    comes first."""
    line, code = (
        (ENDINGS[signal.Signals(interrupt.number)], 128 + interrupt.number)
        if isinstance(interrupt, Ended)
        else ("Interrupted.", 130)
    )
    return str(interrupt) or line, code
