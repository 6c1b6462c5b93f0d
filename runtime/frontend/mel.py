"""Log-mel spectrograms as the Thinker's audio encoder was trained on.

Source: WhisperFeatureExtractor as Qwen3OmniMoeProcessor calls it (transformers 5.23): clips of one call are zero-padded to the
longest, float64 inside, the last frame dropped, dynamic range cut to 8 decades below the clip's maximum.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np

MEL_FLOOR = 1e-10
FRAMES_PER_BLOCK = 4096
"""Frames transformed at a time: bounds the working memory of hour-long audio to about 40 MB."""


@dataclass(frozen=True)
class MelSettings:
    """Constants of the spectrogram: samples a second, window and hop in samples, number of mel bands."""

    sampling_rate: int = 16000
    n_fft: int = 400
    hop_length: int = 160
    feature_size: int = 128


def log_mel(clips: Sequence[np.ndarray], settings: MelSettings) -> list[np.ndarray]:
    """The log-mel features of clips that go through the encoder together.

    `clips`: float32 [samples] at `settings.sampling_rate`, none empty. Returns one float32 [feature_size, frames] per clip, where
    frames = floor(samples / hop) for the longest clip and at most ceil(samples / hop) for the others. A call whose longest clip is
    shorter than one window is zero-padded to a window (the reference cannot process it).
    """
    longest = max(settings.n_fft, *(len(clip) for clip in clips))
    total_frames = longest // settings.hop_length
    features = []
    for clip in clips:
        padded = np.zeros(longest, np.float32)
        padded[: len(clip)] = clip
        spectrogram = _log_spectrogram(padded, settings, total_frames)
        valid = total_frames if len(clip) == longest else min(total_frames, -(-len(clip) // settings.hop_length))
        features.append(np.ascontiguousarray(spectrogram[:, :valid]))
    return features


def _log_spectrogram(clip: np.ndarray, settings: MelSettings, frames: int) -> np.ndarray:
    """float32 [feature_size, frames] of one padded clip."""
    half = settings.n_fft // 2
    signal = np.pad(clip, half, mode="reflect")
    windows = np.lib.stride_tricks.sliding_window_view(signal, settings.n_fft)[:: settings.hop_length]
    window = 0.5 - 0.5 * np.cos(2.0 * np.pi * np.arange(settings.n_fft) / settings.n_fft)  # periodic Hann
    filters = mel_filters(settings)
    log_power: np.ndarray = np.empty((settings.feature_size, frames), np.float32)
    for start in range(0, frames, FRAMES_PER_BLOCK):
        block = windows[start : min(start + FRAMES_PER_BLOCK, frames)].astype(np.float64)  # [block, n_fft]
        power = np.abs(np.fft.rfft(block * window)) ** 2  # [block, n_fft / 2 + 1]
        log_power[:, start : start + len(block)] = np.log10(np.maximum(MEL_FLOOR, filters @ power.T))
    log_power = np.maximum(log_power, log_power.max() - np.float32(8.0))
    log_power = (log_power + np.float32(4.0)) / np.float32(4.0)
    return log_power


@cache
def mel_filters(settings: MelSettings) -> np.ndarray:
    """Slaney's triangular mel filters of unit area from 0 Hz to 8 kHz: float64 [feature_size, n_fft / 2 + 1].

    Source: Slaney, Auditory Toolbox (1998): linear below 1 kHz, logarithmic above.
    """
    edges = _slaney_to_hertz(np.linspace(_hertz_to_slaney(0.0), _hertz_to_slaney(8000.0), settings.feature_size + 2))
    bins = np.linspace(0, settings.sampling_rate // 2, settings.n_fft // 2 + 1)
    left, centre, right = edges[:-2, None], edges[1:-1, None], edges[2:, None]
    triangles = np.maximum(0.0, np.minimum((bins - left) / (centre - left), (right - bins) / (right - centre)))
    filters: np.ndarray = triangles * (2.0 / (right - left))
    return filters


BREAK_HERTZ, BREAK_MEL, LOG_STEP = 1000.0, 15.0, 27.0 / np.log(6.4)


def _hertz_to_slaney(frequency: float) -> float:
    return 3.0 * frequency / 200.0 if frequency < BREAK_HERTZ else float(BREAK_MEL + np.log(frequency / BREAK_HERTZ) * LOG_STEP)


def _slaney_to_hertz(mels: np.ndarray) -> np.ndarray:
    return np.where(mels < BREAK_MEL, 200.0 * mels / 3.0, BREAK_HERTZ * np.exp((mels - BREAK_MEL) / LOG_STEP))
