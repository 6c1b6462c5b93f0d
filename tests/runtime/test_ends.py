"""The end of the interpreter: nothing of ours keeps it alive,
whatever was left half-read, waiting or running.
"""

from __future__ import annotations

import pytest

from .child import run_child

ENDLESS = """
fakes.engines["talker"].tail = None
omni = fakes.omni(max_streams=1)

def beside(action, daemon=True):
    def quietly():
        with contextlib.suppress(antiphon.AntiphonError):  # the Omni is closed under it
            action()
    threading.Thread(target=quietly, daemon=daemon).start()
    time.sleep(0.1)

"""


def test_an_astream_cancelled_while_it_waits_for_a_place_keeps_no_interpreter_alive():
    lines = run_child(
        ENDLESS
        + """
held = omni.stream(QUESTION, max_frames=100_000)

async def main():
    async def one():
        async for _ in omni.astream(QUESTION):
            pass
    task = asyncio.create_task(one())
    await asyncio.sleep(0.1)
    task.cancel()
    try:
        await task
    except asyncio.CancelledError:
        await asyncio.sleep(0.1)
        print([thread.name for thread in threading.enumerate() if "astream" in thread.name])

asyncio.run(main())
"""
    )
    assert lines == ["[]"], "its wish for a place is withdrawn"


@pytest.mark.parametrize(
    "program",
    [
        "stream = omni.stream(QUESTION, max_frames=100_000); next(stream)",
        "stream = omni.stream(QUESTION, max_frames=100_000); time.sleep(0.2)",
        "beside(lambda: omni.generate(QUESTION, max_frames=100_000))",
        "held = omni.stream(QUESTION, max_frames=100_000); beside(lambda: omni.stream(QUESTION))",
        "beside(lambda: omni.generate(QUESTION, max_frames=300), daemon=False)",
        "fakes.engines['thinker'].pause = lambda: 0.3; beside(lambda: "
        "omni.conversation().append(text='abc'))",
        "stream = omni.stream(QUESTION, max_frames=100_000); del fakes; sys.exit(0)",
        "loop = asyncio.new_event_loop(); events = omni.astream(QUESTION, max_frames=100_000); "
        "loop.run_until_complete(anext(events))",
        "loop = asyncio.new_event_loop(); events = omni.astream(QUESTION, max_frames=9000); "
        "loop.run_until_complete(anext(events)); loop.close()",
    ],
    ids=[
        "half-read",
        "unread",
        "daemon",
        "daemon-waits",
        "thread",
        "append",
        "exit",
        "loop-open",
        "loop-closed",
    ],
)
def test_an_interpreter_ends_with_replies_in_flight(program):
    assert run_child(ENDLESS + program) == []


def test_an_append_in_a_daemon_thread_is_not_inside_an_engine_when_the_interpreter_ends(tiny_bundle):
    lines = run_child(
        """
        omni = antiphon.load(sys.argv[1], threads=2)

        def work():
            with contextlib.suppress(antiphon.AntiphonError):
                while True:
                    omni.conversation().append(text="hello there " * 300)

        threading.Thread(target=work, daemon=True).start()
        time.sleep(0.2)
        """,
        tiny_bundle,
    )
    assert lines == []


def test_a_question_that_is_being_read_for_asyncio_is_waited_for_but_not_for_long():
    lines = run_child("""
        from antiphon.runtime.scheduling import async_reader
        async_reader.MOST_SECONDS_TO_END = 0.5
        omni = fakes.omni()
        prompt = omni.front_end.prompt
        for seconds in (0.2, 100):
            def slow(*arguments, **options):
                time.sleep(seconds)
                print("read", flush=True)
                return prompt(*arguments, **options)
            omni.front_end.prompt = slow
            async def main():
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(anext(omni.astream(QUESTION)), 0.05)
            asyncio.run(main())
            began = time.monotonic()
            async_reader.end_all()
            print(time.monotonic() - began < 1)
    """)
    assert lines == ["read", "True", "True"]
