"""What streaming promises of Qwen3.5-Omni, seen on a real bundle:
interleaved speech over text that is still written, and nothing that depends on time.
"""

from __future__ import annotations

import dataclasses
import random
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("torch")

from antiphon.runtime.engines.base import Engine
from antiphon.runtime.events import AudioDelta, Done, Reply, TextDelta
from antiphon.runtime.omni import Omni, load
from antiphon.runtime.scheduling.engine_lock import EngineLock
from antiphon.runtime.stages.aria import Frame
from antiphon.runtime.stages.vocoder import Vocoder, packets
from antiphon.runtime.states.pool import UNLIMITED, StatePool

pytestmark = pytest.mark.usefixtures("no_leaked_threads")

SAMPLES = 1920
SAMPLED: dict[str, Any] = {
    "temperature": 1.0,
    "top_k": 50,
    "talker_temperature": 0.9,
    "predictor_temperature": 0.9,
}
QUESTION: list[dict[str, Any]] = [{"role": "user", "content": "Hello, how are you?"}]
TONE = (0.3 * np.sin(np.arange(12000) / 20)).astype(np.float32)
PICTURE = np.random.default_rng(0).integers(0, 256, (64, 96, 3), dtype=np.uint8)
JOBS: list[tuple[list[dict[str, Any]], dict[str, Any]]] = [
    (QUESTION, {}),
    (
        [
            {
                "role": "user",
                "content": [{"type": "input_audio", "input_audio": {"data": TONE, "sample_rate": 16000}}],
            }
        ],
        {"voice": "aiden"},
    ),
    (
        [
            {
                "role": "user",
                "content": [
                    {"type": "image_url", "image_url": {"url": PICTURE}},
                    {"type": "text", "text": "What is this?"},
                ],
            }
        ],
        {"language": "french"},
    ),
    (
        [{"role": "system", "content": "Be brief."}, *QUESTION],
        {"interleave": "adaptive:2", "style": "whisper"},
    ),
]


class Watched:
    """An engine that counts its runs and may be slow at random."""

    def __init__(self, engine: Engine, runs: Counter[str], pause: random.Random | None) -> None:
        self._engine, self._runs, self._pause = engine, runs, pause
        self.entry = engine.entry

    def new_states(self, rows: int = 1, capacity: int = UNLIMITED) -> StatePool:
        return self._engine.new_states(rows, capacity)

    def close(self) -> None:
        self._engine.close()

    def run(
        self, feeds: Mapping[str, np.ndarray], slots: Any = (), outputs: Sequence[str] | None = None
    ) -> dict[str, np.ndarray]:
        self._runs[self.entry.name] += 1
        if self._pause is not None:
            time.sleep(self._pause.choice((0, 0, 0.002, 0.02)))
        return self._engine.run(feeds, slots, outputs)


@pytest.fixture(scope="module")
def omni(hybrid_bundle: Path) -> Iterator[Omni]:
    with load(hybrid_bundle, max_streams=4, threads=1) as omni:
        yield omni


def with_ids(omni: Omni, **ids: Any) -> Omni:
    """The same engines under other special ids, so that an answer ends where a test wants it."""
    return Omni(
        dataclasses.replace(omni.manifest, ids=omni.manifest.ids | ids),
        omni.engines,
        omni.front_end,
        voice_table=omni.model.voice_table,
    )


def watched(
    omni: Omni, pause: random.Random | None = None, slow: tuple[str, ...] = ()
) -> tuple[Omni, Counter[str]]:
    runs: Counter[str] = Counter()
    engines = {
        name: Watched(engine, runs, pause if name in slow else None) for name, engine in omni.engines.items()
    }
    return Omni(omni.manifest, engines, omni.front_end, voice_table=omni.model.voice_table), runs  # type: ignore[arg-type]


def same(one: Reply, other: Reply) -> None:
    assert (
        one.token_ids == other.token_ids
        and one.text == other.text
        and one.finish_reason == other.finish_reason
    )
    np.testing.assert_array_equal(one.codes, other.codes)
    np.testing.assert_allclose(one.audio, other.audio, atol=1e-6)


# Time


@pytest.mark.parametrize("job", range(len(JOBS)))
def test_speech_begins_before_the_text_ends_and_every_frame_sounds(omni: Omni, job: int) -> None:
    messages, options = JOBS[job]
    events = list(
        omni.stream(
            messages, seed=job, min_text_tokens=24, max_text_tokens=24, max_frames=10, **SAMPLED | options
        )
    )
    kinds, done = [type(event) for event in events], events[-1]
    assert kinds.index(AudioDelta) < len(kinds) - 1 - kinds[::-1].index(TextDelta)
    sounds = [event for event in events if isinstance(event, AudioDelta)]
    assert isinstance(done, Done) and [len(event.samples) for event in sounds] == [
        event.frames * SAMPLES for event in sounds
    ]
    assert sum(event.frames for event in sounds) == len(done.codes) == 10 and done.codes.shape[1] == 16
    cursors = [event.text_cursor for event in sounds]
    assert cursors == sorted(cursors) and 4 <= cursors[0] and cursors[-1] <= 24


@pytest.mark.parametrize("policy", ["chunked:4,4", "chunked:2,3", "adaptive:1"])
def test_codes_do_not_depend_on_when_the_text_arrives(omni: Omni, policy: str) -> None:
    options = {
        "seed": 3,
        "min_text_tokens": 12,
        "max_text_tokens": 12,
        "max_frames": 16,
        "interleave": policy,
        **SAMPLED,
    }
    expected = omni.generate(QUESTION, **options)
    slow, _ = watched(omni, random.Random(0), ("thinker",))
    same(slow.generate(QUESTION, **options), expected)
    answer, pause = slow.model.thinker.answer, random.Random(1)

    def hesitating(*arguments: Any) -> Iterator[Any]:
        """Tokens that come late while the engines are free: the Talker could run ahead, and must not."""
        for token in answer(*arguments):
            time.sleep(pause.choice((0, 0.01, 0.03)))
            yield token

    slow.model.thinker.answer = hesitating  # type: ignore[method-assign]
    same(slow.generate(QUESTION, **options), expected)


def test_codes_do_not_depend_on_how_fast_speech_and_its_listener_are(omni: Omni) -> None:
    options = {"seed": 5, "min_text_tokens": 10, "max_text_tokens": 10, "max_frames": 14, **SAMPLED}
    expected = omni.generate(QUESTION, **options)
    slow, _ = watched(omni, random.Random(0), ("talker", "predictor", "code2wav"))
    codes: Any = None
    for event in slow.stream(QUESTION, **options):
        time.sleep(0.005)
        codes = event.codes if isinstance(event, Done) else codes
    np.testing.assert_array_equal(codes, expected.codes)


@pytest.mark.parametrize("chunk", [1, 7])
def test_codes_do_not_depend_on_the_size_of_prefill_runs(hybrid_bundle: Path, omni: Omni, chunk: int) -> None:
    with load(hybrid_bundle, threads=1, prefill_chunk=chunk) as careful:
        for number, (messages, given) in enumerate(JOBS):
            options = {"seed": number, "max_text_tokens": 7, "max_frames": 7, **SAMPLED, **given}
            one, other = careful.generate(messages, **options), omni.generate(messages, **options)
            assert one.token_ids == other.token_ids
            np.testing.assert_array_equal(one.codes, other.codes)


def test_four_streams_at_once_give_what_each_gives_alone(omni: Omni) -> None:
    jobs = [
        (messages, {"seed": number, "max_text_tokens": 10, "max_frames": 12, **SAMPLED, **given})
        for number, (messages, given) in enumerate(JOBS)
    ]
    alone = [omni.generate(messages, **options) for messages, options in jobs]
    with ThreadPoolExecutor(len(jobs)) as executor:
        together = list(executor.map(lambda job: omni.generate(job[0], **job[1]), jobs))
    for one, other in zip(alone, together, strict=True):
        same(one, other)


def test_equal_seeds_give_equal_answers_and_others_others(omni: Omni) -> None:
    options = {"max_text_tokens": 8, "max_frames": 8, **SAMPLED}
    one, again, other = (omni.generate(QUESTION, seed=seed, **options) for seed in (7, 7, 8))
    same(one, again)
    assert one.token_ids != other.token_ids and not np.array_equal(one.codes, other.codes)


# Packets


@pytest.fixture(scope="module")
def offline(omni: Omni) -> tuple[list[Frame], np.ndarray]:
    codes = np.random.default_rng(0).integers(0, 256, (24, 16))
    frames = [Frame(index, row, 0) for index, row in enumerate(codes)]
    return frames, Vocoder(omni.engines["code2wav"], EngineLock(), lambda: 0).decode(frames)


@settings(max_examples=15, deadline=None, database=None)
@given(schedule=st.lists(st.integers(1, 13), min_size=1, max_size=5))
def test_any_packet_schedule_gives_the_same_sound(
    omni: Omni, offline: tuple[list[Frame], np.ndarray], schedule: list[int]
) -> None:
    frames, expected = offline
    waiting = iter(frames)
    vocoder = Vocoder(omni.engines["code2wav"], EngineLock(), lambda: 0)
    heard = [vocoder.decode(packet) for packet in packets(lambda: next(waiting, None), schedule)]
    sizes = [schedule[min(place, len(schedule) - 1)] * SAMPLES for place in range(len(heard))]
    assert [len(packet) for packet in heard[:-1]] == sizes[:-1] and sum(map(len, heard)) == len(
        expected
    ) == len(frames) * SAMPLES
    np.testing.assert_allclose(np.concatenate(heard), expected, atol=1e-5)


@pytest.mark.parametrize("schedule", [(1,), (3, 1, 5), (100,)])
def test_a_reply_sounds_as_its_codes_decoded_at_once_in_any_packets(
    omni: Omni, schedule: tuple[int, ...]
) -> None:
    reply = omni.generate(
        QUESTION, seed=3, max_text_tokens=6, max_frames=11, packet_schedule=schedule, **SAMPLED
    )
    frames = [Frame(index, row, 0) for index, row in enumerate(reply.codes)]
    np.testing.assert_allclose(
        reply.audio, Vocoder(omni.engines["code2wav"], EngineLock(), lambda: 0).decode(frames), atol=1e-5
    )


# Ends


@pytest.fixture(scope="module")
def greedy(omni: Omni) -> Reply:
    """A long greedy answer to QUESTION: what it holds is where the tests let an answer end."""
    return omni.generate(QUESTION, greedy=True, min_text_tokens=12, max_text_tokens=12, max_frames=16)


def test_an_answer_in_text_alone_never_runs_the_stages_of_speech(omni: Omni, greedy: Reply) -> None:
    counted, runs = watched(omni)
    reply = counted.generate(
        QUESTION, greedy=True, modalities=("text",), min_text_tokens=12, max_text_tokens=12
    )
    assert set(runs) == {"thinker"} and len(reply.audio) == len(reply.codes) == 0
    assert reply.token_ids == greedy.token_ids and reply.finish_reason == "length"


@pytest.mark.parametrize("tokens", [1, 2, 4])
def test_short_answers_cut_by_their_limit_speak(omni: Omni, greedy: Reply, tokens: int) -> None:
    reply = omni.generate(QUESTION, greedy=True, max_text_tokens=tokens, min_frames=3, max_frames=3)
    assert reply.token_ids == greedy.token_ids[:tokens]
    assert len(reply.codes) == 3 and len(reply.audio) == 3 * SAMPLES and np.abs(reply.audio).max() > 0


@pytest.mark.parametrize("tokens", [1, 3, 4])
def test_short_answers_that_end_by_themselves_speak(omni: Omni, greedy: Reply, tokens: int) -> None:
    end = next(
        place for place in range(tokens, 12) if greedy.token_ids[place] not in greedy.token_ids[:place]
    )
    reply = with_ids(omni, eos=[greedy.token_ids[end]]).generate(QUESTION, greedy=True, max_frames=12)
    assert reply.token_ids == greedy.token_ids[:end] and reply.finish_reason in ("stop", "frame_budget")
    assert (
        len(reply.codes) >= 1
        and len(reply.audio) == len(reply.codes) * SAMPLES
        and np.abs(reply.audio).max() > 0
    )


def test_an_answer_of_no_text_is_silent(omni: Omni, greedy: Reply) -> None:
    counted, runs = watched(with_ids(omni, eos=[greedy.token_ids[0]]))
    reply = counted.generate(QUESTION, greedy=True)
    assert (reply.finish_reason, reply.text, reply.token_ids, len(reply.audio)) == ("empty", "", (), 0)
    assert set(runs) == {"thinker"}


@pytest.mark.parametrize("way", ["cancel", "close"])
def test_giving_up_in_the_middle_stops_all_work_and_frees_the_place(omni: Omni, way: str) -> None:
    counted, runs = watched(omni)
    options = {
        "seed": 1,
        "min_text_tokens": 500,
        "max_text_tokens": 500,
        "min_frames": 1000,
        "max_frames": 1000,
        **SAMPLED,
    }
    stream = counted.stream(QUESTION, **options)
    for event in stream:
        if isinstance(event, AudioDelta) and event.first_frame >= 3:
            break
    at_end = runs.copy()
    getattr(stream, way)()
    events = list(stream)
    if way == "close":
        assert events == [] and all(count <= 1 for count in (runs - at_end).values()), (
            "no stage began a second run"
        )
    else:
        assert (
            isinstance(events[-1], Done)
            and events[-1].finish_reason == "cancelled"
            and len(events[-1].codes) >= 3
        )
    after = runs.copy()
    time.sleep(0.05)
    assert runs == after
    assert len(counted.generate(QUESTION, max_text_tokens=2, min_frames=2, max_frames=2).codes) == 2
