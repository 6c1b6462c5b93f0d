"""Feeds of the audio encoder from a recording of any length, in memory that does not grow with the length."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from ...bundle.errors import InvalidInput
from ..media.media_file import CannotOpen
from ..media.media_options import WHOLE, Span
from ..media.media_policy import LOCAL, MediaPolicy
from ..media.media_source import resolve_source
from .audio_layout import Feeds, audio_tokens, window_calls, window_frames
from .mel import MelSettings, normalise
from .mel_stream import LogPowerStream, MonoStream
from .recording import (
    BLOCK_SAMPLES,
    SOUNDFILE_ERRORS,
    Blocks,
    describe,
    file_blocks,
    heard_array,
    no_samples,
    track_blocks,
)
from .samples import columns


class AudioStream:
    """One recording, which can be read any number of times.

    A first pass computes only the length and the largest log power. All results equal those of `read_audio`,
    `log_mel` and `audio_calls` for this recording alone, to the last bit. Decoding starts only when a result
    is needed. Every method that reads raises AntiphonError as `read_audio` does, and if the file changes
    between two passes.
    """

    def __init__(
        self,
        source: Any,
        sample_rate: int,
        settings: MelSettings,
        n_window: int,
        n_window_infer: int,
        convolutions: int = 3,
        policy: MediaPolicy = LOCAL,
        span: Span = WHOLE,
    ) -> None:
        """`source`, `sample_rate` (of an array), `policy` and `span` are those of `read_audio`.

        Raises AntiphonError if the file is missing or empty.
        """
        is_array = isinstance(source, np.ndarray)
        self._source = (
            heard_array(source, sample_rate, policy, span)
            if is_array
            else resolve_source(source, "audio", policy)
        )
        self._array_rate, self._settings, self._policy, self._span = sample_rate, settings, policy, span
        self._n_window, self._n_window_infer, self._convolutions = n_window, n_window_infer, convolutions

    @property
    def frames(self) -> int:
        """Mel frames of the whole recording (10 ms each)."""
        return self._measured.frames

    @property
    def tokens(self) -> int:
        """Tokens that the encoder makes of the whole recording."""
        return audio_tokens(self.frames, self._n_window, self._convolutions)

    @property
    def seconds(self) -> float:
        """Length of the recording in seconds."""
        return self._measured.samples / self._settings.sampling_rate

    def calls(self, max_windows: int = 8) -> Iterator[Feeds]:
        """Yield feeds of the audio encoder as `audio_calls` does, `max_windows` attention windows per call.

        All calls but the last have the same number of tokens.
        """
        longest_chunk = min(2 * self._n_window, self.frames)
        return window_calls(
            self.windows(),
            self._n_window,
            self._n_window_infer,
            longest_chunk,
            max_windows,
            self._convolutions,
        )

    def windows(self) -> Iterator[np.ndarray]:
        """Yield the log-mel features, float32 [feature_size, frames], one attention window at a time."""
        size = window_frames(self._n_window, self._n_window_infer)
        measured, stream = self._measured, LogPowerStream(self._settings)
        pending: np.ndarray = np.zeros((self._settings.feature_size, 0), np.float32)
        try:
            for power in self._log_power(measured.is_track, stream):
                pending = np.concatenate([pending, normalise(power, measured.maximum)], axis=1)
                whole = pending.shape[1] // size * size
                yield from (pending[:, start : start + size] for start in range(0, whole, size))
                pending = pending[:, whole:].copy()
        except (*SOUNDFILE_ERRORS, CannotOpen):
            raise self._changed() from None
        if (stream.samples, stream.frames, stream.maximum) != (
            measured.samples,
            measured.frames,
            measured.maximum,
        ):
            raise self._changed()
        if pending.shape[1]:
            yield pending

    @cached_property
    def _measured(self) -> _Measured:
        """The result of the first pass. If libsndfile fails at any point, PyAV reads the whole file
        instead.
        """
        if isinstance(self._source, np.ndarray):
            return self._measure(False)
        try:
            return self._measure(False)
        except SOUNDFILE_ERRORS:
            return self._measure(True)

    def _measure(self, is_track: bool) -> _Measured:
        stream = LogPowerStream(self._settings)
        for _ in self._log_power(is_track, stream):
            pass
        return _Measured(stream.samples, stream.frames, stream.maximum, is_track)

    def _log_power(self, is_track: bool, stream: LogPowerStream) -> Iterator[np.ndarray]:
        """Push the recording through `stream` and yield its log power, block by block."""
        mono: MonoStream | None = None
        for block, rate in self._blocks(is_track):
            mono = mono or MonoStream(rate, self._settings.sampling_rate)
            yield stream.push(mono.push(block))
        if mono is None:
            raise no_samples()
        yield stream.push(mono.finish())
        yield stream.finish()

    def _blocks(self, is_track: bool) -> Blocks:
        if not isinstance(self._source, np.ndarray):
            return (track_blocks if is_track else file_blocks)(self._source, self._policy, self._span)
        starts = range(0, len(self._source), BLOCK_SAMPLES)
        return ((columns(self._source[start : start + BLOCK_SAMPLES]), self._array_rate) for start in starts)

    def _changed(self) -> InvalidInput:
        name = "array" if isinstance(self._source, np.ndarray) else describe(self._source)
        return InvalidInput(
            f"The audio {name} changed while it was read; leave it as it is and read it again."
        )


class _Measured(NamedTuple):
    """Result of the first pass: samples at the model's rate, mel frames, largest log power, and whether PyAV
    reads the file.
    """

    samples: int
    frames: int
    maximum: np.float32
    is_track: bool
