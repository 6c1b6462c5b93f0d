"""Losses between waveforms that ignore phase: short-time spectra with several windows, and log-mel spectra.

Source: Yamamoto et al. 2020 (Parallel WaveGAN), arXiv 1910.11480, section 2.2.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

WINDOWS = (256, 512, 1024, 2048)
MEL_WINDOW = 1024
"""The window whose spectra the log-mel loss uses too."""
FLOOR = 1e-7
"""Minimum power; white noise of unit power has 1 everywhere. It is 48 dB below white noise of speech's
power."""


class SpectralLosses(nn.Module):
    """forward: generated and target waveforms float32 [batch, samples] -> the losses by name.

    They are `logarithm` and `convergence` (means over the windows), and `mel`.
    """

    filters: Tensor

    def __init__(self, rate: int = 24_000, mels: int = 100) -> None:
        super().__init__()
        import librosa

        filters = librosa.filters.mel(sr=rate, n_fft=MEL_WINDOW, n_mels=mels, norm=None)  # [mels, bins]
        filters /= filters.sum(1, keepdims=True).clip(min=1e-3)
        self.register_buffer("filters", torch.from_numpy(filters.T.astype(np.float32)), persistent=False)
        for window in WINDOWS:
            self.register_buffer(f"window{window}", torch.hann_window(window), persistent=False)

    def forward(self, made: Tensor, wanted: Tensor) -> dict[str, Tensor]:
        logarithms, convergences = [], []
        mel = torch.zeros(())
        for window in WINDOWS:
            power = self._power(made, window)
            with torch.no_grad():
                goal = self._power(wanted, window)
                goal_magnitude, goal_logarithm = goal.sqrt(), goal.log()
            logarithms.append(0.5 * F.l1_loss(power.log(), goal_logarithm))
            convergences.append((power.sqrt() - goal_magnitude).norm() / goal_magnitude.norm())
            if window == MEL_WINDOW:
                mel = 0.5 * F.l1_loss((power.mT @ self.filters).log(), (goal.mT @ self.filters).log())
        count = len(WINDOWS)
        return {
            "logarithm": sum(logarithms, mel * 0) / count,
            "convergence": sum(convergences, mel * 0) / count,
            "mel": mel,
        }

    def _power(self, waveform: Tensor, window: int) -> Tensor:
        """[batch, samples] -> [batch, bins, columns], with mean 1 for white noise of unit power."""
        shape = getattr(self, f"window{window}")
        spectrum = torch.stft(waveform, window, window // 4, window=shape, center=False, return_complex=True)
        return (spectrum.real.square() + spectrum.imag.square()) / (0.375 * window) + FLOOR
