"""Log-mel spectrograms of the kind on which the Thinker's audio encoder was trained.

Source: WhisperFeatureExtractor as Qwen3OmniMoeProcessor calls it (transformers 5.23). Clips of one call are
zero-padded to the longest, the computation uses float64, the last frame is dropped, and the dynamic range is
cut to 8 decades below the maximum of the clip.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np

MEL_FLOOR = 1e-10
DYNAMIC_RANGE = np.float32(8.0)
"""Decades below the maximum that are kept."""
FRAMES_PER_BLOCK = 512
"""Frames transformed at a time. A block stays in the processor's cache, and hour-long audio needs little
working memory.
"""


@dataclass(frozen=True)
class MelSettings:
    """Constants of the spectrogram: samples a second, window and hop in samples, number of mel bands."""

    sampling_rate: int = 16000
    n_fft: int = 400
    hop_length: int = 160
    feature_size: int = 128


def log_mel(clips: Sequence[np.ndarray], settings: MelSettings) -> list[np.ndarray]:
    """Return the log-mel features of clips that go through the encoder together.

    `clips`: float32 [samples] at `settings.sampling_rate`, none empty. Returns one float32 [feature_size,
    frames] per clip, where frames = floor(samples / hop) for the longest clip and at most ceil(samples / hop)
    for the others. If the longest clip is shorter than one window, it is zero-padded to a window (the
    reference cannot process it).
    """
    longest = max(settings.n_fft, *(len(clip) for clip in clips))
    total_frames = longest // settings.hop_length
    features = []
    for clip in clips:
        padded = np.zeros(longest, np.float32)
        padded[: len(clip)] = clip
        spectrogram = _log_spectrogram(padded, settings, total_frames)
        valid = (
            total_frames if len(clip) == longest else min(total_frames, -(-len(clip) // settings.hop_length))
        )
        features.append(np.ascontiguousarray(spectrogram[:, :valid]))
    return features


def _log_spectrogram(clip: np.ndarray, settings: MelSettings, frames: int) -> np.ndarray:
    """float32 [feature_size, frames] of one padded clip."""
    power = log_power(np.pad(clip, settings.n_fft // 2, mode="reflect"), settings, frames)
    return normalise(power, power.max())


def log_power(signal: np.ndarray, settings: MelSettings, frames: int) -> np.ndarray:
    """Decimal logarithms of the power in the mel bands: float32 [feature_size, frames].

    Frame i covers signal[i * hop_length :][:n_fft]. Its values depend on these samples alone, to the last
    bit, so the frames of a piece of a recording equal those of the whole.
    """
    result: np.ndarray = np.empty((settings.feature_size, frames), np.float32)
    if frames == 0:
        return result
    windows = np.lib.stride_tricks.sliding_window_view(signal, settings.n_fft)[:: settings.hop_length]
    # periodic Hann, float64
    window = 0.5 - 0.5 * np.cos(2.0 * np.pi * np.arange(settings.n_fft) / settings.n_fft)
    bins, weights, starts = _filter_bins(settings)
    for start in range(0, frames, FRAMES_PER_BLOCK):
        # [block, n_fft / 2 + 1]
        spectrum = np.fft.rfft(windows[start : min(start + FRAMES_PER_BLOCK, frames)] * window)
        power = spectrum.real**2 + spectrum.imag**2
        # No matrix product: the order of its sums, and with it the last bit, would depend
        # on the number of frames.
        bands = np.add.reduceat(power[:, bins] * weights, starts, axis=1)  # [block, feature_size]
        result[:, start : start + len(bands)] = np.log10(np.maximum(MEL_FLOOR, bands)).T
    return result


def normalise(power: np.ndarray, maximum: np.float32) -> np.ndarray:
    """The input of the encoder: `power` (see `log_power`), clipped at DYNAMIC_RANGE below `maximum` and
    scaled; float32 of the same shape.
    """
    return (np.maximum(power, maximum - DYNAMIC_RANGE) + np.float32(4.0)) / np.float32(4.0)


@cache
def _filter_bins(settings: MelSettings) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The filters without their zeros, joined over the bands: frequency bins, weights, and the start of each
    band.
    """
    bins: list[np.ndarray] = []
    weights: list[np.ndarray] = []
    for band in mel_filters(settings):
        # a band that covers no bin keeps one with weight 0
        inside = np.flatnonzero(band) if band.any() else np.zeros(1, np.int64)
        bins.append(inside)
        weights.append(band[inside])
    return (
        np.concatenate(bins),
        np.concatenate(weights),
        np.cumsum([0, *(len(inside) for inside in bins[:-1])]),
    )


@cache
def mel_filters(settings: MelSettings) -> np.ndarray:
    """Slaney's triangular mel filters of unit area from 0 Hz to 8 kHz: float64 [feature_size, n_fft / 2 + 1].

    Source: Slaney, Auditory Toolbox (1998): linear below 1 kHz, logarithmic above.
    """
    edges = _slaney_to_hertz(
        np.linspace(_hertz_to_slaney(0.0), _hertz_to_slaney(8000.0), settings.feature_size + 2)
    )
    bins = np.linspace(0, settings.sampling_rate // 2, settings.n_fft // 2 + 1)
    left, centre, right = edges[:-2, None], edges[1:-1, None], edges[2:, None]
    triangles = np.maximum(
        0.0, np.minimum((bins - left) / (centre - left), (right - bins) / (right - centre))
    )
    filters: np.ndarray = triangles * (2.0 / (right - left))
    return filters


BREAK_HERTZ, BREAK_MEL, LOG_STEP = 1000.0, 15.0, 27.0 / np.log(6.4)


def _hertz_to_slaney(frequency: float) -> float:
    return (
        3.0 * frequency / 200.0
        if frequency < BREAK_HERTZ
        else float(BREAK_MEL + np.log(frequency / BREAK_HERTZ) * LOG_STEP)
    )


def _slaney_to_hertz(mels: np.ndarray) -> np.ndarray:
    return np.where(mels < BREAK_MEL, 200.0 * mels / 3.0, BREAK_HERTZ * np.exp((mels - BREAK_MEL) / LOG_STEP))
