from __future__ import annotations

import pytest

from antiphon.runtime.errors import AntiphonError
from antiphon.runtime.options import DEFAULT_MAX_TEXT_TOKENS, choose, read_options
from antiphon.runtime.sampling import SamplingParameters


@pytest.fixture
def pick(fakes):
    omni = fakes.omni()
    return lambda **options: choose(read_options(options), omni.manifest)


def test_what_is_not_given_comes_from_the_bundle(pick):
    choices = pick()
    assert choices.talker == SamplingParameters(0.9, 50, 1.0, 1.05) and choices.voice == 38 and choices.seed == 0
    assert choices.thinker.max_tokens == DEFAULT_MAX_TEXT_TOKENS


def test_what_is_given_changes_its_own_stage_alone(pick):
    choices = pick(temperature=0.7, talker_top_k=3, predictor_top_p=0.5, max_text_tokens=9)
    assert choices.thinker == SamplingParameters(0.7, max_tokens=9)
    assert choices.talker.top_k == 3 and choices.predictor.top_p == 0.5


def test_greedy_leaves_no_chance_anywhere_and_keeps_the_penalty(pick):
    choices = pick(greedy=True, temperature=1.0)
    assert (choices.thinker.temperature, choices.talker.temperature, choices.predictor.temperature) == (0, 0, 0)
    assert choices.talker.repetition_penalty == 1.05


def test_the_predictor_follows_a_greedy_talker(pick):
    assert pick(talker_temperature=0).predictor.temperature == 0


@pytest.mark.parametrize("name", ["aiden", "AIDEN", "Aiden"])
def test_voices_are_found_in_any_case(pick, name):
    assert pick(voice=name).voice == 39


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"voice": "nobody"}, "no voice 'nobody'; the bundle's voices are Ethan, aiden"),
        ({"voice": ""}, "no voice ''"),
        ({"voice": "nobody", "modalities": ("text",)}, "no voice"),
        ({"modalities": ("audio",)}, "modalities"),
        ({"modalities": "text"}, "modalities"),
        ({"modalities": ("text", "video")}, "modalities"),
        ({"max_frames": 0}, "max_frames is 0"),
        ({"max_text_tokens": 1.5}, "max_text_tokens is 1.5"),
        ({"seed": -1}, "seed is -1"),
        ({"temperature": -1}, "temperature is -1"),
        ({"packet_schedule": ()}, "packet_schedule"),
        ({"colour": 1}, "no option 'colour'; the options are greedy, seed"),
    ],
)
def test_options_that_do_not_fit_are_named(pick, options, message):
    with pytest.raises(AntiphonError, match=message):
        pick(**options)


def test_an_answer_without_speech_has_no_voice(pick):
    assert pick(modalities=("text",)).voice is None
