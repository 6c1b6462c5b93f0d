"""Mono audio at the model's rate, and the power of its mel bands, from a recording that arrives in pieces.

All results equal those of the whole recording, to the last bit.
"""

from __future__ import annotations

import numpy as np
import soxr

from .mel import MelSettings, log_power
from .recording import mixed_down, no_samples, too_few_samples


class MonoStream:
    """Mix down and resample a recording piece by piece. The joined pieces equal `recording.to_mono` of the
    whole.
    """

    def __init__(self, rate: int, target_rate: int) -> None:
        self._rates = rate, target_rate
        self._resampler = (
            soxr.ResampleStream(rate, target_rate, 1, dtype="float32", quality="HQ")
            if rate != target_rate
            else None
        )
        self._given = self._made = 0

    def push(self, samples: np.ndarray) -> np.ndarray:
        """Convert float32 [n, channels] to float32 [m]. Raises AntiphonError for NaN, infinite and huge
        samples.
        """
        mono = np.ascontiguousarray(mixed_down(samples), np.float32)
        self._given += len(mono)
        return mono if self._resampler is None else self._resampled(mono, False)

    def finish(self) -> np.ndarray:
        """Return the last samples, float32 [m]. Raises AntiphonError if there are no samples, or too few to
        resample.
        """
        if self._given == 0:
            raise no_samples()
        rest: np.ndarray = np.zeros(0, np.float32)
        if self._resampler is not None:
            rest = self._resampled(rest, True)
            if self._made == 0:
                raise too_few_samples(*self._rates)
        return rest

    def _resampled(self, mono: np.ndarray, is_last: bool) -> np.ndarray:
        assert self._resampler is not None
        samples: np.ndarray = self._resampler.resample_chunk(mono, last=is_last)
        self._made += len(samples)
        return samples


class LogPowerStream:
    """`mel.log_power` of a recording that arrives in pieces, with samples reflected at both ends as in
    `mel.log_mel`.

    `push` returns the frames that are complete so far, `finish` the rest. Together these are floor(samples /
    hop_length) frames. If there are fewer samples than one window, they are the frames that `log_mel` keeps.
    `maximum`: the largest value so far; after `finish`, the maximum of the clip.
    """

    def __init__(self, settings: MelSettings) -> None:
        assert settings.hop_length <= settings.n_fft // 2, (
            "frames further apart could reach beyond the last one that log_mel has"
        )
        self._settings = settings
        self._half = settings.n_fft // 2
        # from the start of the next frame; the reflection is added once there are enough samples
        self._signal: np.ndarray = np.zeros(0, np.float32)
        self._is_reflected = False
        self.samples = 0
        self.frames = 0
        self.maximum = np.float32(-np.inf)

    def push(self, samples: np.ndarray) -> np.ndarray:
        """Take further samples float32 [n]; return the completed frames, float32 [feature_size, frames]."""
        self.samples += len(samples)
        self._signal = np.concatenate([self._signal, samples])
        if not self._is_reflected:
            if self.samples < self._settings.n_fft:
                return log_power(self._signal, self._settings, 0)
            self._signal = np.concatenate([self._signal[self._half : 0 : -1], self._signal])
            self._is_reflected = True
        return self._frames((len(self._signal) - self._settings.n_fft) // self._settings.hop_length + 1)

    def finish(self) -> np.ndarray:
        """Return the last frames, float32 [feature_size, frames]. Raises AntiphonError if there are no
        samples.
        """
        settings, samples = self._settings, self.samples
        if samples == 0:
            raise no_samples()
        if samples < settings.n_fft:  # zero padding fills one window and counts for the maximum
            padded = self.push(np.zeros(settings.n_fft - samples, np.float32))
            padded = np.concatenate([padded, self.finish()], axis=1)
            self.samples, self.frames = samples, min(padded.shape[1], -(-samples // settings.hop_length))
            return np.ascontiguousarray(padded[:, : self.frames])
        reflected = self._half - settings.hop_length  # no frame reaches further
        self._signal = np.concatenate([self._signal, self._signal[-2 : -2 - reflected : -1]])
        return self._frames(samples // settings.hop_length - self.frames)

    def _frames(self, count: int) -> np.ndarray:
        """Return the next `count` frames and drop the samples that no later frame needs."""
        power = log_power(self._signal, self._settings, max(count, 0))
        self._signal = self._signal[power.shape[1] * self._settings.hop_length :].copy()
        self.frames += power.shape[1]
        if power.size:
            self.maximum = max(self.maximum, power.max())
        return power
