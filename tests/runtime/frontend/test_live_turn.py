"""A turn that is prefilled while it is spoken."""

from __future__ import annotations

import numpy as np
import pytest

import antiphon
from antiphon.runtime.bundle.errors import AntiphonError

RATE = 16000


@pytest.fixture(scope="module")
def omni(hybrid_bundle):
    with antiphon.load(hybrid_bundle) as loaded:
        yield loaded


@pytest.fixture(scope="module")
def speech() -> np.ndarray:
    """Nineteen seconds, the loudest sound at its start."""
    time = np.arange(19 * RATE) / RATE
    return (np.sin(2 * np.pi * (200 + 90 * np.sin(3 * time)) * time) * np.exp(-time / 9)).astype(np.float32)


def states(conversation) -> dict[str, np.ndarray]:
    """Every state as far as it is filled."""
    held = conversation.context.states
    return {
        spec.name: held.past(spec.name)[:, :, : held.length] if spec.kind == "kv" else held.past(spec.name)
        for spec in held.pool.specs
    }


def speak(conversation, speech, piece: int, **last) -> None:
    for start in range(0, len(speech) - piece, piece):
        conversation.append(audio=speech[start : start + piece], more=True)
    conversation.append(audio=speech[start + piece :], **last)


@pytest.mark.parametrize("piece", [1111, 50000, 140000])
def test_a_turn_in_pieces_gives_the_states_and_the_answer_of_one_prefill(omni, speech, piece):
    whole, live = omni.conversation(system="Be brief."), omni.conversation(system="Be brief.")
    whole.append(audio=speech, text="What was that?")
    speak(live, speech, piece, text="What was that?")
    assert live.token_ids == whole.token_ids and live.context.next_position == whole.context.next_position
    assert live.live_difference == 0.0
    expected, found = states(whole), states(live)
    for name, values in expected.items():
        np.testing.assert_allclose(found[name], values, atol=2e-5 * np.abs(values).max(), err_msg=name)
    assert sorted(live.context.hidden_rows) == sorted(whole.context.hidden_rows)
    options = {"greedy": True, "max_text_tokens": 6, "max_frames": 12}
    replies = [antiphon.runtime.omni.collect(one.reply(**options), 24000) for one in (whole, live)]
    assert replies[0].text == replies[1].text and np.array_equal(replies[0].codes, replies[1].codes)


def test_most_of_a_long_turn_is_in_before_it_ends(omni, speech):
    conversation = omni.conversation()
    conversation.append(audio=speech[: 17 * RATE], more=True)
    assert len(conversation.token_ids) >= 2 * 56  # two windows of 8 s


def test_a_turn_may_be_spoken_after_an_answer(omni, speech):
    whole, live = omni.conversation(), omni.conversation()
    for conversation in (whole, live):
        conversation.append(text="Hello.")
        with conversation.reply(greedy=True, max_text_tokens=4, modalities=("text",)) as stream:
            list(stream)
    whole.append(audio=speech[:RATE])
    speak(live, speech[:RATE], 3000)
    assert live.token_ids == whole.token_ids


def test_a_louder_end_is_reported_as_the_difference_it_makes(omni, speech):
    conversation = omni.conversation()
    speak(conversation, speech[::-1] * np.float32(1e-3), 40000)
    assert conversation.live_difference >= 0.0
    quiet_first = np.concatenate([np.zeros(9 * RATE, np.float32) + 1e-6, speech[:RATE]])
    conversation = omni.conversation()
    speak(conversation, quiet_first, 40000)
    assert conversation.live_difference > 0.1


def test_what_does_not_belong_into_a_spoken_turn_is_refused_and_the_turn_goes_on(omni, speech):
    conversation = omni.conversation()
    for wrong, message in (
        ({"more": True}, "takes audio alone"),
        ({"audio": speech, "text": "now", "more": True}, "takes audio alone"),
        ({"audio": "question.wav", "more": True}, "is a str, expected an array"),
    ):
        with pytest.raises(AntiphonError, match=message):
            conversation.append(**wrong)
    conversation.append(audio=speech[:RATE], more=True)
    for wrong, message in (
        ({"messages": [{"role": "user", "content": "Hi"}]}, "A turn is being spoken"),
        ({"image": "picture.png"}, "A turn is being spoken"),
        ({"audio": speech[:RATE], "sample_rate": 8000}, "rate changed from 16000 to 8000"),
        ({"audio": np.full(RATE, np.nan, np.float32), "more": True}, "NaN"),
    ):
        with pytest.raises(AntiphonError, match=message):
            conversation.append(**wrong)
    with pytest.raises(AntiphonError, match="end it with an append without more"):
        conversation.reply()
    conversation.append(text="That was it.")
    with conversation.reply(greedy=True, max_text_tokens=2, modalities=("text",)) as stream:
        assert list(stream)[-1].token_ids


@pytest.mark.parametrize("rate", [0, -5, 1.5, "16000", None, True])
def test_a_rate_that_is_none_is_refused_and_changes_nothing(omni, speech, rate):
    conversation = omni.conversation()
    with pytest.raises(
        AntiphonError, match="sample_rate is .* expected an integer from 1,000 to 768,000 samples a second"
    ):
        conversation.append(audio=speech[:RATE], more=True, sample_rate=rate)
    conversation.append(text="Then in words.")
    assert len(conversation.token_ids) > 0


def test_the_turn_can_still_be_ended_when_its_text_was_refused(omni, speech):
    conversation = omni.conversation()
    conversation.append(audio=speech[:RATE], more=True)
    with pytest.raises(AntiphonError):
        conversation.append(text=5)
    conversation.append(text="What was that?")
    whole = omni.conversation()
    whole.append(audio=speech[:RATE], text="What was that?")
    assert conversation.token_ids == whole.token_ids


def test_a_text_too_long_for_the_context_leaves_the_turn_to_be_ended(omni, speech):
    conversation = omni.conversation()
    conversation.append(audio=speech[:RATE], more=True)
    with pytest.raises(AntiphonError, match="the model's context holds"):
        conversation.append(audio=speech[RATE : 2 * RATE], text="x " * 200_000)
    conversation.append(audio=speech[RATE : 2 * RATE], text="What was that?")
    whole = omni.conversation()
    whole.append(audio=speech[: 2 * RATE], text="What was that?")
    assert conversation.token_ids == whole.token_ids
