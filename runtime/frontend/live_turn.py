"""A user's turn while the user is speaking: pieces of audio in, pieces of prompt out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from .media.media_options import check_sample_rate
from .prompt.front_end import FrontEnd, Prompt


class LiveTurn:
    """One spoken turn, from its opening to its end.

    Each full attention window of the audio encoder (8 s) becomes a piece of prompt at once; `finish` returns
    the rest. Token ids and positions of all pieces equal those of one prompt with the whole recording. The
    features are equal too, up to the error that `largest_difference` reports (see LiveAudio).
    """

    def __init__(
        self,
        front_end: FrontEnd,
        messages: Sequence[Any],
        is_first: bool,
        sample_rate: int,
        tools: Any = None,
    ) -> None:
        """`messages`: complete turns before this one. `is_first`: no turns come before `messages`.
        `sample_rate`: rate of the pushed audio in Hz. `tools`: the tools of the conversation.

        Raises AntiphonError for a rate that is not a positive whole number.
        """
        self.sample_rate = check_sample_rate(sample_rate, "sample_rate")
        self._front_end, self._audio = front_end, front_end.live_audio(self.sample_rate)
        self._heard = 0
        self.opening: Prompt = front_end.open_turn(messages, is_first=is_first, tools=tools)

    @property
    def largest_difference(self) -> float:
        """The largest error of a log-mel feature against normalisation by the maximum of all audio so far;
        0.25 is one decade of power.
        """
        return self._audio.largest_difference

    def push(self, samples: np.ndarray) -> Prompt:
        """Return the piece of prompt that `samples` complete; it is often empty."""
        return self._piece(self._audio.push(samples))

    def finish(self, text: str | None) -> list[Prompt]:
        """Return the remaining audio, and the end of the turn with `text` after the audio.

        Raises AntiphonError if no audio was pushed, and for invalid text.
        """
        remaining = self._piece(self._audio.finish())
        return [remaining, self.closing(text)]

    def closing(self, text: str | None) -> Prompt:
        """Return the end of the turn with `text`, as if no more audio came. Raises AntiphonError for invalid
        text.
        """
        return self._front_end.close_turn(self._heard, text)

    def _piece(self, feeds: Sequence[dict[str, np.ndarray]]) -> Prompt:
        piece = self._front_end.audio_piece(feeds, self._heard)
        self._heard = self._audio.tokens
        return piece
