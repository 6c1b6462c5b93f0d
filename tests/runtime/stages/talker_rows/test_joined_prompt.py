"""The rows that the Talker reads before its first frame, one by one."""

from __future__ import annotations

import numpy as np

from antiphon.runtime.stages.talker_rows.joined_prompt import talker_prompt, user_rows


def history(fakes, *turns: tuple[str, list[int]]) -> list[int]:
    """Token ids of turns (role, content ids) and the opening of an answer."""
    ids = [token for role, content in turns for token in (1, fakes.ids[role], 3, *content, 2, 3)]
    return [*ids, 1, 6, 3]


def make(fakes, ids, hidden_rows=None, first=50):
    return talker_prompt(ids, hidden_rows or {}, 2, [], fakes.ids, 39, first, fakes.front_end(), 1)


def test_the_nine_rows_of_the_answer_are_those_of_the_reference(fakes):
    prompt, i = make(fakes, history(fakes, ("user", [20]))), fakes.ids
    pad = i["tts_pad"]
    assert prompt.text_ids[-9:].tolist() == [
        i["im_start"],
        i["assistant"],
        i["newline"],
        pad,
        pad,
        pad,
        pad,
        i["tts_bos"],
        50,
    ]
    codec = [
        -1,
        -1,
        -1,
        i["codec_nothink"],
        i["codec_think_bos"],
        i["codec_think_eos"],
        39,
        i["codec_pad"],
        i["codec_bos"],
    ]
    assert prompt.codec_ids[-9:].tolist() == codec


def test_a_user_turn_is_kept_with_its_role_and_its_end(fakes):
    prompt = make(fakes, history(fakes, ("user", [20, 21])))
    assert prompt.text_ids[:-9].tolist() == [1, 5, 3, 20, 21, 2, 3]
    assert set(prompt.codec_ids[:-9]) == {-1}


def test_system_and_assistant_turns_are_dropped_and_all_user_turns_kept(fakes):
    ids = history(fakes, ("system", [30, 31]), ("user", [20]), ("assistant", [32]), ("user", [21]))
    assert make(fakes, ids).text_ids[:-9].tolist() == [1, 5, 3, 20, 2, 3, 1, 5, 3, 21, 2, 3]
    assert [ids[row] for row in user_rows(np.array(ids), fakes.ids)] == [1, 5, 3, 20, 2, 3, 1, 5, 3, 21, 2, 3]


def test_multimodal_tokens_become_hidden_rows_of_the_thinker(fakes):
    ids = history(fakes, ("system", [30]), ("user", [20, 7, 7, 8, 21]))
    rows = {row: np.array([row, -row], np.float32) for row, token in enumerate(ids) if token in (7, 8)}
    prompt = make(fakes, ids, rows)
    assert prompt.text_ids[:-9].tolist() == [1, 5, 3, 20, -1, -1, -1, 21, 2, 3]
    assert prompt.hidden_index.tolist() == [4, 5, 6]
    assert prompt.hidden.tolist() == [[10, -10], [11, -11], [12, -12]]


def test_positions_count_the_kept_rows_and_go_on_after_them(fakes):
    prompt = make(fakes, history(fakes, ("system", [30]), ("user", [20])))
    assert prompt.positions.shape == (3, len(prompt.text_ids)) and prompt.next_position == len(
        prompt.text_ids
    )


def test_a_conversation_without_user_turns_has_the_nine_rows_alone(fakes):
    assert len(make(fakes, history(fakes, ("system", [30]))).text_ids) == 9
