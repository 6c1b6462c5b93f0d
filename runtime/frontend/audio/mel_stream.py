"""Sound that comes in pieces: mono at the model's rate, then the power of its mel bands, the same as of the whole to the last bit."""

from __future__ import annotations

import numpy as np
import soxr

from .mel import MelSettings, log_power
from .recording import mixed_down, no_samples, too_few_samples


class MonoStream:
    """A recording that comes piece by piece, mono and at another rate: the pieces joined are what `audio.to_mono` makes of the whole."""

    def __init__(self, rate: int, target_rate: int) -> None:
        self._rates = rate, target_rate
        self._resampler = soxr.ResampleStream(rate, target_rate, 1, dtype="float32", quality="HQ") if rate != target_rate else None
        self._given = self._made = 0

    def push(self, samples: np.ndarray) -> np.ndarray:
        """float32 [n, channels] to float32 [m]. Raises AntiphonError for NaN, infinite and huge samples."""
        mono = np.ascontiguousarray(mixed_down(samples), np.float32)
        self._given += len(mono)
        return mono if self._resampler is None else self._resampled(mono, False)

    def finish(self) -> np.ndarray:
        """The last samples, float32 [m]. Raises AntiphonError where no samples came, or too few to be resampled."""
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
    """`mel.log_power` of a recording that comes piece by piece, with the reflected samples at both ends that `mel.log_mel` gives it.

    `push` returns the frames that the samples so far decide, `finish` the rest: together floor(samples / hop_length) of them, or, where
    there are fewer samples than one window, those that `log_mel` keeps. `maximum`: the largest value yet, in the end the clip's.
    """

    def __init__(self, settings: MelSettings) -> None:
        assert settings.hop_length <= settings.n_fft // 2, "frames further apart could reach beyond the last one that log_mel has"
        self._settings = settings
        self._half = settings.n_fft // 2
        self._signal: np.ndarray = np.zeros(0, np.float32)  # from the start of the next frame; without the reflection until there is enough for it
        self._is_reflected = False
        self.samples = 0
        self.frames = 0
        self.maximum = np.float32(-np.inf)

    def push(self, samples: np.ndarray) -> np.ndarray:
        """Further samples float32 [n]; returns float32 [feature_size, frames]."""
        self.samples += len(samples)
        self._signal = np.concatenate([self._signal, samples])
        if not self._is_reflected:
            if self.samples < self._settings.n_fft:
                return log_power(self._signal, self._settings, 0)
            self._signal = np.concatenate([self._signal[self._half : 0 : -1], self._signal])
            self._is_reflected = True
        return self._frames((len(self._signal) - self._settings.n_fft) // self._settings.hop_length + 1)

    def finish(self) -> np.ndarray:
        """The last frames, float32 [feature_size, frames]. Raises AntiphonError where no sample came."""
        settings, samples = self._settings, self.samples
        if samples == 0:
            raise no_samples()
        if samples < settings.n_fft:  # silence makes it one window, and decides the maximum with it
            padded = self.push(np.zeros(settings.n_fft - samples, np.float32))
            padded = np.concatenate([padded, self.finish()], axis=1)
            self.samples, self.frames = samples, min(padded.shape[1], -(-samples // settings.hop_length))
            return np.ascontiguousarray(padded[:, : self.frames])
        reflected = self._half - settings.hop_length  # further no frame reaches
        self._signal = np.concatenate([self._signal, self._signal[-2 : -2 - reflected : -1]])
        return self._frames(samples // settings.hop_length - self.frames)

    def _frames(self, count: int) -> np.ndarray:
        """The next `count` frames, after which their hops are let go."""
        power = log_power(self._signal, self._settings, max(count, 0))
        self._signal = self._signal[power.shape[1] * self._settings.hop_length :].copy()
        self.frames += power.shape[1]
        if power.size:
            self.maximum = max(self.maximum, power.max())
        return power
