"""Rules of threads that every lock here follows.

The garbage collector and signal handlers may run a program's own code at nearly every step, also while a lock
is held. A forgotten generator then closes its reply in the thread that collects it. Therefore stopping takes
no lock, and a thread that holds a lock, or is a worker, never waits for other workers.
"""

from __future__ import annotations

import threading

from ..bundle.errors import Busy


class _Here(threading.local):
    inside = False
    """True while this thread must not wait for workers:
    it is one, or it holds a lock that a worker may need.
    """


here = _Here()


def closed_gate() -> threading.Lock:
    """A held lock. One thread waits for it once, until another opens it."""
    gate = threading.Lock()
    gate.acquire()
    return gate


def open_gate(gate: threading.Lock) -> None:
    """Release `gate` for its present or future waiter.

    It never waits, and may be called from anywhere any number of times.
    """
    try:
        gate.release()
    except RuntimeError:  # it was open
        pass


def start_thread(thread: threading.Thread, purpose: str) -> None:
    """Start `thread`. Raises AntiphonError when the system has no thread left for `purpose`."""
    try:
        thread.start()
    except RuntimeError as error:
        # threading's own wait turned it into a lock that is not held
        if isinstance(error.__context__, KeyboardInterrupt):
            raise error.__context__ from None
        raise Busy(
            f"The system starts no further thread, which {purpose} needs ({error}); "
            "end other work, or raise the limit of threads."
        ) from error
