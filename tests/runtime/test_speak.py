"""A given text, spoken: by scripted engines for the rules, and by random bundles of both families."""

from __future__ import annotations

import time

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from antiphon.runtime.bundle.errors import AntiphonError, ContextFull, InvalidInput
from antiphon.runtime.conversation import Conversation
from antiphon.runtime.events import AudioDelta, Done, TextDelta
from antiphon.runtime.omni import load
from antiphon.runtime.options import TEXT_OPTIONS, ReplyOptions
from antiphon.runtime.scheduling.admission import Admission, Place
from antiphon.runtime.speech_request import rows_to_speak
from antiphon.runtime.stages.aria import adaptive, chunked, dual_track

QUESTION = [{"role": "user", "content": "abc"}]
TEXT = "Two plus two is four."


@pytest.fixture
def speaking(fakes):
    """The scripted engines behind a front end that encodes letters."""
    fakes.front_end.encode_text = lambda self, text: np.array(fakes.letters(text), np.int64)
    yield fakes
    del fakes.front_end.encode_text


def test_the_given_text_is_spoken_as_the_answer_that_the_thinker_would_have_written(speaking):
    omni = speaking.omni()
    own = omni.generate(QUESTION, seed=3)
    given_text = omni.speak("abc", QUESTION, seed=3)
    assert (
        given_text.text == own.text == "abc"
        and given_text.token_ids == own.token_ids
        and given_text.finish_reason == "stop"
    )
    np.testing.assert_array_equal(given_text.codes, own.codes)
    np.testing.assert_array_equal(given_text.audio, own.audio)


def test_without_messages_the_thinker_does_not_run_and_no_user_turn_stands_before_the_text(speaking):
    omni = speaking.omni()
    reply = omni.speak("abc", seed=3)
    assert not speaking.engines["thinker"].feeds and reply.timings.prefill_tokens == 0
    assert speaking.engines["talker"].feeds[0]["text_ids"].shape[1] == 9, "the rows that open an answer"
    assert reply.text == "abc" and len(reply.audio) > 0
    assert not np.array_equal(reply.codes, omni.speak("abc", QUESTION, seed=3).codes)


def test_events_come_in_the_order_of_a_stream_and_make_the_reply(speaking):
    omni = speaking.omni()
    with omni.stream_speech("abc", seed=3, voice="aiden") as stream:
        events = list(stream)
    reply = omni.speak("abc", seed=3, voice="aiden")
    assert (
        isinstance(events[-1], Done)
        and events[-1].text
        == "".join(event.text for event in events if isinstance(event, TextDelta))
        == "abc"
    )
    np.testing.assert_array_equal(
        np.concatenate([event.samples for event in events if isinstance(event, AudioDelta)]), reply.audio
    )
    np.testing.assert_array_equal(events[-1].codes, reply.codes)


def test_a_speech_takes_a_place_and_gives_it_back_wherever_it_is_closed(speaking):
    speaking.engines["talker"].tail = None
    omni = speaking.omni(max_streams=1, admission_seconds=0.05)
    for read in range(6):
        stream = omni.stream_speech("abcdef", max_frames=100_000)
        with pytest.raises(AntiphonError, match="All 1 streams were busy"):
            omni.speak("abc")
        for _ in range(read):
            next(stream)
        stream.close()
    assert omni.speak("abc", max_frames=2).text == "abc"


def test_a_text_longer_than_every_queue_is_spoken_whole(speaking):
    reply = speaking.omni().speak("abcdefghij" * 200, max_frames=2)
    assert len(reply.token_ids) == 2000 and reply.finish_reason == "frame_budget"


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "is empty"),
        (" \n\t", "is empty"),
        (None, "is a NoneType"),
        (b"abc", "is a bytes"),
        ("a\ud800", "is not valid Unicode"),
    ],
)
def test_what_holds_no_word_is_refused_before_any_work(speaking, text, sentence):
    omni = speaking.omni()
    for speak in (omni.speak, omni.stream_speech):
        with pytest.raises(InvalidInput, match=f"The text to speak {sentence}"):
            speak(text)
    assert not any(engine.feeds for engine in speaking.engines.values())


@pytest.mark.parametrize("name", TEXT_OPTIONS)
def test_options_of_the_text_are_refused_by_name(speaking, name):
    value = ("text", "audio") if name == "modalities" else 1
    with pytest.raises(InvalidInput, match=f"{name} is an option of an answer's text"):
        speaking.omni().speak("abc", **{name: value})
    with pytest.raises(InvalidInput, match="There is no option 'speed'"):
        speaking.omni().speak("abc", speed=2)


def test_a_bundle_without_speech_refuses_in_one_sentence(speaking):
    with pytest.raises(
        InvalidInput,
        match="holds no speech stages, so it speaks no text; build it from a checkpoint with a Talker",
    ):
        speaking.omni(stages=("thinker",)).speak("abc")


def test_a_text_beyond_the_talkers_context_is_refused_and_the_longest_that_fits_is_spoken(speaking):
    speaking.constants["talker_context"] = 30
    omni = speaking.omni()
    with pytest.raises(
        ContextFull,
        match=(
            "has 22 tokens, and its speech needs at least 31 rows of the Talker's context, which holds 30; "
            "speak it in parts"
        ),
    ):
        omni.speak("a" * 22)
    assert not speaking.engines["talker"].feeds
    speaking.engines["talker"].tail = 0
    assert omni.speak("a" * 21).finish_reason == "stop"


POLICIES = [dual_track(), chunked(4, 4), chunked(1, 3), adaptive(4, 2.62), adaptive(1, 1), adaptive(4, 0.5)]


@given(text=st.integers(1, 60), policy=st.sampled_from(POLICIES))
def test_the_rows_of_a_speech_are_those_that_the_schedule_makes(text: int, policy) -> None:
    """Counted by running the schedule: every row before the last text row (the end of the text) is in."""
    frame, rows_in = 0, 0
    while rows_in < text + 1:
        frame += 1
        rows_in = min(policy.text_rows_before(frame), text + 1)
    # the first frame is sampled from the last row before it
    expected = frame + text if policy.layout == "interleaved" else frame
    assert rows_to_speak(text, policy, 1000) == expected
    assert rows_to_speak(text, policy, expected - 1) > expected - 1, "never said to fit where it does not"


# Both families


@pytest.fixture(scope="module", params=["tiny_bundle", "hybrid_bundle"])
def omni(request: pytest.FixtureRequest):
    with load(request.getfixturevalue(request.param), threads=1) as loaded:
        yield loaded


@pytest.mark.parametrize("messages", [None, [{"role": "user", "content": "What is 2 plus 2?"}]])
def test_a_text_is_spoken_as_a_function_of_text_seed_and_voice(omni, messages) -> None:
    first, again, other = (omni.speak(TEXT, messages, seed=seed, max_frames=8) for seed in (1, 1, 2))
    assert first.text == TEXT and len(first.audio) > 0
    np.testing.assert_array_equal(first.codes, again.codes)
    assert not np.array_equal(first.codes, other.codes)
    voices = list(omni.manifest.voices)
    one, two = (omni.speak(TEXT, messages, seed=1, max_frames=8, voice=voice).codes for voice in voices[:2])
    assert not np.array_equal(one, two)


def test_a_text_that_the_thinker_wrote_sounds_the_same_when_it_is_given(omni) -> None:
    messages = [{"role": "user", "content": "What is 2 plus 2?"}]
    own = omni.generate(messages, greedy=True, max_text_tokens=5, max_frames=12)
    written = own.token_ids[:-1]  # the last token of a text that was cut is not spoken
    options = ReplyOptions(greedy=True, max_frames=12)
    with Conversation(omni.model, Admission()).recite(
        written, messages, options, time.perf_counter(), Place()
    ) as stream:
        *_, done = stream
    np.testing.assert_array_equal(done.codes, own.codes)


@pytest.mark.parametrize(
    "text",
    [
        "<|im_end|> is no end.",
        "<|im_start|>user",
        "<think>aloud</think>",
        "a<|audio_pad|>b",
        " two  spaces\n",
    ],
)
def test_what_looks_like_a_special_token_is_spoken_as_text(omni, text: str) -> None:
    reply = omni.speak(text, max_frames=2)
    control = {omni.front_end.im_start, omni.front_end.im_end, omni.front_end.audio}
    assert reply.text == text and not control & set(reply.token_ids)


@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    text=st.text(
        st.characters(codec="utf-8", categories=("L", "N", "P", "Zs")), min_size=1, max_size=12
    ).filter(str.strip)
)
def test_any_text_comes_back_as_it_was_given(omni, text: str) -> None:
    import unicodedata

    assert omni.speak(text, max_frames=1).text == unicodedata.normalize("NFC", text)


def test_a_text_beyond_the_thinkers_context_is_refused(omni) -> None:
    with pytest.raises(ContextFull):
        omni.speak("a b " * 200_000)
