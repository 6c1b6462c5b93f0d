from __future__ import annotations

import numpy as np
import pytest

from antiphon.runtime.bundle.errors import AntiphonError
from antiphon.runtime.events import Done


def finish(stream) -> Done:
    return list(stream)[-1]


def test_turns_go_on_in_the_same_states_and_feed_only_what_is_new(fakes):
    omni = fakes.omni()
    conversation = omni.conversation(system="xyz")
    conversation.append(text="abc")
    assert finish(conversation.reply()).text == "abc"
    fed = len(conversation.token_ids)
    conversation.append(text="de")
    assert finish(conversation.reply()).text == "de"
    ids, i = list(conversation.token_ids), fakes.letters
    system, first = [1, 4, 3, *i("xyz"), 2, 3], [1, 5, 3, *i("abc"), 2, 3, 1, 6, 3, *i("abc")]
    assert ids == [*system, *first, 2, 3, 1, 5, 3, *i("de"), 2, 3, 1, 6, 3, *i("de")]
    assert fed == len(system) + len(first)


def test_a_conversation_gives_what_its_messages_give_at_once(fakes):
    omni = fakes.omni()
    clip = np.zeros(4)
    conversation = omni.conversation(system="xyz", voice="aiden")
    conversation.append(text="abc", audio=clip)
    finish(conversation.reply(seed=1))
    conversation.append(audio=clip[:2], text="de")
    done = finish(conversation.reply(seed=2))

    def user(text, clip):
        return {
            "role": "user",
            "content": [
                {"type": "input_audio", "input_audio": {"data": clip}},
                {"type": "text", "text": text},
            ],
        }

    messages = [
        {"role": "system", "content": "xyz"},
        user("abc", clip),
        {"role": "assistant", "content": "abc"},
        user("de", clip[:2]),
    ]
    whole = omni.generate(messages, seed=2, voice="AIDEN")
    assert whole.text == done.text == "de" and np.array_equal(whole.codes, done.codes)


def test_appending_prefills_at_once_so_that_the_reply_feeds_only_its_opening(fakes):
    conversation = fakes.omni().conversation()
    conversation.append(text="abc")
    runs = len(fakes.engines["thinker"].feeds)
    assert runs == 1
    finish(conversation.reply())
    assert fakes.engines["thinker"].feeds[runs]["input_ids"].tolist() == [[1, 6, 3]]


def test_appending_after_appending_gives_several_user_turns(fakes):
    conversation = fakes.omni().conversation()
    conversation.append(text="abc")
    conversation.append(text="de")
    assert finish(conversation.reply()).text == "de"
    assert list(conversation.token_ids[:13]) == [
        1,
        5,
        3,
        *fakes.letters("abc"),
        2,
        3,
        1,
        5,
        3,
        *fakes.letters("de"),
    ]


def test_a_reply_stopped_by_length_stays_in_the_history_with_its_last_token(fakes):
    conversation = fakes.omni().conversation()
    conversation.append(text="abcdef")
    assert finish(conversation.reply(max_text_tokens=3)).finish_reason == "length"
    conversation.append(text="z")
    assert finish(conversation.reply()).text == "z"
    ids = list(conversation.token_ids)
    assert ids[11:19] == [1, 6, 3, *fakes.letters("abc"), 2, 3]


def test_a_closed_reply_stays_in_the_history_as_far_as_it_was_made(fakes):
    fakes.engines["talker"].tail = None
    conversation = fakes.omni().conversation()
    conversation.append(text="abcdefghij")
    stream = conversation.reply()
    text = ""
    while len(text) < 3:
        text += getattr(next(stream), "text", "")
    stream.close()
    fakes.engines["talker"].tail = 3
    conversation.append(text="z")
    done = finish(conversation.reply())
    assert done.text == "z" and done.finish_reason == "stop"
    history = list(conversation.token_ids)
    answer = history[
        [place for place in range(len(history)) if history[place : place + 2] == [1, 6]][0] + 3 :
    ]
    assert answer[: len(text)] == fakes.letters(text) and answer[answer.index(2) : answer.index(2) + 2] == [
        2,
        3,
    ]


def test_one_reply_at_a_time(fakes):
    fakes.engines["talker"].tail = None
    conversation = fakes.omni().conversation()
    conversation.append(text="abc")
    with conversation.reply():
        with pytest.raises(AntiphonError, match="in flight"):
            conversation.reply()
        with pytest.raises(AntiphonError, match="in flight"):
            conversation.append(text="de")
    conversation.append(text="de")


def test_nothing_to_answer_is_said(fakes):
    conversation = fakes.omni().conversation()
    with pytest.raises(AntiphonError, match="nothing to answer"):
        conversation.reply()
    with pytest.raises(AntiphonError, match="append needs"):
        conversation.append()
    conversation.append(text="abc")
    finish(conversation.reply())
    with pytest.raises(AntiphonError, match="nothing to answer"):
        conversation.reply()


def test_bad_options_leave_the_conversation_as_it_was(fakes):
    conversation = fakes.omni().conversation()
    conversation.append(text="abc")
    with pytest.raises(AntiphonError, match="voice"):
        conversation.reply(voice="nobody")
    assert finish(conversation.reply()).text == "abc"


def test_a_turn_beyond_the_context_is_refused_and_changes_nothing(fakes):
    fakes.constants["thinker_context"] = 30
    conversation = fakes.omni().conversation()
    with pytest.raises(AntiphonError, match="context holds 30"):
        conversation.append(text="a" * 40)
    conversation.append(text="abc")
    assert finish(conversation.reply()).text == "abc"


def test_user_turns_beyond_the_talkers_context_are_refused_before_any_work(fakes):
    fakes.constants["talker_context"] = 20
    omni = fakes.omni()
    question = [{"role": "user", "content": "a" * 10}]
    with pytest.raises(AntiphonError, match="24 rows of the Talker's context, which holds 20"):
        omni.generate(question)
    assert not fakes.engines["thinker"].feeds
    assert omni.generate(question, modalities=("text",)).text == "a" * 10


def test_an_encoder_that_the_bundle_lacks_is_named(fakes):
    omni = fakes.omni(stages=("thinker", "talker", "predictor", "code2wav"))
    with pytest.raises(AntiphonError, match="no stage audio_encoder"):
        omni.conversation().append(audio=np.zeros(3))


@pytest.mark.parametrize("read", range(0, 12))
def test_a_reply_may_be_closed_at_any_event_and_the_conversation_goes_on(fakes, read):
    conversation = fakes.omni(max_streams=1).conversation(system="xyz")
    conversation.append(text="abcdefgh")
    stream = conversation.reply(packet_schedule=(1,))
    for _ in range(read):
        next(stream)
    stream.close()
    conversation.append(text="uvw")
    assert finish(conversation.reply()).text == "uvw"
    history = list(conversation.token_ids)
    assert len(history) == conversation.context.states.length
    turns = [place for place, token in enumerate(history) if token == fakes.ids["im_start"]]
    roles = [history[place + 1] for place in turns]
    assert roles == [fakes.ids[name] for name in ("system", "user", "assistant", "user", "assistant")]
    assert all(history[place - 2 : place] == [2, 3] for place in turns[1:])


def test_a_turn_that_could_not_be_prefilled_is_not_in_the_history(fakes):
    conversation, fresh = fakes.omni().conversation(), fakes.omni().conversation()
    thinker = fakes.engines["thinker"]
    for one in (conversation, fresh):
        one.append(text="abc")
        finish(one.reply(greedy=True, max_text_tokens=2))
    thinker.fail_at = len(thinker.feeds) + 1
    with pytest.raises(RuntimeError, match="broke"):
        conversation.append(text="lost")
    thinker.fail_at = None
    for one in (conversation, fresh):
        assert one.truncate(0) == ""
        one.append(text="xy")
    assert conversation.token_ids == fresh.token_ids
    assert conversation.context.next_position == fresh.context.next_position
    assert finish(conversation.reply(greedy=True)).text == "xy"


def test_an_answer_that_writes_the_marks_of_a_turn_makes_none(fakes):
    ids, thinker = fakes.ids, fakes.engines["thinker"]
    written = [20, ids["im_start"], ids["user"], ids["audio"], 21]
    compute = thinker.compute

    def writing(feeds, states):
        answered = len(thinker.feeds) - 2  # one run has read the turn, one the opening
        return compute(feeds, states) | (
            {"token": np.array([written[answered]])} if 0 <= answered < len(written) else {}
        )

    fakes.front_end.decoder, before = (
        lambda self: type("Decoder", (), {"push": lambda self, token: "", "flush": lambda self: ""})(),
        fakes.front_end.decoder,
    )
    thinker.compute = writing
    try:
        conversation = fakes.omni().conversation()
        conversation.append(text="abc")
        assert finish(conversation.reply(greedy=True, max_text_tokens=5)).token_ids == tuple(written)
        thinker.compute = compute
        conversation.append(text="xy")
        assert len(finish(conversation.reply(greedy=True)).codes) > 0
    finally:
        fakes.front_end.decoder = before
    assert conversation.context.hidden_rows == {}


def test_the_tools_of_a_conversation_are_there_at_every_turn(fakes):
    tool = {"type": "function", "function": {"name": "weather"}}
    omni = fakes.omni()
    conversation = omni.conversation(tools=[tool])
    for _ in range(2):
        conversation.append(text="hot")
        assert omni.front_end.tools == (tool,)
        with conversation.reply(greedy=True, modalities=("text",)) as reply:
            list(reply)
    omni.generate([{"role": "user", "content": "hot"}], tools=[tool], modalities=("text",))
    assert omni.front_end.tools == (tool,)
    omni.generate([{"role": "user", "content": "hot"}], modalities=("text",))
    assert omni.front_end.tools == ()


def test_tools_that_are_none_are_refused_before_anything_runs(fakes):
    with pytest.raises(AntiphonError, match=r"tools\[0\] is a Python function"):
        fakes.omni().conversation(tools=[print])
