"""What streaming promises, seen on a real bundle: speech over text that is still written,
and nothing that depends on time.
"""

from __future__ import annotations

import dataclasses
import random
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("torch")

from antiphon.runtime.engines.base import Engine
from antiphon.runtime.events import AudioDelta, Done, Event, Reply, TextDelta
from antiphon.runtime.omni import Omni, load
from antiphon.runtime.scheduling.engine_lock import EngineLock
from antiphon.runtime.stages.aria import Frame
from antiphon.runtime.stages.vocoder import Vocoder, packets

pytestmark = pytest.mark.usefixtures("no_leaked_threads")

SAMPLES, LEAD = 1920, 555
SAMPLED: dict[str, Any] = {
    "temperature": 1.0,
    "top_k": 50,
    "talker_temperature": 0.9,
    "predictor_temperature": 1.0,
}


def ask(text: str) -> list[dict[str, Any]]:
    return [{"role": "user", "content": text}]


QUESTION = ask("Hello, how are you?")
TONE = (0.3 * np.sin(np.arange(16000) / 20)).astype(np.float32)
PICTURE = np.random.default_rng(0).integers(0, 256, (64, 96, 3), dtype=np.uint8)
PROMPTS = [
    QUESTION,
    [
        {
            "role": "user",
            "content": [{"type": "input_audio", "input_audio": {"data": TONE, "sample_rate": 16000}}],
        }
    ],
    [
        {
            "role": "user",
            "content": [
                {"type": "image_url", "image_url": {"url": PICTURE}},
                {"type": "text", "text": "What is this?"},
            ],
        }
    ],
    [{"role": "system", "content": "You answer briefly."}, *ask("What is the time?")],
]


class Watched:
    """An engine that counts its runs and may be slow at random."""

    def __init__(self, engine: Engine, runs: Counter[str], pause: random.Random | None = None) -> None:
        self._engine, self._runs, self._pause = engine, runs, pause
        self.entry = engine.entry
        self.new_states, self.close = engine.new_states, engine.close

    def run(self, *arguments: Any) -> dict[str, np.ndarray]:
        self._runs[self.entry.name] += 1
        if self._pause is not None:
            time.sleep(self._pause.choice((0, 0, 0.002, 0.03)))
        return self._engine.run(*arguments)


@pytest.fixture(scope="module")
def omni(tiny_bundle: Path) -> Iterator[Omni]:
    with load(tiny_bundle, max_streams=4) as omni:
        yield omni


def with_ids(omni: Omni, **ids: Any) -> Omni:
    """The same engines under other special ids, so that an answer ends where a test wants it."""
    return Omni(dataclasses.replace(omni.manifest, ids=omni.manifest.ids | ids), omni.engines, omni.front_end)


def watched(
    omni: Omni, pause: random.Random | None = None, slow: tuple[str, ...] = ()
) -> tuple[Omni, Counter[str]]:
    runs: Counter[str] = Counter()
    engines = {
        name: Watched(engine, runs, pause if name in slow else None) for name, engine in omni.engines.items()
    }
    return Omni(omni.manifest, engines, omni.front_end), runs  # type: ignore[arg-type]


def same(one: Reply, other: Reply) -> None:
    assert (
        one.token_ids == other.token_ids
        and one.text == other.text
        and one.finish_reason == other.finish_reason
    )
    np.testing.assert_array_equal(one.codes, other.codes)
    np.testing.assert_allclose(one.audio, other.audio, atol=1e-6)


# Overlap


@pytest.mark.parametrize("prompt", range(len(PROMPTS)))
@pytest.mark.parametrize("seed", [1, 2])
def test_speech_begins_before_the_text_ends(omni: Omni, prompt: int, seed: int) -> None:
    events = list(
        omni.stream(
            PROMPTS[prompt],
            seed=seed,
            min_text_tokens=16,
            max_text_tokens=16 + 4 * seed,
            max_frames=12,
            **SAMPLED,
        )
    )
    kinds = [type(event) for event in events]
    assert len(events[-1].token_ids) >= 16
    assert kinds.index(AudioDelta) < len(kinds) - 1 - kinds[::-1].index(TextDelta)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_codes_do_not_depend_on_when_the_text_arrives(omni: Omni, seed: int) -> None:
    options = {"seed": seed, "min_text_tokens": 12, "max_text_tokens": 16, "max_frames": 20, **SAMPLED}
    expected = omni.generate(QUESTION, **options)
    slow, _ = watched(omni, random.Random(seed), ("thinker",))
    same(slow.generate(QUESTION, **options), expected)
    answer = slow.model.thinker.answer
    pause = random.Random(seed + 100)

    def hesitating(*arguments: Any) -> Iterator[Any]:
        """Tokens that come late while the engines are free: the Talker could run ahead, and must not."""
        for token in answer(*arguments):
            time.sleep(pause.choice((0, 0.01, 0.04)))
            yield token

    slow.model.thinker.answer = hesitating  # type: ignore[method-assign]
    late = slow.generate(QUESTION, **options)
    same(late, expected)
    assert late.timings.text_waits > 0, "the Talker waited for its text"


def test_codes_do_not_depend_on_how_fast_speech_and_its_listener_are(omni: Omni) -> None:
    options = {"seed": 5, "min_text_tokens": 12, "max_text_tokens": 16, "max_frames": 20, **SAMPLED}
    expected = omni.generate(QUESTION, **options)
    slow, _ = watched(omni, random.Random(0), ("talker", "predictor", "code2wav"))
    codes: Any = None
    for event in slow.stream(QUESTION, **options):
        time.sleep(0.005)
        codes = event.codes if isinstance(event, Done) else codes
    np.testing.assert_array_equal(codes, expected.codes)


def test_several_streams_at_once_give_what_each_gives_alone(omni: Omni) -> None:
    jobs = [
        (prompt, {"seed": number, "min_text_tokens": 8, "max_text_tokens": 12, "max_frames": 16, **SAMPLED})
        for number, prompt in enumerate(PROMPTS)
    ]
    alone = [omni.generate(prompt, **options) for prompt, options in jobs]
    for _ in range(2):
        with ThreadPoolExecutor(len(jobs)) as executor:
            together = list(executor.map(lambda job: omni.generate(job[0], **job[1]), jobs))
        for one, other in zip(alone, together, strict=True):
            same(one, other)


# Packets


@pytest.fixture(scope="module")
def offline(omni: Omni) -> tuple[list[Frame], np.ndarray]:
    codes = np.random.default_rng(0).integers(0, 256, (30, 16))
    frames = [Frame(index, row, 0) for index, row in enumerate(codes)]
    return frames, Vocoder(omni.engines["code2wav"], EngineLock(), lambda: 0).decode(frames)


@settings(max_examples=25, deadline=None, database=None)
@given(schedule=st.lists(st.integers(1, 13), min_size=1, max_size=5))
def test_any_packet_schedule_gives_the_same_sound(
    omni: Omni, offline: tuple[list[Frame], np.ndarray], schedule: list[int]
) -> None:
    frames, expected = offline
    waiting = iter(frames)
    vocoder = Vocoder(omni.engines["code2wav"], EngineLock(), lambda: 0)
    heard = np.concatenate(
        [vocoder.decode(packet) for packet in packets(lambda: next(waiting, None), schedule)]
    )
    assert len(heard) == len(expected) == len(frames) * SAMPLES - LEAD
    np.testing.assert_allclose(heard, expected, atol=1e-5)


@pytest.mark.parametrize("schedule", [(1,), (3, 1, 5), (100,)])
def test_a_reply_sounds_the_same_in_any_packets(omni: Omni, schedule: tuple[int, ...]) -> None:
    options = {"seed": 3, "max_text_tokens": 6, "max_frames": 11, **SAMPLED}
    expected = omni.generate(QUESTION, **options)
    events = [
        event
        for event in omni.stream(QUESTION, packet_schedule=schedule, **options)
        if isinstance(event, AudioDelta)
    ]
    np.testing.assert_allclose(np.concatenate([event.samples for event in events]), expected.audio, atol=1e-5)
    sizes = [schedule[min(place, len(schedule) - 1)] for place in range(len(events))]
    assert [event.frames for event in events[:-1]] == sizes[:-1] and 1 <= events[-1].frames <= sizes[-1]


# The events


@pytest.mark.parametrize("seed", range(4))
def test_events_add_up_to_the_answer(omni: Omni, seed: int) -> None:
    """At a high temperature the answer holds bytes that are no whole characters."""
    options = SAMPLED | {"temperature": 3.0, "top_k": 0}
    events = list(
        omni.stream(QUESTION, seed=seed, min_text_tokens=20, max_text_tokens=20, max_frames=13, **options)
    )
    texts = [event for event in events if isinstance(event, TextDelta)]
    sounds = [event for event in events if isinstance(event, AudioDelta)]
    done = events[-1]
    assert isinstance(done, Done) and not any(isinstance(event, Done) for event in events[:-1])
    assert "".join(event.text for event in texts) == done.text == omni.front_end.decode(done.token_ids)
    assert (
        tuple(token for event in texts for token in event.token_ids) == done.token_ids
        and len(done.token_ids) == 20
    )
    for event in texts:
        event.text.encode("utf-8")  # no half of a surrogate pair
        assert "\ufffd" not in event.text or "\ufffd" in done.text
    assert [event.first_frame for event in sounds] == np.cumsum([0, *(event.frames for event in sounds)])[
        :-1
    ].tolist()
    assert sum(event.frames for event in sounds) == len(done.codes) and done.codes.shape[1] == 16
    assert sum(len(event.samples) for event in sounds) == len(done.codes) * SAMPLES - LEAD
    assert all(event.samples.dtype == np.float32 and np.abs(event.samples).max() <= 1 for event in sounds)
    cursors = [event.text_cursor for event in sounds]
    assert cursors == sorted(cursors) and 1 <= cursors[0] and cursors[-1] <= len(done.token_ids)


def test_equal_seeds_give_equal_answers_and_others_others(omni: Omni) -> None:
    options = {"max_text_tokens": 8, "max_frames": 8, **SAMPLED}
    one, again, other = (omni.generate(QUESTION, seed=seed, **options) for seed in (7, 7, 8))
    same(one, again)
    assert one.token_ids != other.token_ids and not np.array_equal(one.codes, other.codes)


def test_an_answer_in_text_alone_never_runs_the_stages_of_speech(omni: Omni) -> None:
    counted, runs = watched(omni)
    options = {"seed": 1, "max_text_tokens": 6, **SAMPLED}
    reply = counted.generate(QUESTION, modalities=("text",), **options)
    assert set(runs) == {"thinker"}
    assert len(reply.audio) == len(reply.codes) == 0 and reply.finish_reason == "length"
    assert reply.token_ids == omni.generate(QUESTION, max_frames=2, **options).token_ids


# Ends


@pytest.fixture(scope="module")
def greedy(omni: Omni) -> Reply:
    """A long greedy answer to QUESTION: what it holds is where the tests let an answer end."""
    return omni.generate(QUESTION, greedy=True, max_text_tokens=24, max_frames=40)


def first_seen(values: Any, start: int) -> int:
    """The first place from `start` on that holds a value never seen before it."""
    return next(place for place in range(start, len(values)) if values[place] not in values[:place])


@pytest.mark.parametrize("tokens", [1, 2, 3])
def test_short_answers_cut_by_their_limit_speak(omni: Omni, greedy: Reply, tokens: int) -> None:
    reply = omni.generate(QUESTION, greedy=True, max_text_tokens=tokens, max_frames=4)
    assert reply.token_ids == greedy.token_ids[:tokens]
    assert len(reply.codes) == 4 and len(reply.audio) == 4 * SAMPLES - LEAD and np.abs(reply.audio).max() > 0


@pytest.mark.parametrize("tokens", [1, 2, 3])
def test_short_answers_that_end_by_themselves_speak_and_stop(omni: Omni, greedy: Reply, tokens: int) -> None:
    end = first_seen(greedy.token_ids, tokens)
    short = with_ids(omni, eos=[greedy.token_ids[end]])
    spoken = short.generate(QUESTION, greedy=True, max_frames=30)
    last = first_seen(spoken.codes[:, 0].tolist(), 1)
    reply = with_ids(short, codec_eos=int(spoken.codes[last, 0])).generate(
        QUESTION, greedy=True, max_frames=30
    )
    assert (
        reply.finish_reason == "stop"
        and reply.token_ids == greedy.token_ids[:end]
        and 1 <= len(reply.codes) <= last
    )
    assert len(reply.audio) == len(reply.codes) * SAMPLES - LEAD


def test_reason_length_when_only_the_text_reached_its_limit(omni: Omni, greedy: Reply) -> None:
    last = first_seen(greedy.codes[:, 0].tolist(), 3)
    reply = with_ids(omni, codec_eos=int(greedy.codes[last, 0])).generate(
        QUESTION, greedy=True, max_text_tokens=24, max_frames=40
    )
    assert reply.finish_reason == "length" and len(reply.token_ids) == 24 and 1 <= len(reply.codes) < 40


def test_reason_frame_budget_when_speech_reached_its_limit(omni: Omni, greedy: Reply) -> None:
    reply = omni.generate(QUESTION, greedy=True, max_text_tokens=24, max_frames=3)
    assert reply.finish_reason == "frame_budget" and len(reply.codes) == 3
    assert reply.token_ids == greedy.token_ids, "the text goes on to its own end"
    np.testing.assert_array_equal(reply.codes, greedy.codes[:3])


def test_reason_empty_when_the_model_says_nothing(omni: Omni, greedy: Reply) -> None:
    counted, runs = watched(with_ids(omni, eos=[greedy.token_ids[0]]))
    reply = counted.generate(QUESTION, greedy=True)
    assert (reply.finish_reason, reply.text, reply.token_ids, len(reply.audio)) == ("empty", "", (), 0)
    assert set(runs) == {"thinker"}


def test_reason_cancelled_when_the_caller_gives_up(omni: Omni) -> None:
    stream = omni.stream(
        QUESTION, seed=1, min_text_tokens=500, max_text_tokens=500, max_frames=2000, **SAMPLED
    )
    first = next(stream)
    stream.cancel()
    events: list[Event] = list(stream)
    assert (
        isinstance(first, TextDelta)
        and isinstance(events[-1], Done)
        and events[-1].finish_reason == "cancelled"
    )


def test_closing_the_iterator_stops_all_work_within_one_frame(omni: Omni) -> None:
    counted, runs = watched(omni)
    before = set(threading.enumerate())
    stream = counted.stream(
        QUESTION, seed=1, min_text_tokens=500, max_text_tokens=500, max_frames=2000, **SAMPLED
    )
    for event in stream:
        if isinstance(event, AudioDelta) and event.first_frame >= 3:
            break
    at_close, began = runs.copy(), time.monotonic()
    stream.close()
    assert time.monotonic() - began < 2
    assert all(count <= 1 for count in (runs - at_close).values()), "no stage began a second run"
    assert not [
        thread for thread in set(threading.enumerate()) - before if thread.name.startswith("antiphon")
    ]
    after = runs.copy()
    time.sleep(0.05)
    assert runs == after and list(stream) == []
    assert len(counted.generate(QUESTION, max_text_tokens=2, max_frames=2).codes) == 2, (
        "its place is free again"
    )
