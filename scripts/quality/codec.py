"""A bundle's codec alone: codec_encoder turns audio into frames, and Code2Wav turns frames into audio."""

from __future__ import annotations

import numpy as np

from ...runtime.omni import Omni
from ...runtime.scheduling.engine_lock import NORMAL
from ...runtime.stages.aria import Frame
from ...runtime.stages.vocoder import Vocoder
from .recognisers import resampled

PACKET = 64
"""Frames per call of Code2Wav; any number gives the same samples."""


def encode(omni: Omni, audio: np.ndarray, rate: int) -> np.ndarray:
    """Codes int64 [frames, codebooks] of audio float32 [samples] at `rate` hertz.

    Needs the stage codec_encoder.
    """
    engine = omni.engines["codec_encoder"]
    to, frame = engine.entry.constant("sample_rate"), engine.entry.constant("samples_per_frame")
    samples = resampled(audio, rate, to)
    feeds = {
        "waveform": np.zeros((1, -(-len(samples) // frame) * frame), np.float32),
        "waveform_length": np.array([len(samples)]),
    }
    feeds["waveform"][0, : len(samples)] = samples
    return np.array(engine.run(feeds, outputs=("codes",))["codes"][0], np.int64)


def decode(omni: Omni, codes: np.ndarray) -> np.ndarray:
    """Samples float32 at the bundle's rate from codes int64 [frames, codebooks]."""
    vocoder = Vocoder(omni.engines["code2wav"], omni.model.engine_lock, lambda: NORMAL)
    frames = [Frame(index, row, 0) for index, row in enumerate(codes)]
    return np.concatenate(
        [vocoder.decode(frames[start : start + PACKET]) for start in range(0, len(frames), PACKET)]
    )
