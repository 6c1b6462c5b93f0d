"""What a caller receives: the events of a stream and the reply they add up to."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import numpy as np

FinishReason = Literal["stop", "length", "frame_budget", "empty", "cancelled"]
"""stop: text and speech came to their own end.

length: the text reached its limit. frame_budget: the speech reached its limit.
empty: the model answered with no text at all, or thought only, so there is nothing to speak. cancelled: the
caller closed the stream.
"""


@dataclass(frozen=True)
class Timings:
    """Seconds since the reply was asked for, and rates. A value is None where the event never happened."""

    time_to_first_token: float | None = None
    time_to_first_frame: float | None = None
    time_to_first_audio: float | None = None
    prefill_tokens: int = 0
    seconds_per_token: float | None = None
    """Mean time of a Thinker decode step, waiting for its turn not counted."""
    seconds_per_frame: float | None = None
    """Mean time of a Talker step with its code predictor, waiting not counted."""
    seconds_per_vocoder_frame: float | None = None
    total: float = 0.0
    audio_seconds: float = 0.0
    underruns: int = 0
    """Packets that were ready only after everything before them had been played."""
    text_waits: int = 0
    """Frames after the first that were held because their text was not there yet."""

    @property
    def real_time_factor(self) -> float | None:
        """Total time over the duration of the speech; None without speech."""
        return self.total / self.audio_seconds if self.audio_seconds else None


@dataclass(frozen=True)
class TextDelta:
    """New text.

    `text` may be empty while a character is incomplete; `token_ids` are the new ids, ends of turn excluded.
    """

    text: str
    token_ids: tuple[int, ...]


@dataclass(frozen=True)
class AudioDelta:
    """A packet of speech: `samples` float32 [n] in [-1, 1],
    from frame `first_frame` (counted from 0) on, `frames` frames.

    `text_cursor`: answer tokens the Talker had consumed at the last of these frames, less those that lie
    ahead of the voice where the bundle estimates how many frames a token takes. It never falls.
    """

    samples: np.ndarray
    first_frame: int
    frames: int
    text_cursor: int


@dataclass(frozen=True)
class Done:
    """The end of a stream: the whole text, its ids, codes int64 [frames, groups], why it ended,
    and when things happened.
    """

    finish_reason: FinishReason
    text: str
    token_ids: tuple[int, ...]
    codes: np.ndarray
    timings: Timings


Event = TextDelta | AudioDelta | Done


@dataclass(frozen=True)
class Reply:
    """A whole answer.

    codes int64 [frames, groups]; audio float32 [samples] at `sample_rate` hertz, both empty without speech.
    """

    text: str
    token_ids: tuple[int, ...]
    codes: np.ndarray
    audio: np.ndarray
    sample_rate: int
    finish_reason: FinishReason
    timings: Timings = field(default_factory=Timings)
