"""Reading audio of any common format, rate and channel count as mono float32 at the model's rate."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import soxr

from ..errors import AntiphonError, missing_extra
from .media_source import resolve_source

BLOCK_SAMPLES = 2**20
"""Samples read at a time: a broken header that claims terabytes must not reserve them."""

LOUDEST = 2.0**32
"""Floats in the units of 32-bit integers still pass; what is far beyond overflows in the spectrum and is no sound."""

MOST_CHANNELS = 64
"""More columns than this are samples, not channels: the array is then the wrong way round."""


def read_audio(source: Any, sample_rate: int, target_rate: int) -> np.ndarray:
    """The clip in `source` as float32 [samples], mono, at `target_rate` Hz.

    `source`: what `media_source.resolve_source` takes (WAV, FLAC, OGG, MP3; M4A, MP4, MKV and WebM through PyAV), or an array [samples]
    or [samples, channels] of floats or int16 at `sample_rate` Hz. Raises AntiphonError for empty or broken audio and for NaN samples.
    """
    if isinstance(source, np.ndarray):
        samples, rate = _array(source), sample_rate
    else:
        resolved = resolve_source(source, "audio")
        samples, rate = _decode(resolved)
    return to_mono(samples, rate, target_rate)


def to_mono(samples: np.ndarray, rate: int, target_rate: int) -> np.ndarray:
    """float32 [samples, channels] at `rate` Hz to float32 [samples] at `target_rate` Hz: mean over channels, soxr HQ."""
    if samples.shape[0] == 0:
        raise AntiphonError("The audio has no samples; give a clip that is longer than 0 seconds.")
    if not (np.abs(samples) <= LOUDEST).all():  # not of NaN either
        raise AntiphonError("The audio has samples that are NaN, infinite or far beyond -1 .. 1; repair the recording.")
    mono = samples.mean(axis=1, dtype=np.float32) if samples.shape[1] > 1 else samples[:, 0]
    if rate != target_rate:
        mono = soxr.resample(mono, rate, target_rate, quality="HQ")
        if len(mono) == 0:
            raise AntiphonError(f"The audio has too few samples to be resampled from {rate} to {target_rate} Hz; give a longer clip.")
    return np.ascontiguousarray(mono, np.float32)


def _array(samples: np.ndarray) -> np.ndarray:
    """float32 [samples, channels]."""
    if samples.ndim not in (1, 2) or (samples.ndim == 2 and not 1 <= samples.shape[1] <= MOST_CHANNELS):
        raise AntiphonError(f"The audio array has the shape {list(samples.shape)}; expected [samples] or [samples, channels].")
    if samples.dtype == np.int16:
        samples = samples.astype(np.float32) / np.float32(32768)
    elif samples.dtype not in (np.float16, np.float32, np.float64):
        raise AntiphonError(f"The audio array holds {samples.dtype}; expected float32 in -1 .. 1 or int16.")
    with np.errstate(over="ignore"):  # beyond float32: infinite, which to_mono refuses
        return samples.astype(np.float32).reshape(len(samples), -1) if samples.size else np.zeros((0, 1), np.float32)


def _decode(source: Path | bytes) -> tuple[np.ndarray, int]:
    """float32 [samples, channels] and the rate of a file: by libsndfile, else by PyAV."""
    try:
        with soundfile.SoundFile(io.BytesIO(source) if isinstance(source, bytes) else source) as file:
            blocks = []
            while len(block := file.read(BLOCK_SAMPLES, dtype="float32", always_2d=True)):
                blocks.append(block)
            return np.concatenate(blocks) if blocks else np.zeros((0, 1), np.float32), int(file.samplerate)
    except (soundfile.LibsndfileError, RuntimeError):
        pass
    track = read_audio_track(source)
    if track is None:
        raise AntiphonError(f"The audio {describe(source)} holds no audio track; give a recording.")
    return track


def read_audio_track(source: Path | bytes) -> tuple[np.ndarray, int] | None:
    """The first audio track of a media file as (float32 [samples, channels], rate), or None where it has none; decoded by PyAV."""
    try:
        import av
    except ImportError:
        raise missing_extra("av", "media", f"Reading audio from {describe(source)}") from None
    try:
        with av.open(io.BytesIO(source) if isinstance(source, bytes) else str(source), mode="r") as container:
            if not container.streams.audio:
                return None
            stream = container.streams.audio[0]
            planar = av.AudioResampler(format="fltp")  # changes the sample format only, neither rate nor channels
            blocks = [block.to_ndarray() for frame in container.decode(stream) for block in planar.resample(frame)]
            blocks += [block.to_ndarray() for block in planar.resample(None)]
            rate = int(stream.rate)
    except (av.FFmpegError, ValueError) as error:
        raise AntiphonError(f"{describe(source)} cannot be read as audio ({error}); give WAV, FLAC, OGG, MP3, M4A, MP4, MKV or WebM.") from None
    samples = np.concatenate(blocks, axis=1).T if blocks else np.zeros((0, 1), np.float32)
    return np.ascontiguousarray(samples, np.float32), rate


def describe(source: Path | bytes) -> str:
    """How a message calls the source."""
    return f"data of {len(source):,} bytes" if isinstance(source, bytes) else str(source)
