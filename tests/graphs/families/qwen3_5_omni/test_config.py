"""Configurations of Qwen3.5-Omni in every spelling that checkpoints of the family use,
and the one sentence about what is of no use.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from antiphon.graphs.checkpoints.read_config import read_config
from antiphon.graphs.config import OmniConfig
from antiphon.graphs.random.configuration import configuration
from antiphon.graphs.random.tokenizer import token_ids, train
from antiphon.runtime.bundle.errors import AntiphonError

Read = Callable[[dict[str, Any]], OmniConfig]
THINKER, TALKER = "thinker_config.text_config", "talker_config"
LAYERS = ["linear_attention", "full_attention", "linear_attention", "full_attention"]


@pytest.fixture
def read(tmp_path: Path) -> Read:
    """Reads a tiny config.json with changes: dotted path -> value; None removes the field."""

    def reader(changes: dict[str, Any]) -> OmniConfig:
        config = configuration("tiny", token_ids(train()), "bfloat16", family="qwen3_5_omni")
        for path, value in changes.items():
            *sections, name = path.split(".")
            node = config
            for section in sections:
                node = node[section]
            if value is None:
                del node[name]
            else:
                node[name] = value
        (tmp_path / "config.json").write_text(json.dumps(config), encoding="utf-8")
        return read_config(tmp_path)

    return reader


@pytest.mark.parametrize(
    "changes",
    [
        {TALKER + ".accept_hidden_layer": None},
        {TALKER + ".accept_hidden_layer": 9},
        {TALKER + ".accept_hidden_layer": -1},
    ],
)
def test_the_tap_is_after_the_last_norm_where_it_is_unset_or_out_of_range(
    read: Read, changes: dict[str, Any]
) -> None:
    talker = read(changes).talker
    assert talker is not None and talker.accept_hidden_layer == 4


def test_the_tap_may_stand_beside_the_layers_that_it_taps(read: Read) -> None:
    talker = read({TALKER + ".accept_hidden_layer": None, THINKER + ".accept_hidden_layer": 3}).talker
    assert talker is not None and talker.accept_hidden_layer == 3


@pytest.mark.parametrize("name", ["layer_types", "layers_block_type"])
def test_layers_are_read_under_either_name(read: Read, name: str) -> None:
    assert read(
        {f"{THINKER}.layer_types": None, f"{THINKER}.{name}": LAYERS}
    ).thinker.text.layer_types == tuple(LAYERS)


def test_layers_go_by_the_interval_where_no_list_is_given(read: Read) -> None:
    assert read(
        {f"{THINKER}.layer_types": None, f"{THINKER}.full_attention_interval": 2}
    ).thinker.text.layer_types == tuple(LAYERS)


def test_codec_ids_may_stand_at_the_root(read: Read) -> None:
    expected = read({}).talker
    moved = {
        name: getattr(expected, name) for name in ("codec_bos_id", "codec_eos_token_id", "codec_think_id")
    }
    assert read({f"{TALKER}.{name}": None for name in moved} | moved).talker == expected


@pytest.mark.parametrize("speaker_id", [None, {}])
def test_speakers_may_be_called_spk_id(read: Read, speaker_id: Any) -> None:
    talker = read(
        {
            f"{TALKER}.speaker_id": speaker_id,
            f"{TALKER}.spk_id": {"Ryan": 1, "Eve": 0},
            f"{TALKER}.default_speaker_id": None,
        }
    ).talker
    assert talker is not None and talker.speaker_id == {"ryan": 1, "eve": 0}
    assert talker.default_speaker == "ryan", "the first one listed"


def test_friendly_names_of_a_voice_map_speak_with_the_voice_and_prompt_of_their_speaker(
    read: Read, tmp_path: Path
) -> None:
    (tmp_path / "voice_map.json").write_text('{"Ryan": "Ethan", "Aiden": "chelsie"}', encoding="utf-8")
    talker = read({}).talker
    assert talker is not None and talker.speaker_id == {"chelsie": 0, "ethan": 1, "aiden": 2, "ryan": 1}, (
        "a speaker's own name comes first"
    )
    assert talker.speaker_prompt_id["ryan"] == talker.speaker_prompt_id["ethan"] != ()


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("[1]", "holds a list"),
        ("{", "is not valid JSON"),
        ('{"Ryan": 1}', "holds 1"),
        ('{"a\\nb": "ethan"}', "holds 'a.nb'"),
        ('{"Ryan": "m36"}', "names the speaker 'm36'"),
    ],
)
def test_a_voice_map_of_no_use_is_refused(read: Read, tmp_path: Path, content: str, sentence: str) -> None:
    (tmp_path / "voice_map.json").write_text(content, encoding="utf-8")
    with pytest.raises(AntiphonError, match=f"voice_map.json {sentence}"):
        read({})


def test_heads_of_the_vision_encoder_are_read_under_either_name(read: Read) -> None:
    section = "thinker_config.vision_config"
    assert (
        read({f"{section}.num_heads": None, f"{section}.num_attention_heads": 2}).thinker.vision.num_heads
        == 2
    )


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"thinker_config.timestamp_format": "{seconds:99999999.1f}"}, "timestamp_format is '{seconds:9"),
        (
            {"thinker_config.timestamp_format": "{seconds.real}"},
            "timestamp_format is '{seconds.real}', expected a format of seconds",
        ),
        ({"thinker_config.timestamp_format": "x" * 10**6}, "timestamp_format is 'xxx"),
        ({"thinker_config.audio_timestamp_seconds": 10**400}, "audio_timestamp_seconds is 1000"),
        ({f"{TALKER}.speaker_system_prompt_id": {"ethan": [1.5]}}, "speaker_system_prompt_id is"),
        ({f"{TALKER}.talker_language_id": {"x" * 10**6: 1}}, "talker_language_id holds the name 'xxx"),
        ({f"{TALKER}.codec_think_id": None}, "codec_think_id is missing"),
        ({f"{TALKER}.codec_think_id": 99999}, "codec_think_id .99999."),
        ({f"{TALKER}.default_speaker_id": 7}, "default_speaker_id is 7, expected one of 0, 1, 2"),
        ({f"{TALKER}.default_speaker_id": [0]}, r"default_speaker_id is \[0\]"),
        ({f"{TALKER}.speaker_system_prompt_id": {"ethan": "123"}}, "speaker_system_prompt_id is"),
        (
            {f"{THINKER}.layer_types": None, f"{THINKER}.full_attention_interval": "4"},
            "full_attention_interval is '4'",
        ),
        ({f"{THINKER}.hidden_act": "gelu"}, "hidden_act is 'gelu', expected 'silu'"),
        (
            {f"{THINKER}.rope_parameters.partial_rotary_factor": "0.25"},
            "partial_rotary_factor is '0.25', expected a number",
        ),
        ({f"{THINKER}.rope_parameters": {"rope_theta": 1e7}}, "mrope_section is missing"),
        ({"thinker_config.mtp_use_dedicated_embeddings": True}, "mtp_use_dedicated_embeddings"),
        ({f"{THINKER}.shared_expert_intermediate_size": None}, "shared_expert_intermediate_size is missing"),
    ],
)
def test_what_would_change_the_result_silently_is_refused(
    read: Read, changes: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(AntiphonError, match=sentence):
        read(changes)
