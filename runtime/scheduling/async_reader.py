"""A reply for asyncio: a thread opens it and waits for its events, so that the event loop never blocks."""

from __future__ import annotations

import asyncio
import queue
import threading
import time
import weakref
from collections.abc import Callable
from typing import Any

from ..events import Event
from ..reply import ReplyStream
from .admission import Place
from .threads import start_thread

MOST_SECONDS_TO_END = 5.0
"""The longest wait of the interpreter's end for threads that still read a question,
for example decode its media.
"""

Wish = tuple[asyncio.AbstractEventLoop, "asyncio.Future[Any]", bool]
"""An event loop, the future of a waiter in it, and whether that waits for the end rather
than for the next event.
"""


class AsyncReader:
    """The events of one reply.

    Closing or forgetting the reader stops the reply, also while it waits for a place.

    Each reader has a thread: in a shared one waiting replies would block each other. The thread is a daemon
    and keeps no process alive.
    """

    def __init__(self, open_stream: Callable[[Place], ReplyStream]) -> None:
        """`open_stream` starts the reply on a place and is called in the thread.

        Raises AntiphonError when the system has no thread left.
        """
        self._loop = asyncio.get_running_loop()
        self._place = Place()
        self._wishes: queue.SimpleQueue[Wish | None] = queue.SimpleQueue()
        arguments = (open_stream, self._place, self._wishes)
        thread = threading.Thread(target=_serve, args=arguments, name="antiphon-astream", daemon=True)
        start_thread(thread, "astream")
        _serving[self._place] = thread, self._wishes

    async def next(self) -> Event | None:
        """The next event, None at the end. Raises what opening or reading the reply raises."""
        event: Event | None = await self._ask(is_last=False)
        return event

    async def close(self) -> None:
        """Stop the reply and wait until its workers have ended.

        A reply that has not begun is not waited for, nor is any after the end of the loop.
        """
        self._place.withdraw()
        if not self._loop.is_running():  # the garbage collector closes the generator, and no task can wait
            self._wishes.put(None)
            return
        has_begun = self._place.running is not None
        end = self._ask(is_last=True)
        if has_begun:
            await asyncio.shield(end)

    def __del__(self) -> None:
        if hasattr(self, "_wishes"):
            self._place.withdraw()
            self._wishes.put(None)

    def _ask(self, is_last: bool) -> asyncio.Future[Any]:
        future: asyncio.Future[Any] = self._loop.create_future()
        self._wishes.put((self._loop, future, is_last))
        return future


_serving: weakref.WeakKeyDictionary[Place, tuple[threading.Thread, queue.SimpleQueue[Wish | None]]] = (
    weakref.WeakKeyDictionary()
)


def end_all() -> None:
    """Stop every reader and wait for its thread, a few seconds at most.

    For the end of the interpreter: a thread in native code would abort it.
    """
    deadline = time.monotonic() + MOST_SECONDS_TO_END
    threads = []
    for reference in _serving.keyrefs():
        place = reference()
        if place is not None:
            thread, wishes = _serving[place]
            place.withdraw()
            wishes.put(None)
            threads.append(thread)
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))


def _serve(
    open_stream: Callable[[Place], ReplyStream], place: Place, wishes: queue.SimpleQueue[Wish | None]
) -> None:
    """The body of the thread. It does not refer to the reader, so that a forgotten reader can end it."""
    stream: ReplyStream | None = None
    while (wish := wishes.get()) is not None and not wish[2]:
        try:
            stream = stream or open_stream(place)
            _settle(wish, next(stream, None), None)
        except BaseException as error:  # Cancelled of a withdrawn place too: no task waits for it
            _settle(wish, None, error)
    if stream is not None:
        stream.close()
    if wish is not None:
        _settle(wish, None, None)


def _settle(wish: Wish, event: Event | None, error: BaseException | None) -> None:
    loop, future, _ = wish

    def settle() -> None:
        if future.done():  # cancelled meanwhile
            return
        if error is not None:
            future.set_exception(error)
        else:
            future.set_result(event)

    try:
        loop.call_soon_threadsafe(settle)
    except RuntimeError:  # the loop was closed
        pass
