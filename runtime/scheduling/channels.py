"""Bounded queues between the workers of one stream, and the control that stops them all.

One lock serves a whole stream. A handful of threads share it, none of them polls, and cancelling a
stream wakes all of them.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

from .threads import closed_gate, here, open_gate

Item = TypeVar("Item")
Result = TypeVar("Result")


class Cancelled(Exception):
    """The stream was cancelled, or another of its workers failed.

    Raised inside workers; callers never see it.
    """


class Control:
    """The shared lock of one stream, its waiters with their conditions, whether it was stopped,
    and the first error of a worker.

    A thread that changes something wakes the waiters whose condition holds, and no others: with a dozen
    threads on one interpreter, waking all of them at each change costs more than a small engine's run. No
    thread waits with the lock held, so an interrupt leaves it free.
    """

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.stopped = False
        self.error: BaseException | None = None
        self._waiters: list[tuple[Callable[[], bool], threading.Lock]] = []

    def stop(self, error: BaseException | None = None) -> None:
        """Let every waiting and every later call on the stream raise Cancelled.

        The first `error` of a worker is kept for the caller.

        Without an error it takes no lock: a finaliser may call it in a worker that holds the lock.
        """
        if error is not None:
            with self.lock:
                if self.error is None and not self.stopped:
                    self.error = error
        self.stopped = True
        # a waiter that comes after this copy sees that the stream is stopped
        for _, gate in list(self._waiters):
            open_gate(gate)

    def check(self) -> None:
        """Raise Cancelled after `stop`. Workers call it once per token, frame and packet."""
        if self.stopped:
            raise Cancelled

    def changed(self) -> None:
        """Wake the waiters whose condition holds. The caller holds the lock."""
        for predicate, gate in list(self._waiters):  # a copy: an interrupted waiter leaves without the lock
            if predicate():
                open_gate(gate)

    def when(self, predicate: Callable[[], bool], action: Callable[[], Result]) -> Result:
        """Wait until `predicate()` is true, then call `action()`, both with the lock held.

        Raises Cancelled when the stream stops.
        """
        waiter: tuple[Callable[[], bool], threading.Lock] | None = None
        before, here.inside = here.inside, True
        try:
            while True:
                with self.lock:
                    self.check()
                    if waiter is not None:
                        self._waiters.remove(waiter)
                        waiter = None
                    if predicate():
                        result = action()
                        self.changed()
                        return result
                    waiter = (predicate, closed_gate())
                    self._waiters.append(waiter)
                if not self.stopped:
                    waiter[1].acquire()
        finally:
            here.inside = before
            if waiter is not None and waiter in self._waiters:
                self._waiters.remove(waiter)


class Channel(Generic[Item]):
    """A first-in first-out queue of at most `bound` items. A full queue blocks its producer. None ends it."""

    def __init__(self, control: Control, bound: int) -> None:
        assert bound >= 1
        self._control, self._bound = control, bound
        self._items: deque[Item] = deque()
        self._closed = self._abandoned = False
        self._idle = True

    @property
    def starving(self) -> bool:
        """Whether the consumer has handled all items. The caller holds the stream's lock."""
        return self._idle and not self._items

    def put(self, item: Item) -> None:
        """Append `item`, waiting while the queue is full."""
        assert not self._closed
        self._control.when(
            lambda: len(self._items) < self._bound or self._abandoned, lambda: self._append(item)
        )

    def abandon(self) -> None:
        """Drop the items of the queue and all that come, so that the producer of a consumer that
        needs no more is not blocked.
        """
        with self._control.lock:
            self._abandoned = True
            self._items.clear()
            self._control.changed()

    def close(self) -> None:
        """End the queue: the consumer gets None after the last item."""
        with self._control.lock:
            self._closed = True
            self._control.changed()

    def get(self) -> tuple[Item | None, bool]:
        """The next item (None at the end), and whether the call had to wait for it."""
        waited = self._control.when(lambda: True, self._ask)
        return self._control.when(lambda: bool(self._items) or self._closed, self._take), waited

    def _append(self, item: Item) -> None:
        if not self._abandoned:
            self._items.append(item)

    def _ask(self) -> bool:
        """Note that the consumer has handled its items. Returns whether it must wait for the next."""
        self._idle = not self._items
        return self._idle and not self._closed

    def _take(self) -> Item | None:
        self._idle = False
        return self._items.popleft() if self._items else None
