"""Rules of threads that every lock here follows.

The garbage collector, and a signal's handler, may run a program's own code at nearly every step, also while a lock is held: a forgotten
generator then closes its reply in whichever thread collects it. So stopping takes no lock at all, and who is inside a lock or holds the turn,
and every worker, does not wait for other workers.
"""

from __future__ import annotations

import threading

from ..bundle.errors import Busy


class _Here(threading.local):
    inside = False
    """Whether this thread waits for no worker: it is one, or it holds what a worker may need."""


here = _Here()


def closed_gate() -> threading.Lock:
    """A lock that one thread waits for, once, until another opens it."""
    gate = threading.Lock()
    gate.acquire()
    return gate


def open_gate(gate: threading.Lock) -> None:
    """Let go on who waits at `gate`, or will. May be called any number of times, from anywhere: nothing is waited for."""
    try:
        gate.release()
    except RuntimeError:  # it was open
        pass


def start_thread(thread: threading.Thread, purpose: str) -> None:
    """Start `thread`. Raises AntiphonError when the system has no thread left for `purpose`."""
    try:
        thread.start()
    except RuntimeError as error:
        if isinstance(error.__context__, KeyboardInterrupt):  # threading's own wait turned it into a lock that is not held
            raise error.__context__ from None
        raise Busy(f"The system starts no further thread, which {purpose} needs ({error}); end other work, or raise the limit of threads.") from error
