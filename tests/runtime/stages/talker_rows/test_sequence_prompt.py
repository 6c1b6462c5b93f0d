"""The rows before the first frame of Qwen3.5-Omni's Talker, one by one."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from antiphon.runtime.stages.talker_rows.sequence_prompt import SpeakingStyle, interleaved_prompt, prompt_rows

IDS = {
    "im_start": 1,
    "im_end": 2,
    "newline": 3,
    "system": 4,
    "user": 5,
    "assistant": 6,
    "audio": 7,
    "tts_bos": 11,
    "codec_bos": 34,
    "codec_eos": 40,
    "codec_nothink": 35,
    "codec_think": 36,
    "codec_think_bos": 37,
    "codec_think_eos": 38,
}
VOICE = np.arange(6).reshape(3, 2)
TEXT, CODEC = "text", "codec"


def history(*turns: tuple[str, list[int]]) -> list[int]:
    return [token for role, content in turns for token in (1, IDS[role], 3, *content, 2, 3)] + [1, 6, 3]


def hidden(ids: list[int]) -> dict[int, np.ndarray]:
    return {row: np.array([row, -row], np.float32) for row in range(len(ids))}


def make(ids: list[int], limit: int = 16, **style):
    return interleaved_prompt(ids, hidden(ids), 2, limit, IDS, SpeakingStyle(VOICE, **style))


def rows(prompt) -> list[tuple[str, int]]:
    """Every row as what it is made of."""
    named = []
    for row, (text, codec) in enumerate(zip(prompt.text_ids, prompt.codec_ids, strict=True)):
        parts = [("text", int(text))] * int(text >= 0) + [("codec", int(codec))] * int(codec >= 0)
        parts += [
            ("hidden", int(prompt.hidden[place][0])) for place in np.flatnonzero(prompt.hidden_index == row)
        ]
        parts += [("voice", int(place)) for place in np.flatnonzero(prompt.frame_index == row)]
        assert len(parts) == 1, "a row is one thing"
        named += parts
    return named


SYSTEM = [
    (TEXT, 1),
    (TEXT, 4),
    (TEXT, 3),
    (CODEC, 34),
    ("voice", 0),
    ("voice", 1),
    ("voice", 2),
    (CODEC, 40),
    (TEXT, 2),
    (TEXT, 3),
]
ASSISTANT = [(TEXT, 1), (TEXT, 6), (TEXT, 3), (CODEC, 35), (CODEC, 37), (CODEC, 38), (TEXT, 11), (CODEC, 34)]


def test_the_whole_prompt_row_by_row():
    prompt = make(history(("user", [20, 7, 21])))
    user = [
        (TEXT, 1),
        (TEXT, 5),
        (TEXT, 3),
        ("hidden", 3),
        ("hidden", 4),
        ("hidden", 5),
        (TEXT, 2),
        (TEXT, 3),
    ]
    assert rows(prompt) == [*SYSTEM, *user, *ASSISTANT]
    assert prompt.frames.tolist() == VOICE.tolist()


def test_the_thinkers_system_turn_and_earlier_answers_leave_no_rows():
    prompt = make(history(("system", [30]), ("user", [20]), ("assistant", [31, 32]), ("user", [21])))
    assert rows(prompt)[len(SYSTEM) : -len(ASSISTANT)] == [
        (TEXT, 1),
        (TEXT, 5),
        (TEXT, 3),
        ("hidden", 9),
        (TEXT, 2),
        (TEXT, 3),
        (TEXT, 1),
        (TEXT, 5),
        (TEXT, 3),
        ("hidden", 22),
        (TEXT, 2),
        (TEXT, 3),
    ]


def test_a_style_in_words_goes_before_the_prompt_of_the_voice_in_the_system_part():
    prompt = make(history(("user", [20])), style_ids=[50, 51], voice_ids=[52])
    assert rows(prompt)[:7] == [
        (TEXT, 1),
        (TEXT, 4),
        (TEXT, 3),
        (TEXT, 50),
        (TEXT, 51),
        (TEXT, 52),
        (CODEC, 34),
    ]


def test_a_named_style_opens_the_assistant_part():
    prompt = make(history(("user", [20])), named_style_ids=[60])
    assert rows(prompt)[-9:] == [(TEXT, 1), (TEXT, 6), (TEXT, 3), (TEXT, 60), *ASSISTANT[3:]]


def test_a_language_has_a_row_of_its_own_and_the_thinking_mark():
    prompt = make(history(("user", [20])), language=33)
    assert rows(prompt)[-9:] == [
        (TEXT, 1),
        (TEXT, 6),
        (TEXT, 3),
        (CODEC, 36),
        (CODEC, 37),
        (CODEC, 33),
        (CODEC, 38),
        (TEXT, 11),
        (CODEC, 34),
    ]


def test_long_turns_are_thinned_to_the_limit_each():
    prompt = make(history(("user", list(range(100, 140))), ("user", list(range(200, 203)))), limit=4)
    assert [row for kind, row in rows(prompt) if kind == "hidden"] == [3, 16, 29, 42, 48, 49, 50]


def test_positions_count_the_rows():
    prompt = make(history(("user", [20])))
    count = len(prompt.text_ids)
    assert prompt.positions.tolist() == [list(range(count))] * 3 and prompt.next_position == count


def test_a_hidden_row_that_the_thinker_did_not_keep_is_a_mistake_and_never_silent():
    with pytest.raises(KeyError):
        interleaved_prompt(history(("user", [20])), {}, 2, 16, IDS, SpeakingStyle(VOICE))


def test_a_conversation_without_user_turns_has_the_other_two_parts():
    assert rows(make(history())) == [*SYSTEM, *ASSISTANT]


@given(
    turns=st.lists(
        st.tuples(
            st.sampled_from(["system", "user", "assistant"]),
            st.lists(st.sampled_from([3, 7, 20, 21]), max_size=20),
        ),
        max_size=5,
    ),
    limit=st.integers(0, 9),
    style=st.lists(st.just(20), max_size=3),
    language=st.sampled_from([None, 39]),
)
def test_the_rows_are_counted_before_they_are_made(turns, limit, style, language):
    ids = np.array(history(*turns))
    style = SpeakingStyle(VOICE, voice_ids=[21], style_ids=style, named_style_ids=style, language=language)
    assert prompt_rows(ids, limit, IDS, style) == len(
        interleaved_prompt(ids, hidden(ids), 2, limit, IDS, style).text_ids
    )
