"""Feeds of the audio encoder during speech: each full attention window, before the end is known."""

from __future__ import annotations

import numpy as np

from ...bundle.errors import InvalidInput
from .audio_layout import Feeds, audio_tokens, window_calls, window_frames
from .mel import MelSettings, normalise
from .mel_stream import LogPowerStream, MonoStream
from .samples import columns


class LiveAudio:
    """Samples in, feeds of whole attention windows (8 s each) out, one window per call.

    One thing differs from a finished recording. Log-mel features are cut 8 decades below the maximum of the
    clip, but a window is normalised by the maximum up to its own end. If nothing louder follows, the feeds
    equal those of `audio_calls` with one window per call, to the last bit; otherwise `largest_difference` is
    the error. The result does not depend on how the samples are divided into pushes.
    """

    def __init__(
        self,
        settings: MelSettings,
        n_window: int,
        n_window_infer: int,
        convolutions: int = 3,
        sample_rate: int | None = None,
    ) -> None:
        """`sample_rate`: rate of the pushed samples in Hz; None is the model's rate, 16 kHz."""
        self._mono = MonoStream(sample_rate or settings.sampling_rate, settings.sampling_rate)
        self._power = LogPowerStream(settings)
        self._n_window, self._n_window_infer, self._convolutions = n_window, n_window_infer, convolutions
        # log power of the window that is not full yet
        self._pending: np.ndarray = np.zeros((settings.feature_size, 0), np.float32)
        self._maximum = np.float32(-np.inf)  # up to the end of the last window returned
        self._lowest = np.float32(np.inf)  # smallest feature returned
        self._is_finished = False

    @property
    def tokens(self) -> int:
        """Tokens of all feeds returned so far."""
        return audio_tokens(self._power.frames - self._pending.shape[1], self._n_window, self._convolutions)

    @property
    def largest_difference(self) -> float:
        """The largest error of a returned feature against normalisation by the maximum of all audio so far;
        0.25 is one decade of power.
        """
        lowest_allowed = normalise(np.array(-np.inf, np.float32), self._power.maximum)
        return max(0.0, float(lowest_allowed - self._lowest))

    def push(self, samples: np.ndarray) -> list[Feeds]:
        """Take further samples and return the feeds of the windows that are now full.

        samples: float32 [n], or any array that `samples.columns` takes. Raises AntiphonError for NaN,
        infinite and huge samples, for an array that is not audio, and after `finish`.
        """
        self._check_open()
        self._take(self._power.push(self._mono.push(columns(samples))))
        return self._full_windows()

    def finish(self) -> list[Feeds]:
        """Return the feeds of the remaining audio. Raises AntiphonError if no audio was pushed, and on a
        second call.
        """
        self._check_open()
        self._take(self._power.push(self._mono.finish()))
        self._take(self._power.finish())
        self._is_finished = True
        feeds = self._full_windows()
        if self._pending.shape[1]:
            # in a clip shorter than one spectrum, the maximum may lie in its padding
            self._maximum = self._power.maximum
            feeds.append(self._feeds(self._pending.shape[1]))
        return feeds

    def _check_open(self) -> None:
        if self._is_finished:
            raise InvalidInput("This live audio was finished; make a new one for further sound.")

    def _take(self, power: np.ndarray) -> None:
        self._pending = np.concatenate([self._pending, power], axis=1)

    def _full_windows(self) -> list[Feeds]:
        size = window_frames(self._n_window, self._n_window_infer)
        return [self._feeds(size) for _ in range(self._pending.shape[1] // size)]

    def _feeds(self, frames: int) -> Feeds:
        """Return the feeds of the next `frames` frames and drop these frames."""
        power, self._pending = self._pending[:, :frames], self._pending[:, frames:].copy()
        self._maximum = max(self._maximum, power.max())
        features = normalise(power, self._maximum)
        self._lowest = min(self._lowest, features.min())
        longest_chunk = min(2 * self._n_window, self._power.frames)
        (feeds,) = window_calls(
            [features], self._n_window, self._n_window_infer, longest_chunk, 1, self._convolutions
        )
        return feeds
