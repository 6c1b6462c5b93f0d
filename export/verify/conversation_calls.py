"""A real conversation on a bundle, recorded call by call,
so that each stage can be run again on what it was fed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ...runtime.bundle.specs import StageEntry
from ...runtime.engines.base import Engine
from ...runtime.omni import Omni
from ...runtime.open_bundle import open_bundle
from ...runtime.states.pool import UNLIMITED, Slot, StatePool

Feeds = dict[str, np.ndarray]
Stream = list[Feeds]
"""The calls of one stage for one stream, in order; the states are carried from call to call."""

TEXT_TOKENS, FRAMES, SECONDS, RATE, SIDE = 6, 4, 1.0, 16000, 64
"""The size of the conversation: tokens and frames of each answer, the recording, and the picture."""


class RecordingEngine:
    """An engine that notes its feeds, by slot; see runtime.engines.base.Engine."""

    def __init__(self, engine: Engine) -> None:
        self.engine, self.entry = engine, engine.entry
        self.streams: list[tuple[Slot | None, Stream]] = []

    def new_states(self, rows: int = 1, capacity: int = UNLIMITED) -> StatePool:
        """See Engine.new_states."""
        return self.engine.new_states(rows, capacity)

    def run(
        self,
        feeds: Mapping[str, np.ndarray],
        slots: Sequence[Slot] = (),
        outputs: Sequence[str] | None = None,
    ) -> Feeds:
        """See Engine.run."""
        slot = slots[0] if slots else None
        if slot is None or not self.streams or self.streams[-1][0] is not slot:
            self.streams.append((slot, []))
        self.streams[-1][1].append({name: np.array(array) for name, array in feeds.items()})
        return self.engine.run(feeds, slots, outputs)

    def close(self) -> None:
        """See Engine.close."""
        self.engine.close()


def record_conversation(bundle: Path, seed: int = 0) -> dict[str, list[Stream]]:
    """The calls of every stage in a short greedy conversation on `bundle`:
    by stage, one stream for each slot.

    The user's turn has a sentence, and noise from `seed` as recording and picture where the bundle
    hears and sees. The second turn continues the first, so that the Thinker's stream holds prefills
    and steps of two answers.
    """
    opened = open_bundle(bundle)
    recorders = {name: RecordingEngine(engine) for name, engine in opened.engines.items()}
    try:
        with Omni(
            opened.manifest, recorders, opened.front_end, max_streams=1, voice_table=opened.voice_table
        ) as omni:
            conversation = omni.conversation()
            for content in (_question(omni.manifest.stages, seed), "And then?"):
                conversation.append([{"role": "user", "content": content}])
                for _ in conversation.reply(
                    greedy=True, min_text_tokens=2, max_text_tokens=TEXT_TOKENS, max_frames=FRAMES
                ):
                    pass
    finally:
        for recorder in recorders.values():
            recorder.close()
    return {name: [stream for _, stream in recorder.streams] for name, recorder in recorders.items()}


def _question(stages: Mapping[str, StageEntry], seed: int) -> list[dict[str, Any]]:
    noise = np.random.default_rng(seed)
    parts: list[dict[str, Any]] = []
    if "audio_encoder" in stages:
        sound = noise.normal(0, 0.1, int(SECONDS * RATE)).astype(np.float32)
        parts.append({"type": "input_audio", "input_audio": {"data": sound, "sample_rate": RATE}})
    if "vision_encoder" in stages:
        picture = noise.integers(0, 256, (SIDE, SIDE, 3)).astype(np.uint8)
        parts.append({"type": "image_url", "image_url": {"url": picture}})
    return [*parts, {"type": "text", "text": "What is this?"}]
