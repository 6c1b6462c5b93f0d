from __future__ import annotations

import base64
import io
import struct
from pathlib import Path

import numpy as np
import pytest
import soundfile
import soxr

from antiphon.runtime.bundle.errors import AntiphonError
from antiphon.runtime.frontend.audio import recording as audio
from antiphon.runtime.frontend.audio.long_audio import is_long
from antiphon.runtime.frontend.audio.raw_audio import raw_format, raw_samples
from antiphon.runtime.frontend.audio.recording import read_audio
from antiphon.runtime.frontend.media.media_options import Span
from antiphon.runtime.frontend.media.media_policy import MediaPolicy, TooLong

RATE = 16000


def tone(rate: int, seconds: float = 0.5, channels: int = 1) -> np.ndarray:
    time = np.arange(int(rate * seconds)) / rate
    columns = [0.4 * np.sin(2 * np.pi * 440 * time * (1 + index)) for index in range(channels)]
    return np.stack(columns, axis=1).astype(np.float32)


def written(path: Path, samples: np.ndarray, rate: int, **options: str) -> Path:
    soundfile.write(path, samples, rate, **options)
    return path


def test_a_float_wav_is_read_exactly(tmp_path: Path) -> None:
    samples = tone(RATE)
    path = written(tmp_path / "a.wav", samples, RATE, subtype="FLOAT")
    for source in (path, str(path), base64.b64encode(path.read_bytes()).decode()):
        np.testing.assert_array_equal(read_audio(source, 1, RATE), samples[:, 0])


@pytest.mark.parametrize("name", ["a.wav", "a.flac", "a.ogg", "a.mp3"])
@pytest.mark.parametrize("rate", [8000, 44100])
def test_any_format_and_rate_becomes_mono_at_the_target_rate(tmp_path: Path, name: str, rate: int) -> None:
    samples = tone(rate, channels=2)
    clip = read_audio(written(tmp_path / name, samples, rate), 1, RATE)
    assert clip.dtype == np.float32 and clip.ndim == 1 and abs(len(clip) - 8000) <= 1200 * RATE // rate
    spectrum = np.abs(np.fft.rfft(clip[1000:7000] * np.hanning(6000)))
    assert abs(np.argmax(spectrum[: 650 * 6000 // RATE]) * RATE / 6000 - 440) < 6


def test_arrays_are_mixed_down_and_resampled_in_high_quality() -> None:
    samples = tone(48000, channels=2)
    np.testing.assert_array_equal(
        read_audio(samples, 48000, RATE), soxr.resample(samples.mean(axis=1), 48000, RATE, quality="HQ")
    )


def test_int16_and_float64_arrays_equal_float32() -> None:
    samples = (tone(RATE)[:, 0] * 32767).round()
    expected = (samples / 32768).astype(np.float32)
    for given in (samples.astype(np.int16), samples / 32768, expected, expected[:, None]):
        np.testing.assert_array_equal(read_audio(given, RATE, RATE), expected)


@pytest.mark.parametrize(("container", "codec"), [("m4a", "aac"), ("mkv", "pcm_s16le"), ("webm", "libopus")])
def test_containers_are_read_by_pyav(tmp_path: Path, container: str, codec: str) -> None:
    av = pytest.importorskip("av")
    path = tmp_path / f"a.{container}"
    with av.open(
        str(path), "w", format={"m4a": "ipod", "mkv": "matroska"}.get(container, container)
    ) as output:
        stream = output.add_stream(codec, rate=48000)
        stream.layout = "stereo"
        samples = np.ascontiguousarray((tone(48000, channels=2) * 32767).astype(np.int16).reshape(1, -1))
        frame = av.AudioFrame.from_ndarray(samples, format="s16", layout="stereo")
        frame.sample_rate = 48000
        for packet in (*stream.encode(frame), *stream.encode(None)):
            output.mux(packet)
    clip = read_audio(path, 1, RATE)
    assert abs(len(clip) - 8000) < 1200 and 0.05 < np.sqrt(np.mean(clip**2)) < 0.4
    if codec == "pcm_s16le":
        np.testing.assert_allclose(clip, read_audio(tone(48000, channels=2), 48000, RATE), atol=1e-4)


def test_bad_audio_raises_one_sentence(tmp_path: Path) -> None:
    text = tmp_path / "a.txt"
    text.write_text("no audio at all")
    nothing = written(tmp_path / "nothing.wav", np.zeros((0, 1), np.float32), RATE)
    broken = np.full(100, np.nan, np.float32)
    for source, sentence in [
        (text, "cannot be read as audio"),
        (nothing, "no samples"),
        (np.zeros(0, np.float32), "no samples"),
        (broken, "NaN, infinite or far beyond"),
        (
            np.zeros((100, 16000), np.float32),
            r"shape \[16000, 100\]; expected \[samples\] or \[samples, channels\]",
        ),
        (np.zeros((2, 2, 2), np.float32), "shape"),
        (np.zeros(5, np.int64), "holds int64"),
    ]:
        with pytest.raises(AntiphonError, match=sentence):
            read_audio(source, RATE, RATE)


def test_a_header_that_claims_terabytes_reserves_no_memory(tmp_path: Path) -> None:
    data = bytearray(written(tmp_path / "a.flac", tone(RATE), RATE).read_bytes())
    data[21] |= 0x0F  # the top bits of STREAMINFO's 36-bit sample count
    try:
        clip = read_audio(bytes(data), 1, RATE)
    except AntiphonError:
        return
    assert len(clip) <= 8000


def test_a_missing_pyav_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "av", None)
    path = tmp_path / "a.m4a"
    path.write_bytes(b"\0\0\0\x14ftypM4A " + b"\0" * 100)
    with pytest.raises(AntiphonError, match=r'needs the package av.*pip install "antiphon\[media\]"'):
        read_audio(path, RATE, RATE)


def test_bytes_are_described_by_their_size() -> None:
    assert audio.describe(io.BytesIO(b"abc").getvalue()) == "data of 3 bytes"


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("loudest", [1e300, 3e38, 1e12, -1e300])
@pytest.mark.parametrize("shape", [(400,), (400, 2)])
def test_an_array_of_huge_values_is_refused_without_a_warning(loudest: float, shape: tuple[int, ...]) -> None:
    with pytest.raises(AntiphonError, match="far beyond -1 .. 1"):
        read_audio(np.full(shape, loudest), RATE, RATE)


@pytest.mark.parametrize("rate", [1, 999, 768_001, 4_000_000_000])
def test_a_rate_that_no_recording_has_is_refused(rate: int) -> None:
    with pytest.raises(AntiphonError, match=f"sample rate of {rate:,} Hz, expected 1,000 to 768,000"):
        read_audio(np.zeros(10, np.float32), rate, RATE)


@pytest.mark.parametrize("name", ["a.wav", "a.flac", "a.mp3"])
def test_a_recording_beyond_the_policy_is_refused(tmp_path: Path, name: str) -> None:
    path = written(tmp_path / name, tone(RATE, 2.0), RATE)
    assert len(read_audio(path, 1, RATE, MediaPolicy(max_seconds=2.5))) >= 2 * RATE
    with pytest.raises(TooLong, match="expected at most 1.5 s"):
        read_audio(path, 1, RATE, MediaPolicy(max_seconds=1.5))


def test_an_mp3_by_pyav_equals_that_by_libsndfile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("av")
    path = written(tmp_path / "a.mp3", tone(44100, 2.0, channels=2), 44100)
    decoded = read_audio(path, 1, RATE)
    monkeypatch.setattr(audio, "find_spec", lambda _: None)
    np.testing.assert_allclose(read_audio(path, 1, RATE), decoded, rtol=0, atol=1e-5)


def test_a_damaged_mp3_writes_nothing_to_the_terminal(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("av")
    data = bytearray(written(tmp_path / "a.mp3", tone(RATE, 2.0), RATE).read_bytes())
    data[1000:1200] = bytes(200)
    read_audio(bytes(data), 1, RATE)
    assert capfd.readouterr() == ("", "")


def wave(
    samples: np.ndarray, data_size: int | None = None, riff_size: int | None = None, coding: int = 1
) -> bytes:
    """A WAV file with a 16-byte format chunk and, where asked, sizes that are not true."""
    data = samples.tobytes()
    width = samples.dtype.itemsize
    body = b"WAVEfmt " + struct.pack("<IHHIIHH", 16, coding, 1, RATE, RATE * width, width, 8 * width)
    body += b"data" + struct.pack("<I", len(data) if data_size is None else data_size) + data
    return b"RIFF" + struct.pack("<I", len(body) if riff_size is None else riff_size) + body


@pytest.mark.parametrize("data_size", [None, 0, 0xFFFFFFFF, 0x7FFFFFFF, 10**6])
@pytest.mark.parametrize("riff_size", [None, 0, 36, 0xFFFFFFFF])
def test_a_recording_that_was_cut_off_is_read_to_its_end(
    data_size: int | None, riff_size: int | None
) -> None:
    samples = (tone(RATE)[:, 0] * 32767).round().astype(np.int16)
    source = wave(samples, data_size, riff_size)
    assert not is_long(source, 1)
    np.testing.assert_array_equal(read_audio(source, 1, RATE), samples.astype(np.float32) / 32768)
    np.testing.assert_array_equal(read_audio(source[:-1], 1, RATE), samples[:-1].astype(np.float32) / 32768)


@pytest.mark.parametrize(("coding", "raw"), [(7, "g711_ulaw"), (6, "g711_alaw")])
def test_the_wav_of_a_telephone_gateway_is_read(coding: int, raw: str) -> None:
    codes = np.arange(256, dtype=np.uint8)
    expected = raw_samples(codes.tobytes(), raw_format(raw, "part") or "", "part")
    np.testing.assert_array_equal(read_audio(wave(codes, coding=coding), 1, RATE), expected)
    np.testing.assert_array_equal(read_audio(wave(codes, 0, coding=coding), 1, RATE), expected)


@pytest.mark.parametrize("container", ["WAV", "WAVEX", "RF64", "W64", "AIFF", "CAF", "AU"])
def test_containers_of_pcm_are_read_exactly(container: str) -> None:
    samples, buffer = (tone(RATE) * 32767).round().astype(np.int16), io.BytesIO()
    soundfile.write(buffer, samples, RATE, format=container, subtype="PCM_16")
    # an open file, left at its end
    np.testing.assert_array_equal(read_audio(buffer, 1, RATE), samples[:, 0].astype(np.float32) / 32768)


# Samples kept of 1 s at 8 kHz, as of process_audio_info of qwen-omni-utils 0.0.9: librosa.load 0.11 for
# files, a slice for arrays.
@pytest.mark.parametrize(
    ("span", "kept"),
    [
        (Span(0.25, 0.5), (2000, 4000)),
        (Span(0.5), (4000, 8000)),
        (Span(0.0, 0.10006), (0, 800)),
        (Span(0.2, 9.0), (1600, 8000)),
    ],
)
def test_a_span_is_cut_before_anything_else(tmp_path: Path, span: Span, kept: tuple[int, int]) -> None:
    samples = tone(8000, 1.0, channels=2)
    path = written(tmp_path / "a.wav", samples, 8000, subtype="FLOAT")
    expected = read_audio(samples[slice(*kept)], 8000, RATE)
    for source in (samples, path):
        np.testing.assert_array_equal(read_audio(source, 8000, RATE, span=span), expected)


def test_a_span_behind_the_end_is_refused(tmp_path: Path) -> None:
    samples = tone(RATE)
    for source in (samples, written(tmp_path / "a.wav", samples, RATE)):
        with pytest.raises(AntiphonError, match="The audio is 0.5 s long and has no sample from 2 s on"):
            read_audio(source, RATE, RATE, span=Span(2.0))
