from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from antiphon.runtime.bundle.errors import AntiphonError
from antiphon.runtime.bundle.sampling import SamplingParameters
from antiphon.runtime.options import DEFAULT_MAX_TEXT_TOKENS, choose, read_options


@pytest.fixture
def pick(fakes):
    omni = fakes.omni()
    return lambda **options: choose(read_options(options), omni.manifest)


def test_what_is_not_given_comes_from_the_bundle(pick):
    choices = pick()
    assert (
        choices.talker == SamplingParameters(0.9, 50, 1.0, 1.05)
        and choices.voice is None
        and choices.seed == 0
    )
    assert choices.thinker.max_tokens == DEFAULT_MAX_TEXT_TOKENS


def test_what_is_given_changes_its_own_stage_alone(pick):
    choices = pick(temperature=0.7, talker_top_k=3, predictor_top_p=0.5, max_text_tokens=9)
    assert choices.thinker == SamplingParameters(0.7, max_tokens=9)
    assert choices.talker.top_k == 3 and choices.predictor.top_p == 0.5


def test_greedy_leaves_no_chance_anywhere_and_keeps_the_penalty(pick):
    choices = pick(greedy=True, temperature=1.0)
    assert (choices.thinker.temperature, choices.talker.temperature, choices.predictor.temperature) == (
        0,
        0,
        0,
    )
    assert choices.talker.repetition_penalty == 1.05


def test_the_predictor_follows_a_greedy_talker(pick):
    assert pick(talker_temperature=0).predictor.temperature == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"language": "klingon"}, "takes no language .found 'klingon'"),
        ({"interleave": "sideways"}, "The interleave is 'sideways'"),
        ({"interleave": "chunked:4,4"}, "cannot follow the interleave 'chunked:4,4'; use dual_track"),
        ({"modalities": ("audio",)}, "modalities"),
        ({"modalities": "text"}, "modalities"),
        ({"modalities": ("text", "video")}, "modalities"),
        ({"max_frames": 0}, "max_frames is 0"),
        ({"max_text_tokens": 1.5}, "max_text_tokens is 1.5"),
        ({"seed": -1}, "seed is -1"),
        ({"temperature": -1}, "temperature is -1"),
        ({"packet_schedule": ()}, "packet_schedule"),
        ({"modalities": 5}, "modalities is 5"),
        ({"modalities": (["text"],)}, "modalities"),
        ({"packet_schedule": 4}, "packet_schedule is 4"),
        ({"packet_schedule": np.array(4)}, "packet_schedule"),
        ({"top_k": 2**31}, "top_k is 2147483648, expected an integer from 0 to"),
        ({"talker_top_k": 2**63}, "top_k is"),
        ({"temperature": 10**400}, "temperature is"),
        ({"greedy": "no"}, "greedy is 'no', expected True or False"),
        ({"use_audio_in_video": 1}, "use_audio_in_video is 1"),
        ({"video_fps": "fast"}, "video_fps is 'fast'"),
        (
            {"min_text_tokens": 9, "max_text_tokens": 8},
            "min_text_tokens is 9, expected at most max_text_tokens, which is 8",
        ),
        ({"min_text_tokens": DEFAULT_MAX_TEXT_TOKENS + 1}, "min_text_tokens"),
        ({"min_frames": 3, "max_frames": 2}, "min_frames is 3, expected at most max_frames, which is 2"),
        ({"temperature": 1e-45}, "temperature is 1e-45, expected 0 or a number from 0.001 to 1,000"),
        ({"talker_temperature": 1e308}, "talker_temperature is 1e.308, expected 0 or a number"),
        ({"predictor_temperature": float("nan")}, "predictor_temperature is nan"),
        ({"temperature": True}, "temperature is True"),
        ({"repetition_penalty": 1e-320}, "repetition_penalty is 1e-320, expected a number from 0.01 to 100"),
        ({"talker_repetition_penalty": float("inf")}, "talker_repetition_penalty is inf"),
        ({"predictor_top_p": 1e-300}, "predictor_top_p is 1e-300, expected a number from 1e-06 to 1"),
        ({"talker_top_k": True}, "talker_top_k is True"),
        ({"video_fps": 1e-300}, "video_fps is 1e-300, expected a number from 0.001 to 1,000 frames a second"),
        ({"min_frames": 3001}, "min_frames is 3001, expected an integer from 1 to 3,000"),
        ({"min_text_tokens": 2001}, "min_text_tokens is 2001, expected an integer from 0 to 2,000"),
        ({"max_frames": 10**400}, "max_frames is an integer of 1,329 bits"),
        (
            {"seed": 2**64},
            "seed is 18446744073709551616, expected an integer from 0 to 18,446,744,073,709,551,615",
        ),
        ({"seed": True}, "seed is True"),
        ({"seed": 1.0}, "seed is 1.0"),
        ({"packet_schedule": (1, True)}, "packet_schedule is a tuple of 2"),
        ({"modalities": ("text", "smell")}, r"modalities is \('text', 'smell'\), expected"),
        ({"style": object()}, "style is an object, expected text such as 'whisper'"),
        ({"colour": 1}, "no option 'colour'; the options are greedy, seed"),
    ],
)
def test_options_that_do_not_fit_are_named(pick, options, message):
    with pytest.raises(AntiphonError, match=message):
        pick(**options)


def test_an_answer_without_speech_does_not_speak(pick):
    assert pick().speaks and not pick(modalities=("text",)).speaks


def test_the_conversations_voice_and_style_give_way_to_those_of_a_reply(fakes):
    manifest = dataclasses.replace(
        fakes.omni().manifest, talker=dataclasses.replace(fakes.contract, takes_style=True)
    )
    chosen = choose(read_options({}), manifest, "aiden", "softly")
    assert (chosen.voice, chosen.style) == ("aiden", "softly")
    chosen = choose(read_options({"voice": "Ethan", "style": "loud"}), manifest, "aiden", "softly")
    assert (chosen.voice, chosen.style) == ("Ethan", "loud")


def test_the_least_may_equal_the_most(pick):
    choices = pick(min_text_tokens=8, max_text_tokens=8, min_frames=2, max_frames=2, top_k=2**31 - 1)
    assert (choices.thinker.min_tokens, choices.talker.min_tokens, choices.max_frames) == (8, 2, 2)


@pytest.mark.filterwarnings("error")
def test_scalars_of_numpy_are_numbers(pick):
    choices = pick(
        temperature=np.float32(0.7),
        top_k=np.int64(5),
        top_p=np.float16(0.5),
        repetition_penalty=np.float32(1.1),
        seed=np.uint64(2**64 - 1),
        talker_temperature=np.float64(0.5),
        max_frames=np.int32(7),
        min_frames=np.int8(2),
        max_text_tokens=np.int16(9),
        video_fps=np.float32(2.0),
        greedy=np.bool_(False),
        use_audio_in_video=np.bool_(True),
        packet_schedule=np.array([1, 2]),
    )
    assert choices.thinker == SamplingParameters(0.7, 5, 0.5, 1.1, 0, 9) and (
        choices.seed,
        choices.max_frames,
    ) == (2**64 - 1, 7)
    found = (
        choices.seed,
        choices.max_frames,
        choices.thinker.top_k,
        choices.thinker.temperature,
        choices.talker.min_tokens,
        *choices.schedule,
    )
    assert [type(value) for value in found] == [int, int, int, float, int, int, int]
    options = read_options({"greedy": np.bool_(True), "video_fps": np.float32(0.5)})
    assert options.greedy is True and type(options.video_fps) is float
