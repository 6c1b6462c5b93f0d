"""Cutting the history to what was heard."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from antiphon.runtime.bundle.errors import AntiphonError
from antiphon.runtime.events import AudioDelta
from antiphon.runtime.reply import SpeechRecord


def spoken(conversation, text="abcdefgh", **options):
    """One answered turn; returns the number of samples."""
    conversation.append(text=text)
    with conversation.reply(greedy=True, **options) as stream:
        return sum(len(event.samples) for event in stream if isinstance(event, AudioDelta))


def states(conversation):
    context = conversation.context
    return (
        context.token_ids,
        context.next_position,
        context.states.past("sum").copy(),
        context.states.past("ids")[0, 0, : context.states.length, 0].copy(),
    )


def assert_same(found, expected):
    assert found[:2] == expected[:2]
    for one, other in zip(found[2:], expected[2:], strict=True):
        assert np.array_equal(one, other)


@pytest.mark.parametrize("share", [0.0, 0.3, 0.5, 0.99])
def test_the_next_turn_equals_a_fresh_prefill_of_the_cut_history(fakes, share):
    omni = fakes.omni()
    cut = omni.conversation()
    samples = spoken(cut)
    heard = cut.truncate(int(samples * share))
    cut.append(text="xy")
    fresh = omni.conversation()
    fresh.queue([{"role": "user", "content": "abcdefgh"}], _options(), add_generation_prompt=True)
    fresh.context.queue_text([*fakes.letters(heard), 2, 3])
    fresh.append(text="xy")
    assert_same(states(cut), states(fresh))
    assert heard == "abcdefgh"[: len(heard)]


def test_what_was_heard_grows_with_the_samples_from_nothing_to_all(fakes):
    texts = []
    for share in np.linspace(0, 1, 12):
        conversation = fakes.omni().conversation()
        texts.append(conversation.truncate(int(spoken(conversation) * share)))
    assert texts[0] == "" and texts[-1] == "abcdefgh"
    assert all(later.startswith(earlier) for earlier, later in zip(texts, texts[1:], strict=False))


def test_the_reply_after_a_cut_can_be_heard_as_any_other(fakes):
    conversation = fakes.omni().conversation()
    samples = spoken(conversation)
    conversation.truncate(samples // 2)
    assert spoken(conversation, "klm") > 0
    assert conversation.truncate(10**9) == "klm"


def test_an_answer_that_was_stopped_in_the_middle_is_cut_to_what_the_schedule_had_consumed(fakes):
    fakes.engines["talker"].tail = None
    conversation = fakes.omni().conversation()
    conversation.append(text="abcdefgh")
    with conversation.reply(greedy=True, packet_schedule=(1,)) as stream:
        delivered = 0
        for event in stream:
            if isinstance(event, AudioDelta):
                delivered, cursor = delivered + len(event.samples), event.text_cursor
                if event.first_frame == 3:
                    break
    heard = conversation.truncate(delivered)
    assert cursor == 4 and heard == "abcd"


@pytest.mark.parametrize("heard", [-1, 1.5, True, "all"])
def test_a_count_that_is_none_is_refused_and_changes_nothing(fakes, heard):
    conversation = fakes.omni().conversation()
    spoken(conversation)
    with pytest.raises(AntiphonError, match="heard_samples is .* expected the number of samples"):
        conversation.truncate(heard)
    assert conversation.truncate(10**6) == "abcdefgh"


def test_without_a_spoken_answer_there_is_nothing_to_cut(fakes):
    conversation = fakes.omni().conversation()
    with pytest.raises(AntiphonError, match="no spoken answer to truncate"):
        conversation.truncate(5)
    spoken(conversation, modalities=("text",))
    with pytest.raises(AntiphonError, match="no spoken answer to truncate"):
        conversation.truncate(5)


def test_after_the_next_turn_was_appended_it_is_too_late(fakes):
    conversation = fakes.omni().conversation()
    spoken(conversation)
    conversation.append(text="xy")
    with pytest.raises(AntiphonError, match="before the next turn is appended"):
        conversation.truncate(5)


def test_a_reply_in_flight_must_be_closed_first(fakes):
    conversation = fakes.omni().conversation()
    conversation.append(text="abc")
    with conversation.reply(), pytest.raises(AntiphonError, match="in flight"):
        conversation.truncate(1)


def test_tokens_that_were_not_spoken_stand_between_those_that_were():
    record = SpeechRecord(places=[2, 3, 7], cursors=[2, 3, 3, 3], ended=True)
    assert [record.heard_tokens(frames, None) for frames in range(6)] == [0, 3, 4, 8, 8, 8]


def _options():
    from antiphon.runtime.options import ReplyOptions

    return ReplyOptions()


def test_a_reply_that_was_stopped_before_its_first_word_is_cut_to_nothing(fakes):
    conversation = fakes.omni().conversation()
    conversation.append(text="abc")
    thinker = fakes.engines["thinker"]
    thinker.fail_at = len(thinker.feeds) + 1
    with pytest.raises(RuntimeError, match="broke"):
        list(conversation.reply())
    thinker.fail_at = None
    assert conversation.truncate(0) == ""
    assert spoken(conversation, "xy") > 0
    assert list(conversation.token_ids[:11]) == [1, 5, 3, 20, 21, 22, 2, 3, 1, 6, 3]


TURNS = st.lists(
    st.fixed_dictionaries(
        {
            "text": st.text("abcdef", min_size=1, max_size=9),
            "limit": st.integers(1, 9),
            "read": st.none() | st.integers(0, 6),
            "heard": st.none() | st.integers(0, 200),
            "spoken": st.booleans(),
        }
    ),
    min_size=1,
    max_size=4,
)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(turns=TURNS)
def test_the_states_are_those_of_a_fresh_prefill_wherever_replies_were_stopped_and_cut(fakes, turns):
    omni = fakes.omni()
    conversation = omni.conversation()
    for turn in turns:
        conversation.append(text=turn["text"])
        modalities = ("text", "audio") if turn["spoken"] else ("text",)
        with conversation.reply(
            greedy=True, max_text_tokens=turn["limit"], modalities=modalities, packet_schedule=(1,)
        ) as stream:
            for count, _ in enumerate(stream):
                if count == turn["read"]:
                    break
        if turn["heard"] is not None and turn["spoken"]:
            assert turn["text"].startswith(conversation.truncate(turn["heard"]))
    conversation.append(text="xy")
    fresh = omni.model.thinker.new_context()
    fresh.queue_text(conversation.token_ids)
    omni.model.thinker.prefill(fresh, lambda: None)
    found, length = conversation.context, fresh.states.length
    assert found.states.length == length and found.next_position == fresh.next_position
    assert np.array_equal(found.states.past("sum"), fresh.states.past("sum"))
    assert np.array_equal(found.states.past("ids")[:, :, :length], fresh.states.past("ids")[:, :, :length])
