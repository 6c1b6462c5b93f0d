"""Voices by name and from recordings, against an encoder that counts and against the real
stage with random weights.
"""

from __future__ import annotations

import base64
import dataclasses
import io
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import soundfile
import soxr

from antiphon.runtime.bundle.errors import AntiphonError
from antiphon.runtime.bundle.manifest import Manifest, ModelConstants, SpeechPrompts
from antiphon.runtime.bundle.specs import StageEntry, StageInterface, TensorSpec
from antiphon.runtime.bundle.talker_contract import TalkerContract
from antiphon.runtime.frontend.media.media_policy import MediaPolicy
from antiphon.runtime.scheduling.engine_lock import EngineLock
from antiphon.runtime.stages.voices import (
    VOICES_FILE,
    Voice,
    check_voice,
    find_voice,
    read_voice_table,
    voice_from_recording,
)

RATE, FRAME, GROUPS = 24000, 1920, 4
CODEC_VOICES = Manifest(
    "fake",
    "0",
    "cpu",
    "fp32",
    {},
    {},
    ModelConstants(64, codebook_size=64),
    {},
    {"Ethan": 38, "aiden": 39},
    "aiden",
    talker=TalkerContract("summed", False, "frame_rows", "media", 0, False, False, "codec_id"),
)
PROMPT_VOICES = dataclasses.replace(
    CODEC_VOICES,
    voices={"Ethan": 1, "aiden": 0},
    default_voice="Ethan",
    speech_prompts=SpeechPrompts(voice_prompts={"ethan": [5, 6]}),
    talker=TalkerContract("interleaved", True, "frame_codes", "content", 16, True, True, "frames"),
)
TABLE = np.full((2, GROUPS, 5), -1)
TABLE[0, :, :5], TABLE[1, :, :3] = np.arange(20).reshape(GROUPS, 5), np.arange(12).reshape(GROUPS, 3)


class CountingEncoder:
    """Codes that tell what the engine was given: the frame's number, and how loud it is."""

    def __init__(self) -> None:
        inputs = (
            TensorSpec("waveform", "float32", ("batch", "samples")),
            TensorSpec("waveform_length", "int64", ("batch",)),
        )
        self.entry = StageEntry(
            "codec_encoder",
            "fake",
            "cpu",
            (),
            StageInterface(
                inputs, (), (), {"sample_rate": RATE, "samples_per_frame": FRAME, "num_quantizers": GROUPS}
            ),
        )
        self.feeds: list[dict[str, np.ndarray]] = []

    def run(self, feeds: Any, slots: Any = (), outputs: Any = None) -> dict[str, np.ndarray]:
        for spec in self.entry.inputs:
            assert feeds[spec.name].dtype == spec.dtype and feeds[spec.name].ndim == len(spec.shape)
        self.feeds.append(feeds)
        frames = feeds["waveform"].reshape(1, -1, FRAME)
        loudness = (np.abs(frames).mean(2) * 100).astype(np.int64)
        return {"codes": np.stack([np.arange(frames.shape[1])[None], loudness, loudness, loudness], axis=2)}


def voice_like(seconds: float, rate: int) -> np.ndarray:
    """A gliding tone with overtones below 3.5 kHz,
    so that every rate here can carry it; float32 [samples].
    """
    time = np.arange(round(seconds * rate)) / rate
    turns = 150 * time + 25 * np.sin(2 * np.pi * 0.7 * time)
    swell = 0.2 + 0.1 * np.sin(2 * np.pi * 2.3 * time)
    return sum(swell * np.sin(2 * np.pi * partial * turns) / partial for partial in range(1, 12)).astype(
        np.float32
    )


def written(path: Path, samples: np.ndarray, rate: int) -> Path:
    soundfile.write(path, samples, rate)
    return path


@pytest.fixture
def encoder() -> CountingEncoder:
    return CountingEncoder()


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The real stage, small and with random weights, in ONNX Runtime."""
    pytest.importorskip("torch")
    ir = pytest.importorskip("onnx_ir")
    from antiphon.export.engines.onnxruntime.lower import lower
    from antiphon.export.portable import export_portable
    from antiphon.export.weights import write_weights
    from antiphon.graphs.config import CodecEncoderConfig, OmniConfig
    from antiphon.graphs.random.codec_encoder_tensors import codec_encoder
    from antiphon.graphs.random.random_values import values
    from antiphon.graphs.stages.codec_encoder.stage import codec_encoder_stage
    from antiphon.runtime.engines.onnxruntime.engine import OnnxEngine

    config = CodecEncoderConfig(
        codebook_size=64,
        codebook_dim=16,
        hidden_size=32,
        num_filters=4,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=2,
        head_dim=16,
        intermediate_size=64,
        sliding_window=20,
    )
    stage = codec_encoder_stage(cast(OmniConfig, SimpleNamespace(codec_encoder=config)))
    tensors = {tensor.name: values(tensor, 0) for tensor in codec_encoder(config)}
    model, folder = export_portable(stage), tmp_path_factory.mktemp("codec_encoder")
    write_weights(
        model,
        stage.weights(None),
        SimpleNamespace(path="random", read=tensors.__getitem__),
        folder / "weights.bin",
    )
    ir.save(lower(stage, model).graph, folder / "engine.onnx")
    return OnnxEngine(
        folder / "engine.onnx", StageEntry(stage.name, "onnxruntime", "cpu", (), stage.interface), threads=1
    )


@pytest.mark.parametrize("wanted", ["ethan", "Ethan", "ETHAN"])
def test_named_voice_is_found_in_upper_and_lower_case(wanted: str) -> None:
    voice = find_voice(CODEC_VOICES, wanted)
    assert (voice.codec_id, voice.codes, voice.prompt_ids, voice.name) == (38, None, (), "Ethan")


def test_named_voice_has_its_frames_without_padding_when_the_bundle_has_a_table() -> None:
    voice = find_voice(PROMPT_VOICES, "ETHAN", TABLE)
    assert (
        voice.codec_id is None
        and voice.prompt_ids == (5, 6)
        and voice.codes is not None
        and voice.codes.dtype == np.int64
    )
    np.testing.assert_array_equal(voice.codes, np.arange(12).reshape(GROUPS, 3).T)
    other = find_voice(PROMPT_VOICES, "aiden", TABLE)
    assert other.prompt_ids == () and other.codes is not None and other.codes.shape == (5, GROUPS)


def test_default_voice_is_taken_when_none_is_named() -> None:
    assert find_voice(CODEC_VOICES).codec_id == 39 and find_voice(PROMPT_VOICES, None, TABLE).name == "Ethan"
    assert find_voice(dataclasses.replace(CODEC_VOICES, default_voice=None)).codec_id == 38


@pytest.mark.parametrize("wanted", ["Etan", "", 7, None, "with space", True])
def test_unknown_voice_is_an_error_that_lists_the_voices(wanted: Any) -> None:
    manifest = (
        CODEC_VOICES
        if wanted is not None
        else dataclasses.replace(CODEC_VOICES, voices={}, default_voice=None)
    )
    with pytest.raises(AntiphonError, match="There is no voice .*voices are (Ethan, aiden|none)"):
        find_voice(manifest, wanted, encoder=CountingEncoder())


def test_recording_is_an_error_when_the_bundle_has_no_codec_encoder(tmp_path: Path) -> None:
    with pytest.raises(AntiphonError, match="no stage codec_encoder; the bundle's voices are Ethan, aiden"):
        find_voice(CODEC_VOICES, written(tmp_path / "voice.wav", voice_like(2, RATE), RATE))


@pytest.mark.parametrize(
    ("table", "words"),
    [
        (TABLE[:1], "missing or broken"),
        (np.full_like(TABLE, -1), "missing or broken"),
        (np.where(TABLE == 1, 64, TABLE), "broken"),
        (np.where(TABLE == 1, -1, TABLE), "broken"),
        (np.where(TABLE == -1, -2, TABLE), "broken"),
    ],
)
def test_voice_is_refused_when_its_row_of_the_table_is_broken(table: np.ndarray, words: str) -> None:
    with pytest.raises(AntiphonError, match=f"Ethan.*{words}.*build the bundle again"):
        find_voice(PROMPT_VOICES, "ethan", table)


def test_without_a_table_the_bundle_is_broken_and_not_the_voice() -> None:
    with pytest.raises(
        AntiphonError, match="The bundle lacks frontend/voices.npy.*build the bundle again"
    ) as raised:
        find_voice(PROMPT_VOICES, "ethan", None)
    assert "Ethan" not in str(raised.value)


def test_voices_by_codec_id_need_no_table_and_read_none() -> None:
    assert find_voice(CODEC_VOICES, "Ethan", TABLE).codec_id == 38


def test_voice_table_is_read_as_it_was_written(tmp_path: Path) -> None:
    assert read_voice_table(tmp_path) is None
    np.save(tmp_path / VOICES_FILE, TABLE)
    np.testing.assert_array_equal(read_voice_table(tmp_path), TABLE)


@pytest.mark.parametrize(
    "broken",
    [
        b"",
        b"\x93NUMPY\x01",
        b"no array",
        TABLE[0],
        TABLE.astype(np.float32),
        TABLE[:, :, :0],
        np.array([{}]),
        "archive",
        "cut",
    ],
)
def test_broken_voice_table_is_one_sentence(broken: Any, tmp_path: Path) -> None:
    path = tmp_path / VOICES_FILE
    if isinstance(broken, bytes):
        path.write_bytes(broken)
    elif isinstance(broken, str):
        file = io.BytesIO()
        np.savez(file, TABLE) if broken == "archive" else np.save(file, TABLE)
        path.write_bytes(file.getvalue() if broken == "archive" else file.getvalue()[:-9])
    else:
        np.save(path, broken, allow_pickle=True)
    with pytest.raises(AntiphonError, match="voices.npy .*build the bundle again"):
        read_voice_table(tmp_path)


def test_recording_goes_to_the_encoder_in_whole_frames_with_its_length(encoder: CountingEncoder) -> None:
    samples = voice_like(1.5, RATE)[: 18 * FRAME + 7]
    voice = voice_from_recording(samples, encoder, RATE, EngineLock())
    (feeds,) = encoder.feeds
    assert feeds["waveform"].shape == (1, 19 * FRAME) and feeds["waveform_length"].tolist() == [
        18 * FRAME + 7
    ]
    np.testing.assert_array_equal(feeds["waveform"][0, : len(samples)], samples)
    assert not feeds["waveform"][0, len(samples) :].any()
    assert isinstance(voice, Voice) and voice.codec_id is None and voice.prompt_ids == ()
    assert (
        voice.codes is not None
        and voice.codes.shape == (19, GROUPS)
        and voice.codes.dtype == np.int64
        and voice.codes[:, 0].tolist() == list(range(19))
    )


def test_recording_is_taken_in_every_form(encoder: CountingEncoder, tmp_path: Path) -> None:
    path = written(tmp_path / "sample.wav", voice_like(2, RATE), RATE)
    data = path.read_bytes()
    text = base64.b64encode(data).decode()
    expected = voice_from_recording(path, encoder).codes
    for source in (
        str(path),
        data,
        bytearray(data),
        io.BytesIO(data),
        text,
        f"data:audio/wav;base64,{text}",
        path.as_uri(),
    ):
        voice = find_voice(PROMPT_VOICES, source, TABLE, cast(Any, encoder))
        np.testing.assert_array_equal(voice.codes, expected)
    assert voice_from_recording(path, encoder).name == "sample"


def test_name_goes_before_a_file_of_that_name(
    encoder: CountingEncoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("ethan", "someone"):
        written(Path(name + ".wav"), voice_like(2, RATE), RATE).rename(name)
    assert find_voice(PROMPT_VOICES, "ethan", TABLE, cast(Any, encoder)).name == "Ethan"
    codes = find_voice(PROMPT_VOICES, "someone", TABLE, cast(Any, encoder)).codes
    assert codes is not None and len(codes) == 25


@pytest.mark.parametrize(
    "wanted",
    [
        "sample.wav",
        "somewhere/else",
        "data:audio/wav;base64,",
        "https://example.com/a.wav",
        b"no audio at all",
    ],
)
def test_broken_source_says_what_is_wrong_with_it(encoder: CountingEncoder, wanted: Any) -> None:
    with pytest.raises(AntiphonError) as caught:
        find_voice(PROMPT_VOICES, wanted, TABLE, cast(Any, encoder))
    assert "There is no voice" not in str(caught.value)


def test_a_server_takes_no_voice_from_a_local_file(
    encoder: CountingEncoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, policy = written(tmp_path / "voice.wav", voice_like(2, RATE), RATE), MediaPolicy.for_server()
    assert (
        find_voice(PROMPT_VOICES, path.read_bytes(), TABLE, cast(Any, encoder), policy=policy).codes
        is not None
    )
    path.rename(tmp_path / "voice")
    monkeypatch.chdir(tmp_path)
    for name in ("voice", "absent"):
        with pytest.raises(AntiphonError, match=f"There is no voice '{name}'"):
            find_voice(PROMPT_VOICES, name, TABLE, cast(Any, encoder), policy=policy)
    for source in ("./voice", "./absent", tmp_path / "voice", "file:voice"):
        with pytest.raises(AntiphonError, match="encode its content as base64 or give a data URL"):
            find_voice(PROMPT_VOICES, source, TABLE, cast(Any, encoder), policy=policy)


@pytest.mark.parametrize("rate", [8000, 11025, 22050, 24000, 44100, 48000])
def test_recordings_of_1_and_of_30_seconds_are_taken_at_every_rate(
    encoder: CountingEncoder, rate: int
) -> None:
    for seconds, frames in ((1, 13), (30, 375)):
        codes = voice_from_recording(voice_like(seconds, rate), encoder, rate).codes
        assert codes is not None and len(codes) == frames


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.9, "is 0.9 s long, expected 1 to 30 s; give a longer"), (31, "is 31 s long, .* give a shorter")],
)
@pytest.mark.parametrize("rate", [8000, 44100])
def test_recording_is_refused_when_too_short_or_too_long(
    encoder: CountingEncoder, seconds: float, words: str, rate: int
) -> None:
    with pytest.raises(AntiphonError, match=words):
        voice_from_recording(voice_like(seconds, rate), encoder, rate)
    assert not encoder.feeds


@pytest.mark.parametrize("loudness", [0.0, 5e-5])
def test_silent_recording_is_refused(encoder: CountingEncoder, loudness: float) -> None:
    with pytest.raises(AntiphonError, match="silent"):
        voice_from_recording(np.full(2 * RATE, loudness), encoder, RATE)
    with pytest.raises(AntiphonError, match="NaN"):
        voice_from_recording(np.full(2 * RATE, np.nan), encoder, RATE)


@pytest.mark.parametrize("rate", [None, 0, -1, 24000.0, True])
def test_array_is_refused_when_its_rate_is_not_known(encoder: CountingEncoder, rate: Any) -> None:
    with pytest.raises(AntiphonError, match="sample_rate"):
        voice_from_recording(voice_like(2, RATE), encoder, rate)


def test_one_sound_gives_one_voice_at_any_rate_and_in_any_file(engine: Any, tmp_path: Path) -> None:
    high = voice_like(3, 44100)
    stereo = np.stack([high * 1.5, high * 0.5], axis=1)
    wav, flac = (
        written(tmp_path / "voice.wav", stereo / 2, 44100),
        written(tmp_path / "voice.flac", high / 2, 44100),
    )
    low = soxr.resample(high / 2, 44100, 8000, quality="VHQ")
    voices = [
        voice_from_recording(source, engine, rate).codes
        for source, rate in ((wav, None), (flac, None), (low, 8000), (voice_like(3, 24000) / 2, 24000))
    ]
    first = cast(np.ndarray, voices[0])
    assert first.shape == (38, 16) and (first >= 0).all() and (first < 64).all()
    assert len(np.unique(first[:, 1:])) > 30  # the codes say something
    alike = [float((cast(np.ndarray, codes) == first).mean()) for codes in voices[1:]]
    assert alike[0] > 0.98 and min(alike) > 0.7, alike
    semantic = [float((cast(np.ndarray, codes)[:, 0] == first[:, 0]).mean()) for codes in voices[1:]]
    assert min(semantic) > 0.9, semantic


def test_a_voice_that_the_talker_cannot_take_is_refused() -> None:
    frames = Voice(None, np.zeros((3, GROUPS), np.int64), name="mine")
    assert check_voice(frames, "frames", GROUPS, 64) is frames
    assert check_voice(Voice(7, None), "codec_id", GROUPS).codec_id == 7
    with pytest.raises(AntiphonError, match="'mine' is frames, the bundle's Talker expects a codec id; take"):
        check_voice(frames, "codec_id", GROUPS)
    with pytest.raises(AntiphonError, match="is a codec id, the bundle's Talker expects frames; take"):
        check_voice(Voice(7, None), "frames", GROUPS)
    broken = frames.codes
    for codes in (broken[:, :2], broken[:0], broken - 1, broken + 64, broken.astype(float), broken[0]):
        with pytest.raises(
            AntiphonError, match=r"expected int64 \[frames, 4\] of codes from 0 below 64; take"
        ):
            check_voice(dataclasses.replace(frames, codes=codes), "frames", GROUPS, 64)
