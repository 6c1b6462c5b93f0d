"""Random checkpoints of Qwen3.5-Omni: names and shapes of its references, either layout of Gated DeltaNet,
text and speech worth comparing.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tokenizers import Tokenizer

pytest.importorskip("torch")

import torch

from antiphon.graphs.checkpoints.checkpoint import Checkpoint
from antiphon.graphs.checkpoints.read_config import read_config
from antiphon.graphs.families.registry import stages
from antiphon.graphs.layers.decoder_specs import greedy_sampling
from antiphon.graphs.module_engine.runner import ModuleRunner
from antiphon.graphs.random.configuration import configuration
from antiphon.graphs.random.new_checkpoint import new_checkpoint
from antiphon.graphs.random.tensors import all_tensors
from antiphon.graphs.random.tokenizer import token_ids, train
from antiphon.graphs.stages.code2wav.tensors import tensor_shapes
from antiphon.runtime.bundle.errors import AntiphonError

FAMILY = "qwen3_5_omni"
DENSE = {"thinker_config.text_config.num_experts": 0, "talker_config.text_config.num_experts": 0}
PROMPT = "<|im_start|>user\nHello, how are you?<|im_end|>\n<|im_start|>assistant\n"


def made(path: Path, **arguments: Any) -> Path:
    return new_checkpoint(path, FAMILY, **arguments)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    return Checkpoint(made(tmp_path_factory.mktemp("checkpoints") / "tiny"))


def files(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def test_same_seed_gives_identical_files_and_another_seed_other_weights(
    tiny: Checkpoint, tmp_path: Path
) -> None:
    assert files(tiny.path) == files(made(tmp_path / "again"))
    other = Checkpoint(made(tmp_path / "other", seed=1))
    assert tiny.names() == other.names()
    assert not {tiny.digest(name) for name in tiny.names()} & {other.digest(name) for name in other.names()}


def test_no_file_names_a_processor_as_transformers_has_none(tiny: Checkpoint) -> None:
    for file in tiny.path.glob("*.json"):
        assert "processor_class" not in json.loads(file.read_text(encoding="utf-8")), file.name
    assert (
        json.loads((tiny.path / "tokenizer_config.json").read_text(encoding="utf-8"))["model_max_length"]
        == 262144
    )


@pytest.mark.parametrize(
    "overrides",
    [{}, DENSE, {"thinker_config.mtp_num_hidden_layers": 0, "thinker_config.tie_word_embeddings": True}],
)
def test_every_stage_finds_its_weights_and_no_tensor_is_left(
    tmp_path: Path, overrides: dict[str, Any]
) -> None:
    checkpoint = Checkpoint(made(tmp_path / "new", overrides=overrides))
    used = {"talker.speaker_codec_embeddings"}
    for stage in stages(checkpoint.config):
        with torch.device("meta"):
            parameters = dict(stage.make_module().named_parameters())
        sources = stage.weights(checkpoint)
        assert set(parameters) == set(sources)
        for name, source in sources.items():
            used.update(source.tensors)
            assert source.assemble(*map(checkpoint.read, source.tensors)).shape == tuple(
                parameters[name].shape
            ), (stage.name, name)
    assert set(checkpoint.names()) == used


@pytest.mark.parametrize(
    ("class_name", "overrides"), [("Qwen3_5MoeForCausalLM", {}), ("Qwen3_5ForCausalLM", DENSE)]
)
def test_decoders_have_the_tensors_of_the_reference(
    tmp_path: Path, class_name: str, overrides: dict[str, Any]
) -> None:
    transformers = pytest.importorskip("transformers")
    reference = getattr(transformers, class_name)
    checkpoint = Checkpoint(
        made(tmp_path / "new", layout="fused", linear_layout="split", overrides=overrides)
    )
    section = checkpoint.config.raw["thinker_config"]["text_config"]
    known = {name: value for name, value in section.items() if name != "model_type"}
    with torch.device("meta"):
        model = reference(reference.config_class(**known))
    expected = {f"thinker.{name}": tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    prefixes = ("thinker.model.", "thinker.lm_head.")
    assert {
        name: checkpoint.shape(name) for name in checkpoint.names() if name.startswith(prefixes)
    } == expected


def test_both_layouts_of_linear_attention_hold_the_same_model(tiny: Checkpoint, tmp_path: Path) -> None:
    split = Checkpoint(made(tmp_path / "split", linear_layout="split"))
    fused_only, split_only = set(tiny.names()) - set(split.names()), set(split.names()) - set(tiny.names())
    assert {name.split(".")[-2] for name in fused_only} == {"in_proj_qkvz", "in_proj_ba"}
    assert {name.split(".")[-2] for name in split_only} == {
        "in_proj_qkv",
        "in_proj_z",
        "in_proj_b",
        "in_proj_a",
    }
    prefix, heads, head, group = "talker.model.layers.1.linear_attn", 2, 16, 2
    qkvz = tiny.read(f"{prefix}.in_proj_qkvz.weight").reshape(heads, (2 + 2 * group) * head, -1)
    query, key, value, gate = (
        part.reshape(-1, qkvz.shape[2])
        for part in np.split(qkvz, [head, 2 * head, (2 + group) * head], axis=1)
    )
    np.testing.assert_array_equal(
        np.concatenate([query, key, value]), split.read(f"{prefix}.in_proj_qkv.weight")
    )
    np.testing.assert_array_equal(gate, split.read(f"{prefix}.in_proj_z.weight"))
    ba = tiny.read(f"{prefix}.in_proj_ba.weight").reshape(heads, 2 * group, -1)
    np.testing.assert_array_equal(
        ba[:, :group].reshape(heads * group, -1), split.read(f"{prefix}.in_proj_b.weight")
    )
    np.testing.assert_array_equal(
        ba[:, group:].reshape(heads * group, -1), split.read(f"{prefix}.in_proj_a.weight")
    )


def test_decay_is_neither_none_nor_all_in_every_layer(tiny: Checkpoint) -> None:
    for layer in range(3):
        prefix = f"thinker.model.layers.{layer}.linear_attn"
        rate, bias = np.exp(tiny.read(f"{prefix}.A_log")), tiny.read(f"{prefix}.dt_bias")
        kept = np.exp(-rate * np.log1p(np.exp(bias)))
        assert tiny.dtype(f"{prefix}.A_log") == "F32" and (kept > 0.05).any() and (kept < 1).all()


def test_norms_are_zero_centred_but_for_those_of_linear_attention_and_codec(tiny: Checkpoint) -> None:
    for name in tiny.names():
        if name.endswith("norm.weight") and not name.startswith(("thinker.audio_tower", "thinker.visual")):
            plain = ".linear_attn." in name or name.startswith(("code2wav.", "codec_encoder."))
            assert tiny.read(name).mean() == pytest.approx(
                1.0 if plain else 0.5 if "q_norm" in name else 0.0, abs=0.2
            ), name


def test_code2wav_lies_in_a_folder_of_its_own_under_the_published_names(tiny: Checkpoint) -> None:
    assert sorted(file.name for file in (tiny.path / "codec_decode_online").iterdir()) == [
        "config.yaml",
        "model_weights.pt",
    ]
    assert "code2wav_config" not in tiny.config.raw and tiny.config.code2wav is not None
    expected = tensor_shapes(tiny.config.code2wav)
    assert {name: tiny.shape(name) for name in tiny.names() if name.startswith("code2wav.")} == expected
    weights = torch.load(tiny.path / "codec_decode_online" / "model_weights.pt", weights_only=True)
    assert {name: tuple(tensor.shape) for name, tensor in weights.items()} == {
        f"generator.{name.partition('.')[2]}": shape for name, shape in expected.items()
    }
    assert not [
        name
        for name in json.loads((tiny.path / "model.safetensors.index.json").read_text())["weight_map"]
        if name.startswith("code2wav")
    ]


@pytest.mark.parametrize(
    ("size", "parameters"), [("tiny", 6_102_897), ("small", 361_001_017), ("medium", 2_743_258_993)]
)
def test_sizes_have_their_parameter_counts(tmp_path: Path, size: str, parameters: int) -> None:
    (tmp_path / "config.json").write_text(
        json.dumps(configuration(size, token_ids(train()), "bfloat16", family=FAMILY))
    )
    config = read_config(tmp_path)
    assert config.talker is not None and config.codec_encoder is not None
    assert sum(tensor.size for tensor in all_tensors(config)) == parameters
    for text in (config.thinker.text, config.talker.text):
        assert text.layer_types == (*("linear_attention",) * 3, "full_attention") * (
            text.num_hidden_layers // 4
        )
        assert (
            text.linear is not None
            and text.linear.linear_num_value_heads == 2 * text.linear.linear_num_key_heads
        )
    assert (config.talker.predictor.hidden_size == config.talker.text.hidden_size) == (size == "tiny")
    assert config.thinker.mtp_num_hidden_layers == (size != "medium")


def test_voices_are_prompts_of_codes(tiny: Checkpoint) -> None:
    talker = tiny.config.talker
    assert (
        talker is not None
        and talker.speaker_id == {"chelsie": 0, "ethan": 1, "aiden": 2}
        and talker.default_speaker == "chelsie"
    )
    codes = tiny.read("talker.speaker_codec_embeddings")
    assert codes.dtype == np.int64 and codes.shape == (3, 16, 20)
    assert [(codes[row] >= 0).all(0).sum() for row in range(3)] == [12, 20, 16]
    assert (codes[0, :, 12:] == -1).all() and codes.max() < 256
    special = {
        talker.codec_bos_id,
        talker.codec_eos_token_id,
        talker.codec_pad_id,
        *talker.language_id.values(),
    }
    assert (
        len(special) == 3 + 10 and min(special) >= 256 and max(special) < talker.text.vocab_size == 256 + 3072
    )
    tokenizer = Tokenizer.from_file(str(tiny.path / "tokenizer.json"))
    assert tokenizer.decode(list(talker.speaker_prompt_id["ethan"])) == "A calm voice."


@pytest.mark.parametrize("seed", [0, 1])
def test_greedy_text_is_varied_and_readable(tmp_path: Path, seed: int) -> None:
    checkpoint = Checkpoint(made(tmp_path / "new", seed=seed))
    stage = next(stage for stage in stages(checkpoint.config) if stage.name == "thinker")
    tokenizer, vocabulary = (
        Tokenizer.from_file(str(checkpoint.path / "tokenizer.json")),
        checkpoint.config.thinker.text.vocab_size,
    )
    runner, feed, past, answer = ModuleRunner(stage, checkpoint), tokenizer.encode(PROMPT).ids, 0, []
    states = runner.empty_states(256)
    for _ in range(32):
        feeds = {
            "input_ids": np.array([feed]),
            **decoder_feeds(past, len(feed)),
            **greedy_sampling(1, vocabulary),
        }
        past += len(feed)
        feed = [int(runner.run(complete(stage, feeds), states)["token"][0])]
        answer += feed
    assert checkpoint.config.im_end_token_id not in answer and len(set(answer)) >= 20
    assert "\ufffd" not in "".join(tokenizer.decode([token]) for token in answer)


@pytest.mark.parametrize("seed", [0, 1])
def test_speech_ends_now_and_then_and_is_audible(tmp_path: Path, seed: int) -> None:
    checkpoint = Checkpoint(made(tmp_path / "new", seed=seed))
    talker, by_name = checkpoint.config.talker, {stage.name: stage for stage in stages(checkpoint.config)}
    assert talker is not None
    runner, end, generator = (
        ModuleRunner(by_name["talker"], checkpoint),
        talker.codec_eos_token_id,
        np.random.default_rng(seed),
    )
    states, past, frames, chances = runner.empty_states(512), 0, [generator.integers(0, 256, 16)], []
    for _ in range(150):
        feeds = {
            "text_ids": np.array([[-1]]),
            "codec_ids": np.array([[-1]]),
            "frame_codes": frames[-1][None],
            "frame_index": np.zeros(1, np.int64),
        }
        feeds |= decoder_feeds(past, 1) | greedy_sampling(1, talker.text.vocab_size)
        logits = runner.run(complete(by_name["talker"], feeds), states)["logits"][0]
        past += 1
        scores = np.exp(np.append(logits[:256], logits[end]) / 0.9)
        chances.append(scores[-1] / scores.sum())
        frames.append(
            np.append(
                generator.choice(256, p=scores[:-1] / scores[:-1].sum()), generator.integers(0, 256, 15)
            )
        )
    assert 1 / 300 < np.mean(chances) < 1 / 15
    assert len({frame[0] for frame in frames}) > 50
    wave = ModuleRunner(by_name["code2wav"], checkpoint)
    audio = wave.run(
        {"codes": np.array([frames[:20]]), "past_length": np.zeros(1, np.int64)}, wave.empty_states(32)
    )["audio"]
    assert (
        audio.shape == (1, 20 * 1920)
        and 0.03 < audio.std() < 0.25
        and np.abs(audio).max() < 1
        and abs(audio.mean()) < 0.03
    )


def test_the_codec_encoder_tells_sounds_apart_in_every_codebook(tiny: Checkpoint) -> None:
    stage = next(stage for stage in stages(tiny.config) if stage.name == "codec_encoder")
    noise = np.random.default_rng(0).normal(0, 0.1, (1, 40 * 1920)).astype(np.float32)
    codes = ModuleRunner(stage, tiny).run({"waveform": noise, "waveform_length": np.array([noise.size])}, {})[
        "codes"
    ][0]
    assert codes.shape == (40, 16) and min(len(set(group)) for group in codes.T.tolist()) >= 20


def decoder_feeds(past: int, tokens: int) -> dict[str, np.ndarray]:
    positions = np.broadcast_to(np.arange(past, past + tokens, dtype=np.float32), (3, 1, tokens))
    return {
        "positions": positions,
        "query_length": np.array([tokens]),
        "past_length": np.array([past]),
        "output_index": np.array([tokens - 1]),
    }


def complete(stage: Any, feeds: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """`feeds` with no rows of every input that is not given."""
    shapes = {
        spec.name: (tuple(axis if isinstance(axis, int) else 0 for axis in spec.shape), spec.dtype)
        for spec in stage.inputs
    }
    return {name: np.zeros(shape, dtype) for name, (shape, dtype) in shapes.items()} | feeds


def test_error_leaves_nothing_behind_when_the_layout_is_unknown(tmp_path: Path) -> None:
    with pytest.raises(AntiphonError, match="Unknown linear_layout 'flat'; expected one of fused, split"):
        made(tmp_path / "new", linear_layout="flat")
    assert list(tmp_path.iterdir()) == []
