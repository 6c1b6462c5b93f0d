"""Pauses, and likeness of voices by their spectrum."""

from __future__ import annotations

import numpy as np
import pytest

from antiphon.runtime.bundle.errors import AntiphonError
from antiphon.scripts.quality.likeness import _mel, spectral_distance
from antiphon.scripts.quality.missing import needed
from antiphon.scripts.quality.sound import pauses

RATE = 24_000


def tone(seconds: float, hertz: float = 220.0) -> np.ndarray:
    return (0.3 * np.sign(np.sin(2 * np.pi * hertz * np.arange(int(seconds * RATE)) / RATE))).astype(
        np.float32
    )


def test_a_pause_is_a_silence_between_sounds_and_none_at_the_ends() -> None:
    silence = np.zeros(int(0.3 * RATE), np.float32)
    seconds, found = pauses(np.concatenate([silence, tone(0.5), silence, tone(0.2), silence]), RATE)
    assert seconds == pytest.approx(1.0, abs=0.02)
    assert found == pytest.approx([0.3], abs=0.02)


@pytest.mark.parametrize("audio", [np.zeros(0, np.float32), np.zeros(RATE, np.float32)])
def test_silence_has_neither_length_nor_pauses(audio: np.ndarray) -> None:
    assert pauses(audio, RATE) == (0.0, [])


def test_a_voice_is_nearer_to_itself_than_to_another_and_loudness_is_no_difference() -> None:
    assert spectral_distance(tone(1), 0.5 * tone(1), RATE) == pytest.approx(0, abs=0.05)
    other = spectral_distance(tone(1), tone(1, 700.0), RATE)
    assert other is not None and other > 1
    assert spectral_distance(tone(1), np.zeros(100, np.float32), RATE) is None


def test_the_spectrum_of_the_speaker_network_is_that_of_librosa() -> None:
    librosa = pytest.importorskip(
        "librosa", reason="librosa, which the network was trained with, is not installed"
    )
    sound = np.random.default_rng(0).standard_normal(8000).astype(np.float32)
    wanted = librosa.feature.melspectrogram(y=sound, sr=16_000, n_fft=400, hop_length=160, n_mels=40).T
    np.testing.assert_allclose(_mel(sound), wanted, rtol=1e-4, atol=1e-5)


def test_a_missing_package_names_the_extra() -> None:
    with pytest.raises(AntiphonError, match=r'pip install "antiphon\[quality\]"'):
        needed("a_package_that_nobody_has")
