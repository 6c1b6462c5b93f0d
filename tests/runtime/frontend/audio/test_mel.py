from __future__ import annotations

import numpy as np
import pytest

from antiphon.runtime.frontend.audio import mel
from antiphon.runtime.frontend.audio.mel import MelSettings, log_mel, log_power, mel_filters


def speech_like(samples: int, seed: int = 0) -> np.ndarray:
    generator = np.random.default_rng(seed)
    time = np.arange(samples) / 16000
    voice = sum(np.sin(2 * np.pi * 140 * k * time + k) / k for k in range(1, 20)) * (
        1 + np.sin(2 * np.pi * 3 * time)
    )
    return (0.05 * voice + 0.003 * generator.standard_normal(samples)).astype(np.float32)


def reference(clips: list[np.ndarray], numpy_backend: bool) -> list[np.ndarray]:
    transformers = pytest.importorskip("transformers")
    extractor = transformers.WhisperFeatureExtractor(feature_size=128)
    if numpy_backend:
        extractor._torch_extract_fbank_features = extractor._np_extract_fbank_features
    found = extractor(clips, sampling_rate=16000, padding=True, truncation=False, return_attention_mask=True)
    return [
        features[:, mask.astype(bool)]
        for features, mask in zip(
            np.asarray(found["input_features"]), np.asarray(found["attention_mask"]), strict=True
        )
    ]


LENGTHS = [(16000,), (16001,), (15999, 40000), (40001, 8000, 7777), (400, 159), (700,)]


@pytest.mark.parametrize("numpy_backend", [True, False], ids=["numpy", "torch"])
@pytest.mark.parametrize("lengths", LENGTHS, ids=str)
def test_log_mel_equals_the_reference_extractor(lengths: tuple[int, ...], numpy_backend: bool) -> None:
    clips = [speech_like(samples, seed) for seed, samples in enumerate(lengths)]
    ours, theirs = log_mel(clips, MelSettings()), reference(clips, numpy_backend)
    for mine, other in zip(ours, theirs, strict=True):
        assert mine.dtype == np.float32 and mine.shape == other.shape
        np.testing.assert_allclose(mine, other, rtol=0, atol=1e-5)


def test_filters_equal_librosa() -> None:
    librosa = pytest.importorskip("librosa")
    expected = librosa.filters.mel(sr=16000, n_fft=400, n_mels=128, dtype=np.float64)
    np.testing.assert_allclose(mel_filters(MelSettings()), expected, rtol=0, atol=1e-9)


def test_silence_gives_one_constant() -> None:
    (features,) = log_mel([np.zeros(1600, np.float32)], MelSettings())
    assert features.shape == (128, 10) and np.all(features == np.float32(-1.5))


def test_a_clip_shorter_than_a_window_still_gives_frames() -> None:
    (features,) = log_mel([speech_like(30)], MelSettings())
    assert features.shape == (128, 1) and np.isfinite(features).all()


@pytest.mark.parametrize("frames", [1, 7, 100, 4096])
def test_values_do_not_depend_on_the_block_a_frame_is_computed_in(
    frames: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    clip = speech_like(48000)
    (whole,) = log_mel([clip], MelSettings())
    monkeypatch.setattr(mel, "FRAMES_PER_BLOCK", frames)
    np.testing.assert_array_equal(log_mel([clip], MelSettings())[0], whole)


def test_a_band_between_two_frequency_bins_is_silent() -> None:
    settings = MelSettings(n_fft=128, hop_length=64)  # bins 125 Hz apart: several bands hold none
    assert not mel_filters(settings).any(axis=1).all()
    expected = np.maximum(
        1e-10, mel_filters(settings) @ (np.abs(np.fft.rfft(speech_like(128) * np.hanning(129)[:128])) ** 2)
    )
    found = log_power(speech_like(128), settings, 1)[:, 0]
    np.testing.assert_allclose(found, np.log10(expected), rtol=0, atol=1e-6)
