"""Bounded queues between the workers of one stream, and the switch that stops them all.

One lock serves a whole stream: a handful of threads share it, nobody polls, and a cancelled stream wakes everyone.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

Item = TypeVar("Item")


class Cancelled(Exception):
    """Raised inside a worker whose stream was cancelled or whose neighbour failed; never seen by a caller."""


class Control:
    """The shared lock of one stream: who waits for what, whether to stop, and the first error of a worker.

    Whoever changes something looks which waiters it lets go on and wakes those alone: with a dozen threads on one interpreter,
    waking everyone at each change costs more than a small engine's run.
    """

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.stopped = False
        self.error: BaseException | None = None
        self._waiters: list[tuple[Callable[[], bool], threading.Lock]] = []

    def stop(self, error: BaseException | None = None) -> None:
        """Make every waiting and every later call on the stream raise Cancelled; the first `error` is kept for the caller."""
        with self.lock:
            if error is not None and self.error is None and not self.stopped:
                self.error = error
            self.stopped = True
            self.changed()

    def check(self) -> None:
        """Raise Cancelled if the stream was stopped; called once per token, frame and packet."""
        if self.stopped:
            raise Cancelled

    def changed(self) -> None:
        """Wake the waiters that can go on now. The caller holds the lock."""
        for waiter in list(self._waiters):
            if self.stopped or waiter[0]():
                self._waiters.remove(waiter)
                waiter[1].release()

    def wait_for(self, predicate: Callable[[], bool]) -> None:
        """Wait until `predicate()` holds, without the lock meanwhile. The caller holds the lock. Raises Cancelled when the stream stops."""
        while not self.stopped and not predicate():
            waiter = (predicate, threading.Lock())
            waiter[1].acquire()
            self._waiters.append(waiter)
            self.lock.release()
            try:
                waiter[1].acquire()
            finally:
                self.lock.acquire()
                if waiter in self._waiters:  # interrupted by a signal
                    self._waiters.remove(waiter)
        self.check()


class Channel(Generic[Item]):
    """A first-in first-out queue of at most `bound` items; a full one stalls its producer. None ends it."""

    def __init__(self, control: Control, bound: int) -> None:
        assert bound >= 1
        self._control, self._bound = control, bound
        self._items: deque[Item] = deque()
        self._closed = self._abandoned = False
        self._idle = True

    @property
    def starving(self) -> bool:
        """Whether the consumer has handled all it got: read under the stream's lock."""
        return self._idle and not self._items

    def put(self, item: Item) -> None:
        """Append, waiting while the queue is full."""
        with self._control.lock:
            assert not self._closed
            self._control.wait_for(lambda: len(self._items) < self._bound or self._abandoned)
            if not self._abandoned:
                self._items.append(item)
                self._control.changed()

    def abandon(self) -> None:
        """The consumer needs no more: what is in the queue and what comes is dropped, so that its producer is not stalled."""
        with self._control.lock:
            self._abandoned = True
            self._items.clear()
            self._control.changed()

    def close(self) -> None:
        """No more items: the consumer gets None after the last."""
        with self._control.lock:
            self._closed = True
            self._control.changed()

    def get(self) -> tuple[Item | None, bool]:
        """The next item, or None at the end; and whether the call had to wait for it."""
        with self._control.lock:
            self._control.check()
            waited = not self._items and not self._closed
            if not self._items:
                self._idle = True
                self._control.changed()
                self._control.wait_for(lambda: bool(self._items) or self._closed)
            self._idle = False
            item = self._items.popleft() if self._items else None
            self._control.changed()
            return item, waited
