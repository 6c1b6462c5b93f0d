"""Reading audio of any common format, rate and channel count as mono float32 at the model's rate."""

from __future__ import annotations

import io
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import soxr

from ..errors import AntiphonError, missing_extra
from ..said import reason, short_path
from .crop import cropped, cropped_array
from .media_options import WHOLE, Span
from .media_source import resolve_source
from .samples import columns, whole_array

BLOCK_SAMPLES = 2**20
"""Samples read at a time: a broken header that claims terabytes must not reserve them."""

LOUDEST = 2.0**32
"""Floats in the units of 32-bit integers still pass; what is far beyond overflows in the spectrum and is no sound."""

SOUNDFILE_ERRORS = (soundfile.LibsndfileError, RuntimeError)
"""What `file_blocks` raises for a file that PyAV may be able to read."""


def read_audio(source: Any, sample_rate: int, target_rate: int, span: Span = WHOLE) -> np.ndarray:
    """The clip in `source` as float32 [samples], mono, at `target_rate` Hz.

    `source`: what `media_source.resolve_source` takes (WAV, FLAC, OGG, MP3; M4A, MP4, MKV and WebM through PyAV), or an array
    (see samples.whole_array) at `sample_rate` Hz. `span` is the part of it that is heard. Raises AntiphonError for empty or broken audio and for NaN samples.
    """
    if isinstance(source, np.ndarray):
        samples, rate = columns(cropped_array(whole_array(source), sample_rate, span)), sample_rate
    else:
        samples, rate = _decode(resolve_source(source, "audio"), span)
    return to_mono(samples, rate, target_rate)


def to_mono(samples: np.ndarray, rate: int, target_rate: int) -> np.ndarray:
    """float32 [samples, channels] at `rate` Hz to float32 [samples] at `target_rate` Hz: mean over channels, soxr HQ."""
    if samples.shape[0] == 0:
        raise no_samples()
    mono = mixed_down(samples)
    if rate != target_rate:
        mono = soxr.resample(mono, rate, target_rate, quality="HQ")
        if len(mono) == 0:
            raise too_few_samples(rate, target_rate)
    return np.ascontiguousarray(mono, np.float32)


def mixed_down(samples: np.ndarray) -> np.ndarray:
    """float32 [samples], the mean over the channels of float32 [samples, channels]. Raises AntiphonError for NaN, infinite and huge samples."""
    if not (np.abs(samples) <= LOUDEST).all():  # not of NaN either
        raise AntiphonError("The audio has samples that are NaN, infinite or far beyond -1 .. 1; repair the recording.")
    mixed: np.ndarray = samples.mean(axis=1, dtype=np.float32) if samples.shape[1] > 1 else samples[:, 0]
    return mixed


Blocks = Iterator[tuple[np.ndarray, int]]
"""Pieces of a recording in order, float32 [up to BLOCK_SAMPLES or one more frame, channels], each with the sample rate."""


def file_blocks(source: Path | bytes) -> Blocks:
    """A file through libsndfile. Raises soundfile.LibsndfileError or RuntimeError where libsndfile cannot read it, or not to its end."""
    with soundfile.SoundFile(io.BytesIO(source) if isinstance(source, bytes) else source) as file:
        if not file.frames:  # libsndfile believes a data size of 0, which is how recordings are left that were cut off; FFmpeg reads on
            raise RuntimeError("no samples")
        while len(block := file.read(BLOCK_SAMPLES, dtype="float32", always_2d=True)):
            yield block, int(file.samplerate)


def track_blocks(source: Path | bytes) -> Blocks:
    """The first audio track of a media file through PyAV. Raises AntiphonError for a broken file and for one without an audio track."""
    try:
        import av
    except ImportError:
        raise missing_extra("av", "media", f"Reading audio from {describe(source)}") from None
    try:
        with av.open(io.BytesIO(source) if isinstance(source, bytes) else str(source), mode="r") as container:
            if not container.streams.audio:
                raise _NoTrack(f"The audio {describe(source)} holds no audio track; give a recording.")
            stream = container.streams.audio[0]
            planar = av.AudioResampler(format="fltp")  # changes the sample format only, neither rate nor channels
            pieces: list[np.ndarray] = []
            held = 0
            for frame in chain(container.decode(stream), [None]):
                for piece in planar.resample(frame):
                    pieces.append(piece.to_ndarray())
                    held += pieces[-1].shape[1]
                if pieces and (held >= BLOCK_SAMPLES or frame is None):
                    yield np.ascontiguousarray(np.concatenate(pieces, axis=1).T, np.float32), int(stream.rate)
                    pieces, held = [], 0
    except (av.FFmpegError, ValueError) as error:
        raise AntiphonError(f"{describe(source)} cannot be read as audio ({reason(error)}); give WAV, FLAC, OGG, MP3, M4A, MP4, MKV or WebM.") from None


def read_audio_track(source: Path | bytes, span: Span = WHOLE) -> tuple[np.ndarray, int] | None:
    """The first audio track of a media file as (float32 [samples, channels], rate), or None where it has none; decoded by PyAV."""
    try:
        return _joined(cropped(track_blocks(source), span, round))
    except _NoTrack:
        return None


class _NoTrack(AntiphonError):
    """A media file without sound, which is an error only for who wants its sound."""


def _decode(source: Path | bytes, span: Span) -> tuple[np.ndarray, int]:
    """float32 [samples, channels] and the rate of a file: by libsndfile, else by PyAV."""
    try:
        return _joined(cropped(file_blocks(source), span))
    except SOUNDFILE_ERRORS:
        return _joined(cropped(track_blocks(source), span))


def _joined(blocks: Blocks) -> tuple[np.ndarray, int]:
    pieces = list(blocks)
    return (np.concatenate([samples for samples, _ in pieces]), pieces[0][1]) if pieces else (np.zeros((0, 1), np.float32), 0)


def no_samples() -> AntiphonError:
    """What is wrong with an empty recording."""
    return AntiphonError("The audio has no samples; give a clip that is longer than 0 seconds.")


def too_few_samples(rate: int, target_rate: int) -> AntiphonError:
    """What is wrong with a recording that resampling leaves nothing of."""
    return AntiphonError(f"The audio has too few samples to be resampled from {rate} to {target_rate} Hz; give a longer clip.")


def describe(source: Path | bytes) -> str:
    """How a message calls the source."""
    return f"data of {len(source):,} bytes" if isinstance(source, bytes) else short_path(source)
