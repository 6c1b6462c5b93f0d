"""The codec's own folder: its configuration read as plain values,
and its tensors merged into the checkpoint.
"""

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

yaml = pytest.importorskip("yaml")

from antiphon.graphs.checkpoints import checkpoint as checkpoint_module
from antiphon.graphs.checkpoints.checkpoint import Checkpoint
from antiphon.graphs.checkpoints.torch_archive import write_torch_archive
from antiphon.graphs.config import Code2WavConfig, RopeConfig
from antiphon.graphs.families.qwen3_5_omni.codec_folder import (
    LARGEST_FILE,
    codec_yaml,
    find_codec_folder,
    read_code2wav_config,
)
from antiphon.graphs.stages.code2wav.tensors import tensor_shapes
from antiphon.runtime.bundle.errors import AntiphonError

SMALL = Code2WavConfig(
    codebook_size=16,
    num_quantizers=4,
    hidden_size=12,
    intermediate_size=20,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    sliding_window=6,
    rms_norm_eps=1e-5,
    rope=RopeConfig(5e6),
    upsample_rates=(8, 5, 4, 3),
    upsampling_ratios=(2, 2),
    decoder_dim=32,
    codebook_dim=6,
    quantizer_dim=10,
    latent_dim=14,
    num_semantic_quantizers=1,
    head_dim=8,
    symmetric_trim=False,
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A checkpoint folder with a codec folder in it."""
    codec = tmp_path / "codec_decode_online"
    codec.mkdir()
    (codec / "config.yaml").write_text(codec_yaml(SMALL), encoding="utf-8")
    write_torch_archive(codec / "model_weights.pt", values())
    return tmp_path


def values() -> Any:
    random = np.random.default_rng(0)
    for name, shape in tensor_shapes(SMALL).items():
        yield (
            "generator." + name.removeprefix("code2wav."),
            "F32",
            shape,
            random.normal(size=shape).astype("<f4").tobytes(),
        )


def change(folder: Path, name: str, value: Any) -> Path:
    """Set field `name` of config.yaml, or leave it out where `value` is None; the codec folder."""
    path = folder / "codec_decode_online" / "config.yaml"
    raw = yaml.safe_load(path.read_text())
    *keys, last = name.split(".")
    node = raw
    for key in keys:
        node = node[key]
    if value is None:
        del node[last]
    else:
        node[last] = value
    path.write_text(yaml.safe_dump(raw))
    return path.parent


def sentence(codec: Path) -> str:
    with pytest.raises(AntiphonError) as refused:
        read_code2wav_config(codec)
    text = str(refused.value)
    assert text.startswith(str(codec / "config.yaml")) and "\n" not in text and text.endswith(".")
    return text


@pytest.mark.parametrize(
    "config",
    [
        SMALL,
        dataclasses.replace(
            SMALL,
            latent_dim=12,
            upsampling_ratios=(3,),
            pre_conv_kernel=5,
            sample_rate=16_000,
            rms_norm_eps=1e-6,
        ),
    ],
)
def test_written_configuration_is_read_back(folder: Path, config: Code2WavConfig) -> None:
    codec = find_codec_folder(folder)
    assert codec is not None
    (codec / "config.yaml").write_text(codec_yaml(config))
    assert read_code2wav_config(codec) == config


def test_both_folder_names_are_found_and_the_release_name_first(folder: Path) -> None:
    assert find_codec_folder(folder) == folder / "codec_decode_online"
    (folder / "codec_decode_online").rename(folder / "code2wav")
    assert find_codec_folder(folder) == folder / "code2wav"
    (folder / "code2wav" / "config.yaml").unlink()
    assert find_codec_folder(folder) is None


def test_defaults_are_those_of_the_published_reader(folder: Path) -> None:
    for name in (
        "model.sample_rate",
        "model.pre_conv_kernel",
        "model.dac.upsample_rates",
        "model.post_module.args.n_local_heads",
        "model.post_module.args.norm_eps",
        "model.post_module.args.rope",
        "model.post_module.args.rope_base",
    ):
        codec = change(folder, name, None)
    assert read_code2wav_config(codec) == dataclasses.replace(
        SMALL, num_key_value_heads=4, rope=RopeConfig(10_000.0)
    )
    change(folder, "model.post_module.args.n_local_heads", -1)
    change(folder, "model.upsample_rates", [5])
    assert read_code2wav_config(codec) == dataclasses.replace(
        SMALL, num_key_value_heads=4, rope=RopeConfig(10_000.0), upsampling_ratios=(5,)
    )


def test_latent_width_is_read_under_both_its_spellings(folder: Path) -> None:
    change(folder, "model.dac.latet_dim", None)
    assert "field model.dac.latet_dim is missing" in sentence(folder / "codec_decode_online")
    assert read_code2wav_config(change(folder, "model.dac.latent_dim", 14)) == SMALL


def test_tags_are_never_obeyed(folder: Path) -> None:
    path, proof = folder / "codec_decode_online" / "config.yaml", folder / "proof"
    tagged = (
        codec_yaml(SMALL)
        .replace("model:", "model: !!python/object:some.module.Codec", 1)
        .replace("dac:", "dac: !Other", 1)
    )
    attack = f'attack: !!python/object/apply:os.system ["touch {proof}"]\nother: !!python/name:os.system\n'
    path.write_text(tagged + attack)
    assert read_code2wav_config(path.parent) == SMALL
    assert not proof.exists()
    yaml.unsafe_load(attack)  # the same text does run where tags are obeyed
    assert proof.exists() and os.path.isfile(proof)


def test_small_numbers_without_a_point_are_numbers(folder: Path) -> None:
    path = folder / "codec_decode_online" / "config.yaml"
    path.write_text(codec_yaml(SMALL).replace("norm_eps: 1e-05", "norm_eps: 1e-6"))
    assert read_code2wav_config(path.parent).rms_norm_eps == 1e-6


REQUIRED = (
    "model.quantizer.bins",
    "model.quantizer.n_q",
    "model.quantizer.n_q_semantic",
    "model.quantizer.dimension",
    "model.quantizer.output_dimension",
    "model.dac.decoder_dim",
    "model.dac.decoder_rates",
    "model.post_module.window_size",
    "model.post_module.input_dim",
    "model.post_module.args.n_layer",
    "model.post_module.args.n_head",
    "model.post_module.args.dim",
    "model.post_module.args.head_dim",
    "model.post_module.args.intermediate_size",
)


@pytest.mark.parametrize("name", REQUIRED)
def test_a_missing_or_wrong_field_is_named(folder: Path, name: str) -> None:
    for value in ("wide", True, 0, -3, 1.5, [0], [], {"a": 1}):
        codec = change(folder, name, value)
        assert f"field {name} is " in sentence(codec)
    assert f"field {name} is missing" in sentence(change(folder, name, None))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("model.quantizer.n_q_semantic", 4),
        ("model.dac.decoder_dim", 33),
        ("model.post_module.input_dim", 12),
        ("model.post_module.window_size", 1),
        ("model.post_module.args.head_dim", 7),
        ("model.post_module.args.n_head", 3),
        ("model.post_module.args.rope_base", 10_000),
        ("model.post_module.args.rope", {"rope_type": "yarn"}),
        ("model.post_module.args.rope.rope_theta", -1),
        ("model.post_module.args.norm_eps", "small"),
        ("model.pre_conv_kernel", 1),
        ("model.dac.upsample_rates", []),
        ("model.quantizer", [1]),
        ("model", "x"),
        ("model.post_module.args.norm_eps", float("nan")),
        ("model.sample_rate", "24k"),
    ],
)
def test_values_that_do_not_fit_are_named(folder: Path, name: str, value: Any) -> None:
    assert name in sentence(change(folder, name, value))


def test_a_vast_number_is_one_sentence(folder: Path) -> None:
    path = folder / "codec_decode_online" / "config.yaml"
    path.write_text(codec_yaml(SMALL).replace("decoder_dim: 32", f"decoder_dim: {10**5000:#x}"))
    assert "model.dac.decoder_dim is of type int" in sentence(path.parent)


def test_sizes_beyond_all_bounds_are_refused(folder: Path) -> None:
    assert "upsample_rates of the codec" in sentence(change(folder, "model.dac.decoder_rates", [2] * 20))
    assert "num_hidden_layers of the codec is 1000000, expected an integer of at most 512" in sentence(
        change(folder, "model.post_module.args.n_layer", 10**6)
    )


def test_aliases_are_read_and_merge_keys_are_not(folder: Path) -> None:
    path = folder / "codec_decode_online" / "config.yaml"
    path.write_text(codec_yaml(SMALL) + "a: &a [1, 2]\nb: [*a, *a]\n")
    assert read_code2wav_config(path.parent) == SMALL
    path.write_text(codec_yaml(SMALL) + "a: &a {x: 1}\nb: {<<: *a}\n")
    assert "not valid YAML (line" in sentence(path.parent)


@pytest.mark.parametrize(
    "value", ['!!timestamp "abc"', '!!int ""', "!!bool x", ":".join(["59"] * 300) + ".5", "!!binary é"]
)
def test_a_tag_that_does_not_fit_its_text_is_one_sentence(folder: Path, value: str) -> None:
    path = folder / "codec_decode_online" / "config.yaml"
    path.write_text(codec_yaml(SMALL) + f"z: {value}\n")
    assert "not valid YAML" in sentence(path.parent)


def test_a_file_too_long_or_too_deep_is_refused_before_it_is_parsed(folder: Path) -> None:
    path = folder / "codec_decode_online" / "config.yaml"
    path.write_text(codec_yaml(SMALL) + "#" * LARGEST_FILE)
    assert f"more than the {LARGEST_FILE} bytes" in sentence(path.parent)
    path.write_text(codec_yaml(SMALL) + "z: " + "[" * 41 + "]" * 41)
    assert "nested deeper than 40 levels" in sentence(path.parent)


@pytest.mark.parametrize(
    "text",
    [
        "model: [",
        "a: &a [*a",
        "\x00",
        "date: 2024-99-99",
        "? [1]\n: 2\n? {}\n: 3",
        "[" * 5000,
        "model: *nothing",
        "- 1",
        "",
    ],
)
def test_a_file_that_is_no_mapping_is_refused(folder: Path, text: str) -> None:
    path = folder / "codec_decode_online" / "config.yaml"
    path.write_text(text)
    sentence(path.parent)
    path.write_bytes(b"\xff\xfe\x00")
    assert "not valid YAML" in sentence(path.parent)


def test_the_missing_package_is_named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "yaml", None)
    with pytest.raises(AntiphonError, match=r"needs the package yaml.*antiphon\[build\]"):
        read_code2wav_config(folder / "codec_decode_online")


@pytest.fixture
def opened(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Opens the checkpoint in `folder`, whose safetensors hold one tensor of the Thinker and
    one stale one of Code2Wav.
    """
    header = json.dumps(
        {
            name: {"dtype": "F32", "shape": [1], "data_offsets": [place, place + 4]}
            for name, place in (("thinker.w", 0), ("code2wav.stale", 4))
        }
    ).encode()
    (folder / "model.safetensors").write_bytes(
        len(header).to_bytes(8, "little") + header + b"\0\0\x80\x3f" * 2
    )

    def read(path: Path) -> Any:
        return SimpleNamespace(
            family="qwen3_5_omni", rename={}, code2wav=read_code2wav_config(folder / "codec_decode_online")
        )

    monkeypatch.setattr(checkpoint_module, "read_config", read)
    return lambda: Checkpoint(folder)


def test_checkpoint_holds_the_tensors_of_the_codec_folder(opened: Any) -> None:
    checkpoint = opened()
    assert checkpoint.names() == tuple(sorted([*tensor_shapes(SMALL), "thinker.w"]))
    assert checkpoint.read("thinker.w") == 1 and not checkpoint.has("code2wav.stale")
    for name, _, shape, data in values():
        merged = "code2wav." + name.removeprefix("generator.")
        assert (
            checkpoint.has(merged) and checkpoint.shape(merged) == shape and checkpoint.dtype(merged) == "F32"
        )
        assert checkpoint.read(merged).tobytes() == data
    alpha, beta = (
        checkpoint.digest(f"code2wav.decoder.model.1.block.0.{part}") for part in ("alpha", "beta")
    )
    assert alpha != beta and alpha == opened().digest("code2wav.decoder.model.1.block.0.alpha")


def test_stage_is_loaded_from_the_folder(opened: Any) -> None:
    pytest.importorskip("torch")
    from antiphon.graphs.stages.code2wav.stage import code2wav_stage

    from ...module_pair import load_module

    checkpoint = opened()
    stage = code2wav_stage(SimpleNamespace(code2wav=checkpoint.config.code2wav))  # type: ignore[arg-type]
    load_module(stage, checkpoint)
    assert {tensor for source in stage.weights(checkpoint).values() for tensor in source.tensors} == set(
        tensor_shapes(SMALL)
    )
    assert (
        stage.constants["lead_samples"],
        stage.constants["sample_rate"],
        stage.constants["num_quantizers"],
    ) == (0, 24_000, 4)


def test_weights_of_another_configuration_are_refused(folder: Path, opened: Any) -> None:
    pytest.importorskip("torch")
    from antiphon.graphs.stages.code2wav.stage import code2wav_stage

    change(folder, "model.post_module.args.intermediate_size", 24)
    checkpoint = opened()
    stage = code2wav_stage(SimpleNamespace(code2wav=checkpoint.config.code2wav))  # type: ignore[arg-type]
    with pytest.raises(
        AntiphonError,
        match=(
            "model_weights.pt: "
            "tensor code2wav.pre_transformer.layers.0.feed_forward.w1.weight .* by config.yaml"
        ),
    ):
        stage.weights(checkpoint)


def test_missing_weights_are_one_sentence(folder: Path, opened: Any) -> None:
    (folder / "codec_decode_online" / "model_weights.pt").unlink()
    with pytest.raises(AntiphonError, match="model_weights.pt cannot be read"):
        opened()
