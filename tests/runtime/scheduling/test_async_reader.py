"""A reply for asyncio, cancelled, left and forgotten at every point."""

from __future__ import annotations

import asyncio
import gc
import threading
import time

import pytest

from antiphon.runtime.bundle.errors import AntiphonError
from antiphon.runtime.events import Done
from antiphon.runtime.scheduling import threads

QUESTION = [{"role": "user", "content": "hello"}]


@pytest.fixture
def omni(fakes):
    fakes.engines["talker"].tail = None
    return fakes.omni(max_streams=1)


def assert_free(omni) -> None:
    assert omni.generate(QUESTION, max_frames=2).text == "hello", "the place is free"


@pytest.mark.parametrize("delay", [0.0, 0.001, 0.003, 0.01, 0.05])
def test_a_task_cancelled_at_any_point_gives_its_place_back(omni, delay):
    async def main():
        async def consume():
            async for _ in omni.astream(QUESTION, max_frames=100_000):
                pass

        task = asyncio.create_task(consume())
        await asyncio.sleep(delay)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asyncio.wait_for(task, 10)

    asyncio.run(main())
    assert_free(omni)


def test_a_cancelled_wait_for_a_place_ends_at_once_and_the_next_in_line_gets_the_place(omni):
    held = omni.stream(QUESTION, max_frames=100_000)

    async def last(events) -> Done:
        return [event async for event in events][-1]

    async def main():
        first = asyncio.create_task(last(omni.astream(QUESTION, max_frames=2)))
        await asyncio.sleep(0.05)
        second = asyncio.create_task(last(omni.astream(QUESTION, max_frames=2)))
        await asyncio.sleep(0.05)
        first.cancel()
        began = time.monotonic()
        with pytest.raises(asyncio.CancelledError):
            await first
        assert time.monotonic() - began < 1
        held.close()
        assert (await asyncio.wait_for(second, 10)).text == "hello"

    asyncio.run(main())
    assert_free(omni)


@pytest.mark.parametrize("closes", [True, False], ids=["closed", "forgotten"])
def test_leaving_the_loop_stops_the_reply(omni, closes):
    async def main():
        events = omni.astream(QUESTION, max_frames=100_000)
        async for _ in events:
            break
        if closes:
            await events.aclose()
        del events
        gc.collect()
        await asyncio.sleep(0.05)

    asyncio.run(main())
    assert_free(omni)


def test_a_reply_never_begun_takes_no_place_and_no_thread(omni):
    before = threading.active_count()
    events = omni.astream(QUESTION)
    assert threading.active_count() == before
    asyncio.run(events.aclose())
    assert_free(omni)


@pytest.mark.filterwarnings("error")
def test_a_loop_closed_early_stops_the_reply_when_it_is_forgotten(omni):
    loop = asyncio.new_event_loop()
    events = omni.astream(QUESTION, max_frames=100_000)
    loop.run_until_complete(anext(events))
    loop.close()
    del events
    gc.collect()
    assert_free(omni)


def test_a_loop_stopped_in_the_midst_of_a_wait_stops_the_reply_when_it_is_forgotten(omni, fakes):
    fakes.engines["thinker"].pause = lambda: 0.05
    loop = asyncio.new_event_loop()
    events = omni.astream(QUESTION, max_frames=100_000)
    waiting = loop.create_task(anext(events))
    loop.run_until_complete(asyncio.sleep(0.02))
    waiting.cancel()
    loop.run_until_complete(asyncio.gather(waiting, return_exceptions=True))
    loop.close()
    del events, waiting
    gc.collect()
    assert_free(omni)


def test_closing_the_omni_ends_an_astream_and_one_that_waits(omni):
    async def read():
        return [event async for event in omni.astream(QUESTION, max_frames=100_000)]

    async def main():
        tasks = []
        for _ in range(2):
            tasks.append(asyncio.create_task(read()))
            await asyncio.sleep(0.2)
        await asyncio.to_thread(omni.close)
        return await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), 10)

    first, second = asyncio.run(main())
    assert isinstance(first, list)
    assert isinstance(second, AntiphonError) and "closed" in str(second)


def test_a_slow_reader_stalls_the_reply(omni, fakes):
    async def main():
        events = omni.astream(QUESTION, max_frames=100_000, packet_schedule=(1,))
        await anext(events)
        await asyncio.sleep(0.5)
        before = len(fakes.engines["predictor"].feeds)
        await asyncio.sleep(0.2)
        assert len(fakes.engines["predictor"].feeds) == before < 200
        await events.aclose()

    asyncio.run(main())


def test_a_thread_that_is_refused_is_one_sentence(omni, monkeypatch):
    def refuse(self):
        raise RuntimeError("can't start new thread")

    async def main():
        async for _ in omni.astream(QUESTION):
            pass

    with monkeypatch.context() as patched:
        patched.setattr(threads.threading.Thread, "start", refuse)
        with pytest.raises(AntiphonError, match="no further thread, which astream needs"):
            asyncio.run(main())
    assert_free(omni)
