"""Configurations as publishers and other tools write them: fields of other models, other names,
parts left out, a Thinker alone.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from antiphon.graphs.checkpoints.checkpoint import Checkpoint
from antiphon.graphs.checkpoints.read_config import read_config
from antiphon.graphs.config import NO_ID, OmniConfig
from antiphon.graphs.random.configuration import configuration
from antiphon.graphs.random.tokenizer import token_ids, train
from antiphon.runtime.bundle.errors import AntiphonError

PUBLISHED = Path(__file__).parents[2] / "data" / "qwen3_omni_30b_a3b" / "config.json"
THINKER, TALKER = "thinker_config.text_config", "talker_config.text_config"
REMOVED = object()
Read = Callable[..., OmniConfig]


@pytest.fixture
def read(tmp_path: Path) -> Read:
    """Reads a tiny config.json with changes (dotted path -> value; REMOVED removes the field),
    beside weights that hold `tensors` if any.
    """

    def reader(
        changes: dict[str, Any], family: str = "qwen3_omni_moe", tensors: tuple[str, ...] = ()
    ) -> OmniConfig:
        config = configuration("tiny", token_ids(train()), "bfloat16", family=family)
        for path, value in changes.items():
            *sections, name = path.split(".")
            node = config
            for section in sections:
                node = node[section]
            if value is REMOVED:
                node.pop(name, None)
            else:
                node[name] = value
        (tmp_path / "config.json").write_text(json.dumps(config), encoding="utf-8")
        if tensors:
            index = {"weight_map": dict.fromkeys(tensors, "model-00001-of-00001.safetensors")}
            (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")
        return read_config(tmp_path)

    return reader


def refused(read: Read, *arguments: Any, **options: Any) -> str:
    with pytest.raises(AntiphonError) as caught:
        read(*arguments, **options)
    return str(caught.value)


def test_the_published_code2wav_is_read_as_the_reference_reads_it(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_bytes(PUBLISHED.read_bytes())
    code2wav = read_config(tmp_path).code2wav
    assert (
        code2wav is not None
        and code2wav.codebook_dim == 0
        and code2wav.symmetric_trim
        and code2wav.samples_per_frame == 1920
    )


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("code2wav_config.codebook_dim", 512),
        ("code2wav_config.quantizer_dim", 512),
        ("code2wav_config.symmetric_trim", False),
        ("code2wav_config.semantic_codebook_size", 4096),
        ("talker_config.text_vocab_size", 2048),
        ("talker_config.max_thinker_to_talker_mm_tokens", 16),
        ("talker_config.predictor_projection", True),
        ("thinker_config.textual_time", True),
        ("thinker_config.may_think", True),
        ("thinker_config.timestamp_format", "<{seconds}>"),
        ("thinker_config.mtp_num_hidden_layers", 1),
        ("thinker_config.audio_config.convolutions", 4),
        (f"{THINKER}.gated_attention", True),
        (f"{THINKER}.zero_centred_norms", True),
        (f"{THINKER}.shared_expert_intermediate_size", 96),
        ("codec_encoder", {}),
    ],
)
def test_a_field_of_the_other_family_changes_nothing_in_qwen3_omni(read: Read, path: str, value: Any) -> None:
    plain = read({})
    assert read({path: value}) == plain


@pytest.mark.parametrize("family", ["qwen3_omni_moe", "qwen3_5_omni"])
@pytest.mark.parametrize("text", [THINKER, TALKER])
def test_experts_are_counted_under_either_name(read: Read, text: str, family: str) -> None:
    plain = read({}, family)
    assert read({f"{text}.num_experts": REMOVED, f"{text}.num_local_experts": 8}, family) == plain


@pytest.mark.parametrize("family", ["qwen3_omni_moe", "qwen3_5_omni"])
@pytest.mark.parametrize("text", [THINKER, TALKER])
def test_an_absent_count_of_experts_is_an_error_and_never_dense(read: Read, text: str, family: str) -> None:
    assert f"field {text}.num_experts is missing" in refused(read, {f"{text}.num_experts": REMOVED}, family)


def test_decoders_of_qwen3_5_without_any_field_of_experts_are_dense(read: Read) -> None:
    fields = (
        "num_experts",
        "num_experts_per_tok",
        "moe_intermediate_size",
        "norm_topk_prob",
        "shared_expert_intermediate_size",
    )
    changes = {f"{THINKER}.{name}": REMOVED for name in fields} | {
        f"{THINKER}.model_type": "qwen3_omni_next_text"
    }
    assert read(changes, "qwen3_5_omni").thinker.text.num_experts == 0


@pytest.mark.parametrize(
    "name",
    ["num_experts_per_tok", "moe_intermediate_size", "norm_topk_prob", "shared_expert_intermediate_size"],
)
def test_what_decides_the_experts_of_a_talker_is_stated(read: Read, name: str) -> None:
    assert f"{TALKER}.{name} is missing" in refused(read, {f"{TALKER}.{name}": REMOVED})


def test_a_talker_without_experts_is_refused_since_the_reference_has_none(read: Read) -> None:
    assert "num_experts is 0, expected at least 1" in refused(read, {f"{TALKER}.num_experts": 0})


def test_sliding_attention_is_refused_where_only_full_attention_is_computed(read: Read) -> None:
    path = "talker_config.code_predictor_config.layer_types"
    assert "expected full_attention alone" in refused(read, {path: ["full_attention", "sliding_attention"]})
    assert read({path: ["full_attention", "full_attention"]}) == read({path: REMOVED})


@pytest.mark.parametrize(
    ("section", "renamed"),
    [
        (
            "audio_config",
            {
                "encoder_layers": "num_hidden_layers",
                "encoder_attention_heads": "num_attention_heads",
                "d_model": "hidden_size",
            },
        ),
        (
            "vision_config",
            {"depth": "num_hidden_layers", "num_heads": "num_attention_heads", "in_channels": "in_chans"},
        ),
    ],
)
def test_encoders_are_read_under_the_names_of_the_attribute_maps(
    read: Read, section: str, renamed: dict[str, str]
) -> None:
    plain = read({})
    stored = plain.raw["thinker_config"][section]
    changes = {f"thinker_config.{section}.{old}": REMOVED for old in renamed}
    changes |= {f"thinker_config.{section}.{new}": stored[old] for old, new in renamed.items()}
    assert read(changes) == plain


def test_patch_sizes_are_read_as_a_list_with_one_number_an_axis(read: Read) -> None:
    plain = read({})
    assert read({"thinker_config.vision_config.patch_size": [16, 16]}) == plain
    assert "patch_size" in refused(read, {"thinker_config.vision_config.patch_size": [16, 14]})


@pytest.mark.parametrize("flag", [REMOVED, None, True, False])
@pytest.mark.parametrize("absent", [REMOVED, None, {}])
def test_a_checkpoint_whose_sections_of_speech_are_absent_is_one_without_speech(
    read: Read, flag: Any, absent: Any
) -> None:
    config = read(
        {
            "enable_audio_output": flag,
            "talker_config": absent,
            "code2wav_config": absent,
            "tts_pad_token_id": REMOVED,
        }
    )
    assert config.talker is None and config.code2wav is None and config.tts_pad_token_id == NO_ID
    assert [part.split(":")[0] for part in config.left_out] == ["speech"]


def test_a_checkpoint_with_sections_of_speech_that_it_switches_off_is_one_without_speech(read: Read) -> None:
    config = read({"enable_audio_output": False})
    assert config.talker is None and config.left_out == ("speech: enable_audio_output is false",)


@pytest.mark.parametrize("section", ["talker_config", "code2wav_config"])
def test_speech_that_is_half_there_is_an_error(read: Read, section: str) -> None:
    assert f"section {section} is missing beside" in refused(read, {section: REMOVED})


@pytest.mark.parametrize("flag", [0, "false", []])
def test_a_flag_that_is_no_flag_is_refused(read: Read, flag: Any) -> None:
    assert "expected true or false" in refused(read, {"enable_audio_output": flag})


TEXT = ("thinker.model.embed_tokens.weight",)
SENSES = ("thinker.audio_tower.ln_post.bias", "thinker.visual.pos_embed.weight")


def test_weights_without_a_tensor_of_speech_are_a_variant_without_speech(read: Read) -> None:
    config = read({}, tensors=(*TEXT, *SENSES))
    assert config.talker is None and config.left_out == ("speech: the weights hold no tensor of it",)


def test_weights_with_speech_that_the_configuration_leaves_out_belong_to_another_one(read: Read) -> None:
    changes = {"talker_config": REMOVED, "code2wav_config": REMOVED}
    assert "the weights hold speech" in refused(
        read, changes, tensors=(*TEXT, *SENSES, "talker.codec_head.weight")
    )


@pytest.mark.parametrize("family", ["qwen3_omni_moe", "qwen3_5_omni"])
@pytest.mark.parametrize(
    ("part", "prefix"), [("audio", "thinker.audio_tower."), ("vision", "thinker.visual.")]
)
def test_an_encoder_is_left_out_where_section_or_tensors_are_missing(
    read: Read, family: str, part: str, prefix: str
) -> None:
    others = tuple(name for name in SENSES if not name.startswith(prefix))
    by_section = read({f"thinker_config.{part}_config": None, "enable_audio_output": False}, family)
    by_tensors = read({"enable_audio_output": False}, family, (*TEXT, *others))
    for config in (by_section, by_tensors):
        assert getattr(config.thinker, part) is None and config.left_out[0].startswith(f"{part}: ")
    assert f"the weights hold {part}" in refused(
        read, {f"thinker_config.{part}_config": None}, family, (*TEXT, *SENSES)
    )


def test_the_draft_head_is_left_out_where_the_weights_lack_it(read: Read) -> None:
    changes = {"thinker_config.mtp_num_hidden_layers": 1, "enable_audio_output": False}
    assert read(changes, "qwen3_5_omni", (*TEXT, *SENSES, "mtp.fc.weight")).thinker.mtp_num_hidden_layers == 1
    config = read(changes, "qwen3_5_omni", (*TEXT, *SENSES))
    assert (
        config.thinker.mtp_num_hidden_layers == 0
        and "draft: the weights hold no tensor of it" in config.left_out
    )


@pytest.mark.parametrize("name", ["audio_token_id", "image_token_id", "vision_start_token_id"])
def test_ids_of_media_are_needed_where_there_is_an_encoder(read: Read, name: str) -> None:
    assert f"field thinker_config.{name} is missing" in refused(read, {f"thinker_config.{name}": REMOVED})
    without = {
        "thinker_config.audio_config": None,
        "thinker_config.vision_config": None,
        "enable_audio_output": False,
    }
    assert getattr(read(without | {f"thinker_config.{name}": REMOVED}).thinker, name) == NO_ID


@pytest.mark.parametrize("kind", ["qwen3_omni_moe_talker", "qwen3_omni_moe_code2wav"])
def test_a_part_that_answers_nothing_alone_is_refused_with_what_to_do(read: Read, kind: str) -> None:
    assert "into the folder of the whole checkpoint" in refused(read, {"model_type": kind})


def test_a_thinker_alone_takes_the_ids_of_a_conversation_from_its_tokenizer(
    tiny_checkpoint: Path, tmp_path: Path
) -> None:
    whole = json.loads((tiny_checkpoint / "config.json").read_text(encoding="utf-8"))
    (tmp_path / "config.json").write_text(
        json.dumps(whole["thinker_config"] | {"model_type": "qwen3_omni_moe_thinker"}), encoding="utf-8"
    )
    with pytest.raises(AntiphonError, match="has no token '<|im_start|>'.*put tokenizer.json"):
        read_config(tmp_path)
    for name in ("vocab.json", "tokenizer_config.json"):
        (tmp_path / name).write_bytes((tiny_checkpoint / name).read_bytes())
    config = read_config(tmp_path)
    expected = read_config(tiny_checkpoint)
    assert config.thinker == expected.thinker and config.talker is None
    for name in (
        "im_start_token_id",
        "im_end_token_id",
        "system_token_id",
        "user_token_id",
        "assistant_token_id",
    ):
        assert getattr(config, name) == getattr(expected, name)


def test_tensors_of_a_thinker_alone_have_their_names_in_the_whole(
    tiny_checkpoint: Path, tmp_path: Path
) -> None:
    from safetensors.torch import load_file, save_file

    shards = [load_file(shard) for shard in tiny_checkpoint.glob("*.safetensors")]
    stored = {name: value for shard in shards for name, value in shard.items() if name.startswith("thinker.")}
    save_file(
        {name.removeprefix("thinker."): value for name, value in stored.items()},
        tmp_path / "model.safetensors",
    )
    whole = json.loads((tiny_checkpoint / "config.json").read_text(encoding="utf-8"))
    (tmp_path / "config.json").write_text(json.dumps(whole["thinker_config"]), encoding="utf-8")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (tmp_path / name).write_bytes((tiny_checkpoint / name).read_bytes())
    alone, expected = Checkpoint(tmp_path), Checkpoint(tiny_checkpoint)
    assert alone.names() == tuple(sorted(stored))
    assert all(alone.digest(name) == expected.digest(name) for name in alone.names()[:20])
