"""Read audio of any common format, rate and channel count as mono float32 at the model's rate."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import soxr

from ...bundle.errors import AntiphonError, InvalidInput
from ...bundle.said import short_path
from ..media.av_container import decoded, open_container
from ..media.media_file import open_media
from ..media.media_formats import require_format
from ..media.media_options import SAMPLE_RATES, WHOLE, Span
from ..media.media_policy import LOCAL, MediaPolicy
from ..media.media_source import resolve_source
from ..vision.crop import cropped, cropped_array
from .samples import MOST_CHANNELS, columns, whole_array

BLOCK_SAMPLES = 2**20
"""Samples read at a time, so that a broken header that claims terabytes reserves no memory for them."""

LOUDEST = 2.0**32
"""The largest absolute sample. Floats in the units of 32-bit integers are accepted; much larger values would
overflow in the spectrum.
"""

SOUNDFILE_ERRORS = (soundfile.LibsndfileError, RuntimeError)
"""Errors of `file_blocks` after which PyAV may still read the file."""


def read_audio(
    source: Any, sample_rate: int, target_rate: int, policy: MediaPolicy = LOCAL, span: Span = WHOLE
) -> np.ndarray:
    """Read the clip in `source` as mono float32 [samples] at `target_rate` Hz.

    `source`: anything that `media_source.resolve_source` takes (WAV, FLAC, OGG, MP3; M4A, MP4, MKV and WebM
    through PyAV), or an array (see samples.whole_array) at `sample_rate` Hz. `span`: the part of the clip
    that is read. Raises AntiphonError for empty or broken audio, for NaN samples and for media that `policy`
    forbids.
    """
    if isinstance(source, np.ndarray):
        samples, rate = columns(heard_array(source, sample_rate, policy, span)), sample_rate
    else:
        samples, rate = _decode(resolve_source(source, "audio", policy), policy, span)
    return to_mono(samples, rate, target_rate)


def to_mono(samples: np.ndarray, rate: int, target_rate: int) -> np.ndarray:
    """Convert float32 [samples, channels] at `rate` Hz to float32 [samples] at `target_rate` Hz.

    Takes the mean over the channels and resamples with soxr HQ. Raises AntiphonError if no samples remain.
    """
    if samples.shape[0] == 0:
        raise no_samples()
    mono = mixed_down(samples)
    if rate != target_rate:
        mono = soxr.resample(mono, rate, target_rate, quality="HQ")
        if len(mono) == 0:
            raise too_few_samples(rate, target_rate)
    return np.ascontiguousarray(mono, np.float32)


def mixed_down(samples: np.ndarray) -> np.ndarray:
    """The mean over the channels of float32 [samples, channels]: float32 [samples].

    Raises AntiphonError for NaN, infinite and huge samples.
    """
    if not (np.abs(samples) <= LOUDEST).all():  # false for NaN, too
        raise InvalidInput(
            "The audio has samples that are NaN, infinite or far beyond -1 .. 1; repair the recording."
        )
    mixed: np.ndarray = samples.mean(axis=1, dtype=np.float32) if samples.shape[1] > 1 else samples[:, 0]
    return mixed


Blocks = Iterator[tuple[np.ndarray, int]]
"""Pieces of a recording in order, each with its sample rate in Hz: float32 [up to BLOCK_SAMPLES plus one
decoder frame, channels].
"""


def heard_array(samples: np.ndarray, rate: int, policy: MediaPolicy, span: Span) -> np.ndarray:
    """The samples of `span` of an array, in the dtype of the array (see samples.whole_array).

    Raises AntiphonError for an array that is not audio, and for one that `policy` forbids.
    """
    samples = whole_array(samples)
    check_sound(rate, 1, len(samples) / max(rate, 1), policy, span)
    return cropped_array(samples, rate, span)


def check_sound(rate: int, channels: int, seconds: float, policy: MediaPolicy, span: Span = WHOLE) -> None:
    """Raise AntiphonError for an impossible sample rate or number of channels, and for more seconds of `span`
    than `policy` allows.
    """
    slowest, fastest = SAMPLE_RATES
    if not slowest <= rate <= fastest:
        raise InvalidInput(
            f"The audio has a sample rate of {rate:,} Hz, expected {slowest:,} to {fastest:,}; "
            "give it at its true rate."
        )
    if not 1 <= channels <= MOST_CHANNELS:
        raise InvalidInput(f"The audio has {channels} channels, expected 1 to {MOST_CHANNELS}; mix it down.")
    policy.check_seconds(seconds, "audio", span)


@contextmanager
def open_sound(source: Path | bytes) -> Iterator[Any]:
    """Open a file with libsndfile, which gets the open file but not its name.

    Raises AntiphonError for a file that is not audio, and SOUNDFILE_ERRORS.
    """
    found = require_format(source, "audio", describe(source))
    # libsndfile's MP3 decoder writes to the terminal about damaged frames
    if not found.soundfile or (found.demuxer == "mp3" and find_spec("av") is not None):
        raise RuntimeError(f"{found.name} is left to PyAV")
    with (
        open_media(source) as stream,
        soundfile.SoundFile(stream if isinstance(source, bytes) else stream.fileno(), closefd=False) as file,
    ):
        yield file


def file_blocks(source: Path | bytes, policy: MediaPolicy = LOCAL, span: Span = WHOLE) -> Blocks:
    """Read the `span` of a file with libsndfile.

    Raises soundfile.LibsndfileError or RuntimeError if libsndfile cannot read the file or is not used for its
    format.
    """
    return cropped(_file_blocks(source, policy, span), span)


def _file_blocks(source: Path | bytes, policy: MediaPolicy, span: Span) -> Blocks:
    """Yield a file from its beginning. The caller stops after the end of `span`."""
    with open_sound(source) as file:
        # an interrupted recording has a data size of 0: libsndfile accepts it, FFmpeg reads on
        if not file.frames:
            raise RuntimeError("no samples")
        rate = int(file.samplerate)
        check_sound(rate, file.channels, file.frames / max(rate, 1), policy, span)
        read = 0
        while len(
            block := file.read(BLOCK_SAMPLES * 2 // max(2, file.channels), dtype="float32", always_2d=True)
        ):
            read += len(block)
            policy.check_seconds(read / rate, "audio", span)
            yield block, rate


def track_blocks(source: Path | bytes, policy: MediaPolicy = LOCAL, span: Span = WHOLE) -> Blocks:
    """Read the `span` of the first audio track of a media file with PyAV.

    Raises AntiphonError for a broken file and for a file without an audio track.
    """
    return cropped(_track_blocks(source, policy, span), span, round)


def _track_blocks(source: Path | bytes, policy: MediaPolicy, span: Span) -> Blocks:
    """Yield the track from its beginning. The caller stops after the end of `span`."""
    label = describe(source)
    with open_container(source, "audio", policy, label) as container:
        import av

        if not container.streams.audio:
            raise _NoTrack(f"The audio {label} holds no audio track; give a recording.")
        stream = container.streams.audio[0]
        frames = decoded(container, stream, policy, label)
        rate = int(stream.rate or 0)
        check_sound(rate, stream.channels, track_seconds(container, stream), policy, span)
        planar = av.AudioResampler(format="fltp")  # changes the sample format only, neither rate nor channels
        pieces: list[np.ndarray] = []
        held = read = 0
        for frame in chain(frames, [None]):
            for piece in planar.resample(frame):
                pieces.append(piece.to_ndarray())
                held += pieces[-1].shape[1]
            if pieces and (held >= BLOCK_SAMPLES * 2 // max(2, len(pieces[0])) or frame is None):
                read += held
                policy.check_seconds(read / rate, "audio", span)
                yield np.ascontiguousarray(np.concatenate(pieces, axis=1).T, np.float32), rate
                pieces, held = [], 0


def track_seconds(container: Any, stream: Any) -> float:
    """Seconds of a track of a PyAV container; 0 if the container does not give them."""
    import av

    if stream.duration is not None and stream.time_base is not None:
        return float(stream.duration * stream.time_base)
    return float((container.duration or 0) / av.time_base)


def read_audio_track(
    source: Path | bytes, policy: MediaPolicy = LOCAL, span: Span = WHOLE
) -> tuple[np.ndarray, int] | None:
    """The first audio track of a media file, decoded by PyAV: (float32 [samples, channels], rate), or None if
    there is no audio track.
    """
    try:
        return _joined(track_blocks(source, policy, span))
    except _NoTrack:
        return None


class _NoTrack(AntiphonError):
    """A media file without an audio track. It is an error only for callers that need audio."""


def _decode(source: Path | bytes, policy: MediaPolicy, span: Span) -> tuple[np.ndarray, int]:
    """float32 [samples, channels] and the rate of a file, read by libsndfile or else by PyAV."""
    try:
        return _joined(file_blocks(source, policy, span))
    except SOUNDFILE_ERRORS:
        return _joined(track_blocks(source, policy, span))


def _joined(blocks: Blocks) -> tuple[np.ndarray, int]:
    pieces = list(blocks)
    return (
        (np.concatenate([samples for samples, _ in pieces]), pieces[0][1])
        if pieces
        else (np.zeros((0, 1), np.float32), 0)
    )


def no_samples() -> InvalidInput:
    """The error for an empty recording."""
    return InvalidInput("The audio has no samples; give a clip that is longer than 0 seconds.")


def too_few_samples(rate: int, target_rate: int) -> InvalidInput:
    """The error for a recording that is too short to resample."""
    return InvalidInput(
        f"The audio has too few samples to be resampled from {rate} to {target_rate} Hz; give a longer clip."
    )


def describe(source: Path | bytes) -> str:
    """The name of the source in error messages."""
    return f"data of {len(source):,} bytes" if isinstance(source, bytes) else short_path(source)
