"""Between a bundle at work and the slow loop: what was asked, in the checkpoint's own numbers,
and how an answer is held to the reference.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from antiphon.runtime.engines.base import Engine
from antiphon.runtime.frontend.prompt.front_end import Prompt
from antiphon.runtime.omni import Omni
from antiphon.runtime.states.pool import UNLIMITED, StatePool

from .reference import DECISIVE
from .slow_loop import SlowLoop, SpeakingStyle, Speech, margin

TOLERANCE = 3e-5


class Recorded:
    """The Talker's engine, keeping the logits of every run."""

    def __init__(self, engine: Engine) -> None:
        self._engine, self.entry = engine, engine.entry
        self.logits: list[np.ndarray] = []

    def new_states(self, rows: int = 1, capacity: int = UNLIMITED) -> StatePool:
        return self._engine.new_states(rows, capacity)

    def close(self) -> None:
        self._engine.close()

    def run(
        self, feeds: Mapping[str, np.ndarray], slots: Any = (), outputs: Sequence[str] = ()
    ) -> dict[str, np.ndarray]:
        result = self._engine.run(feeds, slots, (*outputs, "logits"))
        self.logits.append(result["logits"][0])
        return result


def recorded(omni: Omni) -> tuple[Omni, list[np.ndarray]]:
    """The same bundle, and the place where the Talker's logits [vocabulary] of every run appear."""
    talker = Recorded(omni.engines["talker"])
    return Omni(
        omni.manifest, omni.engines | {"talker": talker}, omni.front_end, voice_table=omni.model.voice_table
    ), talker.logits  # type: ignore[operator]


def features(omni: Omni, prompt: Prompt, first_row: int = 0) -> dict[int, np.ndarray]:
    """What the encoders, compared elsewhere, put in place of embeddings, by row."""
    rows: dict[int, np.ndarray] = {}
    for call in prompt.calls:
        rows |= dict(
            zip(
                (np.asarray(call.rows) + first_row).tolist(),
                omni.engines[call.stage].run(call.feeds())["features"],
                strict=True,
            )
        )
    return rows


def speaking_style(
    omni: Omni,
    reference: SlowLoop,
    voice: str | np.ndarray = "chelsie",
    style: str | None = None,
    language: str | None = None,
) -> SpeakingStyle:
    """Options of a reply as the checkpoint's own numbers. `voice`: a name, or codes [frames, 16]."""
    talker = reference.raw["talker_config"]
    if isinstance(voice, str):
        stored = reference.tensors["talker.speaker_codec_embeddings"][talker["speaker_id"][voice]].numpy().T
        result = SpeakingStyle(stored[(stored >= 0).all(axis=1)], talker["speaker_system_prompt_id"][voice])
    else:
        result = SpeakingStyle(voice)
    named = talker["talker_assistant_prompt_id_mapping"]
    if style is not None and style.lower() in named:
        result = replace(result, named_style_ids=named[style.lower()])
    elif style is not None:
        result = replace(result, style_ids=omni.front_end.encode_text(style).tolist())
    return result if language is None else replace(result, language=talker["talker_language_id"][language])


def assert_written(token_ids: Sequence[int], logits: np.ndarray, end: int | None) -> None:
    """Every id is the best of `logits` [tokens, vocabulary], `end` left out,
    where that choice was decisive.
    """
    for token, scores in zip(token_ids, logits.copy(), strict=True):
        if end is not None:
            scores[end] = -np.inf
        assert token == scores.argmax() or margin(scores) < DECISIVE


def assert_spoken(codes: np.ndarray, speech: Speech, max_frames: int, logits: Sequence[np.ndarray]) -> None:
    """Every code is the reference's choice for the same past where that choice was decisive,
    and the logits of all frames are equal to rounding.
    """
    assert len(codes) == len(speech.codes) and speech.ended == (len(codes) < max_frames)
    decisive = speech.margins > DECISIVE
    assert decisive.mean() > 0.99
    np.testing.assert_array_equal(codes[decisive], speech.codes[decisive])
    error = np.abs(np.array(logits)[: len(codes)] - speech.logits).max(axis=1) / np.abs(speech.logits).max(
        axis=1
    )
    assert error.max() < TOLERANCE
