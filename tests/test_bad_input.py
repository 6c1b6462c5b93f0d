"""Bad input through the command line: each one clear sentence that names the thing and says what to do,
exit code 2, nothing half-written.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

pytest.importorskip("torch")

from antiphon.graphs.checkpoints.checkpoint import Checkpoint
from antiphon.runtime.bundle.errors import AntiphonError
from antiphon.runtime.omni import Omni, load

from .bad_input import (
    FIRST_SHARD,
    QUESTION,
    Place,
    Prepare,
    asking,
    building,
    check_case,
    config,
    cut,
    edit,
    edit_manifest,
    file,
    flip,
    is_clear,
    make_place,
    manifest,
    replace,
)


def as_int8(checkpoint: Path) -> None:
    """Rewrite the header of the first shard so that its first tensor is of a quantised dtype."""
    shard = sorted(checkpoint.glob("*.safetensors"))[0]
    content = shard.read_bytes()
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    name = next(name for name in header if name != "__metadata__")
    header[name] |= {
        "dtype": "I8",
        "shape": [2 * size if place == 0 else size for place, size in enumerate(header[name]["shape"])],
    }
    text = json.dumps(header).encode()
    replace(shard, len(text).to_bytes(8, "little") + text + content[8 + length :])


def drop_tensor(checkpoint: Path) -> None:
    index = checkpoint / "model.safetensors.index.json"
    content = json.loads(index.read_text())
    del content["weight_map"]["talker.codec_head.weight"]
    replace(index, json.dumps(content).encode())


def silence(place: Place) -> None:
    soundfile.write(place.home / "silence.wav", np.zeros(0, np.float32), 16000)


def text_only(place: Place) -> None:
    for stage in ("talker", "predictor", "code2wav"):
        edit_manifest(place.bundle, f"stages.{stage}", None)
    edit_manifest(place.bundle, "talker", None)


CASES: dict[str, tuple[Prepare, str]] = {
    # checkpoints
    "no checkpoint at the path": (
        lambda place: ["build", str(place.home / "nowhere"), str(place.home / "out")],
        "No checkpoint at .*nowhere",
    ),
    "checkpoint is a file": (
        lambda place: ["build", str(place.checkpoint / "config.json"), str(place.home / "out")],
        "No checkpoint at .*config.json",
    ),
    "plan of nothing": (
        lambda place: ["build", str(place.home / "nowhere"), "--plan"],
        "No checkpoint at .*nowhere",
    ),
    "quantised checkpoint": (
        config("thinker_config.quantization_config", {"quant_method": "awq", "bits": 4}),
        "quantised by AWQ to 4 bits",
    ),
    "plan of a quantised checkpoint": (
        lambda place: (
            edit(place.checkpoint / "config.json", "quantization", {"group_size": 64, "bits": 8}),
            ["build", str(place.checkpoint), "--plan"],
        )[1],
        "quantised by MLX to 8 bits",
    ),
    "more layers than any model": (
        config("talker_config.text_config.num_hidden_layers", 10**6),
        "1000000, expected an integer of at most 512",
    ),
    "config is no JSON": (
        building(lambda checkpoint: replace(checkpoint / "config.json", b"{")),
        "config.json is not valid JSON",
    ),
    "unknown family": (config("model_type", "llama"), "unknown model family 'llama'"),
    "config without an id": (config("tts_eos_token_id", None), "field tts_eos_token_id is missing"),
    "config without a nested id": (
        config("talker_config.codec_bos_id", None),
        "field talker_config.codec_bos_id is missing",
    ),
    "config without a section": (config("code2wav_config", None), "section code2wav_config is missing"),
    "config with an id beyond the vocabulary": (
        config("im_end_token_id", 10**6),
        r"im_end_token_id \(1000000\) lies inside the vocabulary",
    ),
    "config at odds with itself": (
        config("talker_config.thinker_hidden_size", 64),
        "thinker_hidden_size is 64, expected 128",
    ),
    "config with a word for a number": (
        config("thinker_config.text_config.rope_theta", "large"),
        "rope_theta is 'large', expected a number",
    ),
    "config with a size of zero": (
        config("thinker_config.text_config.num_key_value_heads", 0),
        "num_key_value_heads is 0, expected an integer of at least 1",
    ),
    "config with voices that are none": (
        config("talker_config.speaker_id", ["Ethan"]),
        "speaker_id is .*, expected voices with their codec ids",
    ),
    "config of other weights": (
        config("thinker_config.audio_config.encoder_ffn_dim", 128),
        r"shape .* expected .* from config.json",
    ),
    "missing shard": (
        building(lambda checkpoint: (checkpoint / FIRST_SHARD).unlink()),
        f"{FIRST_SHARD} is missing",
    ),
    "truncated shard": (
        building(lambda checkpoint: cut(checkpoint / FIRST_SHARD)),
        f"{FIRST_SHARD} is truncated",
    ),
    "empty shard": (
        building(lambda checkpoint: replace(checkpoint / FIRST_SHARD, b"")),
        f"{FIRST_SHARD} is truncated, broken or not a safetensors file",
    ),
    "wrong dtype": (building(as_int8), "is stored as I8, expected one of BF16, F16"),
    "missing tensor": (building(drop_tensor), "tensor talker.codec_head.weight is missing"),
    "index is no index": (
        building(lambda checkpoint: replace(checkpoint / "model.safetensors.index.json", b"{}")),
        "is not an index of shards",
    ),
    "no weights": (
        building(lambda checkpoint: [path.unlink() for path in checkpoint.glob("model*")]),
        "holds no weights",
    ),
    "no tokenizer": (
        building(
            lambda checkpoint: [(checkpoint / name).unlink() for name in ("tokenizer.json", "vocab.json")]
        ),
        "no tokenizer.*vocab.json is missing",
    ),
    "broken tokenizer": (
        building(lambda checkpoint: replace(checkpoint / "tokenizer.json", b"{}")),
        "tokenizer.json holds no BPE model",
    ),
    "no chat template": (
        building(lambda checkpoint: (checkpoint / "chat_template.jinja").unlink()),
        "no chat template",
    ),
    "no preprocessor": (
        building(lambda checkpoint: (checkpoint / "preprocessor_config.json").unlink()),
        "no preprocessor_config.json",
    ),
    # where a bundle goes
    "output below a file": (
        building(lambda checkpoint: None, "file/out"),
        "file is a file, so .* cannot be made below it",
    ),
    "output is a file": (building(lambda checkpoint: None, "file"), "file is a file, expected a folder"),
    "output holds other things": (
        building(lambda checkpoint: None, "things"),
        "things holds files but is no bundle",
    ),
    "read-only output": (building(lambda checkpoint: None, "/proc/out"), "Cannot write the bundle /proc/out"),
    "no output": (lambda place: ["build", str(place.checkpoint)], "needs a BUNDLE folder"),
    "unknown target": (
        lambda place: ["build", str(place.checkpoint), str(place.home / "out"), "--target", "sm999"],
        "Unknown target 'sm999'",
    ),
    "unknown precision": (
        lambda place: ["build", str(place.checkpoint), "--plan", "--precision", "int3"],
        "Unknown precision 'int3'",
    ),
    # bundles
    "no bundle at the path": (
        lambda place: ["run", str(place.home / "nowhere"), "Hi"],
        "No bundle at .*nowhere",
    ),
    "a checkpoint for a bundle": (
        lambda place: ["run", str(place.checkpoint), "Hi"],
        "No bundle at .*checkpoint",
    ),
    "bundle of another version": (
        asking("Hi", spoil=manifest("schema_version", 99)),
        "schema version 99, this Antiphon reads version",
    ),
    "bundle of another target": (
        asking("Hi", spoil=manifest("target", "sm90")),
        "was built for sm90, not for cpu",
    ),
    "bundle of another engine": (
        asking("Hi", spoil=manifest("stages.talker.kind", "tensorrt")),
        "Stage talker was built for the engine 'tensorrt'",
    ),
    "manifest that was edited": (
        asking("Hi", spoil=lambda place: edit(place.bundle / "manifest.json", "voices.ethan", 300)),
        "manifest.json was changed after the build, or is damaged",
    ),
    "manifest is no JSON": (
        asking("Hi", spoil=lambda place: replace(place.bundle / "manifest.json", b"{")),
        "manifest.json is not valid JSON",
    ),
    "manifest without a field": (
        asking("Hi", spoil=manifest("ids", None)),
        "manifest.json lacks the field ids",
    ),
    "bundle without a file": (
        asking("Hi", spoil=lambda place: (place.bundle / "stages/talker/weights.bin").unlink()),
        "lacks the file stages/talker/weights.bin",
    ),
    "bundle with a truncated file": (
        asking("Hi", spoil=lambda place: cut(place.bundle / "stages/code2wav/weights.bin")),
        "weights.bin has .* bytes, expected",
    ),
    "bundle with a flipped byte": (
        lambda place: [
            flip(place.bundle / "stages/thinker/weights.bin") or "inspect",
            str(place.bundle),
            "--hashes",
        ],
        "stages/thinker/weights.bin is damaged",
    ),
    "bundle with an engine that is none": (
        asking(
            "Hi",
            spoil=lambda place: replace(
                path := place.bundle / "stages/talker/engine.onnx", bytes(path.stat().st_size)
            ),
        ),
        "talker/engine.onnx is damaged",
    ),
    "bundle without a tokenizer's content": (
        asking(
            "Hi",
            spoil=lambda place: replace(
                path := place.bundle / "frontend/tokenizer.json", b" " * path.stat().st_size
            ),
        ),
        "tokenizer.json",
    ),
    "speech of a bundle without it": (
        asking("Hi", "--output", "{home}/a.wav", spoil=text_only),
        "holds no speech stages",
    ),
    # questions
    "nothing to ask": (asking(), "There is nothing to ask"),
    "audio file that is not there": (
        asking("--audio", "{home}/nothing.wav"),
        "No audio file at .*nothing.wav",
    ),
    "audio at a web address": (
        asking("--audio", "https://example.org/a.wav"),
        "'https://example.org/a.wav' is a web address and is not fetched",
    ),
    "audio file that is a folder": (asking("--audio", "{home}"), "No audio file at .*: found a folder"),
    "empty audio file": (
        asking("--audio", "{home}/empty.wav", spoil=file("empty.wav", b"")),
        r"audio file .*empty.wav is empty \(0 bytes\)",
    ),
    "text for audio": (
        asking("--audio", "{home}/text.wav", spoil=file("text.wav", b"not a sound at all\n" * 99)),
        "text.wav cannot be read as audio",
    ),
    "audio of no samples": (asking("--audio", "{home}/silence.wav", spoil=silence), "no samples"),
    "text for an image": (asking("--image", "{home}/a.png", spoil=file("a.png", b"not an image")), "a.png"),
    "text for a video": (asking("--video", "{home}/a.mp4", spoil=file("a.mp4", b"not a video")), "a.mp4"),
    "prompt beyond the context": (
        asking("word " * 50, spoil=manifest("constants.thinker_context", 40)),
        "the model's context holds 40",
    ),
    "user turns beyond the Talker's context": (
        asking("word " * 50, spoil=manifest("constants.talker_context", 40)),
        "Talker's context, which holds 40",
    ),
    "unknown voice": (
        asking("Hi", "--voice", "nobody"),
        "no voice 'nobody'; the bundle's voices are aiden, chelsie, ethan",
    ),
    "voice from a recording without a codec encoder": (
        asking("Hi", "--voice", "{home}/voice.wav", spoil=file("voice.wav", b"")),
        "no stage codec_encoder; the bundle's voices are aiden",
    ),
    "style of a Talker that takes none": (
        asking("Hi", "--style", "whisper"),
        "takes no style .found 'whisper'",
    ),
    "language of a Talker that knows none": (
        asking("Hi", "--language", "german"),
        "takes no language .found 'german'.; leave it out",
    ),
    "interleave of the other family": (
        asking("Hi", "--interleave", "chunked:4,4"),
        "cannot follow the interleave 'chunked:4,4'; use dual_track",
    ),
    "no text allowed": (
        asking("Hi", "--max-text-tokens", "0"),
        "max_text_tokens is 0, expected an integer of at least 1",
    ),
    "output that is no WAV": (asking("Hi", "--output", "{home}/a.mp3"), "a.mp3 is not a .wav file"),
    "output in no folder": (
        asking("Hi", "--output", "{home}/nowhere/a.wav"),
        "output folder .*nowhere does not exist",
    ),
}


@pytest.fixture
def place(tiny_checkpoint: Path, tiny_bundle: Path, tmp_path: Path) -> Place:
    return make_place(tmp_path, tiny_checkpoint, tiny_bundle)


@pytest.mark.parametrize("name", list(CASES))
def test_bad_input_is_one_clear_sentence_and_exit_code_2(
    place: Place, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    check_case(place, *CASES[name], monkeypatch)


@pytest.fixture(scope="module")
def omni(tiny_bundle: Path) -> Any:
    with load(tiny_bundle) as omni:
        yield omni


def heard(samples: Any, rate: Any = 16000) -> list[dict[str, Any]]:
    return [
        {
            "role": "user",
            "content": [{"type": "input_audio", "input_audio": {"data": samples, "sample_rate": rate}}],
        }
    ]


@pytest.mark.parametrize(
    ("messages", "options", "named"),
    [
        (heard(np.zeros(0, np.float32)), {}, "audio has no samples"),
        (heard(np.full(400, np.nan, np.float32)), {}, "NaN"),
        (heard(np.zeros((2, 400), np.int64)), {}, "int64|shape"),
        (heard("bm90IGEgc291bmQ="), {}, "cannot be read as audio"),
        (heard("https://example.org/a.wav"), {}, "is a web address and is not fetched"),
        (heard(np.zeros(400, np.float32), 0), {}, "rate"),
        ([], {}, "messages"),
        ("Hi", {}, "messages"),
        ([{"role": "nobody", "content": "Hi"}], {}, "nobody"),
        ([{"role": "user", "content": [{"type": "smell"}]}], {}, "smell"),
        ([{"role": "user", "content": "\ud83d hi"}], {}, "not valid Unicode: character 0"),
        (heard(np.full(400, 1e300)), {}, "far beyond"),
        (QUESTION, {"top_k": 2**63}, "top_k is"),
        (QUESTION, {"greedy": "no"}, "greedy is 'no'"),
        (QUESTION, {"voice": "nobody"}, "no voice 'nobody'"),
        (QUESTION, {"modalities": ("audio",)}, "modalities"),
        (QUESTION, {"temperature": -1.0}, "temperature is -1.0"),
        (QUESTION, {"seed": "one"}, "seed"),
        (QUESTION, {"max_frames": 0}, "max_frames is 0"),
        (QUESTION, {"packet_schedule": ()}, "packet_schedule"),
        (QUESTION, {"loudness": 3}, "no option 'loudness'"),
    ],
)
def test_a_bad_question_raises_before_any_work(
    omni: Omni, messages: Any, options: dict[str, Any], named: str
) -> None:
    with pytest.raises(AntiphonError, match=named) as raised:
        omni.stream(messages, **options)
    assert len(str(raised.value)) < 400 and "\n" not in str(raised.value)
    assert omni.generate(QUESTION, modalities=("text",), max_text_tokens=1).token_ids, (
        "the next question is answered"
    )


@pytest.mark.parametrize(
    ("options", "named"),
    [({"max_streams": 0}, "max_streams is 0"), ({"prefill_chunk": True}, "prefill_chunk is True")],
)
def test_bad_options_of_load_are_refused(tiny_bundle: Path, options: dict[str, Any], named: str) -> None:
    with pytest.raises(AntiphonError, match=named):
        load(tiny_bundle, **options)


def test_a_flipped_byte_is_noticed_by_load_on_request(place: Place) -> None:
    flip(place.bundle / "stages" / "code2wav" / "weights.bin")
    with pytest.raises(AntiphonError, match="stages/code2wav/weights.bin is damaged") as raised:
        load(place.bundle, check_hashes=True)
    assert is_clear(str(raised.value))


def test_a_tensor_is_named_by_the_file_that_holds_it(tiny_checkpoint: Path) -> None:
    with pytest.raises(
        AntiphonError, match="tensor thinker.nothing is missing; use a complete checkpoint"
    ) as raised:
        Checkpoint(tiny_checkpoint).read("thinker.nothing")
    assert is_clear(str(raised.value))
