"""Who may run a reply: at most so many at once, the others wait in the order of asking,
and nobody after the end.
"""

from __future__ import annotations

import os
import threading
import weakref
from collections import deque
from typing import Protocol

from ..bundle.errors import Busy, Closed
from .channels import Cancelled
from .forks import check_process
from .threads import closed_gate, here, open_gate


class RunningReply(Protocol):
    """What admission needs of the running part of a reply."""

    @property
    def stopped(self) -> bool:
        """Whether it was told to stop."""

    def stop(self) -> None:
        """Tell it to stop, without a lock and without waiting:
        from any thread, a finaliser or the handler of a signal.
        """

    def close(self) -> None:
        """Stop it and wait until it has ended, where the calling thread may wait (see threads)."""

    def join(self) -> None:
        """Wait until it has ended, where the calling thread may wait."""


class Place:
    """The place of one reply, or the request for it. Also what holds a conversation during a call."""

    def __init__(self) -> None:
        self.gate = closed_gate()
        self.withdrawn = False
        self.running: RunningReply | None = None
        """The reply that has this place, while it runs."""

    def withdraw(self) -> None:
        """Stop the reply, or the wait for a place, without waiting:
        from any thread, a finaliser or the handler of a signal.
        """
        self.withdrawn = True
        running = self.running
        if running is not None:
            running.stop()
        open_gate(self.gate)


class Admission:
    """The places of one loaded bundle. Safe to use from several threads."""

    def __init__(self, max_streams: int = 4, seconds: float | None = None) -> None:
        """`max_streams` replies run at once.

        A further one waits for at most `seconds` (None: without a limit) and is then refused.
        """
        self._count, self._seconds = max_streams, seconds
        self._lock = threading.Lock()
        self._taken: set[Place] = set()
        self._waiting: deque[Place] = deque()
        self._replies: weakref.WeakValueDictionary[int, RunningReply] = weakref.WeakValueDictionary()
        self._process = os.getpid()
        self._closed = False

    @property
    def is_of_this_process(self) -> bool:
        """False in a fork of the process that loaded the bundle."""
        return os.getpid() == self._process

    def check_open(self) -> None:
        """Raise AntiphonError after `close`, and in a fork of the process that loaded the bundle."""
        check_process(self._process, "This Omni")
        if self._closed:
            raise Closed("This Omni is closed; load the bundle again.")

    def take(self, place: Place) -> None:
        """Make `place` one of the places, waiting while all are taken.

        Whatever it raises, `give_back` must follow.

        Raises AntiphonError after the time for waiting and after `close`, Cancelled
        when `place` was withdrawn.
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
                raise Busy(
                    f"All {self._count} streams were busy for {self._seconds} s; "
                    "finish one, or load with a larger max_streams."
                )
        finally:
            here.inside = before

    def register(self, place: Place, running: RunningReply) -> None:
        """Let `close` and the withdrawal of `place` stop `running`.

        Raises AntiphonError after `close`, Cancelled after the withdrawal.
        """
        self._replies[id(running)] = place.running = running
        self.check_open()
        if place.withdrawn:
            raise Cancelled

    def give_back(self, place: Place) -> None:
        """End `place`, or the wait for it; the longest waiter gets a free place.

        Does nothing when it was given back before.
        """
        before, here.inside = here.inside, True
        try:
            with self._lock:
                self._taken.discard(place)
                if place in self._waiting:
                    self._waiting.remove(place)
                while self._waiting and len(self._taken) < self._count:
                    self._taken.add(self._waiting[0])
                    open_gate(self._waiting.popleft().gate)
            place.running = None  # it refers to the place: no circle is left for the collector
        finally:
            here.inside = before

    def close(self) -> None:
        """Refuse all who wait or will come, stop all replies, and wait until they have ended,
        where the calling thread may wait.

        In a fork of the process that loaded the bundle it only refuses: the replies are
        those of the other process.
        """
        self._closed = True
        if not self.is_of_this_process:
            return
        for place in list(self._waiting):
            open_gate(place.gate)
        replies = [reply for reference in self._replies.valuerefs() if (reply := reference()) is not None]
        for reply in replies:
            reply.stop()
        for reply in replies:
            reply.close()
