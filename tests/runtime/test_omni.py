from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

import antiphon
from antiphon.runtime.bundle.errors import AntiphonError
from antiphon.runtime.bundle.said import short
from antiphon.runtime.events import AudioDelta, Done
from antiphon.runtime.omni import load

QUESTION = [{"role": "user", "content": "hello"}]


def test_importing_the_runtime_imports_no_build_library():
    code = (
        "import sys, antiphon.runtime.omni; print([name for name in ('torch', 'onnx', 'transformers', "
        "'onnxscript', 'safetensors') if name in sys.modules])"
    )
    paths = os.pathsep.join([str(Path(antiphon.__file__).parent.parent), *sys.path])
    found = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": paths},
        check=True,
    )
    assert found.stdout.strip() == "[]"


def test_generate_is_stream_collected(fakes):
    omni = fakes.omni()
    reply = omni.generate(QUESTION, seed=2)
    events = list(omni.stream(QUESTION, seed=2))
    assert np.array_equal(
        reply.audio, np.concatenate([event.samples for event in events if isinstance(event, AudioDelta)])
    )
    assert reply.audio.dtype == np.float32 and reply.sample_rate == fakes.rate
    assert np.array_equal(reply.codes, events[-1].codes) and reply.token_ids == events[-1].token_ids


def test_a_text_only_bundle_answers_in_text_and_refuses_speech(fakes):
    omni = fakes.omni(stages=("thinker",))
    assert omni.generate(QUESTION).text == "hello"
    with pytest.raises(AntiphonError, match="no speech stages"):
        omni.generate(QUESTION, modalities=("text", "audio"))


def test_a_further_stream_waits_for_a_place(fakes):
    fakes.engines["talker"].tail = None
    omni = fakes.omni(max_streams=1)
    first = omni.stream(QUESTION, max_frames=100_000)
    threading.Timer(0.1, first.close).start()
    began = time.monotonic()
    second = omni.stream(QUESTION, max_frames=2)
    assert time.monotonic() - began > 0.08
    assert list(second)[-1].text == "hello"


def test_waiting_for_a_place_may_have_an_end(fakes):
    fakes.engines["talker"].tail = None
    omni = fakes.omni(max_streams=1, admission_seconds=0.05)
    with (
        omni.stream(QUESTION, max_frames=100_000),
        pytest.raises(AntiphonError, match="All 1 streams were busy for 0.05 s"),
    ):
        omni.stream(QUESTION)


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("bundle_path", [None, 3, b"bundle", ["bundle"]]),
        ("max_streams", [0, -1, 1.0, "4", True, None]),
        ("prefill_chunk", [0, 2.5, "512", False, None]),
        ("threads", [0, -2, 2.0, "2", True, False, 10**9]),
        ("admission_seconds", [0, -1.0, "5", True, float("nan"), float("inf"), [1]]),
    ],
)
def test_load_names_the_argument_that_does_not_fit(tmp_path, name, values):
    for value in values:
        with pytest.raises(AntiphonError) as raised:
            load(**{"bundle_path": tmp_path, name: value})
        assert str(raised.value).startswith(f"{name} is {short(value)}, expected ")


@pytest.mark.parametrize("media", [None, "server", {"local_files": False}])
def test_load_takes_nothing_but_a_policy_for_media(tmp_path, media):
    with pytest.raises(AntiphonError, match="media is .*, expected a MediaPolicy"):
        load(tmp_path, media=media)


def test_load_looks_for_the_bundle_when_the_arguments_fit(tmp_path):
    for admission_seconds in (None, 1, 0.5):
        with pytest.raises(AntiphonError, match="No bundle at"):
            load(
                str(tmp_path), max_streams=1, threads=1, prefill_chunk=1, admission_seconds=admission_seconds
            )


def test_closing_stops_replies_and_refuses_new_ones(fakes):
    fakes.engines["talker"].tail = None
    with fakes.omni() as omni:
        stream = omni.stream(QUESTION, max_frames=100_000)
        next(stream)
    assert list(stream) == []
    with pytest.raises(AntiphonError, match="closed"):
        omni.generate(QUESTION)


def test_astream_gives_the_events_of_stream(fakes):
    omni = fakes.omni()

    async def collect():
        return [event async for event in omni.astream(QUESTION, seed=3)]

    events = asyncio.run(collect())
    assert isinstance(events[-1], Done) and np.array_equal(
        events[-1].codes, omni.generate(QUESTION, seed=3).codes
    )


def test_cancelling_the_task_of_astream_stops_the_reply(fakes):
    fakes.engines["talker"].tail = None
    omni = fakes.omni(max_streams=1)

    async def main():
        async def consume():
            async for _ in omni.astream(QUESTION, max_frames=100_000):
                await asyncio.sleep(0.001)

        task = asyncio.create_task(consume())
        await asyncio.sleep(0.1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
    assert omni.generate(QUESTION, max_frames=2).text == "hello"


def test_leaving_astream_early_stops_the_reply_and_errors_come_through(fakes):
    fakes.engines["talker"].tail = None
    omni = fakes.omni(max_streams=1)

    async def main():
        events = omni.astream(QUESTION, max_frames=100_000)
        async for _ in events:
            break
        await events.aclose()
        with pytest.raises(AntiphonError, match="voice"):
            async for _ in omni.astream(QUESTION, voice="nobody"):
                pass

    asyncio.run(main())


def test_several_astreams_share_one_loop(fakes):
    omni = fakes.omni()

    async def one(seed):
        return [event async for event in omni.astream(QUESTION, seed=seed)][-1]

    async def main():
        return await asyncio.gather(*(one(seed) for seed in range(4)))

    for seed, done in enumerate(asyncio.run(main())):
        assert np.array_equal(done.codes, omni.generate(QUESTION, seed=seed).codes)


def test_loading_what_is_no_bundle_is_one_sentence(tmp_path):
    with pytest.raises(AntiphonError, match="No bundle at"):
        load(tmp_path)


def test_closing_wakes_who_waits_for_a_place(fakes):
    fakes.engines["talker"].tail = None
    omni = fakes.omni(max_streams=1)
    stream = omni.stream(QUESTION, max_frames=100_000)
    threading.Timer(0.05, omni.close).start()
    with pytest.raises(AntiphonError, match="closed"):
        omni.stream(QUESTION)
    stream.close()
