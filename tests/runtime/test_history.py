"""The public history of a conversation."""

from __future__ import annotations

import io
from collections import UserList

import numpy as np
import pytest

from antiphon.runtime.bundle.errors import AntiphonError
from antiphon.runtime.history import HistoryMessage, summary

USER, ASSISTANT = "user", "assistant"


def test_all_turns_are_there_with_their_texts_and_the_kinds_of_their_media(fakes):
    conversation = fakes.omni().conversation(system="xyz")
    assert conversation.history == ()
    conversation.append(audio=np.zeros(4), text="abc")
    asked = (HistoryMessage("system", "xyz"), HistoryMessage(USER, "abc", ("audio",)))
    assert conversation.history == asked
    list(conversation.reply(max_frames=2))
    answered = (*asked, HistoryMessage(ASSISTANT, "abc"))
    assert conversation.history == answered
    conversation.append(
        [
            {"role": USER, "content": "de"},
            {"role": ASSISTANT, "content": "no"},
            {"role": USER, "content": "fg"},
        ]
    )
    assert conversation.history == (
        *answered,
        HistoryMessage(USER, "de"),
        HistoryMessage(ASSISTANT, "no"),
        HistoryMessage(USER, "fg"),
    )


def test_a_truncated_answer_is_there_as_far_as_it_was_heard(fakes):
    conversation = fakes.omni().conversation()
    conversation.append(text="abcdefgh")
    samples = sum(len(getattr(event, "samples", ())) for event in conversation.reply(greedy=True))
    heard = conversation.truncate(samples // 2)
    assert 0 < len(heard) < 8
    said = (HistoryMessage(USER, "abcdefgh"), HistoryMessage(ASSISTANT, heard))
    assert conversation.history == said and fakes.letters(heard) == list(conversation.answer_ids)
    conversation.append(text="xy")
    assert conversation.history == (*said, HistoryMessage(USER, "xy")) and conversation.answer_ids == ()


def test_an_answer_that_is_being_written_is_there_as_far_as_it_was_made(fakes):
    fakes.engines["talker"].tail = None
    conversation = fakes.omni().conversation()
    conversation.append(text="abcdefgh")
    with conversation.reply() as stream:
        text = next(stream).text
        *asked, answer = conversation.history
        assert asked == [HistoryMessage(USER, "abcdefgh")] and answer.role == ASSISTANT
        assert answer.text.startswith(text) and "abcdefgh".startswith(answer.text)
    assert conversation.history[-1].text.startswith(answer.text)


def test_a_turn_that_could_not_be_prefilled_is_not_there(fakes):
    conversation = fakes.omni().conversation()
    conversation.append(text="abc")
    before, thinker = conversation.history, fakes.engines["thinker"]
    thinker.fail_at = len(thinker.feeds) + 1
    with pytest.raises(RuntimeError, match="broke"):
        conversation.append(text="lost")
    thinker.fail_at = None
    with pytest.raises(AntiphonError):
        conversation.append()
    assert conversation.history == before


def test_media_are_named_by_kind_and_never_read():
    film, upload = {"type": "video_url", "video_url": {"url": "film.mp4"}}, io.BytesIO(b"sound")
    parts = [
        "Look: ",
        film,
        {"image_url": "a.png"},
        {"type": "text", "text": "now"},
        {"type": "input_audio", "input_audio": {"data": upload}},
    ]
    assert summary([{"role": USER, "content": parts}]) == (
        HistoryMessage(USER, "Look: now", ("video", "image", "audio")),
    )
    assert upload.tell() == 0
    heard = {"type": "input_audio", "input_audio": {"transcript": "hello"}}
    assert summary([{"role": USER, "content": [heard]}]) == (HistoryMessage(USER, "hello"),)
    assert summary([{"role": ASSISTANT, "content": None, "tool_calls": [{}]}]) == (
        HistoryMessage(ASSISTANT, ""),
    )


def test_the_system_prompt_stands_before_messages_of_any_kind_of_sequence(fakes):
    conversation = fakes.omni().conversation(system="xyz")
    conversation.append(UserList([{"role": USER, "content": "abc"}]))
    assert conversation.history == (HistoryMessage("system", "xyz"), HistoryMessage(USER, "abc"))
    assert list(conversation.token_ids[:6]) == [1, 4, 3, *fakes.letters("xyz")]
