"""What the manifest takes from config.json, from generation_config.json and from the tokenizer."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")

from antiphon.export.frontend import write_frontend
from antiphon.export.manifest import compose_manifest, sampling_defaults
from antiphon.graphs.checkpoints.read_config import read_config
from antiphon.runtime.bundle.errors import AntiphonError
from antiphon.runtime.bundle.files import FileHash, hash_folder
from antiphon.runtime.bundle.manifest import Manifest, ModelConstants, read_manifest, write_manifest
from antiphon.runtime.bundle.sampling import SamplingParameters
from antiphon.runtime.bundle.talker_contract import TalkerContract
from antiphon.runtime.bundle.version import VERSION

PREDICTOR = SamplingParameters(temperature=1.0, top_k=50, top_p=0.8)


def compose(checkpoint: Path, home: Path, **changes: Any) -> Manifest:
    """The manifest of a checkpoint whose top-level and Talker fields were changed, without its stages."""
    config = json.loads((checkpoint / "config.json").read_text())
    for name, value in changes.items():
        (config["talker_config"] if name in config["talker_config"] else config)[name] = value
    (home / "config").mkdir()
    (home / "config" / "config.json").write_text(json.dumps(config))
    write_frontend(checkpoint, read_config(checkpoint), home / "frontend")
    return compose_manifest(
        read_config(home / "config"),
        home / "frontend",
        {},
        target="cpu",
        precision="fp32",
        tool_versions={"torch": "2"},
        build={"seconds": 1.5},
        hashes={"a": FileHash(1, "00")},
    )


def test_a_bundle_says_what_it_is(tiny_bundle: Path, tiny_checkpoint: Path) -> None:
    manifest, config = read_manifest(tiny_bundle), read_config(tiny_checkpoint)
    assert (manifest.family, manifest.antiphon_version, manifest.target) == ("qwen3_omni_moe", VERSION, "cpu")
    assert (manifest.precision, manifest.speaks) == ("fp32", True)
    assert {"torch", "onnx", "onnxruntime", "numpy"} <= manifest.tool_versions.keys()
    assert (
        config.talker is not None
        and manifest.voices == config.talker.speaker_id
        and manifest.default_voice == "ethan"
    )
    assert manifest.constants == ModelConstants(65536, 65536, 256)
    assert (
        manifest.talker == TalkerContract("summed", False, "frame_rows", "media", 0, False, False, "codec_id")
        and manifest.interleave == "dual_track"
    )
    files = {path.relative_to(tiny_bundle).as_posix() for path in tiny_bundle.rglob("*") if path.is_file()}
    assert files == {*manifest.hashes, "manifest.json"}
    for name, stage in manifest.stages.items():
        assert (
            stage.name == name
            and stage.artifacts == (f"stages/{name}/engine.onnx",)
            and stage.artifacts[0] in manifest.hashes
            and stage.key
        )
    assert {"samples_per_frame", "lead_samples", "sample_rate"} <= manifest.stages[
        "code2wav"
    ].interface.constants.keys()
    assert set(manifest.build["stages"]) == set(manifest.stages)


def test_every_id_comes_from_the_configuration_or_the_tokenizer(
    tiny_bundle: Path, tiny_checkpoint: Path
) -> None:
    ids, raw = read_manifest(tiny_bundle).ids, json.loads((tiny_checkpoint / "config.json").read_text())
    tokenizer = json.loads((tiny_checkpoint / "tokenizer.json").read_text())
    for name in ("im_start", "im_end", "system", "user", "assistant", "tts_pad", "tts_bos", "tts_eos"):
        assert ids[name] == raw[f"{name}_token_id"]
    for name in ("audio", "image", "video"):
        assert ids[name] == raw["thinker_config"][f"{name}_token_id"]
    for name in ("nothink", "think_bos", "think_eos", "pad", "bos"):
        assert ids[f"codec_{name}"] == raw["talker_config"][f"codec_{name}_id"]
    assert ids["codec_eos"] == raw["talker_config"]["codec_eos_token_id"]
    assert ids["eos"] == [raw["im_end_token_id"]]
    assert ids["newline"] == tokenizer["model"]["vocab"]["Ċ"]


def test_a_composed_manifest_reads_back(tiny_checkpoint: Path, tmp_path: Path) -> None:
    manifest = compose(tiny_checkpoint, tmp_path)
    manifest = dataclasses.replace(manifest, hashes=hash_folder(tmp_path))
    write_manifest(tmp_path, manifest)
    assert read_manifest(tmp_path) == manifest


def test_the_first_voice_speaks_where_there_is_no_ethan(tiny_checkpoint: Path, tmp_path: Path) -> None:
    manifest = compose(tiny_checkpoint, tmp_path, speaker_id={"Eve": 300, "adam": 301})
    assert manifest.voices == {"eve": 300, "adam": 301} and manifest.default_voice == "eve"


def test_a_bundle_without_speech_has_no_voices_and_no_codec_ids(
    tiny_checkpoint: Path, tmp_path: Path
) -> None:
    manifest = compose(tiny_checkpoint, tmp_path, enable_audio_output=False)
    assert (
        manifest.voices == {}
        and manifest.default_voice is None
        and not manifest.speaks
        and manifest.talker is None
        and manifest.interleave is None
    )
    assert not [name for name in manifest.ids if name.startswith("codec_")]
    assert manifest.constants == ModelConstants(65536)


@pytest.mark.parametrize(
    ("generation", "thinker"),
    [
        ({}, SamplingParameters(temperature=0.0, top_k=0, top_p=1.0)),
        (
            {"do_sample": False, "temperature": 0.7, "top_k": 20, "top_p": 0.9},
            SamplingParameters(temperature=0.0, top_k=0, top_p=1.0),
        ),
        ({"do_sample": True}, SamplingParameters(temperature=1.0, top_k=50, top_p=1.0)),
        (
            {"do_sample": True, "temperature": 0.7, "top_k": 20, "top_p": 0.9},
            SamplingParameters(temperature=0.7, top_k=20, top_p=0.9),
        ),
        (
            {"do_sample": True, "temperature": None, "top_k": None, "top_p": None},
            SamplingParameters(temperature=1.0, top_k=50, top_p=1.0),
        ),
        (
            {"repetition_penalty": 1.2},
            SamplingParameters(temperature=0.0, top_k=0, top_p=1.0, repetition_penalty=1.2),
        ),
    ],
)
def test_the_thinker_samples_as_generation_config_says(
    generation: dict[str, Any], thinker: SamplingParameters
) -> None:
    found = sampling_defaults(generation, PREDICTOR)
    assert found["thinker"] == thinker
    assert found["talker"] == SamplingParameters(
        temperature=0.9, top_k=50, top_p=1.0, repetition_penalty=1.05
    )
    assert found["predictor"] == PREDICTOR


def test_the_talker_has_keys_of_its_own() -> None:
    generation = {
        "talker_temperature": 0.5,
        "talker_top_k": 7,
        "talker_top_p": 0.6,
        "talker_repetition_penalty": 1.3,
    }
    assert sampling_defaults(generation, PREDICTOR)["talker"] == SamplingParameters(
        temperature=0.5, top_k=7, top_p=0.6, repetition_penalty=1.3
    )
    assert sampling_defaults(generation, PREDICTOR)["predictor"] == PREDICTOR


def test_the_code_predictors_keys_override_what_the_family_fixes() -> None:
    found = sampling_defaults({"predictor_temperature": 0.3, "predictor_top_k": 8}, PREDICTOR)["predictor"]
    assert found == dataclasses.replace(PREDICTOR, temperature=0.3, top_k=8)


@pytest.mark.parametrize(
    ("fixture", "predictor"),
    [("tiny_bundle", PREDICTOR), ("hybrid_bundle", SamplingParameters(temperature=0.9, top_k=50, top_p=1.0))],
)
def test_the_predictor_samples_as_its_family_fixes(
    fixture: str, predictor: SamplingParameters, request: pytest.FixtureRequest
) -> None:
    from antiphon.runtime.bundle.manifest import read_manifest

    assert read_manifest(request.getfixturevalue(fixture)).sampling["predictor"] == predictor


def test_a_talker_that_embeds_text_itself_is_interleaved_and_has_manners(hybrid_bundle: Path) -> None:
    from antiphon.runtime.bundle.manifest import read_manifest

    manifest = read_manifest(hybrid_bundle)
    assert manifest.interleave == "chunked:4,4" and manifest.constants.frames_per_text == 1.0
    assert manifest.talker == TalkerContract(
        "interleaved", True, "frame_codes", "content", 16, True, True, "frames"
    )
    assert (
        {"english", "german"} <= manifest.speech_prompts.languages.keys()
        and manifest.speech_prompts.styles
        and manifest.speech_prompts.voice_prompts
    )
    assert (hybrid_bundle / "frontend" / "voices.npy").is_file()


def composed_with(checkpoint: Path, home: Path, generation: dict[str, Any]) -> Manifest:
    """The manifest of a checkpoint with more keys in its generation_config.json, without its stages."""
    write_frontend(checkpoint, read_config(checkpoint), home / "frontend")
    constants = json.loads((home / "frontend" / "frontend.json").read_text())
    constants["generation"] |= generation
    (home / "frontend" / "frontend.json").write_text(json.dumps(constants))
    return compose_manifest(
        read_config(checkpoint),
        home / "frontend",
        {},
        target="cpu",
        precision="fp32",
        tool_versions={},
        build={},
        hashes={},
    )


def test_what_a_checkpoint_knows_of_its_voices_pace_and_interleave_goes_into_the_manifest(
    hybrid_checkpoint: Path, tmp_path: Path
) -> None:
    manifest = composed_with(
        hybrid_checkpoint,
        tmp_path,
        {"frames_per_text": 2.5, "frames_per_token": 3.5, "interleave": "adaptive"},
    )
    assert (
        manifest.interleave == "adaptive"
        and manifest.talker is not None
        and manifest.talker.layout == "interleaved"
    )
    assert (manifest.constants.frames_per_text, manifest.constants.frames_per_token) == (2.5, 3.5)


def test_a_talker_of_the_second_family_can_be_trained_for_the_dual_track(
    hybrid_checkpoint: Path, tmp_path: Path
) -> None:
    manifest = composed_with(hybrid_checkpoint, tmp_path, {"interleave": "dual_track"})
    assert manifest.interleave == "dual_track"
    assert manifest.talker == TalkerContract(
        "summed", True, "frame_codes", "content", 16, True, True, "frames"
    )


@pytest.mark.parametrize(
    ("generation", "message"),
    [
        ({"frames_per_text": 0}, "frames_per_text is 0, expected frames of speech a text token"),
        ({"frames_per_token": "3"}, "frames_per_token is '3', expected frames of speech a text token"),
        ({"interleave": "chunked:0,4"}, "interleave is 'chunked:0,4', expected dual_track"),
        ({"interleave": 4}, "interleave is 4, expected dual_track"),
    ],
)
def test_a_pace_or_an_interleave_that_is_none_is_refused(
    hybrid_checkpoint: Path, tmp_path: Path, generation: dict[str, Any], message: str
) -> None:
    with pytest.raises(AntiphonError, match=message):
        composed_with(hybrid_checkpoint, tmp_path, generation)
