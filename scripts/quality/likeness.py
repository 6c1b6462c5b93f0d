"""Similarity of two voices, by a speaker network's embeddings (if installed) and by long-term spectrum.

The network is Resemblyzer's GE2E encoder (https://arxiv.org/abs/1710.10467), with its published weights. They
are read from the package's folder; the package itself is not imported, because it needs a voice detector that
is built from source. `pip install --no-deps resemblyzer` installs them.
"""

from __future__ import annotations

import importlib.util
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from .recognisers import RATE, resampled

WINDOW, HOP, CHANNELS = 400, 160, 40
"""Window and hop in samples at 16 kHz, and the number of mel channels."""
FRAMES, STEP = 160, 80
"""Frames per input of the network, and the step between inputs."""
LEVEL = 10 ** (-30 / 20)
"""Root mean square of the network's training audio."""
CEPSTRA = 20


def embedding(audio: np.ndarray, rate: int) -> np.ndarray | None:
    """Unit vector float32 [256] for float32 [samples] at `rate` hertz; None for silence, or without weights
    or PyTorch."""
    network = _network()
    sound = resampled(audio, rate)
    level = float(np.sqrt(np.mean(np.square(sound)))) if len(sound) else 0.0
    if network is None or level == 0:
        return None
    import torch

    mel = _mel(sound * (LEVEL / level))
    mel = np.pad(mel, ((0, max(0, FRAMES - len(mel))), (0, 0)))
    starts = range(0, len(mel) - FRAMES + 1, STEP)
    lstm, linear = network
    with torch.no_grad():
        _, (hidden, _) = lstm(torch.from_numpy(np.stack([mel[start : start + FRAMES] for start in starts])))
        parts = torch.nn.functional.normalize(torch.relu(linear(hidden[-1])))
        whole: np.ndarray = torch.nn.functional.normalize(parts.mean(0), dim=0).numpy()
    return whole


def likeness(first: np.ndarray, second: np.ndarray, rate: int) -> float | None:
    """Cosine of two embeddings: about 0.5 for strangers, above 0.8 for one speaker; None if one is
    missing."""
    one, other = embedding(first, rate), embedding(second, rate)
    return None if one is None or other is None else float(one @ other)


def spectral_distance(first: np.ndarray, second: np.ndarray, rate: int) -> float | None:
    """Distance of the long-term mel cepstra in dB, without loudness.

    It depends on vocal tract and channel, not on the speaker alone.
    """
    one, other = _long_term(first, rate), _long_term(second, rate)
    return (
        None
        if one is None or other is None
        else float(10 / np.log(10) * np.sqrt(2 * np.sum(np.square(one - other))))
    )


def _long_term(audio: np.ndarray, rate: int) -> np.ndarray | None:
    """Mean cepstra 1 to 19 of the louder half of the windows."""
    sound = resampled(audio, rate)
    if len(sound) < 4 * WINDOW or not sound.any():
        return None
    mel = np.log(np.maximum(_mel(sound), 1e-10))
    mel = mel[mel.mean(axis=1) >= np.median(mel.mean(axis=1))].mean(axis=0)
    angles = np.pi * (np.arange(CHANNELS) + 0.5) / CHANNELS
    cosines = np.cos(np.arange(1, CEPSTRA)[:, None] * angles)
    return np.asarray(cosines @ mel / CHANNELS)


def _mel(sound: np.ndarray) -> np.ndarray:
    """Mel power spectrum float32 [frames, 40] of float32 [samples] at 16 kHz, as in librosa: Slaney's scale
    and areas, centred windows."""
    padded = np.pad(sound, WINDOW // 2)
    windows = np.lib.stride_tricks.sliding_window_view(padded, WINDOW)[::HOP]
    power = np.square(np.abs(np.fft.rfft(windows * np.hanning(WINDOW + 1)[:-1], axis=1)))
    return np.asarray(power @ _mel_filters().T, np.float32)


@cache
def _mel_filters() -> np.ndarray:
    """Triangles [40, 201]: equal widths below 1 kHz, equal ratios above."""
    ratio, linear = np.log(6.4) / 27, 200 / 3
    top = 15 + np.log(RATE / 2 / 1000) / ratio
    steps = np.linspace(0, top, CHANNELS + 2)
    edges = np.where(steps < 15, steps * linear, 1000 * np.exp(ratio * (np.maximum(steps, 15) - 15)))
    bins = np.fft.rfftfreq(WINDOW, 1 / RATE)
    rising = (bins - edges[:-2, None]) / np.diff(edges)[:-1, None]
    falling = (edges[2:, None] - bins) / np.diff(edges)[1:, None]
    return np.asarray(np.maximum(0, np.minimum(rising, falling)) * (2 / (edges[2:] - edges[:-2]))[:, None])


@cache
def _network() -> Any:
    """(LSTM, linear) with Resemblyzer's weights; None if weights or PyTorch are missing."""
    found = importlib.util.find_spec("resemblyzer")
    if found is None or found.origin is None or importlib.util.find_spec("torch") is None:
        return None
    import torch

    weights = torch.load(
        Path(found.origin).with_name("pretrained.pt"), map_location="cpu", weights_only=False
    )["model_state"]
    lstm, linear = torch.nn.LSTM(CHANNELS, 256, 3, batch_first=True), torch.nn.Linear(256, 256)
    lstm.load_state_dict({name[5:]: value for name, value in weights.items() if name.startswith("lstm.")})
    linear.load_state_dict({name[7:]: value for name, value in weights.items() if name.startswith("linear.")})
    return lstm.eval(), linear.eval()
