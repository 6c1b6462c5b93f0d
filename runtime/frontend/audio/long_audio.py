"""Find recordings that are too long for memory, and make encoder calls that read them block by block."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from ..media.av_container import open_container
from ..media.media_file import open_media
from ..media.media_formats import HEAD
from ..media.media_options import WHOLE, Span
from ..media.media_policy import LOCAL, MediaPolicy
from ..prompt.encoder_calls import AUDIO, EncoderCall
from .audio_layout import Feeds, audio_tokens, window_frames
from .audio_stream import AudioStream
from .recording import SOUNDFILE_ERRORS, check_sound, describe, open_sound, track_seconds

LONGEST_IN_MEMORY = 300.0
"""Seconds of the longest clip that is read at once; its spectrum takes 15 MB. Longer clips are streamed, each
in calls of its own, so that their padding does not depend on other clips.
"""


def is_long(
    source: Path | bytes | np.ndarray, sample_rate: int, policy: MediaPolicy = LOCAL, span: Span = WHOLE
) -> bool:
    """Whether the `span` of a recording has to be streamed, by the length in its header.

    `sample_rate`: the rate of an array in Hz. Raises as `header_seconds`.
    """
    return header_seconds(source, sample_rate, policy, span) > LONGEST_IN_MEMORY


def in_memory(policy: MediaPolicy, span: Span) -> MediaPolicy:
    """`policy` for a recording that is read at once. If its header gave too short a length or none, reading
    stops with TooLong.
    """
    return replace(policy, max_seconds=min(policy.max_seconds, span.start + 2 * LONGEST_IN_MEMORY))


def header_seconds(
    source: Path | bytes | np.ndarray, sample_rate: int, policy: MediaPolicy = LOCAL, span: Span = WHOLE
) -> float:
    """Seconds of a recording within `span`, by its header.

    Returns 0 if the header gives no length or the file cannot be read; reading the file raises the error
    later. Raises AntiphonError for data that is not audio, and for a header with an impossible rate, number
    of channels or length, or with one that `policy` forbids.
    """
    if isinstance(source, np.ndarray):
        seconds = max(source.shape, default=0) / max(sample_rate, 1)  # the longer axis is time
        check_sound(sample_rate, 1, seconds, policy, span)
        return span.heard(seconds)
    check_wav_rate(source, policy)
    try:
        with open_sound(source) as file:
            if file.frames:  # 0: see recording._file_blocks
                seconds = file.frames / max(file.samplerate, 1)
                check_sound(file.samplerate, file.channels, seconds, policy, span)
                return span.heard(seconds)
    except SOUNDFILE_ERRORS:
        pass
    if find_spec("av") is None:
        return 0.0
    with open_container(source, "audio", policy, describe(source)) as container:
        seconds = max(
            (track_seconds(container, stream) for stream in container.streams.audio[:1]), default=0.0
        )
        policy.check_seconds(seconds, "audio", span)
        return span.heard(seconds)


def check_wav_rate(source: Path | bytes, policy: MediaPolicy) -> None:
    """Raise AntiphonError for a WAV file with an impossible rate; the libraries only report a broken file."""
    with open_media(source) as stream:
        head = stream.read(HEAD)
        place = 12
        while head[:4] == b"RIFF" and head[8:12] == b"WAVE" and place + 16 <= len(head):
            if head[place : place + 4] == b"fmt ":
                return check_sound(int.from_bytes(head[place + 12 : place + 16], "little"), 1, 0.0, policy)
            size = int.from_bytes(head[place + 4 : place + 8], "little")
            place += 8 + size + size % 2


def stream_calls(
    stream: AudioStream,
    rows: np.ndarray,
    n_window: int,
    n_window_infer: int,
    convolutions: int,
    max_windows: int = 8,
) -> Iterator[EncoderCall]:
    """Yield the calls for a recording whose tokens are at `rows`.

    Calls made in order read the recording once; any other order starts it again.
    """
    calls = _Reader(stream, max_windows)
    tokens = max_windows * audio_tokens(window_frames(n_window, n_window_infer), n_window, convolutions)
    for number, first in enumerate(range(0, len(rows), tokens)):
        yield EncoderCall(AUDIO, partial(calls.feeds, number), rows[first : first + tokens])


class _Reader:
    """The feeds of a stream's calls, by call number. Only one thread may use it at a time."""

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
