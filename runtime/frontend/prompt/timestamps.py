"""Textual time: timestamps as text before each temporal patch of a video and, if configured, at intervals in
audio.

Source: Qwen3VLProcessor (transformers 5.23) for videos. How Qwen3.5-Omni writes videos with their audio, and
audio alone, is unpublished; that part is Antiphon's choice.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from ..audio.audio_layout import audio_tokens
from .positions import MediaItem

Encode = Callable[[str], np.ndarray]


@dataclass(frozen=True)
class Timestamps:
    """`format`: a Python format of `seconds` ("" writes nothing). `audio_seconds`: interval of timestamps in
    audio; 0: none.
    """

    format: str
    audio_seconds: float = 0.0

    def text(self, seconds: float) -> str:
        """The timestamp for `seconds` after the start."""
        return self.format.format(seconds=seconds)


@dataclass(frozen=True)
class AudioClock:
    """Times of the tokens of a clip. A chunk has 2 * `n_window` mel frames of `frame_seconds` each, and
    `convolutions` of stride 2 shorten it.
    """

    n_window: int
    convolutions: int
    frame_seconds: float

    def seconds(self, tokens: int) -> np.ndarray:
        """float64 [tokens]: the time at which each token's audio begins. The last token of a chunk may be
        shorter.
        """
        chunk, place = np.divmod(
            np.arange(tokens), audio_tokens(2 * self.n_window, self.n_window, self.convolutions)
        )
        return (chunk * 2 * self.n_window + place * 2**self.convolutions) * self.frame_seconds


@dataclass(frozen=True)
class MarkedIds:
    """Ids of the media tokens and of the start and end marks around them."""

    audio: int
    video: int
    audio_start: int
    audio_end: int
    vision_start: int
    vision_end: int


@dataclass(frozen=True)
class TextualTime:
    """How a bundle writes times as text: its timestamps, and the marks around its media."""

    stamps: Timestamps
    marked: MarkedIds


def patch_seconds(times: np.ndarray, temporal_patch_size: int) -> tuple[float, ...]:
    """The time of each temporal patch: the mean of the times of its first and last frame.

    The last frame of the video is repeated to fill its patch. times: float64 [frames], the time of each frame
    in seconds.
    """
    last = len(times) - 1
    starts = range(0, len(times), temporal_patch_size)
    return tuple(
        float(times[start] + times[min(start + temporal_patch_size - 1, last)]) / 2 for start in starts
    )


def video_tokens(
    item: MediaItem, merged: int, ids: MarkedIds, clock: AudioClock, stamps: Timestamps, encode: Encode
) -> np.ndarray:
    """int64 [tokens] of a video whose temporal patches have `merged` tokens each. The first timestamp is not
    included; it is in the text before the video.

    Each patch is timestamp, vision_start, its tokens, vision_end. If the video's audio is used, audio_start,
    the tokens whose audio begins within the patch's span, and audio_end follow. A patch without such tokens
    has no audio marks, and the last patch takes the rest. [unpublished: our choice]
    """
    picture = _marked(ids.vision_start, ids.video, merged, ids.vision_end)
    heard = _counts(clock.seconds(item.audio_tokens), np.arange(item.grid[0]) * item.seconds_per_grid)
    pieces: list[np.ndarray] = []
    for patch, tokens in enumerate(heard):
        if patch:
            pieces.append(encode(stamps.text(item.times[patch])))
        pieces.append(picture)
        if tokens:
            pieces.append(_marked(ids.audio_start, ids.audio, tokens, ids.audio_end))
    return np.concatenate(pieces)


def audio_piece(
    first: int, tokens: int, audio: int, clock: AudioClock, stamps: Timestamps, encode: Encode
) -> np.ndarray:
    """int64 [tokens and timestamps] for the tokens first .. first + tokens of a clip.

    The timestamp of each multiple of `stamps.audio_seconds` comes before the first token whose audio begins
    then or later. If several come before one token, only the last is written. [unpublished: our choice]
    """
    if not stamps.audio_seconds or not stamps.format:
        return np.full(tokens, audio, np.int64)
    # The tolerance is that of `_counts`: a token at 0.3 s begins with the third span of 0.1 s, despite
    # rounding.
    spans = np.floor(clock.seconds(first + tokens) / stamps.audio_seconds + TOLERANCE).astype(np.int64)
    begins = np.flatnonzero(np.diff(spans, prepend=-1))
    begins = begins[begins >= first]
    pieces, cursor = [], first
    for begin in begins.tolist():
        pieces += [
            np.full(begin - cursor, audio, np.int64),
            encode(stamps.text(spans[begin] * stamps.audio_seconds)),
        ]
        cursor = begin
    return np.concatenate([*pieces, np.full(first + tokens - cursor, audio, np.int64)])


TOLERANCE = 1e-6


def _counts(seconds: np.ndarray, starts: np.ndarray) -> Sequence[int]:
    """The number of the sorted times `seconds` in each span that begins at `starts`; the last span has no
    end.
    """
    cuts = np.searchsorted(seconds, starts[1:] - TOLERANCE)
    counts: list[int] = np.diff(cuts, prepend=0, append=len(seconds)).tolist()
    return counts


def _marked(start: int, token: int, tokens: int, end: int) -> np.ndarray:
    return np.array([start, *[token] * tokens, end], np.int64)
