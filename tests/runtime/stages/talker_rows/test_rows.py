"""How text and frames become the Talker's rows."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from antiphon.runtime.stages.talker_rows.rows import (
    InterleavedRows,
    Spoken,
    SummedCodeRows,
    TalkerPrompt,
    in_chunks,
)

LAST = Spoken(np.array([5, 6]), np.zeros((1, 3), np.float32))


def prompt() -> TalkerPrompt:
    """Five rows: text, hidden, voice frame, codec, text."""
    return TalkerPrompt(
        np.array([1, -1, -1, -1, 2]),
        np.array([-1, -1, -1, 9, -1]),
        np.ones((1, 2), np.float32),
        np.array([1]),
        np.array([[7, 8]]),
        np.array([2]),
        np.broadcast_to(np.arange(5, dtype=np.float32), (3, 5)),
        5.0,
    )


def test_the_text_follows_the_prompt():
    rows = InterleavedRows(prompt).first([30, 31])
    assert rows.text_ids.tolist() == [1, -1, -1, -1, 2, 30, 31] and rows.codec_ids.tolist() == [
        -1,
        -1,
        -1,
        9,
        -1,
        -1,
        -1,
    ]
    assert rows.positions[0].tolist() == list(range(7)) and rows.frames.tolist() == [[7, 8]]


def test_the_frame_comes_before_the_text_that_the_policy_pulled_after_it():
    made = InterleavedRows(prompt)
    made.first([30])
    rows = made.next([31, 32], LAST)
    assert (
        rows.text_ids.tolist() == [-1, 31, 32]
        and rows.frame_index.tolist() == [0]
        and rows.frames.tolist() == [[5, 6]]
    )
    assert rows.positions[0].tolist() == [6, 7, 8] and set(rows.codec_ids) == {-1}


def test_without_new_text_the_frame_is_alone():
    made = InterleavedRows(prompt)
    made.first([30])
    rows = made.next([], LAST)
    assert rows.text_ids.tolist() == [-1] and rows.frames.tolist() == [[5, 6]] and rows.hidden.shape == (0, 2)
    assert made.next([], LAST).positions[0].tolist() == [7]


def test_on_the_dual_track_text_and_frame_share_a_row_and_padding_follows_the_text():
    made = SummedCodeRows(prompt, pad=99)
    assert made.first([30]).text_ids.tolist() == [1, -1, -1, -1, 2, 30]
    for position, (text, expected) in enumerate([([31], 31), ([], 99), ([], 99)], start=6):
        rows = made.next(text, LAST)
        assert (
            rows.text_ids.tolist() == [expected]
            and rows.frames.tolist() == [[5, 6]]
            and rows.frame_index.tolist() == [0]
        )
        assert rows.positions[0].tolist() == [position] and rows.codec_ids.tolist() == [-1]


@given(st.integers(1, 9))
def test_chunks_carry_every_part_to_its_own_row(chunk):
    rows = InterleavedRows(prompt).first([30, 31])
    seen = []
    for feeds in in_chunks(rows, chunk, "frame_codes"):
        count = feeds["text_ids"].shape[1]
        assert count <= chunk and feeds["positions"].shape == (3, 1, count)
        kinds = [
            f"text {text}" if text >= 0 else f"codec {codec}"
            for text, codec in zip(feeds["text_ids"][0], feeds["codec_ids"][0], strict=True)
        ]
        for place, codes in zip(feeds["frame_index"], feeds["frame_codes"], strict=True):
            kinds[place] = f"frame {codes.tolist()}"
        for place in feeds["hidden_index"]:
            kinds[place] = "hidden"
        seen += kinds
    assert seen == ["text 1", "hidden", "frame [7, 8]", "codec 9", "text 2", "text 30", "text 31"]


def test_a_prompt_is_made_once_the_thinkers_rows_are_there():
    made = []
    rows = InterleavedRows(lambda: made.append(1) or prompt())
    assert not made
    rows.first([30])
    rows.next([], LAST)
    assert made == [1]


def test_the_dual_track_cannot_begin_with_two_rows():
    from antiphon.runtime.stages.talker_rows.rows import SummedRows

    with pytest.raises(AssertionError, match="begins with one text row"):
        SummedRows(lambda _: prompt(), 10).first([1, 2])
