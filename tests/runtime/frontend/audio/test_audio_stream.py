"""A recording read as a stream against the same recording read whole."""

from __future__ import annotations

import os
import wave
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from antiphon.runtime.bundle.errors import AntiphonError
from antiphon.runtime.frontend.audio import audio_stream
from antiphon.runtime.frontend.audio import recording as audio
from antiphon.runtime.frontend.audio.audio_layout import audio_calls, audio_tokens
from antiphon.runtime.frontend.audio.audio_stream import AudioStream
from antiphon.runtime.frontend.audio.mel import MelSettings, log_mel
from antiphon.runtime.frontend.audio.recording import read_audio
from antiphon.runtime.frontend.media.media_options import WHOLE, Span

RATE = 16000
MEL = MelSettings(feature_size=16)


def sound(samples: int, channels: int = 1, seed: int = 0) -> np.ndarray:
    """Noise whose loudness rises and falls: the maximum lies anywhere,
    and much lies more than 8 decades below it.
    """
    generator = np.random.default_rng(seed)
    loudness = 10.0 ** generator.uniform(-6, -1, -(-samples // 2000)).repeat(2000)[:samples]
    return (generator.standard_normal((samples, channels)) * loudness[:, None]).astype(np.float32)


def written(path: Path, samples: np.ndarray, rate: int = RATE, **options: str) -> Path:
    soundfile.write(path, samples, rate, **options)
    return path


def small_blocks(patch: pytest.MonkeyPatch, samples: int) -> None:
    patch.setattr(audio, "BLOCK_SAMPLES", samples)
    patch.setattr(audio_stream, "BLOCK_SAMPLES", samples)


def assert_equals_the_whole(
    source: Any,
    rate: int = RATE,
    windows: tuple[int, int] = (50, 800),
    convolutions: int = 4,
    max_windows: int = 8,
    span: Span = WHOLE,
) -> None:
    stream = AudioStream(source, rate, MEL, *windows, convolutions, span=span)
    clip = read_audio(source, rate, RATE, span=span)
    features = log_mel([clip], MEL)
    expected = list(audio_calls(features, *windows, max_windows=max_windows, convolutions=convolutions))
    assert stream.frames == features[0].shape[1] and stream.seconds == len(clip) / RATE
    assert (
        stream.tokens
        == audio_tokens(stream.frames, windows[0], convolutions)
        == sum(len(call["output_index"]) for call in expected)
    )
    for _ in range(2):  # a second iteration starts over
        found = list(stream.calls(max_windows))
        assert len(found) == len(expected)
        for call, other in zip(found, expected, strict=True):
            assert list(call) == list(other)
            for name in call:
                np.testing.assert_array_equal(call[name], other[name], strict=True)


@settings(max_examples=60, deadline=None)
@given(
    st.one_of(st.integers(3, 900), st.integers(900, 60_000)),  # fewer give no sample at 16 kHz
    st.sampled_from([(50, 800), (50, 100), (12, 75), (4, 32)]),
    st.sampled_from([3, 4]),
    st.sampled_from([1, 3, 8]),
    st.sampled_from([160, 401, 5_000, 2**20]),
    st.sampled_from([8000, RATE, 44100]),
)
def test_calls_equal_those_of_the_whole_clip(
    samples: int, windows: tuple[int, int], convolutions: int, max_windows: int, block: int, rate: int
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        small_blocks(patch, block)
        assert_equals_the_whole(sound(samples, seed=samples), rate, windows, convolutions, max_windows)


@pytest.mark.parametrize("name", ["a.wav", "a.flac", "a.ogg", "a.mp3"])
@pytest.mark.parametrize("rate", [8000, RATE, 48000])
def test_files_of_any_format_and_rate_equal_the_whole(
    tmp_path: Path, name: str, rate: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = written(tmp_path / name, sound(3 * rate, channels=2), rate)
    small_blocks(monkeypatch, 10_000)
    assert_equals_the_whole(path)
    assert_equals_the_whole(path.read_bytes())


@pytest.mark.parametrize(("container", "codec"), [("m4a", "aac"), ("mkv", "pcm_s16le"), ("webm", "libopus")])
def test_containers_that_pyav_reads_equal_the_whole(
    tmp_path: Path, container: str, codec: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    av = pytest.importorskip("av")
    path = tmp_path / f"a.{container}"
    with av.open(
        str(path), "w", format={"m4a": "ipod", "mkv": "matroska"}.get(container, container)
    ) as output:
        stream = output.add_stream(codec, rate=48000)
        stream.layout = "stereo"
        samples = np.ascontiguousarray((sound(100_000, channels=2) * 8000).astype(np.int16).reshape(1, -1))
        frame = av.AudioFrame.from_ndarray(samples, format="s16", layout="stereo")
        frame.sample_rate = 48000
        for packet in (*stream.encode(frame), *stream.encode(None)):
            output.mux(packet)
    small_blocks(monkeypatch, 10_000)
    assert_equals_the_whole(path)


@pytest.mark.parametrize("span", [Span(0.5, 2.2), Span(1.0, 1.5), Span(2.9), Span(0.0, 0.7)])
def test_a_span_equals_that_of_the_whole(tmp_path: Path, span: Span, monkeypatch: pytest.MonkeyPatch) -> None:
    small_blocks(monkeypatch, 7000)
    samples = sound(3 * RATE, channels=2)
    for source in (samples, samples.T, written(tmp_path / "a.wav", samples)):
        assert_equals_the_whole(source, span=span)


@pytest.mark.parametrize("dtype", [np.int16, np.float16, np.float64])
def test_arrays_of_other_types_equal_the_whole(dtype: type, monkeypatch: pytest.MonkeyPatch) -> None:
    small_blocks(monkeypatch, 3_000)
    samples = sound(20_000, channels=2)
    assert_equals_the_whole((samples * 30_000 if dtype is np.int16 else samples).astype(dtype), 24_000)


def test_a_file_that_libsndfile_loses_on_the_way_is_read_by_pyav_from_the_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("av")
    path = written(tmp_path / "a.wav", sound(30_000), subtype="PCM_16")
    read = soundfile.SoundFile.read

    def broken(file: Any, *arguments: Any, **options: Any) -> np.ndarray:
        if file.tell() > 10_000:
            raise RuntimeError("lost")
        return read(file, *arguments, **options)

    monkeypatch.setattr(soundfile.SoundFile, "read", broken)
    small_blocks(monkeypatch, 8_000)
    assert_equals_the_whole(path)


def test_nothing_is_decoded_before_it_is_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    decoded: list[int] = []
    path = written(tmp_path / "a.wav", sound(200_000))
    read = soundfile.SoundFile.read

    def counting(file: Any, *arguments: Any, **options: Any) -> np.ndarray:
        decoded.append(file.tell())
        return read(file, *arguments, **options)

    monkeypatch.setattr(soundfile.SoundFile, "read", counting)
    small_blocks(monkeypatch, 10_000)
    stream = AudioStream(path, RATE, MEL, 50, 100)
    assert not decoded
    assert stream.frames == 1250
    calls = stream.calls(max_windows=1)
    decoded.clear()
    next(calls)
    assert max(decoded) <= 20_000


def test_bad_audio_raises_the_sentences_of_read_audio(tmp_path: Path) -> None:
    text = tmp_path / "a.txt"
    text.write_text("no audio at all")
    nothing = written(tmp_path / "nothing.wav", np.zeros((0, 1), np.float32))
    late = sound(50_000)
    late[-1] = np.nan
    for source, rate, sentence in [
        (text, RATE, "cannot be read as audio"),
        (nothing, RATE, "no samples"),
        (np.zeros(0, np.float32), RATE, "no samples"),
        (np.zeros(1, np.float32), 768_000, "too few samples to be resampled from 768000 to 16000 Hz"),
        (late, RATE, "NaN, infinite or far beyond"),
        (
            np.zeros((100, 16000), np.float32),
            RATE,
            r"shape \[16000, 100\]; expected \[samples\] or \[samples, channels\]",
        ),
        (np.zeros(5, np.int64), RATE, "holds int64"),
        (tmp_path / "absent.wav", RATE, "No audio file"),
    ]:
        with pytest.raises(AntiphonError, match=sentence):
            list(AudioStream(source, rate, MEL, 50, 800).calls())
        with pytest.raises(AntiphonError, match=sentence):
            read_audio(source, rate, RATE)


@pytest.mark.parametrize("change", ["longer", "louder", "absent"])
def test_a_file_that_changes_between_the_passes_is_refused(tmp_path: Path, change: str) -> None:
    path = written(tmp_path / "a.wav", sound(50_000))
    stream = AudioStream(path, RATE, MEL, 50, 800)
    assert stream.frames == 312
    if change == "absent":
        path.unlink()
    else:
        written(path, sound(60_000) if change == "longer" else sound(50_000) * 3)
    with pytest.raises(AntiphonError, match="changed while it was read"):
        list(stream.calls())


def resident() -> int:
    """Bytes of this process in memory now."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs Linux's /proc")
def test_memory_does_not_grow_with_the_length(tmp_path: Path) -> None:
    path = tmp_path / "hour.wav"
    with wave.open(str(path), "wb") as file:
        file.setparams((1, 2, RATE, 0, "NONE", ""))
        file.setnframes(1800 * RATE)
        file.writeframesraw((sound(RATE) * 32767).astype(np.int16).tobytes())
    stream = AudioStream(path, RATE, MEL, 50, 800, 4)
    os.truncate(path, 44 + 2 * 1800 * RATE)  # half an hour, most of it a hole in the file
    with path.open("r+b") as raw:
        for place, size in ((4, 36 + 2 * 1800 * RATE), (40, 2 * 1800 * RATE)):
            raw.seek(place)
            raw.write(size.to_bytes(4, "little"))
    calls = stream.calls()
    next(calls)
    start = most = resident()
    tokens = 0
    for call in calls:
        tokens += len(call["output_index"])
        most = max(most, resident())
    assert stream.tokens == 1800 * 7 and tokens == stream.tokens - 8 * 56
    assert most - start < 40 * 2**20
