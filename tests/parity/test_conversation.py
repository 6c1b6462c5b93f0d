"""A conversation against the public reference:
every reply equals HF `generate` fed with the ids that the conversation really holds.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from antiphon.runtime.conversation import Conversation
from antiphon.runtime.events import Done
from antiphon.runtime.omni import Omni, collect, load

from .reference import DECISIVE, generate, load_reference, media_inputs


@pytest.fixture(scope="module")
def omni(tiny_bundle: Path) -> Iterator[Omni]:
    with load(tiny_bundle) as omni:
        yield omni


@pytest.fixture(scope="module")
def model(tiny_checkpoint: Path) -> Any:
    return load_reference(tiny_checkpoint)


def sound(seconds: float) -> np.ndarray:
    time = np.arange(int(seconds * 16000)) / 16000
    return (
        0.2 * np.sin(2 * np.pi * (200 + 150 * time) * time)
        + 0.02 * np.random.default_rng(0).standard_normal(len(time))
    ).astype(np.float32)


@dataclass(frozen=True)
class Turn:
    """What the user says, and the limits of the answer."""

    text: str
    audio: np.ndarray | None = None
    tokens: int = 8
    frames: int = 6
    modalities: tuple[str, ...] = ("text", "audio")


@dataclass(frozen=True)
class Talk:
    """A conversation to be had."""

    turns: tuple[Turn, ...]
    system: str | None = None
    options: dict[str, Any] = field(default_factory=dict)


CLIP = sound(1.3)
TALKS = {
    "two turns of text": Talk((Turn("Hello, how are you?"), Turn("And tomorrow?"))),
    "audio in the second turn, after an answer cut by its limit": Talk(
        (Turn("Listen.", tokens=3), Turn("What was this?", CLIP)), system="You answer briefly."
    ),
    "three turns, the first with audio, the second answered in text alone": Talk(
        (
            Turn("Who is speaking?", CLIP, tokens=5, frames=4),
            Turn("Write it down.", modalities=("text",)),
            Turn("Now say it aloud."),
        )
    ),
}
ENDINGS = ("", " Please.", " Now.", " Thank you.", " Go on.", " So?")
"""Ends of a turn, tried in order until HF's answer has no near-tie."""


def say(conversation: Conversation, turn: Turn, ending: str) -> Any:
    conversation.append(audio=turn.audio, text=turn.text + ending)
    limits = {"max_text_tokens": turn.tokens} | (
        {"max_frames": turn.frames} if "audio" in turn.modalities else {}
    )
    return collect(
        conversation.reply(greedy=True, modalities=turn.modalities, voice="ethan", **limits), 24000
    )


def have(omni: Omni, talk: Talk, endings: list[str]) -> tuple[list[Any], list[np.ndarray]]:
    """The replies, and the ids each of them answered."""
    conversation = omni.conversation(system=talk.system)
    replies, prompts = [], []
    for turn, ending in zip(talk.turns, endings, strict=False):
        replies.append(say(conversation, turn, ending))
        prompts.append(np.array(conversation.token_ids[: conversation.context.answer_row]))
    return replies, prompts


@pytest.mark.parametrize("name", list(TALKS))
def test_every_reply_equals_the_reference_on_the_same_history(omni: Omni, model: Any, name: str) -> None:
    talk = TALKS[name]
    endings: list[str] = []
    for number, turn in enumerate(talk.turns):
        clips = [turn.audio for turn in talk.turns[: number + 1] if turn.audio is not None]
        inputs = media_inputs(omni.front_end, SimpleNamespace(calls=(), media=()), clips)  # type: ignore[arg-type]
        for ending in ENDINGS:
            replies, prompts = have(omni, talk, [*endings, ending])
            expected = generate(model, prompts[-1], inputs, turn.tokens, turn.frames)
            if expected.margin > DECISIVE:
                break
        assert expected.margin > DECISIVE, "no ending gave an answer without a near-tie; choose another text"
        endings.append(ending)
        assert list(replies[-1].token_ids) == [
            token for token in expected.token_ids if token != omni.front_end.im_end
        ]
        if "audio" in turn.modalities:
            np.testing.assert_array_equal(replies[-1].codes, expected.codes)
            np.testing.assert_allclose(replies[-1].audio, expected.audio, atol=1e-4)
        else:
            assert len(replies[-1].codes) == len(replies[-1].audio) == 0


@pytest.mark.parametrize("name", list(TALKS))
def test_the_history_is_prompts_answers_and_ends_of_turns_and_nothing_else(omni: Omni, name: str) -> None:
    talk = TALKS[name]
    replies, prompts = have(omni, talk, [""] * len(talk.turns))
    front_end, history = omni.front_end, np.zeros(0, np.int64)
    for number, turn in enumerate(talk.turns):
        parts: list[dict[str, Any]] = [{"type": "text", "text": turn.text}]
        if turn.audio is not None:
            parts.insert(
                0, {"type": "input_audio", "input_audio": {"data": turn.audio, "sample_rate": 16000}}
            )
        message = {"role": "user", "content": parts}
        if number == 0:
            opening = [] if talk.system is None else [{"role": "system", "content": talk.system}]
            history = front_end.prompt([*opening, message]).token_ids
        else:
            history = np.concatenate(
                [
                    history,
                    replies[number - 1].token_ids,
                    front_end.turn_end,
                    front_end.continuation([message]).token_ids,
                ]
            )
        np.testing.assert_array_equal(prompts[number], history)


def test_positions_go_on_as_if_the_history_were_one_prompt(omni: Omni) -> None:
    conversation = omni.conversation()
    for turn in (Turn("Listen.", CLIP, tokens=3), Turn("And now?", tokens=3)):
        say(conversation, turn, "")
    ids = np.array(conversation.token_ids)
    messages = [
        {
            "role": "user",
            "content": [
                {"type": "input_audio", "input_audio": {"data": CLIP, "sample_rate": 16000}},
                {"type": "text", "text": "Listen."},
            ],
        },
    ]
    prompt = omni.front_end.prompt(messages)
    assert conversation.context.next_position == prompt.next_position + len(ids) - len(prompt.token_ids)


def test_a_reply_that_was_closed_stays_in_the_history_as_far_as_it_was_made(omni: Omni) -> None:
    conversation = omni.conversation()
    conversation.append(text="Tell me a long story.")
    events = []
    with conversation.reply(greedy=True, max_text_tokens=200, max_frames=400) as stream:
        for event in stream:
            events.append(event)
            if len(events) == 4:
                break
    assert not any(isinstance(event, Done) for event in events)
    made = conversation.answer_ids
    shown = [token for event in events for token in getattr(event, "token_ids", ())]
    assert list(made[: len(shown)]) == shown
    reply = say(conversation, Turn("Stop."), "")
    ids = conversation.token_ids[: conversation.context.answer_row]
    again = omni.conversation()
    again.append(text="Tell me a long story.")
    assert reply.token_ids and ids[: len(again.token_ids)] == again.token_ids
