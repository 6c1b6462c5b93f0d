"""The assembled loop of Qwen3.5-Omni against HF's backbones:
greedy text, and speech against the slow loop that reads everything again at each chunk.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from antiphon.runtime.events import Reply
from antiphon.runtime.frontend.prompt.front_end import Prompt
from antiphon.runtime.omni import Omni, load

from .slow_answer import assert_spoken, assert_written, features, recorded, speaking_style
from .slow_loop import SlowLoop, Speech, adaptive, chunked


@pytest.fixture(scope="module")
def omni(hybrid_bundle: Path) -> Iterator[Omni]:
    with load(hybrid_bundle, threads=1) as omni:
        yield omni


@pytest.fixture(scope="module")
def reference(hybrid_checkpoint: Path) -> SlowLoop:
    return SlowLoop(hybrid_checkpoint)


def sound(seconds: float, rate: int) -> np.ndarray:
    time = np.arange(int(seconds * rate)) / rate
    return (
        0.2 * np.sin(2 * np.pi * (200 + 150 * time) * time)
        + 0.02 * np.random.default_rng(0).standard_normal(len(time))
    ).astype(np.float32)


def user(*parts: dict[str, Any]) -> dict[str, Any]:
    return {"role": "user", "content": list(parts)}


def say(text: str) -> dict[str, Any]:
    return {"type": "text", "text": text}


HEAR: dict[str, Any] = {
    "type": "input_audio",
    "input_audio": {"data": sound(1.3, 16000), "sample_rate": 16000},
}
SEE: dict[str, Any] = {
    "type": "image_url",
    "image_url": {"url": np.random.default_rng(0).integers(0, 256, (64, 96, 3), dtype=np.uint8)},
}
WATCH: dict[str, Any] = {
    "type": "video_url",
    "video_url": {
        "url": np.random.default_rng(1).integers(0, 256, (4, 64, 64, 3), dtype=np.uint8),
        "fps": 2.0,
    },
}
GREETING = [user(say("Hello, how are you?"))]
LONG = "Please tell me in a few words what the weather will be like tomorrow and on the day after it."


@dataclass(frozen=True)
class Case:
    """What is asked, how many text tokens are spoken for how many frames, and how."""

    tokens: int = 5
    frames: int = 10
    messages: list[dict[str, Any]] = field(default_factory=lambda: GREETING)
    parts: Any = field(default=lambda items: chunked(items, 4, 4))
    restarts: bool = True
    penalty: float = 1.05
    least: int = 1
    options: dict[str, Any] = field(default_factory=dict)


CASES: dict[str, Case] = {
    **{f"{tokens} tokens": Case(tokens, 4 * ((tokens + 4) // 4) + 3) for tokens in (1, 3, 4, 5, 8, 11)},
    "a language": Case(options={"language": "german"}),
    "a style in words": Case(options={"style": "Speak slowly, in a low voice."}),
    "a style by name": Case(options={"style": "news"}),
    "another voice": Case(options={"voice": "aiden"}),
    "a voice from a recording": Case(options={"voice": sound(1.1, 22050)}),
    "all at once": Case(options={"voice": "ethan", "language": "chinese", "style": "Whisper"}),
    "an image": Case(messages=[user(SEE, say("What is this?"))]),
    "audio": Case(messages=[user(HEAR, say("Who speaks?"))]),
    "video": Case(messages=[user(WATCH, say("What happens?"))]),
    "three user turns, longer than the limit of rows": Case(
        messages=[
            {"role": "system", "content": "Be brief."},
            user(say(LONG)),
            {"role": "assistant", "content": "Rain."},
            user(HEAR, SEE),
            user(say(LONG)),
        ]
    ),
    "chunks of 2 and 3": Case(
        7, 14, parts=lambda items: chunked(items, 2, 3), options={"interleave": "chunked:2,3"}
    ),
    "chunks of 5 and 1": Case(
        7, 6, parts=lambda items: chunked(items, 5, 1), options={"interleave": "chunked:5,1"}
    ),
    "adaptive, one frame a token": Case(
        8,
        70,
        parts=lambda items: adaptive(items, 4, Fraction(1)),
        restarts=False,
        options={"interleave": "adaptive:1"},
    ),
    "adaptive, five frames for two tokens": Case(
        5,
        14,
        parts=lambda items: adaptive(items, 2, Fraction(5, 2)),
        restarts=False,
        options={"interleave": "adaptive:5/2,2"},
    ),
    # A penalty that changes much shows what it remembers.
    "a strong penalty that restarts": Case(8, 18, penalty=2.5, least=18),
    "a strong penalty over 64 frames": Case(
        4,
        72,
        parts=lambda items: adaptive(items, 4, Fraction(1)),
        restarts=False,
        penalty=2.5,
        least=72,
        options={"interleave": "adaptive"},
    ),
}


def read(
    omni: Omni, reference: SlowLoop, case: Case, token_ids: Sequence[int]
) -> tuple[Prompt, np.ndarray, np.ndarray]:
    """The prompt, and the reference's logits and tapped rows over prompt and answer."""
    prompt = omni.front_end.prompt(case.messages)
    steps = prompt.next_position + np.arange(len(token_ids), dtype=np.float32)
    positions = np.concatenate([prompt.positions, np.broadcast_to(steps, (3, len(steps)))], axis=1)
    if not prompt.calls:
        np.testing.assert_array_equal(positions, np.arange(positions.shape[1])[None].repeat(3, 0))
    return prompt, *reference.read(
        np.concatenate([prompt.token_ids, token_ids]).astype(np.int64), positions, features(omni, prompt)
    )


def answer(omni: Omni, case: Case) -> Reply:
    """A greedy answer of `tokens` spoken tokens: the one that the limit stops is not spoken."""
    options = case.options | (
        {"voice": omni.voice(case.options["voice"], 22050)}
        if isinstance(case.options.get("voice"), np.ndarray)
        else {}
    )
    options |= {
        "talker_repetition_penalty": case.penalty,
        "min_frames": case.least,
        "max_frames": case.frames,
    }
    return omni.generate(
        case.messages,
        greedy=True,
        min_text_tokens=case.tokens + 1,
        max_text_tokens=case.tokens + 1,
        **options,
    )


def spoken(
    omni: Omni,
    reference: SlowLoop,
    case: Case,
    reply: Reply,
    prompt: Prompt,
    hidden: np.ndarray,
    follow: np.ndarray | None,
) -> Speech:
    """The reference's speech for the text of `reply`."""
    options = {name: value for name, value in case.options.items() if name != "interleave"}
    if isinstance(options.get("voice"), np.ndarray):
        # the codec encoder is compared elsewhere
        options["voice"] = omni.voice(options["voice"], 22050).codes
    rows, text = (
        reference.prompt(prompt.token_ids, hidden, speaking_style(omni, reference, **options)),
        reply.token_ids[: case.tokens],
    )
    return reference.speak(
        rows, text, case.parts(case.tokens + 1), case.frames, case.restarts, case.penalty, case.least, follow
    )


@pytest.mark.parametrize("name", list(CASES))
def test_text_and_speech_equal_the_slow_reference(omni: Omni, reference: SlowLoop, name: str) -> None:
    case = CASES[name]
    watched, talker_logits = recorded(omni)
    reply = answer(watched, case)
    prompt, logits, hidden = read(omni, reference, case, reply.token_ids)
    assert len(reply.token_ids) == case.tokens + 1
    assert_written(reply.token_ids, logits[len(prompt.token_ids) - 1 : -1], end=omni.front_end.im_end)
    speech = spoken(omni, reference, case, reply, prompt, hidden, follow=reply.codes)
    assert len(speech.boundaries) == len(case.parts(case.tokens + 1)) and speech.boundaries[-1] < len(
        speech.codes
    ), "the last chunk was reached"
    assert_spoken(reply.codes, speech, case.frames, talker_logits)


def test_the_slow_loop_left_alone_says_the_same(omni: Omni, reference: SlowLoop) -> None:
    case = CASES["5 tokens"]
    reply = answer(omni, case)
    prompt, _, hidden = read(omni, reference, case, reply.token_ids)
    np.testing.assert_array_equal(
        reply.codes, spoken(omni, reference, case, reply, prompt, hidden, follow=None).codes
    )


def test_greedy_text_equals_generate_of_the_reference(omni: Omni, reference: SlowLoop) -> None:
    prompt = torch.from_numpy(omni.front_end.prompt(GREETING).token_ids)[None]
    sequence = reference.thinker.generate(
        input_ids=prompt,
        max_new_tokens=16,
        do_sample=False,
        eos_token_id=omni.front_end.im_end,
        pad_token_id=0,
    )
    expected = [token for token in sequence[0, prompt.shape[1] :].tolist() if token != omni.front_end.im_end]
    assert (
        list(omni.generate(GREETING, greedy=True, max_text_tokens=16, modalities=("text",)).token_ids)
        == expected
    )


@pytest.mark.parametrize(("tokens", "end"), [(11, 179), (2, None), (4, None)])
def test_the_end_waits_for_all_text_and_ends_then(
    hybrid_checkpoint: Path, omni: Omni, tokens: int, end: int | None
) -> None:
    """With the end under another id the Talker wants to end before tts_eos was read (179:
    found by trial), and ends later.
    """
    case = Case(tokens, 30)
    end = int(answer(omni, case).codes[-1, 0]) if end is None else end
    reference = SlowLoop(hybrid_checkpoint)
    reference.ids = reference.ids | {"codec_eos_token_id": end}
    changed = Omni(
        replace(omni.manifest, ids=omni.manifest.ids | {"codec_eos": end}),
        omni.engines,
        omni.front_end,
        voice_table=omni.model.voice_table,
    )
    reply = answer(changed, case)
    prompt, _, hidden = read(omni, reference, case, reply.token_ids)
    speech = spoken(omni, reference, case, reply, prompt, hidden, follow=reply.codes)
    np.testing.assert_array_equal(reply.codes, speech.codes)
    assert (speech.ended, reply.finish_reason) == (
        (True, "length") if len(reply.codes) < case.frames else (False, "frame_budget")
    )
    if tokens == 11:
        assert speech.ended and min(speech.forbidden) < speech.boundaries[-1], (
            "the end was never wanted early; try other ids"
        )
