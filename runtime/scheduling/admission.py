"""The places of an Omni: how many replies run at once, and who waits for one, in the order of asking."""

from __future__ import annotations

import threading
from collections import deque
from typing import TYPE_CHECKING

from ..bundle.errors import Busy, Closed
from .channels import Cancelled
from .threads import closed_gate, here, open_gate

if TYPE_CHECKING:
    from ..reply import Workers


class Place:
    """The place of one reply, or the wish for it."""

    def __init__(self) -> None:
        self.gate = closed_gate()
        self.withdrawn = False
        self.workers: Workers | None = None
        """Those of the reply that has this place, while they run."""

    def withdraw(self) -> None:
        """Stop the reply, or the wait for a place, without waiting: from any thread, a finaliser or the handler of a signal."""
        self.withdrawn = True
        workers = self.workers
        if workers is not None:
            workers.control.stop()
        open_gate(self.gate)


class Places:
    """`count` places; who waits for one longer than `seconds` (None: as long as it takes) is refused."""

    def __init__(self, count: int, seconds: float | None = None) -> None:
        self._count, self._seconds = count, seconds
        self._lock = threading.Lock()
        self._taken: set[Place] = set()
        self._waiting: deque[Place] = deque()
        self._closed = False

    def take(self, place: Place) -> None:
        """Make `place` one of the places, waiting while all are taken. Whatever it raises, `give_back` must follow.

        Raises AntiphonError after the time for waiting and when the places are closed, Cancelled when `place` was withdrawn.
        """
        before, here.inside = here.inside, True
        try:
            with self._lock:
                if len(self._taken) < self._count and not self._waiting:
                    self._taken.add(place)
                else:
                    self._waiting.append(place)
            if place not in self._taken and not self._closed and not place.withdrawn:
                place.gate.acquire(timeout=-1 if self._seconds is None else self._seconds)
            if self._closed:
                raise Closed("This Omni was closed before the reply began; load the bundle again.")
            if place.withdrawn:
                raise Cancelled
            if place not in self._taken:
                raise Busy(f"All {self._count} streams were busy for {self._seconds} s; finish one, or load with a larger max_streams.")
        finally:
            here.inside = before

    def give_back(self, place: Place) -> None:
        """End `place`, or the wait for it; who waits longest comes next. Harmless when it was given back before."""
        before, here.inside = here.inside, True
        try:
            with self._lock:
                self._taken.discard(place)
                if place in self._waiting:
                    self._waiting.remove(place)
                while self._waiting and len(self._taken) < self._count:
                    self._taken.add(self._waiting[0])
                    open_gate(self._waiting.popleft().gate)
            place.workers = None  # they refer to the place: no circle is left for the collector
        finally:
            here.inside = before

    def close(self) -> None:
        """Refuse everyone who waits or will come."""
        self._closed = True
        for place in list(self._waiting):
            open_gate(place.gate)
