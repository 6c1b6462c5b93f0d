"""Bounded queues between the workers of one stream, and the switch that stops them all.

One lock serves a whole stream: a handful of threads share it, nobody polls, and a cancelled stream wakes everyone.
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
    """Raised inside a worker whose stream was cancelled or whose neighbour failed; never seen by a caller."""


class Control:
    """The shared lock of one stream: who waits for what, whether to stop, and the first error of a worker.

    Whoever changes something looks which waiters it lets go on and wakes those alone: with a dozen threads on one interpreter,
    waking everyone at each change costs more than a small engine's run. Nobody waits with the lock held, so that an interrupt leaves it free.
    """

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.stopped = False
        self.error: BaseException | None = None
        self._waiters: list[tuple[Callable[[], bool], threading.Lock]] = []

    def stop(self, error: BaseException | None = None) -> None:
        """Make every waiting and every later call on the stream raise Cancelled; the first `error` of a worker is kept for the caller.

        Without an error it takes no lock: a finaliser may call it in a worker that holds the lock.
        """
        if error is not None:
            with self.lock:
                if self.error is None and not self.stopped:
                    self.error = error
        self.stopped = True
        for _, gate in list(self._waiters):  # who comes after this copy sees that the stream is stopped
            open_gate(gate)

    def check(self) -> None:
        """Raise Cancelled if the stream was stopped; called once per token, frame and packet."""
        if self.stopped:
            raise Cancelled

    def changed(self) -> None:
        """Wake the waiters that can go on now. The caller holds the lock."""
        for predicate, gate in list(self._waiters):  # who is interrupted goes without the lock
            if predicate():
                open_gate(gate)

    def when(self, predicate: Callable[[], bool], action: Callable[[], Result]) -> Result:
        """Wait until `predicate()` holds, then do `action()`, both with the lock held. Raises Cancelled when the stream stops."""
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
        assert not self._closed
        self._control.when(lambda: len(self._items) < self._bound or self._abandoned, lambda: self._append(item))

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
        waited = self._control.when(lambda: True, self._ask)
        return self._control.when(lambda: bool(self._items) or self._closed, self._take), waited

    def _append(self, item: Item) -> None:
        if not self._abandoned:
            self._items.append(item)

    def _ask(self) -> bool:
        """Note that the consumer has handled what it got; whether it must wait."""
        self._idle = not self._items
        return self._idle and not self._closed

    def _take(self) -> Item | None:
        self._idle = False
        return self._items.popleft() if self._items else None
