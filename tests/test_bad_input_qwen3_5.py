"""Bad input of Qwen3.5-Omni: its codec folder, voices, decoders and speech_prompts of speaking.

As in test_bad_input.py.
"""

from __future__ import annotations

import io
import json
import os
import pickle
import re
import shutil
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from typer.testing import CliRunner

pytest.importorskip("torch")

from safetensors.numpy import save_file

from antiphon.graphs.checkpoints.checkpoint import Checkpoint
from antiphon.runtime.bundle.errors import AntiphonError
from antiphon.runtime.omni import Omni, load
from antiphon.scripts import build as build_command
from antiphon.scripts.cli import app

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
    file,
    make_place,
    manifest,
    replace,
)


class Theft:
    """What a pickle with a call in it would do to whoever loads it."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (os.mkdir, ("stolen",))


def archive(pickled: bytes) -> bytes:
    """A file as torch.save writes it around `pickled`."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as members:
        members.writestr("model_weights/data.pkl", pickled)
        members.writestr("model_weights/version", b"3")
    return content.getvalue()


def codec(change: Callable[[Path], object]) -> Prepare:
    """Build from a checkpoint whose codec folder `change` has spoiled."""
    return building(lambda checkpoint: change(checkpoint / "codec_decode_online"))


def without_line(word: str) -> Callable[[Path], object]:
    """Drop the lines of config.yaml that set `word`."""

    def change(folder: Path) -> None:
        path = folder / "config.yaml"
        replace(
            path,
            "".join(
                line for line in path.read_text().splitlines(True) if line.split(":")[0].strip() != word
            ).encode(),
        )

    return change


def tensors(names: str, change: Callable[[np.ndarray], np.ndarray] | None) -> Prepare:
    """Build from a checkpoint whose tensors with `names` (a regular expression) were changed,
    or left out where `change` is None.
    """

    def spoil(checkpoint: Path) -> None:
        index = checkpoint / "model.safetensors.index.json"
        content = json.loads(index.read_text())
        matching = [name for name in content["weight_map"] if re.fullmatch(names, name)]
        assert matching, names
        if change is None:
            for name in matching:
                del content["weight_map"][name]
        else:
            source = Checkpoint(checkpoint)
            save_file(
                {name: np.ascontiguousarray(change(source.read(name))) for name in matching},
                checkpoint / "changed.safetensors",
            )
            content["weight_map"] |= dict.fromkeys(matching, "changed.safetensors")
        replace(index, json.dumps(content).encode())

    return building(spoil)


def speaking(seconds: float, level: float = 0.1, rate: int = 8000) -> Callable[[Place], object]:
    """A recording voice.wav of noise."""

    def record(place: Place) -> None:
        samples = np.random.default_rng(0).normal(0, 1, int(seconds * rate)) * level
        soundfile.write(place.home / "voice.wav", samples.astype(np.float32), rate)

    return record


def with_voice(spoil: Callable[[Place], object], name: str = "voice.wav") -> Prepare:
    return asking("Hi", "--voice", f"{{home}}/{name}", spoil=spoil)


def without_codec_encoder(place: Place) -> None:
    manifest("stages.codec_encoder", None)(place)
    speaking(2)(place)


LINEAR = r"thinker\.model\.layers\.0\.linear_attn\."
CASES: dict[str, tuple[Prepare, str]] = {
    # the codec's folder
    "no codec folder": (codec(shutil.rmtree), "has no codec: expected codec_decode_online/config.yaml"),
    "codec without a configuration": (
        codec(lambda folder: (folder / "config.yaml").unlink()),
        "has no codec: expected codec_decode_online/config.yaml",
    ),
    "codec without a field": (
        codec(without_line("decoder_dim")),
        "config.yaml: field model.dac.decoder_dim is missing",
    ),
    "codec whose configuration is no YAML": (
        codec(lambda folder: replace(folder / "config.yaml", b"a: [")),
        "config.yaml is not valid YAML",
    ),
    "codec without weights": (
        codec(lambda folder: (folder / "model_weights.pt").unlink()),
        "model_weights.pt cannot be read",
    ),
    "codec with truncated weights": (
        codec(lambda folder: cut(folder / "model_weights.pt")),
        "model_weights.pt is truncated or damaged",
    ),
    "codec with weights that are no archive": (
        codec(lambda folder: replace(folder / "model_weights.pt", b"weights")),
        "is not a zip archive",
    ),
    "codec with a pickle that calls something": (
        codec(lambda folder: replace(folder / "model_weights.pt", archive(pickle.dumps(Theft(), 2)))),
        "model_weights.pt.*'posix mkdir', which Antiphon never does",
    ),
    "codec of other weights": (
        codec(
            lambda folder: replace(
                path := folder / "config.yaml",
                re.sub(rb"decoder_dim: \d+", b"decoder_dim: 48", path.read_bytes()),
            )
        ),
        "model_weights.pt: tensor .* has shape .* by config.yaml",
    ),
    # voices
    "no table of voices": (
        tensors("talker.speaker_codec_embeddings", None),
        "tensor talker.speaker_codec_embeddings is missing",
    ),
    "table of voices with codes out of range": (
        tensors("talker.speaker_codec_embeddings", lambda table: table + 9999),
        "holds codes outside -1 .. 255",
    ),
    "table of voices without one": (
        tensors("talker.speaker_codec_embeddings", lambda table: table[:1]),
        "has no frames in row 1 of speaker ethan",
    ),
    # decoders
    "layer types for other layers": (
        config("thinker_config.text_config.layer_types", ["full_attention"]),
        "layer_types is .* expected 4 times",
    ),
    "layer types that are none": (
        config("talker_config.text_config.layer_types", ["a", "b", "c", "d"]),
        "layer_types is .* expected 4 times",
    ),
    "layer types that are no list": (
        config("thinker_config.text_config.layer_types", 3),
        "layer_types is 3, expected",
    ),
    "rotary section that does not fit": (
        config("thinker_config.text_config.rope_parameters.mrope_section", [9, 9, 9]),
        "mrope_section is 27, expected 8",
    ),
    "projection of another shape": (
        tensors(LINEAR + r"in_proj_.*", lambda weight: weight[:-1]),
        "in_proj_.*shape .* expected",
    ),
    "projection in neither layout": (
        tensors(LINEAR + r"in_proj_.*", None),
        r"linear_attn.in_proj_(qkv|z|b|a).weight is missing",
    ),
    "half a draft head": (tensors(r"thinker\.mtp\.fc\..*", None), "tensor thinker.mtp.fc.* is missing"),
    "draft head of two layers": (
        config("thinker_config.mtp_num_hidden_layers", 2),
        "mtp_num_hidden_layers is 2, expected 0 or 1",
    ),
    "no text embedding of the Talker": (
        tensors(r"talker\.model\.embed_tokens\.weight", None),
        "tensor talker.model.embed_tokens.weight is missing",
    ),
    "negative seconds between timestamps": (
        config("thinker_config.audio_timestamp_seconds", -1),
        "audio_timestamp_seconds is -1, expected seconds",
    ),
    "broken format of timestamps": (
        config("thinker_config.timestamp_format", "<{minutes}>"),
        "timestamp_format is '<.minutes.>', expected a format of seconds",
    ),
    "languages that are none": (
        config("talker_config.talker_language_id", ["german"]),
        "talker_language_id is .* expected names with their ids",
    ),
    "chunks of no text": (config("talker_config.talker_text_in_chunk_n", 0), "talker_text_in_chunk_n"),
    "codec encoder of other codes": (
        config("codec_encoder_config.codebook_size", 128),
        "codec_encoder_config.codebook_size is 128, expected 256",
    ),
    "truncated shard": (
        building(lambda checkpoint: cut(checkpoint / FIRST_SHARD)),
        f"{FIRST_SHARD} is truncated",
    ),
    # questions
    "nothing to ask": (asking(""), "There is nothing to ask"),
    "unknown language": (
        asking("Hi", "--language", "klingon"),
        "no language 'klingon'; the bundle's languages are chinese, english",
    ),
    "unknown interleave": (
        asking("Hi", "--interleave", "sideways"),
        "The interleave is 'sideways', expected",
    ),
    "interleave of an empty chunk": (asking("Hi", "--interleave", "chunked:0,4"), "an empty chunk; expected"),
    "interleave of the other family": (
        asking("Hi", "--interleave", "dual_track"),
        "cannot follow the interleave 'dual_track'; use chunked",
    ),
    "unknown voice": (
        asking("Hi", "--voice", "nobody"),
        "no voice 'nobody'; the bundle's voices are aiden, chelsie, ethan",
    ),
    "bundle without the voices": (
        asking("Hi", spoil=lambda place: (place.bundle / "frontend/voices.npy").unlink()),
        "lacks the file frontend/voices.npy",
    ),
    "voice that is not there": (with_voice(lambda place: None), "is neither an existing file nor base64"),
    "voice too short": (with_voice(speaking(0.5)), "0.5 s long, expected 1 to 30 s; give a longer one"),
    "voice too long": (with_voice(speaking(31)), "31 s long, expected 1 to 30 s; give a shorter one"),
    "voice without a sound": (with_voice(speaking(2, level=0)), "is silent"),
    "text for a voice": (
        with_voice(file("voice.wav", b"not a sound at all" * 99)),
        "voice.wav cannot be read as audio",
    ),
    "voice from a recording without a codec encoder": (
        with_voice(without_codec_encoder),
        "no stage codec_encoder; the bundle's voices are aiden",
    ),
}


@pytest.fixture
def place(hybrid_checkpoint: Path, hybrid_bundle: Path, tmp_path: Path) -> Place:
    return make_place(tmp_path, hybrid_checkpoint, hybrid_bundle)


@pytest.mark.parametrize("name", list(CASES))
def test_bad_input_is_one_clear_sentence_and_exit_code_2(
    place: Place, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    check_case(place, *CASES[name], monkeypatch)


def test_a_checkpoint_of_another_family_is_named_by_verify(
    place: Place, tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    named = "is of family qwen3_5_omni, the checkpoint .* of qwen3_omni_moe"
    check_case(place, lambda place: ["verify", str(place.bundle), str(tiny_checkpoint)], named, monkeypatch)


@pytest.fixture(scope="module")
def omni(hybrid_bundle: Path) -> Any:
    with load(hybrid_bundle) as omni:
        yield omni


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"style": 3}, "style is 3, expected text"),
        ({"language": 3}, "language is 3, expected text"),
        ({"interleave": 4}, "interleave is 4, expected text"),
        ({"interleave": "dual_track"}, "cannot follow the interleave 'dual_track'"),
        ({"voice": 3}, "no voice 3"),
        ({"voice": np.zeros(48000, np.float32)}, "sample_rate None"),
        ({"voice": b"not a sound"}, "cannot be read as audio"),
    ],
)
def test_a_bad_manner_of_speaking_raises_before_any_work(
    omni: Omni, options: dict[str, Any], named: str
) -> None:
    with pytest.raises(AntiphonError, match=named) as raised:
        omni.stream(QUESTION, **options)
    assert len(str(raised.value)) < 400 and "\n" not in str(raised.value)


def test_a_bad_style_or_voice_of_a_conversation_is_refused_at_once(omni: Omni) -> None:
    for options, named in (({"style": 3}, "style is 3"), ({"voice": "nobody"}, "no voice 'nobody'")):
        with pytest.raises(AntiphonError, match=named):
            omni.conversation(**options)  # type: ignore[arg-type]


@pytest.mark.parametrize("interleave", [None, "adaptive"])
def test_the_shortest_answer_and_the_shortest_question_are_answered(
    omni: Omni, interleave: str | None
) -> None:
    for text in ("", "Hi"):
        reply = omni.generate(
            [{"role": "user", "content": text}], max_text_tokens=1, max_frames=3, interleave=interleave
        )
        assert len(reply.token_ids) == 1 and reply.codes.shape == (3, 16) and len(reply.audio) == 3 * 1920


def test_an_interrupted_build_leaves_nothing(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    @contextmanager
    def interrupted() -> Iterator[Any]:
        def report(what: str, *_: object) -> None:
            if what.startswith("thinker"):
                raise KeyboardInterrupt

        yield report

    monkeypatch.setattr(build_command, "progress_bar", interrupted)
    before = sorted(place.home.parent.rglob("*"))
    result = CliRunner().invoke(app, ["build", str(place.checkpoint), str(place.home / "out")])
    assert (result.exit_code, result.stdout, result.stderr) == (130, "", "antiphon: Interrupted.\n")
    assert sorted(place.home.parent.rglob("*")) == before
