"""A fair priority lock: one engine run at a time.

All engines of a bundle share the cores, and two runs side by side slow each other down by more than a half.
Runs are therefore serial. A run that a listener waits for goes first, the others go in the order of asking,
and no waiter is passed over more than a few times.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

from .threads import closed_gate, here, open_gate

URGENT, NORMAL = 0, 1

_PATIENCE = 8  # how often later waiters may go first; then a waiter goes ahead of all

Result = TypeVar("Result")


@dataclass(eq=False)
class _Asker:
    priority: int
    passed: int = 0
    gate: threading.Lock = field(default_factory=closed_gate)


class EngineLock:
    """A lock with priorities and without starvation.

    Its holder hands it to the next one, so no other waiter wakes up.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._holder: _Asker | None = None
        self._waiters: list[_Asker] = []  # in the order of asking

    def run(self, priority: int, action: Callable[..., Result], *arguments: Any) -> tuple[Result, float]:
        """Call `action(*arguments)` with the lock held.

        Returns its result and the seconds it took. `priority` is URGENT while a listener waits for sound.

        This is no context manager: an interrupt on the way into a `with` block would keep the lock for as
        long as the traceback lives.
        """
        asker = _Asker(priority)
        before, here.inside = here.inside, True
        try:
            self._take(asker)
            began = time.perf_counter()
            result = action(*arguments)
            return result, time.perf_counter() - began
        finally:
            here.inside = before
            left = False
            interrupt: KeyboardInterrupt | None = None
            while not left:
                try:
                    with self._lock:
                        self._leave(asker)
                        left = True
                except KeyboardInterrupt as error:
                    # raised later: a lock that is not handed on blocks all waiters
                    interrupt = error
            if interrupt is not None:
                raise interrupt

    def keep(self) -> None:
        """Take the lock and never give it back, so that no engine runs any more.

        For the end of the interpreter: a daemon thread that comes back from native code
        after it aborts the process.
        """
        self._take(_Asker(URGENT, passed=_PATIENCE))

    def _take(self, asker: _Asker) -> None:
        """Wait for the lock. Whatever it raises, `_leave` must follow."""
        with self._lock:
            if self._holder is None:
                self._holder = asker
            else:
                self._waiters.append(asker)
        if self._holder is not asker:
            asker.gate.acquire()

    def _leave(self, asker: _Asker) -> None:
        """Give up the lock or the wait for it.

        The caller holds `self._lock`, and calls again after an interrupt.
        """
        if asker in self._waiters:
            self._waiters.remove(asker)
        if self._holder is asker:
            self._holder = self._choose()
        holder = self._holder
        if holder is not None and holder in self._waiters:  # it still waits at its gate
            open_gate(holder.gate)
            self._waiters.remove(holder)

    def _choose(self) -> _Asker | None:
        """The next holder. Waiters that asked before it count that they were passed over."""
        if not self._waiters:
            return None
        chosen = next((waiter for waiter in self._waiters if waiter.passed >= _PATIENCE), None)
        if chosen is None:
            chosen = min(self._waiters, key=lambda waiter: waiter.priority)  # min keeps the first of equals
        for earlier in self._waiters[: self._waiters.index(chosen)]:
            earlier.passed += 1
        return chosen
