"""A user's turn while it is being spoken: pieces of sound in, pieces of prompt out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from .media.media_options import check_sample_rate
from .prompt.front_end import FrontEnd, Prompt


class LiveTurn:
    """From the opening of a turn to its end. Whole attention windows of the audio encoder (8 s) go out as they fill, the rest with the end.

    Token ids and positions of all pieces are those of one prompt with the whole recording; so are the features, but for what
    `largest_difference` says (see LiveAudio).
    """

    def __init__(self, front_end: FrontEnd, messages: Sequence[Any], is_first: bool, sample_rate: int, tools: Any = None) -> None:
        """`messages`: whole turns that stand before it; `is_first`: nothing came before those. `sample_rate` in hertz, of the pushed sound; `tools`: the
        conversation's.

        Raises AntiphonError for a rate that is no positive whole number.
        """
        self.sample_rate = check_sample_rate(sample_rate, "sample_rate")
        self._front_end, self._audio = front_end, front_end.live_audio(self.sample_rate)
        self._heard = 0
        self.opening: Prompt = front_end.open_turn(messages, is_first=is_first, tools=tools)

    @property
    def largest_difference(self) -> float:
        """How far a log-mel feature lies from what it would be had the loudest sound been known from the start; 0.25 is a decade of power."""
        return self._audio.largest_difference

    def push(self, samples: np.ndarray) -> Prompt:
        """The piece of prompt that `samples` completed; often empty."""
        return self._piece(self._audio.push(samples))

    def finish(self, text: str | None) -> list[Prompt]:
        """What is left of the sound, and the end of the turn with `text` after it. Raises AntiphonError where no sound came, and for bad text."""
        rest = self._piece(self._audio.finish())
        return [rest, self.closing(text)]

    def closing(self, text: str | None) -> Prompt:
        """The end of the turn with `text`, as if no more sound came. Raises AntiphonError for bad text."""
        return self._front_end.close_turn(self._heard, text)

    def _piece(self, feeds: Sequence[dict[str, np.ndarray]]) -> Prompt:
        piece = self._front_end.audio_piece(feeds, self._heard)
        self._heard = self._audio.tokens
        return piece
