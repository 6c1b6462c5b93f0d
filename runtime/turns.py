"""Whose turn it is on the cores that all engines of a bundle share.

Two runs side by side slow each other down by more than a half, so runs are serial; what remains is to choose the order. Whoever
keeps a listener waiting goes first; everyone else in the order of asking; and nobody is passed over more than a few times.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

URGENT, NORMAL = 0, 1

_PATIENCE = 8  # turns that later comers may take first, before a waiter goes ahead of everyone


@dataclass(eq=False)
class _Waiter:
    priority: int
    passed: int = 0
    gate: threading.Lock = field(default_factory=threading.Lock)


class Turns:
    """A lock with priorities and without starvation, handed from one holder to the next: nobody else wakes up."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiters: list[_Waiter] = []  # in the order of asking
        self._busy = False

    @contextmanager
    def take(self, priority: int = NORMAL) -> Iterator[None]:
        """Hold the cores; `priority` is URGENT while a listener waits for sound, else NORMAL."""
        with self._lock:
            waiter = _Waiter(priority) if self._busy else None
            self._busy = True
            if waiter is not None:
                waiter.gate.acquire()
                self._waiters.append(waiter)
        if waiter is not None:
            self._await(waiter)
        try:
            yield
        finally:
            with self._lock:
                self._hand_over()

    def _await(self, waiter: _Waiter) -> None:
        try:
            waiter.gate.acquire()
        except BaseException:  # interrupted by a signal
            with self._lock:
                if waiter in self._waiters:
                    self._waiters.remove(waiter)
                else:
                    self._hand_over()
            raise

    def _hand_over(self) -> None:
        """Give the turn to the next waiter, if there is one. The caller holds the lock and the turn."""
        if not self._waiters:
            self._busy = False
            return
        chosen = next((waiter for waiter in self._waiters if waiter.passed >= _PATIENCE), None)
        if chosen is None:
            chosen = min(self._waiters, key=lambda waiter: waiter.priority)  # min keeps the first of equals
        for earlier in self._waiters[: self._waiters.index(chosen)]:
            earlier.passed += 1
        self._waiters.remove(chosen)
        chosen.gate.release()
