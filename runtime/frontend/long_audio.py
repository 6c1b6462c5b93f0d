"""Recordings too long to lie in memory: which they are, and their encoder calls, which read them anew."""

from __future__ import annotations

import io
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import soundfile

from .audio import SOUNDFILE_ERRORS
from .audio_layout import Feeds, audio_tokens, window_frames
from .audio_stream import AudioStream
from .encoder_calls import AUDIO, EncoderCall

LONGEST_IN_MEMORY = 300.0
"""Seconds of a clip that is read at once; its spectrum takes 15 MB. Longer ones are streamed, each alone: their padding is their own."""


def is_long(source: Path | bytes | np.ndarray, sample_rate: int) -> bool:
    """Whether a recording is to be streamed, by what its header says; `sample_rate` is that of an array."""
    if isinstance(source, np.ndarray):
        return source.ndim > 0 and max(source.shape) > LONGEST_IN_MEMORY * sample_rate
    try:
        with soundfile.SoundFile(io.BytesIO(source) if isinstance(source, bytes) else source) as file:
            if file.frames:
                return bool(file.frames > LONGEST_IN_MEMORY * file.samplerate)
    except SOUNDFILE_ERRORS:
        pass
    return _track_seconds(source) > LONGEST_IN_MEMORY


def _track_seconds(source: Path | bytes) -> float:
    """Length of a media file by its container; 0 where nothing says it or the file cannot be read, about which reading will complain."""
    try:
        import av
    except ImportError:
        return 0.0
    try:
        with av.open(io.BytesIO(source) if isinstance(source, bytes) else str(source), mode="r") as container:
            return float((container.duration or 0) / av.time_base)
    except (av.FFmpegError, ValueError):
        return 0.0


def stream_calls(stream: AudioStream, rows: np.ndarray, n_window: int, n_window_infer: int, convolutions: int, max_windows: int = 8) -> Iterator[EncoderCall]:
    """The calls for a recording whose tokens stand at `rows`. One after the other they read it once; any other order begins it again."""
    calls = _Reader(stream, max_windows)
    tokens = max_windows * audio_tokens(window_frames(n_window, n_window_infer), n_window, convolutions)
    for number, first in enumerate(range(0, len(rows), tokens)):
        yield EncoderCall(AUDIO, partial(calls.feeds, number), rows[first : first + tokens])


class _Reader:
    """The feeds of a stream's calls by number. Used by one thread at a time."""

    def __init__(self, stream: AudioStream, max_windows: int) -> None:
        self._stream, self._max_windows = stream, max_windows
        self._calls: Iterator[Feeds] = iter(())
        self._next = -1

    def feeds(self, number: int) -> Feeds:
        if not 0 <= self._next <= number:
            self._calls, self._next = self._stream.calls(self._max_windows), 0
        try:
            while self._next < number:
                next(self._calls)
                self._next += 1
            feeds = next(self._calls)
        except BaseException:
            self._next = -1
            raise
        self._next += 1
        return feeds
