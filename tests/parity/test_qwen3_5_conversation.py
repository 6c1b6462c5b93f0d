"""Conversations of Qwen3.5-Omni: every reply equals the slow reference on the whole history,
however that history came about.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")

from antiphon.runtime.conversation import Conversation
from antiphon.runtime.events import AudioDelta, Reply
from antiphon.runtime.omni import Omni, collect, load
from antiphon.runtime.options import ReplyOptions

from .slow_answer import assert_spoken, assert_written, features, recorded, speaking_style
from .slow_loop import SlowLoop, chunked

SAMPLES = 1920
LONG = "Please tell me in a few words what the weather will be like tomorrow and on the day after it."


@pytest.fixture(scope="module")
def omni(hybrid_bundle: Path) -> Iterator[Omni]:
    with load(hybrid_bundle, threads=1) as omni:
        yield omni


@pytest.fixture(scope="module")
def reference(hybrid_checkpoint: Path) -> SlowLoop:
    return SlowLoop(hybrid_checkpoint)


def sound(seconds: float) -> np.ndarray:
    """A tone that rises and fades."""
    time = np.arange(int(seconds * 16000)) / 16000
    noise = np.random.default_rng(0).standard_normal(len(time))
    return (
        (0.3 * np.sin(2 * np.pi * (200 + 30 * time) * time) + 0.02 * noise) * np.linspace(1, 0.5, len(time))
    ).astype(np.float32)


@dataclass(frozen=True)
class Turn:
    """What the user says, and how long the answer is."""

    text: str
    audio: np.ndarray | None = None
    tokens: int = 6
    frames: int = 9

    @property
    def message(self) -> dict[str, Any]:
        heard = (
            []
            if self.audio is None
            else [{"type": "input_audio", "input_audio": {"data": self.audio, "sample_rate": 16000}}]
        )
        return {"role": "user", "content": [*heard, {"type": "text", "text": self.text}]}


TALKS = {
    "two turns of text": (None, (Turn("Hello, how are you?"), Turn("And tomorrow?"))),
    "a system turn, then sound in the second turn": (
        "You answer briefly.",
        (Turn(LONG, tokens=3, frames=4), Turn("What was this?", sound(1.3))),
    ),
    "three turns, the first with sound": (
        None,
        (Turn("Who is it?", sound(0.7), tokens=5, frames=4), Turn("Go on.", tokens=2, frames=3), Turn(LONG)),
    ),
}


def say(conversation: Conversation, turn: Turn) -> Reply:
    conversation.append(audio=turn.audio, text=turn.text)
    limits = {"min_text_tokens": turn.tokens, "max_text_tokens": turn.tokens, "max_frames": turn.frames}
    return collect(conversation.reply(greedy=True, **limits), 24000)


@dataclass(frozen=True)
class History:
    """What the last reply answered: ids, positions [3, tokens], and encoder features by row."""

    token_ids: np.ndarray
    positions: np.ndarray
    features: dict[int, np.ndarray]


def history(omni: Omni, system: str | None, turns: tuple[Turn, ...], replies: list[Reply]) -> History:
    """Prompts, answers and the ends of turns, put together piece by piece."""
    ids, positions, rows, next_position = (
        np.zeros(0, np.int64),
        np.zeros((3, 0), np.float32),
        dict[int, np.ndarray](),
        0.0,
    )

    def add(token_ids: np.ndarray, places: np.ndarray, after: float) -> None:
        nonlocal ids, positions, next_position
        ids, positions = (
            np.concatenate([ids, token_ids]),
            np.concatenate([positions, places + np.float32(next_position)], axis=1),
        )
        next_position += after

    for number, turn in enumerate(turns):
        if number:
            plain = np.concatenate([replies[number - 1].token_ids, omni.front_end.turn_end]).astype(np.int64)
            add(plain, np.arange(len(plain), dtype=np.float32)[None].repeat(3, 0), len(plain))
            prompt = omni.front_end.continuation([turn.message])
        else:
            prompt = omni.front_end.prompt(
                [*([] if system is None else [{"role": "system", "content": system}]), turn.message]
            )
        rows |= features(omni, prompt, len(ids))
        add(prompt.token_ids, prompt.positions, prompt.next_position)
    return History(ids, positions, rows)


@pytest.mark.parametrize("name", list(TALKS))
def test_every_reply_equals_the_slow_reference_on_the_whole_history(
    omni: Omni, reference: SlowLoop, name: str
) -> None:
    system, turns = TALKS[name]
    watched, talker_logits = recorded(omni)
    conversation, replies = watched.conversation(system=system), list[Reply]()
    for number, turn in enumerate(turns):
        talker_logits.clear()
        replies.append(say(conversation, turn))
        past, token_ids = history(omni, system, turns[: number + 1], replies), replies[-1].token_ids
        context = conversation.context
        assert (
            context.token_ids[: context.answer_row] == past.token_ids.tolist()
            and len(token_ids) == turn.tokens
        )
        steps = past.positions.max() + 1 + np.arange(len(token_ids), dtype=np.float32)
        positions = np.concatenate([past.positions, np.broadcast_to(steps, (3, len(steps)))], axis=1)
        logits, hidden = reference.read(np.concatenate([past.token_ids, token_ids]), positions, past.features)
        assert_written(token_ids, logits[len(past.token_ids) - 1 : -1], end=omni.front_end.im_end)
        rows = reference.prompt(past.token_ids, hidden, speaking_style(omni, reference))
        speech = reference.speak(
            rows, token_ids[:-1], chunked(turn.tokens, 4, 4), turn.frames, follow=replies[-1].codes
        )
        assert_spoken(replies[-1].codes, speech, turn.frames, talker_logits)


# Histories that came about in different ways


def assert_same_states(one: Conversation, other: Conversation) -> None:
    """Same ids and next position; keys, values, and recurrent states equal to rounding."""
    found, expected = one.context, other.context
    assert (found.token_ids, found.next_position) == (expected.token_ids, expected.next_position)
    assert sorted(found.hidden_rows) == sorted(expected.hidden_rows)
    for row, hidden in expected.hidden_rows.items():
        np.testing.assert_allclose(found.hidden_rows[row], hidden, atol=1e-5 * max(1, np.abs(hidden).max()))
    for spec in expected.states.pool.specs:
        rows = tuple(
            slice(expected.states.length) if axis == "capacity" else slice(None) for axis in spec.shape
        )
        state = expected.states.past(spec.name)[rows]
        np.testing.assert_allclose(
            found.states.past(spec.name)[rows], state, atol=1e-5 * max(1, np.abs(state).max())
        )


def assert_same_answers(one: Conversation, other: Conversation) -> None:
    found, expected = (
        collect(each.reply(greedy=True, max_text_tokens=7, max_frames=10), 24000) for each in (one, other)
    )
    assert found.token_ids == expected.token_ids
    np.testing.assert_array_equal(found.codes, expected.codes)
    np.testing.assert_allclose(found.audio, expected.audio, atol=1e-4)


@pytest.mark.parametrize("share", [0.0, 0.35, 0.7, 1.0])
def test_after_a_cut_the_next_turn_equals_a_fresh_prefill_of_the_cut_history(
    omni: Omni, share: float
) -> None:
    first = Turn("Hello, how are you?", tokens=12, frames=24)
    cut = omni.conversation()
    reply = say(cut, first)
    heard = cut.truncate(int(len(reply.audio) * share))
    kept = len(cut.answer_ids)
    assert omni.front_end.decode(reply.token_ids[:kept]) == heard
    assert kept == 0 if share == 0 else kept > 0 if share < 1 else kept == first.tokens - 1
    cut.append(text=LONG)
    fresh = omni.conversation()
    fresh.queue([first.message], ReplyOptions(), add_generation_prompt=True)
    fresh.context.queue_text([*reply.token_ids[:kept], *omni.front_end.turn_end])
    fresh.append(text=LONG)
    assert_same_states(cut, fresh)
    assert_same_answers(cut, fresh)


def test_an_answer_closed_while_it_was_heard_is_cut_to_it_and_the_talk_goes_on(omni: Omni) -> None:
    conversation, samples = omni.conversation(), 0
    conversation.append(text="Tell me a long story.")
    with conversation.reply(
        greedy=True,
        min_text_tokens=60,
        max_text_tokens=60,
        min_frames=300,
        max_frames=300,
        packet_schedule=(2,),
    ) as stream:
        for event in stream:
            samples += len(event.samples) if isinstance(event, AudioDelta) else 0
            if samples >= 6 * SAMPLES:
                break
    made = list(conversation.answer_ids)
    conversation.truncate(samples)
    kept = list(conversation.answer_ids)
    assert kept == made[:8], "chunks of 4 and 4: frames 5 and 6 were said after 8 tokens were in"
    conversation.append(text=LONG)
    fresh = omni.conversation()
    fresh.queue([Turn("Tell me a long story.").message], ReplyOptions(), add_generation_prompt=True)
    fresh.context.queue_text([*kept, *omni.front_end.turn_end])
    fresh.append(text=LONG)
    assert_same_states(conversation, fresh)
    assert_same_answers(conversation, fresh)


def test_turns_appended_one_by_one_equal_one_prefill_of_both(omni: Omni) -> None:
    turns = (Turn("Listen to this.", sound(1.3)), Turn(LONG))
    parts, whole = omni.conversation(system="Be brief."), omni.conversation(system="Be brief.")
    for turn in turns:
        parts.append([turn.message])
    whole.append([turn.message for turn in turns])
    assert_same_states(parts, whole)
    assert_same_answers(parts, whole)


@pytest.mark.parametrize("cuts", [(40000,), (129000, 130000), (10, 64000, 128000)])
def test_sound_appended_while_it_is_spoken_equals_one_prefill_of_the_recording(
    omni: Omni, cuts: tuple[int, ...]
) -> None:
    clip = sound(8.6)  # the audio encoder's first window, 8 s, goes in before the end
    parts, whole = omni.conversation(), omni.conversation()
    pieces = np.split(clip, cuts)
    for piece in pieces[:-1]:
        parts.append(audio=piece, more=True)
    parts.append(audio=pieces[-1], text="What was it?")
    whole.append(audio=clip, text="What was it?")
    assert parts.live_difference == 0
    assert_same_states(parts, whole)
    assert_same_answers(parts, whole)


@pytest.mark.parametrize("chunk", [1, 7])
def test_the_size_of_prefill_runs_changes_nothing(hybrid_bundle: Path, omni: Omni, chunk: int) -> None:
    turn = Turn(LONG, sound(0.7))
    with load(hybrid_bundle, threads=1, prefill_chunk=chunk) as careful:
        parts, whole = careful.conversation(), omni.conversation()
        for conversation in (parts, whole):
            conversation.append([turn.message])
        assert_same_states(parts, whole)
        assert_same_answers(parts, whole)
