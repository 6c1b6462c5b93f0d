"""SIGTERM and SIGHUP: as Ctrl-C, once, and only where nobody else handles them."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator

import pytest

from antiphon.scripts.signals import Ended, ending, heed_signals


@pytest.fixture(autouse=True)
def _handlers() -> Iterator[None]:
    """By default both end a process."""
    before = {number: signal.signal(number, signal.SIG_DFL) for number in (signal.SIGTERM, signal.SIGHUP)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize(
    ("number", "line", "code"),
    [(signal.SIGTERM, "Terminated.", 143), (signal.SIGHUP, "The terminal hung up.", 129)],
)
def test_a_signal_is_an_interrupt_with_a_line_and_an_exit_code_of_its_own(
    number: signal.Signals, line: str, code: int
) -> None:
    with pytest.raises(KeyboardInterrupt) as raised, heed_signals():
        os.kill(os.getpid(), number)
        time.sleep(1)
    assert isinstance(raised.value, Ended) and ending(raised.value) == (line, code)
    assert signal.getsignal(number) is signal.SIG_DFL
    assert ending(KeyboardInterrupt()) == ("Interrupted.", 130) and ending(
        KeyboardInterrupt("a.wav is whole.")
    ) == ("a.wav is whole.", 130)


def test_a_second_signal_does_not_stop_the_clean_up() -> None:
    done = []
    with pytest.raises(Ended), heed_signals():
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(1)
        finally:
            for number in (signal.SIGTERM, signal.SIGHUP):
                os.kill(os.getpid(), number)
            time.sleep(0.01)
            done.append("cleaned up")
    assert done == ["cleaned up"]


def test_a_signal_that_is_ignored_or_handled_stays_so() -> None:
    seen = []
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # nohup
    signal.signal(signal.SIGTERM, lambda number, frame: seen.append(number))
    with heed_signals():
        os.kill(os.getpid(), signal.SIGHUP)
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.01)
    assert seen == [signal.SIGTERM] and signal.getsignal(signal.SIGHUP) is signal.SIG_IGN


def test_outside_the_main_thread_nothing_is_touched() -> None:
    found = []

    def command() -> None:
        with heed_signals():
            found.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=command)
    thread.start()
    thread.join()
    assert found == [signal.SIG_DFL]
