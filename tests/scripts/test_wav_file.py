"""The WAV file that grows."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile

from antiphon.runtime.errors import AntiphonError
from antiphon.scripts.wav_file import WavFile

SAMPLES = np.linspace(-0.5, 0.5, 1000, dtype=np.float32)


def test_the_file_holds_all_packets_in_order(tmp_path: Path) -> None:
    with WavFile(tmp_path / "a.wav", 24000) as file:
        file.write(SAMPLES[:300])
        file.write(SAMPLES[300:])
    found, rate = soundfile.read(tmp_path / "a.wav", dtype="float32")
    assert rate == 24000
    np.testing.assert_allclose(found, SAMPLES, atol=2**-15)


def test_values_beyond_full_scale_are_clipped_not_wrapped(tmp_path: Path) -> None:
    with WavFile(tmp_path / "a.wav", 24000) as file:
        file.write(np.array([2.0, -2.0], np.float32))
    found, _ = soundfile.read(tmp_path / "a.wav")
    assert found[0] > 0.99 and found[1] < -0.99


def test_what_was_said_is_kept_when_interrupted(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), WavFile(tmp_path / "a.wav", 24000) as file:
        file.write(SAMPLES)
        raise KeyboardInterrupt
    assert soundfile.info(tmp_path / "a.wav").frames == len(SAMPLES)


@pytest.mark.parametrize("packets", [0, 1])
def test_an_older_file_stays_and_nothing_is_left_beside_it_after_an_error(tmp_path: Path, packets: int) -> None:
    older = tmp_path / "a.wav"
    older.write_bytes(b"older")
    with pytest.raises(RuntimeError), WavFile(older, 24000) as file:
        file.write(SAMPLES[: packets * 100])
        raise RuntimeError
    assert older.read_bytes() == b"older" and list(tmp_path.iterdir()) == [older]


def test_no_file_without_a_sample(tmp_path: Path) -> None:
    with WavFile(tmp_path / "a.wav", 24000):
        pass
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("name", "complaint"), [("a.mp3", "not a .wav"), ("nowhere/a.wav", "does not exist"), ("folder.wav", "is a folder")])
def test_a_path_that_cannot_become_a_wav_file_is_refused(tmp_path: Path, name: str, complaint: str) -> None:
    (tmp_path / "folder.wav").mkdir()
    with pytest.raises(AntiphonError, match=complaint):
        WavFile(tmp_path / name, 24000)
