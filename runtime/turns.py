"""Whose turn it is on the one thread pool that all engines share.

Two runs side by side slow each other down by more than a half, so runs are serial; what remains is to choose the order. Whoever
keeps a listener waiting goes first; everyone else in the order of asking; and nobody is passed over more than a few times.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

URGENT, NORMAL = 0, 1

_PATIENCE = 8  # turns that later comers may take first, before a waiter goes ahead of everyone


@dataclass(eq=False)
class _Waiter:
    priority: int
    passed: int = 0


class Turns:
    """A lock with priorities and without starvation."""

    def __init__(self) -> None:
        self._condition = threading.Condition()
        self._waiters: list[_Waiter] = []  # in the order of asking
        self._busy = False

    @contextmanager
    def take(self, priority: int = NORMAL) -> Iterator[None]:
        """Hold the thread pool; `priority` is URGENT while a listener waits for sound, else NORMAL."""
        waiter = _Waiter(priority)
        with self._condition:
            self._waiters.append(waiter)
            self._condition.wait_for(lambda: not self._busy and self._next() is waiter)
            self._busy = True
            place = self._waiters.index(waiter)
            for earlier in self._waiters[:place]:
                earlier.passed += 1
            self._waiters.remove(waiter)
        try:
            yield
        finally:
            with self._condition:
                self._busy = False
                self._condition.notify_all()

    def _next(self) -> _Waiter:
        for waiter in self._waiters:
            if waiter.passed >= _PATIENCE:
                return waiter
        return min(self._waiters, key=lambda waiter: waiter.priority)  # min keeps the first of equals
