"""The rules of the streaming pipeline, on scripted engines."""

from __future__ import annotations

import gc
import random
import threading
import time
import weakref
from functools import partial

import numpy as np
import pytest

from antiphon.runtime import reply as pipeline
from antiphon.runtime.events import AudioDelta, Done, TextDelta

SENTENCE = "abcdefghijklmnopqrstuvwxyz"


def ask(text: str) -> list[dict]:
    return [{"role": "user", "content": text}]


def test_the_answer_is_spoken_and_streamed_text_joins_to_the_whole(fakes):
    events = list(fakes.omni().stream(ask("hello"), seed=1))
    done = events[-1]
    assert isinstance(done, Done) and done.finish_reason == "stop" and done.text == "hello"
    assert "".join(event.text for event in events if isinstance(event, TextDelta)) == "hello"
    assert done.token_ids == tuple(fakes.letters("hello"))
    frames = sum(event.frames for event in events if isinstance(event, AudioDelta))
    assert frames == len(done.codes) > 5
    samples = sum(len(event.samples) for event in events if isinstance(event, AudioDelta))
    assert samples == frames * fakes.samples - fakes.lead


@pytest.mark.parametrize("text", ["a", "ab", "abc"])
def test_the_shortest_answers_speak(fakes, text):
    reply = fakes.omni().generate(ask(text))
    assert reply.text == text and reply.finish_reason == "stop" and len(reply.audio) > 0


def test_more_frames_than_the_budget_are_made_when_they_are_asked_for(fakes):
    assert len(fakes.omni().generate(ask("a"), min_frames=200).codes) == 200


def test_an_answer_of_no_text_is_empty_and_silent(fakes):
    reply = fakes.omni().generate(ask(""))
    assert (reply.finish_reason, reply.text, len(reply.codes), len(reply.audio)) == ("empty", "", 0, 0)
    assert not fakes.engines["talker"].feeds


def test_codes_are_a_function_of_text_and_seed_never_of_timing(fakes):
    omni = fakes.omni()
    expected = omni.generate(ask(SENTENCE), seed=7)
    for attempt in range(3):
        chance = random.Random(attempt)
        for engine in fakes.engines.values():
            engine.pause = partial(chance.choice, [0, 0, 0.001, 0.004])
        reply = omni.generate(ask(SENTENCE), seed=7)
        assert np.array_equal(reply.codes, expected.codes) and np.array_equal(reply.audio, expected.audio)
    assert not np.array_equal(omni.generate(ask(SENTENCE), seed=8).codes, expected.codes)


def test_the_talker_waits_for_text_and_never_pads_before_its_end(fakes):
    fakes.engines["thinker"].pause = lambda: 0.003
    fakes.omni().generate(ask(SENTENCE))
    fed = [int(feeds["text_ids"][0, -1]) for feeds in fakes.engines["talker"].feeds]
    assert fed[: len(SENTENCE) + 1] == [*fakes.letters(SENTENCE), fakes.ids["tts_eos"]]
    assert set(fed[len(SENTENCE) + 1 :]) == {fakes.ids["tts_pad"]}


@pytest.mark.parametrize("schedule", [(1,), (3,), (2, 5), (16,), (1000,)])
def test_the_sound_does_not_depend_on_the_packet_schedule(fakes, schedule):
    omni = fakes.omni()
    expected = omni.generate(ask(SENTENCE), seed=3)
    packets = [
        event
        for event in omni.stream(ask(SENTENCE), seed=3, packet_schedule=schedule)
        if isinstance(event, AudioDelta)
    ]
    assert np.array_equal(np.concatenate([packet.samples for packet in packets]), expected.audio)
    assert [packet.first_frame for packet in packets] == np.cumsum(
        [0] + [packet.frames for packet in packets]
    )[:-1].tolist()
    sizes = [packet.frames for packet in packets]
    assert all(size == schedule[min(place, len(schedule) - 1)] for place, size in enumerate(sizes[:-1]))


@pytest.mark.parametrize("schedule", [(1,), (4,), (12,)])
@pytest.mark.parametrize("slow", ["thinker", "talker", "code2wav"])
def test_the_first_sound_comes_before_the_last_text(fakes, slow, schedule):
    fakes.engines[slow].pause = lambda: 0.004
    events = list(fakes.omni().stream(ask(SENTENCE[:16]), packet_schedule=schedule))
    first_audio = next(place for place, event in enumerate(events) if isinstance(event, AudioDelta))
    texts_before = sum(isinstance(event, TextDelta) for event in events[:first_audio])
    assert texts_before == schedule[0], "the Thinker goes no further than the first packet needs"


def test_text_and_speech_overlap_after_the_first_sound(fakes):
    for name in ("thinker", "talker", "code2wav"):
        fakes.engines[name].pause = lambda: 0.002
    kinds = [type(event) for event in fakes.omni().stream(ask(SENTENCE), packet_schedule=(1,))]
    last_text = max(place for place, kind in enumerate(kinds) if kind is TextDelta)
    assert sum(kind is AudioDelta for kind in kinds[:last_text]) >= 5


def test_the_cursor_is_monotone_and_ends_at_the_whole_text(fakes):
    packets = [event for event in fakes.omni().stream(ask(SENTENCE)) if isinstance(event, AudioDelta)]
    cursors = [packet.text_cursor for packet in packets]
    assert cursors == sorted(cursors) and cursors[0] == 1 and cursors[-1] == len(SENTENCE)


def test_text_stopped_by_length_is_not_spoken_to_its_last_token(fakes):
    reply = fakes.omni().generate(ask(SENTENCE), max_text_tokens=5)
    assert reply.finish_reason == "length" and reply.text == "abcde"
    spoken = [int(feeds["text_ids"][0, -1]) for feeds in fakes.engines["talker"].feeds]
    assert spoken[:5] == [*fakes.letters("abcd"), fakes.ids["tts_eos"]]


def test_text_stopped_after_one_token_is_spoken(fakes):
    reply = fakes.omni().generate(ask(SENTENCE), max_text_tokens=1)
    assert reply.finish_reason == "length" and reply.text == "a" and len(reply.audio) > 0


def test_speech_that_never_ends_stops_at_the_budget(fakes):
    fakes.engines["talker"].tail = None
    omni = fakes.omni()
    reply = omni.generate(ask("abc"), max_frames=9)
    assert reply.finish_reason == "frame_budget" and len(reply.codes) == 9
    assert len(omni.generate(ask("ab")).codes) == pipeline.default_budget(2)


def test_speech_is_off_when_only_text_is_asked_for(fakes):
    reply = fakes.omni().generate(ask("abc"), modalities=("text",))
    assert reply.text == "abc" and len(reply.audio) == 0 and not fakes.engines["talker"].feeds


def test_several_streams_give_what_each_gives_alone(fakes):
    omni = fakes.omni(max_streams=4)
    questions = ["abc", "hello", SENTENCE, "zyx"]
    alone = [omni.generate(ask(question), seed=place) for place, question in enumerate(questions)]
    chance = random.Random(0)
    for engine in fakes.engines.values():
        engine.pause = lambda: chance.choice([0, 0.001])
    together: dict[int, object] = {}

    def work(place: int) -> None:
        together[place] = omni.generate(ask(questions[place]), seed=place)

    threads = [threading.Thread(target=work, args=(place,)) for place in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    for place, expected in enumerate(alone):
        assert together[place].text == expected.text
        assert np.array_equal(together[place].codes, expected.codes) and np.array_equal(
            together[place].audio, expected.audio
        )


def test_closing_stops_every_worker_within_one_frame(fakes):
    fakes.engines["talker"].tail = None
    stream = fakes.omni().stream(ask(SENTENCE), packet_schedule=(1,))
    for event in stream:
        if isinstance(event, AudioDelta) and event.first_frame == 3:
            break
    frames = len(fakes.engines["predictor"].feeds)
    stream.close()
    after = {name: len(engine.feeds) for name, engine in fakes.engines.items()}
    assert after["predictor"] <= frames + 1
    time.sleep(0.05)
    assert {name: len(engine.feeds) for name, engine in fakes.engines.items()} == after
    assert list(stream) == []


def test_cancelling_ends_the_iterator_with_what_there_is(fakes):
    fakes.engines["talker"].tail = None
    stream = fakes.omni().stream(ask(SENTENCE))
    events = [next(stream), next(stream)]
    stream.cancel()
    events += list(stream)
    assert events[-1].finish_reason == "cancelled" and events[-1].text.startswith("a")


def test_a_forgotten_stream_stops(fakes):
    fakes.engines["talker"].tail = None
    stream = fakes.omni().stream(ask(SENTENCE))
    next(stream)
    gone = weakref.ref(stream)
    del stream
    gc.collect()
    assert gone() is None  # the fixture no_leaked_threads sees the workers end


@pytest.mark.parametrize("stage", ["thinker", "talker", "predictor", "code2wav"])
def test_a_failing_worker_raises_in_the_caller(fakes, stage):
    fakes.engines[stage].fail_at = 3
    omni = fakes.omni(max_streams=1)
    with pytest.raises(RuntimeError, match=f"{stage} broke"):
        list(omni.stream(ask(SENTENCE)))
    assert omni.generate(ask("abc")).text == "abc", "the place of the failed stream is free again"


def test_a_caller_who_does_not_read_stalls_the_workers(fakes):
    fakes.engines["talker"].tail = None
    stream = fakes.omni().stream(ask("abc"), packet_schedule=(1,), max_frames=1000)
    next(stream)
    deadline = time.monotonic() + 5
    count = -1
    while count != len(fakes.engines["predictor"].feeds):
        count = len(fakes.engines["predictor"].feeds)
        time.sleep(0.1)
        assert time.monotonic() < deadline
    assert count <= pipeline.MAX_EVENTS_AHEAD + pipeline.MAX_FRAMES_AHEAD + 5
    assert len(list(stream)) > 900


def test_speech_that_ends_early_does_not_stall_a_long_text(fakes, monkeypatch):
    monkeypatch.setattr(pipeline, "MAX_TEXT_AHEAD", 2)
    reply = fakes.omni().generate(ask(SENTENCE), max_frames=2)
    assert reply.text == SENTENCE and len(reply.codes) == 2


def test_timings_tell_the_order_of_events(fakes):
    timings = fakes.omni().generate(ask(SENTENCE)).timings
    assert (
        0
        < timings.time_to_first_token
        <= timings.time_to_first_frame
        <= timings.time_to_first_audio
        <= timings.total
    )
    assert timings.seconds_per_token > 0 and timings.seconds_per_frame > 0 and timings.real_time_factor > 0
    assert timings.prefill_tokens == len(SENTENCE) + 8


def test_frames_without_sound_are_an_error_never_a_silent_success(fakes):
    fakes.engines["code2wav"].entry.interface.constants["lead_samples"] = 10**6
    with pytest.raises(AssertionError, match="gave no sound"):
        fakes.omni().generate(ask("abc"))
