"""What `read_config` takes from config.json, and the one sentence it says when the file is of no use."""

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

Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Writes a tiny config.json with changes (dotted path -> value;
    None removes the field) and returns its folder.
    """

    def writer(changes: dict[str, Any] | None = None) -> Path:
        config = configuration("tiny", token_ids(train()), "bfloat16")
        for path, value in (changes or {}).items():
            *sections, name = path.split(".")
            node = config
            for section in sections:
                node = node[section]
            if value is None:
                del node[name]
            else:
                node[name] = value
        (tmp_path / "config.json").write_text(json.dumps(config), encoding="utf-8")
        return tmp_path

    return writer


def test_config_is_read_whole(write: Write) -> None:
    config = read_config(write())
    assert isinstance(config, OmniConfig) and config.talker is not None and config.code2wav is not None
    assert config.thinker.text.rope.theta == 1e6
    assert config.thinker.text.rope.mrope_section == (6, 5, 5)
    assert config.talker.predictor.rope.mrope_section == ()
    assert config.talker.speaker_id["ethan"] == 510
    assert config.code2wav.samples_per_frame == 1920
    assert config.thinker.vision.deepstack_visual_indexes == (0,)


def test_rope_is_read_alike_in_the_old_and_the_new_form(write: Write) -> None:
    old = read_config(write())
    new = read_config(
        write(
            {
                "thinker_config.text_config.rope_theta": None,
                "thinker_config.text_config.rope_scaling": None,
                "thinker_config.text_config.rope_parameters": {
                    "rope_type": "default",
                    "rope_theta": 1e6,
                    "mrope_section": [6, 5, 5],
                },
            }
        )
    )
    assert new.thinker.text.rope == old.thinker.text.rope


def test_no_talker_is_read_when_audio_output_is_off(write: Write) -> None:
    config = read_config(
        write({"enable_audio_output": False, "talker_config": None, "code2wav_config": None})
    )
    assert config.talker is None and config.code2wav is None


def test_layers_are_dense_where_the_configuration_says_so(write: Write) -> None:
    text = read_config(write({"thinker_config.text_config.mlp_only_layers": [1]})).thinker.text
    assert [text.is_sparse(layer) for layer in range(4)] == [True, False, True, True]
    text = read_config(write({"thinker_config.text_config.decoder_sparse_step": 2})).thinker.text
    assert [text.is_sparse(layer) for layer in range(4)] == [False, True, False, True]


def test_talker_layers_always_hold_experts_as_in_the_reference(write: Write) -> None:
    config = read_config(
        write(
            {
                "talker_config.text_config.mlp_only_layers": [0],
                "talker_config.text_config.decoder_sparse_step": 2,
            }
        )
    )
    assert config.talker is not None and all(config.talker.text.is_sparse(layer) for layer in range(3))


def test_tied_embeddings_are_read_from_the_text_or_the_thinker_section(write: Write) -> None:
    assert not read_config(write()).thinker.text.tie_word_embeddings
    assert read_config(write({"thinker_config.tie_word_embeddings": True})).thinker.text.tie_word_embeddings
    assert read_config(
        write({"thinker_config.text_config.tie_word_embeddings": True})
    ).thinker.text.tie_word_embeddings


def test_error_names_the_folder_when_config_json_is_missing(tmp_path: Path) -> None:
    with pytest.raises(AntiphonError, match="expected a folder with config.json"):
        read_config(tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("content", "sentence"),
    [(b"{", "not valid JSON"), (b"\xff\xfe", "not UTF-8 text"), (b"[]", "holds a list")],
)
def test_error_says_so_when_config_json_is_no_object(tmp_path: Path, content: bytes, sentence: str) -> None:
    (tmp_path / "config.json").write_bytes(content)
    with pytest.raises(AntiphonError, match=sentence):
        read_config(tmp_path)


@pytest.mark.parametrize(
    ("path", "value", "sentence"),
    [
        ("model_type", "llama", "unknown model family 'llama'"),
        ("model_type", None, "unknown model family None"),
        ("model_type", ["llama"], "unknown model family ..llama.."),
        ("im_end_token_id", None, "field im_end_token_id is missing"),
        ("tts_bos_token_id", None, "field tts_bos_token_id is missing"),
        ("thinker_config", None, "section thinker_config is missing"),
        (
            "thinker_config.vision_start_token_id",
            None,
            "field thinker_config.vision_start_token_id is missing",
        ),
        (
            "talker_config.code_predictor_config",
            None,
            "section talker_config.code_predictor_config is missing",
        ),
        ("talker_config.codec_eos_token_id", None, "field talker_config.codec_eos_token_id is missing"),
        ("talker_config.speaker_id", {}, "speaker_id is missing or empty"),
        ("talker_config.speaker_id", {"eve": 99999}, "id 99999 of speaker eve"),
        ("talker_config.codec_bos_id", 5000, "codec_bos_id"),
        ("talker_config.accept_hidden_layer", 9, "accept_hidden_layer"),
        ("talker_config.thinker_hidden_size", 64, "thinker_hidden_size is 64, expected 128"),
        (
            "talker_config.code_predictor_config.hidden_size",
            64,
            "code_predictor_config.hidden_size is 64, expected 96",
        ),
        ("thinker_config.audio_config.output_dim", 3584, "output_dim is 3584, expected 128"),
        ("thinker_config.vision_config.out_hidden_size", 3584, "out_hidden_size is 3584, expected 128"),
        (
            "thinker_config.text_config.rope_scaling",
            {"rope_type": "default", "mrope_section": [24, 20, 20]},
            "mrope_section is 64, expected 16",
        ),
        ("thinker_config.text_config.rope_scaling", {"rope_type": "yarn"}, "rope_type 'yarn'"),
        ("thinker_config.text_config.rope_theta", None, "rope_theta is missing"),
        ("thinker_config.text_config.num_experts_per_tok", 99, "num_experts_per_tok"),
        ("thinker_config.text_config.num_key_value_heads", 3, "num_key_value_heads is 1, expected 0"),
        ("thinker_config.text_config.hidden_size", "128", "hidden_size"),
        ("code2wav_config.num_quantizers", 32, "num_quantizers is 32, expected 16"),
        ("code2wav_config.codebook_size", 2048, "codebook_size is 2048, expected 256"),
    ],
)
def test_error_names_the_field_when_it_is_missing_or_at_odds(
    write: Write, path: str, value: Any, sentence: str
) -> None:
    with pytest.raises(AntiphonError, match=sentence):
        read_config(write({path: value}))
